//! The network as Python sees it: one class for both dtypes, plain arrays in and out.

use super::arrays::{self, Samples};
use super::inputs::{self, Labels, check_columns, check_data, check_shapes};
use super::parameters::{self, get_layers};
use super::settings::{
    self, NO_PENALTY, as_penalty, as_weights, check_options, check_threads, check_weights, one_batch,
};
use super::{Interpreter, checkpoint, exception, scikit, unlocked};
use lamella::data::Matrix;
use lamella::error::Error;
use lamella::isa::Isa;
use lamella::kernels::{Loss, Number};
use lamella::network::{AVERAGE, GRADIENT, LayerSpec, Network as Core, WEIGHTS};
use lamella::step::{Draw, TargetData};
use lamella::train::infer::{self, Spares, Wanted, infer};
use lamella::train::input_gradients::input_gradients;
use lamella::train::optimizer::Optimizer;
use lamella::train::options::{Options, Scikit};
use lamella::train::penalty;
use lamella::train::stretch::{Cursor, Stretch};
use lamella::train::sums;
use lamella::train::trainer::{self, Workspace};
use numpy::{IntoPyArray, PyReadonlyArray1};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyDict;
use std::time::Instant;

/// A network with the buffers of its training and of its passes forward.
pub(super) struct Model<T: Number> {
    pub(super) net: Core<T>,
    workspace: Workspace<T>,
    spares: Spares<T>,
}

impl<T: Number> Model<T> {
    fn new(net: Core<T>) -> Self {
        Model { net, workspace: Workspace::new(), spares: Spares::new() }
    }
}

/// A network of either dtype.
pub(super) enum Any {
    F32(Model<f32>),
    F64(Model<f64>),
}

/// Evaluates `$body` with `$net` bound to the typed network.
macro_rules! with_core {
    ($any:expr, $net:ident => $body:expr) => {
        match $any {
            Any::F32(Model { net: $net, .. }) => $body,
            Any::F64(Model { net: $net, .. }) => $body,
        }
    };
    ($any:expr, $net:ident, $workspace:ident => $body:expr) => {
        match $any {
            Any::F32(Model { net: $net, workspace: $workspace, .. }) => $body,
            Any::F64(Model { net: $net, workspace: $workspace, .. }) => $body,
        }
    };
}

/// Evaluates `$body` with `$model` bound to the typed model.
macro_rules! with_model {
    ($any:expr, $model:ident => $body:expr) => {
        match $any {
            Any::F32($model) => $body,
            Any::F64($model) => $body,
        }
    };
}

/// A dense network in the core: plain arrays in and out, samples x features.
#[pyclass(module = "lamella._core")]
pub struct Network {
    /// In a box of its own: parts of it stand on cache lines, which Python's allocator does not know of.
    pub(super) inner: Box<Any>,
    /// Where the last fit ended.
    cursor: Cursor,
}

/// The network, to read: with others that read it.
fn read<'py>(network: &Bound<'py, Network>) -> PyResult<PyRef<'py, Network>> {
    network.try_borrow().map_err(|_| busy())
}

/// The network, to change: alone.
fn write<'py>(network: &Bound<'py, Network>) -> PyResult<PyRefMut<'py, Network>> {
    network.try_borrow_mut().map_err(|_| busy())
}

fn busy() -> PyErr {
    PyRuntimeError::new_err(
        "network: expected one at rest, got one that another thread works with, or that trains by a loss in Python \
         which asks for it; a copy is at rest",
    )
}

#[pymethods]
impl Network {
    #[new]
    fn new(
        n_features: usize,
        layers: Vec<settings::LayerTuple>,
        loss: (String, Vec<f64>),
        dtype: &str,
    ) -> PyResult<Self> {
        let specs: Result<Vec<LayerSpec>, Error> = layers.into_iter().map(settings::layer_spec).collect();
        let specs = specs.map_err(exception)?;
        let loss = Loss::parse(&loss.0, &loss.1).map_err(exception)?;
        let isa = Isa::choose().map_err(exception)?;
        let inner = match dtype {
            "float32" => Core::new(n_features, &specs, loss, isa).map(|net| Any::F32(Model::new(net))),
            "float64" => Core::new(n_features, &specs, loss, isa).map(|net| Any::F64(Model::new(net))),
            "bfloat16" => Core::mixed(n_features, &specs, loss, isa).map(|net| Any::F32(Model::new(net))),
            _ => Err(Error::expected("dtype", "\"float32\", \"float64\" or \"bfloat16\"", format!("{dtype:?}"))),
        };
        Ok(Network { inner: Box::new(inner.map_err(exception)?), cursor: Cursor::START })
    }

    /// Copies plain arrays in, of each layer W1 (n1, n0), and where it has them b1, gamma1 and beta1, (n1,) or (n1, 1).
    /// Optimizer state is kept.
    fn set_parameters(slf: &Bound<'_, Self>, arrays: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
        with_core!(&mut *write(slf)?.inner, net => parameters::set_parameters(net, &arrays))
    }

    /// Copies the parameters out: of each layer W1 (n1, n0), and where it has them b1, gamma1 and beta1, (n1,).
    fn get_parameters<'py>(slf: &Bound<'_, Self>, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        with_core!(&*read(slf)?.inner, net => Ok(get_layers(py, net, WEIGHTS)))
    }

    /// The running statistics: of each layer with batch normalisation mean and variance, (n,).
    fn get_statistics<'py>(slf: &Bound<'_, Self>, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        with_core!(&*read(slf)?.inner, net => {
            let mut arrays = Vec::new();
            for (place, &l) in net.coupled.iter().enumerate() {
                let (reading, n) = (net.statistics.read(), net.layers[l].outputs);
                let of = reading.get(place);
                for numbers in [&of.running_mean, &of.running_variance] {
                    arrays.push(numbers[..n].to_vec().into_pyarray(py).into_any());
                }
            }
            Ok(arrays)
        })
    }

    /// Copies running statistics in, as `get_statistics` gives them.
    fn set_statistics(slf: &Bound<'_, Self>, arrays: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
        with_core!(&mut *write(slf)?.inner, net => parameters::set_statistics(net, &arrays))
    }

    /// Trains; returns the loss of each epoch that it finished. It may be a stretch of a longer training: `begin` is the
    /// `position` that the last one ended with, whose data were `checked` before; at most so many steps and seconds; a rate
    /// for each step.
    #[pyo3(signature = (
        X, Y, *, epochs, batch_size, optimizer, penalty, clip_value, loss_scale, loss, weights, shuffle, seed, threads, report,
        report_every, begin = (0, 0.0, 0.0), checked = false, steps = None, seconds = None, rates = None, clip_norm = None,
        average = None
    ))]
    #[allow(non_snake_case, clippy::too_many_arguments)]
    fn fit<'py>(
        slf: &Bound<'_, Self>,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        Y: &Bound<'py, PyAny>,
        epochs: usize,
        batch_size: Option<usize>,
        optimizer: (String, Bound<'py, PyDict>),
        penalty: (f64, f64, bool),
        clip_value: Option<f64>,
        loss_scale: f64,
        loss: Option<Py<PyAny>>,
        weights: Option<PyReadonlyArray1<'py, f64>>,
        shuffle: bool,
        seed: u64,
        threads: Option<usize>,
        report: Option<Py<PyAny>>,
        report_every: usize,
        begin: (usize, f64, f64),
        checked: bool,
        steps: Option<u64>,
        seconds: Option<f64>,
        rates: Option<PyReadonlyArray1<'py, f64>>,
        clip_norm: Option<f64>,
        average: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let deadline =
            settings::check_seconds(seconds).map_err(exception)?.and_then(|time| Instant::now().checked_add(time));
        let batch_size = settings::check_batch(batch_size).map_err(exception)?;
        let muon = settings::parse_muon(&optimizer.1)?;
        let optimizer = settings::parse_optimizer(&optimizer.0, &optimizer.1)?;
        let report_every = if report.is_some() { report_every } else { 0 };
        let rates = rates.map(|rates| rates.as_array().to_vec());
        let begin = Cursor { row: begin.0, epoch_loss: begin.1, epoch_weight: begin.2, ..Cursor::START };
        let options = Options {
            epochs,
            batch_size,
            optimizer,
            penalty: as_penalty(penalty),
            clip_value: clip_value.unwrap_or(f64::INFINITY),
            clip_norm: clip_norm.unwrap_or(f64::INFINITY),
            average,
            muon,
            loss_scale,
            weights: as_weights(&weights)?,
            rows: None,
            shuffle,
            seed,
            threads,
            report_every,
            stretch: Stretch { begin, steps, deadline, rates: rates.as_deref() },
        };
        check_options(&options).map_err(exception)?;
        let mut host = Interpreter::new(report).with_loss(loss);
        let mut network = write(slf)?;
        let Network { inner, cursor } = &mut *network;
        with_core!(&mut **inner, net, workspace => {
            let (x, y) = (Samples::new("X", X)?, Labels::new(net, Y)?);
            let (x, y) = (x.matrix(), y.as_data());
            let fitted = unlocked(py, || {
                if checked { check_shapes(net, &x, &y)? } else { check_data(net, &x, &y, threads)? }
                check_weights(options.weights, x.rows())?;
                if epochs == 0 {
                    return Ok((Vec::new(), begin));
                }
                trainer::fit_stretch(net, workspace, &x, &y, &options, &mut host)
            });
            let (losses, end) = host.settle(fitted)?;
            *cursor = end;
            Ok(losses.into_pyarray(py).into_any())
        })
    }

    /// Where the last fit ended inside an epoch: the next batch's first row (0 at its end), the sums of the epoch's losses so far
    /// times their rows' weights and of these weights, and the last step's loss.
    #[getter]
    fn position(slf: &Bound<'_, Self>) -> PyResult<(usize, f64, f64, f64)> {
        let Cursor { row, epoch_loss, epoch_weight, loss } = read(slf)?.cursor;
        Ok((row, epoch_loss, epoch_weight, loss))
    }

    /// One update on all rows as one batch; returns the loss before it.
    #[pyo3(signature = (
        X, Y, *, optimizer, penalty, loss_scale, loss, weights, seed, threads, clip_value = None, clip_norm = None,
        average = None
    ))]
    #[allow(non_snake_case, clippy::too_many_arguments)]
    fn partial_fit<'py>(
        slf: &Bound<'_, Self>,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        Y: &Bound<'py, PyAny>,
        optimizer: (PyBackedStr, Bound<'py, PyDict>),
        penalty: (f64, f64, bool),
        loss_scale: f64,
        loss: Option<Py<PyAny>>,
        weights: Option<PyReadonlyArray1<'py, f64>>,
        seed: u64,
        threads: Option<usize>,
        clip_value: Option<f64>,
        clip_norm: Option<f64>,
        average: Option<f64>,
    ) -> PyResult<f64> {
        let muon = settings::parse_muon(&optimizer.1)?;
        let optimizer = settings::parse_optimizer(&optimizer.0, &optimizer.1)?;
        let (clip_value, clip_norm) = (clip_value.unwrap_or(f64::INFINITY), clip_norm.unwrap_or(f64::INFINITY));
        let weights = as_weights(&weights)?;
        let plain = one_batch(optimizer, penalty, loss_scale, seed, threads);
        let options = Options { muon, clip_value, clip_norm, average, weights, ..plain };
        check_options(&options).map_err(exception)?;
        let mut host = Interpreter::new(None).with_loss(loss);
        with_core!(&mut *write(slf)?.inner, net, workspace => {
            let (x, y) = (Samples::new("X", X)?, Labels::new(net, Y)?);
            let (x, y) = (x.matrix(), y.as_data());
            let loss = unlocked(py, || {
                check_data(net, &x, &y, threads)?;
                check_weights(options.weights, x.rows())?;
                trainer::partial_fit(net, workspace, &x, &y, &options, &mut host)
            });
            host.settle(loss)
        })
    }

    /// Whether X (m, n_features), and Y if it is given, can be taken as they are: plain arrays of fitting shapes, Y's numbers
    /// fit for the loss. X's numbers are left to the call that reads them.
    #[pyo3(signature = (X, Y = None))]
    #[allow(non_snake_case)]
    fn takes<'py>(slf: &Bound<'_, Self>, X: &Bound<'py, PyAny>, Y: Option<&Bound<'py, PyAny>>) -> PyResult<bool> {
        with_core!(&*read(slf)?.inner, net => {
            let mut rows = 0;
            let x = arrays::is_plain(X, |shape| {
                let [m, features] = *shape else { return false };
                rows = m;
                m > 0 && features == net.features()
            });
            if !x {
                return Ok(false);
            }
            Y.map_or(Ok(true), |y| inputs::takes_labels(net, y, rows))
        })
    }

    /// What the last layer returns, (m, n_outputs): probabilities or values, or its logits.
    #[pyo3(signature = (X, *, logits, threads))]
    #[allow(non_snake_case)]
    fn outputs<'py>(
        slf: &Bound<'_, Self>,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        logits: bool,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        check_threads(threads).map_err(exception)?;
        with_model!(&*read(slf)?.inner, model => {
            let x = Samples::new("X", X)?;
            let x = x.matrix();
            let filled = arrays::filled(py, [x.rows(), model.net.outputs()], |numbers| {
                let wanted = if logits { Wanted::Logits(numbers) } else { Wanted::Outputs(numbers) };
                answer(py, model, &x, None, wanted, threads)
            });
            Ok(filled?.1)
        })
    }

    /// dX of a prediction for `count` dZ of the last layer, `deltas` (count m, n_outputs): (m count, n_features), each sample's
    /// beside each other.
    #[pyo3(signature = (X, deltas, count, *, threads))]
    #[allow(non_snake_case)]
    fn input_gradients<'py>(
        slf: &Bound<'_, Self>,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        deltas: &Bound<'py, PyAny>,
        count: usize,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        check_threads(threads).map_err(exception)?;
        let mut host = Interpreter::new(None);
        with_model!(&*read(slf)?.inner, model => {
            let x = Samples::new("X", X)?;
            let x = x.matrix();
            let rows = x.rows().saturating_mul(count);
            let deltas = arrays::plain("deltas", deltas, (rows, model.net.outputs()))?;
            let gradients = unlocked(py, || {
                check_columns(&model.net, &x, threads)?;
                input_gradients(&model.net, &model.spares, &x, (&deltas, count), threads, &mut host)
            });
            Ok(arrays::matrix(py, rows, model.net.features(), host.settle(gradients)?))
        })
    }

    /// What every layer returns, A1 (m, n1), ..., AL; in a prediction.
    #[pyo3(signature = (X))]
    #[allow(non_snake_case)]
    fn activations<'py>(
        slf: &Bound<'_, Self>,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mut host = Interpreter::new(None);
        with_model!(&*read(slf)?.inner, model => {
            let x = Samples::new("X", X)?;
            let x = x.matrix();
            let all = unlocked(py, || {
                check_columns(&model.net, &x, None)?;
                infer::activations(&model.net, &model.spares, &x, &mut host)
            });
            let layers = model.net.layers.iter().zip(host.settle(all)?);
            Ok(layers.map(|(layer, numbers)| arrays::matrix(py, x.rows(), layer.outputs, numbers)).collect())
        })
    }

    /// The same as the next step of training with this seed sees it. (Not beside other calls: the batch's statistics are the
    /// network's own.)
    #[pyo3(signature = (X, seed))]
    #[allow(non_snake_case)]
    fn activations_in_training<'py>(
        slf: &Bound<'_, Self>,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        seed: u64,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        with_model!(&mut *write(slf)?.inner, model => {
            let x = Samples::new("X", X)?;
            let x = x.matrix();
            let draw = Draw { seed, step: model.net.progress.steps + 1 };
            let all = unlocked(py, || {
                check_columns(&model.net, &x, None)?;
                infer::activations_in_training(&model.net, &x, draw)
            });
            let layers = model.net.layers.iter().zip(all.map_err(exception)?);
            Ok(layers.map(|(layer, numbers)| arrays::matrix(py, x.rows(), layer.outputs, numbers)).collect())
        })
    }

    /// Softmax and margins of several classes: class indices, (m,). Else 1 where an output is above its threshold (a sigmoid's
    /// one half, a margin's 0), or 0: (m, n_outputs), or (m,) for one.
    #[pyo3(signature = (X, *, threads))]
    #[allow(non_snake_case)]
    fn labels<'py>(
        slf: &Bound<'_, Self>,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        check_threads(threads).map_err(exception)?;
        with_model!(&*read(slf)?.inner, model => {
            let x = Samples::new("X", X)?;
            let x = x.matrix();
            let fill = |labels: &mut [i64]| answer(py, model, &x, None, Wanted::Labels(labels), threads);
            let filled = match infer::labels_per_row(&model.net) {
                1 => arrays::filled(py, [x.rows()], fill),
                n => arrays::filled(py, [x.rows(), n], fill),
            };
            Ok(filled?.1)
        })
    }

    /// The mean loss and what the last layer returns, (m, n_outputs).
    #[pyo3(signature = (X, Y, *, loss_scale, penalty, weights, threads))]
    #[allow(non_snake_case, clippy::too_many_arguments)]
    fn evaluate<'py>(
        slf: &Bound<'_, Self>,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        Y: &Bound<'py, PyAny>,
        loss_scale: f64,
        penalty: (f64, f64, bool),
        weights: Option<PyReadonlyArray1<'py, f64>>,
        threads: Option<usize>,
    ) -> PyResult<(f64, Bound<'py, PyAny>)> {
        let weights = as_weights(&weights)?;
        check_threads(threads).map_err(exception)?;
        with_model!(&*read(slf)?.inner, model => {
            let net = &model.net;
            if net.loss == Loss::Custom {
                return Err(exception(Error::expected("loss", "one that the core has", "a function")));
            }
            let (x, y) = (Samples::new("X", X)?, Labels::new(net, Y)?);
            let (x, y) = (x.matrix(), y.as_data());
            check_weights(weights, x.rows()).map_err(exception)?;
            let (losses, outputs) = arrays::filled(py, [x.rows(), net.outputs()], |numbers| {
                answer(py, model, &x, Some((&y, loss_scale)), Wanted::Outputs(numbers), threads)
            })?;
            let mean = sums::weighted_mean(&losses, weights);
            Ok((mean + penalty::penalty(net, as_penalty(penalty)), outputs))
        })
    }

    /// The loss of all rows as one batch, and its gradient, shaped as the parameters, as the next step would see them.
    #[pyo3(signature = (X, Y, *, loss_scale, penalty, loss, weights, seed, threads))]
    #[allow(non_snake_case, clippy::too_many_arguments)]
    fn loss_and_gradients<'py>(
        slf: &Bound<'_, Self>,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        Y: &Bound<'py, PyAny>,
        loss_scale: f64,
        penalty: (f64, f64, bool),
        loss: Option<Py<PyAny>>,
        weights: Option<PyReadonlyArray1<'py, f64>>,
        seed: u64,
        threads: Option<usize>,
    ) -> PyResult<(f64, Vec<Bound<'py, PyAny>>)> {
        let weights = as_weights(&weights)?;
        let options = Options { weights, ..one_batch(Optimizer::descent(0.0), penalty, loss_scale, seed, threads) };
        check_options(&options).map_err(exception)?;
        let mut host = Interpreter::new(None).with_loss(loss);
        with_core!(&mut *write(slf)?.inner, net, workspace => {
            let (x, y) = (Samples::new("X", X)?, Labels::new(net, Y)?);
            let (x, y) = (x.matrix(), y.as_data());
            let loss = unlocked(py, || {
                check_data(net, &x, &y, threads)?;
                check_weights(options.weights, x.rows())?;
                trainer::loss_and_gradient(net, workspace, &x, &y, &options, &mut host)
            });
            // Where it failed there may be no gradient.
            let loss = host.settle(loss)?;
            let gradients = get_layers(py, net, GRADIENT);
            net.arena.release(GRADIENT);
            Ok((loss, gradients))
        })
    }

    /// Epochs by scikit-learn's conventions, the first over the rows of `order`; returns the last one's loss. After each, `turn`
    /// gets its loss, and returns the rows of the next, as many, and its learning rate, or None to end, as no `turn` does; there
    /// will be at most about `epochs`.
    #[pyo3(signature = (X, Y, order, turn = None, *, epochs = 1, batch_size, optimizer, alpha, loss_scale, gradient_scale, weights, threads))]
    #[allow(non_snake_case, clippy::too_many_arguments)]
    fn drawn_epochs<'py>(
        slf: &Bound<'_, Self>,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        Y: &Bound<'py, PyAny>,
        order: &Bound<'py, PyAny>,
        turn: Option<Py<PyAny>>,
        epochs: usize,
        batch_size: usize,
        optimizer: (PyBackedStr, Bound<'py, PyDict>),
        alpha: f64,
        loss_scale: f64,
        gradient_scale: f64,
        weights: Option<PyReadonlyArray1<'py, f64>>,
        threads: Option<usize>,
    ) -> PyResult<f64> {
        let optimizer = settings::parse_optimizer(&optimizer.0, &optimizer.1)?;
        let batch_size = settings::check_batch(Some(batch_size)).map_err(exception)?;
        let weights = as_weights(&weights)?;
        let one = one_batch(optimizer, NO_PENALTY, loss_scale, 0, threads);
        let options = Options { batch_size, weights, epochs: epochs.max(1), ..one };
        check_options(&options).map_err(exception)?;
        let by = Scikit { gradient_scale, alpha };
        with_core!(&mut *write(slf)?.inner, net, workspace => {
            scikit::epochs(py, net, workspace, X, Y, order, turn, &options, by)
        })
    }

    /// The loss of all rows as one batch by scikit-learn's conventions, and its gradient, shaped as the parameters.
    #[pyo3(signature = (X, Y, *, alpha, loss_scale, gradient_scale, weights, threads))]
    #[allow(non_snake_case, clippy::too_many_arguments)]
    fn objective<'py>(
        slf: &Bound<'_, Self>,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        Y: &Bound<'py, PyAny>,
        alpha: f64,
        loss_scale: f64,
        gradient_scale: f64,
        weights: Option<PyReadonlyArray1<'py, f64>>,
        threads: Option<usize>,
    ) -> PyResult<(f64, Vec<Bound<'py, PyAny>>)> {
        let weights = as_weights(&weights)?;
        let options = Options { weights, ..one_batch(Optimizer::descent(0.0), NO_PENALTY, loss_scale, 0, threads) };
        check_options(&options).map_err(exception)?;
        let by = Scikit { gradient_scale, alpha };
        with_core!(&mut *write(slf)?.inner, net, workspace => {
            // Where it failed there may be no gradient.
            let loss = scikit::objective(py, net, workspace, X, Y, &options, by)?;
            let gradients = get_layers(py, net, GRADIENT);
            net.arena.release(GRADIENT);
            Ok((loss, gradients))
        })
    }

    /// What the penalty (l1, l2, whether on biases) adds to the loss.
    fn penalty(slf: &Bound<'_, Self>, penalty: (f64, f64, bool)) -> PyResult<f64> {
        with_core!(&*read(slf)?.inner, net => Ok(penalty::penalty(net, as_penalty(penalty))))
    }

    /// From now on the weights of each output of layer l are at most `limits[l]` long after an update; None for no limit.
    fn set_max_norms(slf: &Bound<'_, Self>, limits: Vec<Option<f64>>) -> PyResult<()> {
        with_core!(&mut *write(slf)?.inner, net => {
            if limits.len() != net.layers.len() {
                return Err(exception(Error::expected("max_norm", format!("{} limits", net.layers.len()), limits.len())));
            }
            if let Some(limit) = limits.iter().flatten().find(|limit| limit.is_nan() || **limit <= 0.0) {
                return Err(exception(Error::expected("max_norm", "a number above 0, or None", limit)));
            }
            net.max_norms = limits.into_iter().map(|limit| limit.unwrap_or(f64::INFINITY)).collect();
            Ok(())
        })
    }

    /// Copies the moving average of the parameters out, if one is kept: W1 (n1, n0), b1 (n1,), W2, ...
    fn get_average<'py>(slf: &Bound<'_, Self>, py: Python<'py>) -> PyResult<Option<Vec<Bound<'py, PyAny>>>> {
        with_core!(&*read(slf)?.inner, net => {
            Ok(if net.arena.read().buffer(AVERAGE).is_empty() { None } else { Some(get_layers(py, net, AVERAGE)) })
        })
    }

    /// Takes over what `get_average` gave of a network of these layers.
    fn set_average(slf: &Bound<'_, Self>, arrays: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
        with_core!(&mut *write(slf)?.inner, net => checkpoint::set_average(net, &arrays))
    }

    /// Takes the mean norms of the gradient in the epochs finished since they were last taken, where fits clipped by it.
    fn take_gradient_norms(slf: &Bound<'_, Self>) -> PyResult<Vec<f64>> {
        with_core!(&mut *write(slf)?.inner, net => Ok(std::mem::take(&mut net.gradient_norms).epochs))
    }

    /// Weights and biases.
    #[getter]
    fn n_parameters(slf: &Bound<'_, Self>) -> PyResult<usize> {
        with_core!(&*read(slf)?.inner, net => Ok(net.n_parameters()))
    }

    /// Bytes that parameters in their packed forms and optimizer state take now.
    #[getter]
    fn n_bytes(slf: &Bound<'_, Self>) -> PyResult<usize> {
        with_core!(&*read(slf)?.inner, net => Ok(net.bytes()))
    }

    /// Updates made since the start or `reset`.
    #[getter]
    fn steps(slf: &Bound<'_, Self>) -> PyResult<u64> {
        with_core!(&*read(slf)?.inner, net => Ok(net.progress.steps))
    }

    /// Epochs finished since the start or `reset`.
    #[getter]
    fn epochs(slf: &Bound<'_, Self>) -> PyResult<u64> {
        with_core!(&*read(slf)?.inner, net => Ok(net.progress.epochs))
    }

    /// The counters, the state's name among them, and for each number of state that a weight has, arrays shaped as the
    /// parameters.
    fn get_state<'py>(slf: &Bound<'_, Self>, py: Python<'py>) -> PyResult<checkpoint::State<'py>> {
        with_core!(&*read(slf)?.inner, net => checkpoint::get_state(py, net))
    }

    /// Takes counters and state of a network of these layers over. Everything is checked before anything is changed.
    fn set_state(
        slf: &Bound<'_, Self>,
        counters: &Bound<'_, PyDict>,
        states: Vec<Vec<Bound<'_, PyAny>>>,
    ) -> PyResult<()> {
        with_core!(&mut *write(slf)?.inner, net => checkpoint::set_state(net, counters, &states))
    }

    /// Forgets optimizer state and counters.
    fn reset(slf: &Bound<'_, Self>) -> PyResult<()> {
        with_core!(&mut *write(slf)?.inner, net => net.reset());
        Ok(())
    }
}

/// Checks the data and fills in what is wanted; returns each row's loss where there are targets.
fn answer<T: Number>(
    py: Python<'_>,
    model: &Model<T>,
    x: &Matrix<'_>,
    y: Option<(&TargetData<'_>, f64)>,
    wanted: Wanted<'_, T>,
    threads: Option<usize>,
) -> PyResult<Vec<f64>> {
    let mut host = Interpreter::new(None);
    let result = unlocked(py, || {
        match y {
            Some((y, _)) => check_data(&model.net, x, y, threads)?,
            None => check_columns(&model.net, x, threads)?,
        }
        let y = y.map(|(y, scale)| (y, T::from_f64(scale)));
        infer(&model.net, &model.spares, x, y, wanted, threads, &mut host)
    });
    host.settle(result)
}
