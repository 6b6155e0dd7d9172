//! The network as Python sees it: one class for both dtypes, plain arrays in and out.

use super::arrays::{self, Held, Samples};
use super::checkpoint;
use super::{Interpreter, exception, scikit, unlocked};
use crate::activation::Activation;
use crate::data::Matrix;
use crate::error::Error;
use crate::isa::Isa;
use crate::kernels::{Loss, Norm, Number};
use crate::network::{AVERAGE, GRADIENT, LayerSpec, Network as Core, WEIGHTS};
use crate::step::muon::{Adjust, Muon};
use crate::step::{Draw, TargetData};
use crate::train::infer::{self, Spares, Wanted, infer};
use crate::train::optimizer::{Kind, Moments, Optimizer};
use crate::train::penalty::{self, Penalty};
use crate::train::scikit::Scikit;
use crate::train::stretch::{Cursor, Stretch};
use crate::train::trainer::{self, Options, Workspace};
use numpy::prelude::*;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyDict;
use std::time::{Duration, Instant};

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

#[pymethods]
impl Network {
    #[new]
    fn new(n_features: usize, layers: Vec<LayerTuple>, loss: (String, Vec<f64>), dtype: &str) -> PyResult<Self> {
        let specs: Result<Vec<LayerSpec>, Error> = layers.into_iter().map(layer_spec).collect();
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
    fn set_parameters(&mut self, arrays: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
        with_core!(&mut *self.inner, net => set_parameters(net, &arrays))
    }

    /// Copies the parameters out: of each layer W1 (n1, n0), and where it has them b1, gamma1 and beta1, (n1,).
    fn get_parameters<'py>(&mut self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        with_core!(&mut *self.inner, net => get_layers(py, net, WEIGHTS))
    }

    /// The running statistics: of each layer with batch normalisation mean and variance, (n,).
    fn get_statistics<'py>(&mut self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        with_core!(&mut *self.inner, net => {
            let mut arrays = Vec::new();
            for (place, &l) in net.coupled.iter().enumerate() {
                let (reading, n) = (net.statistics.read(), net.layers[l].outputs);
                let of = reading.get(place);
                for numbers in [&of.running_mean, &of.running_variance] {
                    arrays.push(numbers[..n].to_vec().into_pyarray(py).into_any());
                }
            }
            arrays
        })
    }

    /// Copies running statistics in, as `get_statistics` gives them.
    fn set_statistics(&mut self, arrays: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
        with_core!(&mut *self.inner, net => set_statistics(net, &arrays))
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
        &mut self,
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
        let deadline = check_seconds(seconds).map_err(exception)?.and_then(|time| Instant::now().checked_add(time));
        let batch_size = check_batch(batch_size).map_err(exception)?;
        let muon = parse_muon(&optimizer.1)?;
        let optimizer = parse_optimizer(&optimizer.0, &optimizer.1)?;
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
        let cursor = &mut self.cursor;
        with_core!(&mut *self.inner, net, workspace => {
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
    fn position(&self) -> (usize, f64, f64, f64) {
        let Cursor { row, epoch_loss, epoch_weight, loss } = self.cursor;
        (row, epoch_loss, epoch_weight, loss)
    }

    /// One update on all rows as one batch; returns the loss before it.
    #[pyo3(signature = (
        X, Y, *, optimizer, penalty, loss_scale, loss, weights, seed, threads, clip_value = None, clip_norm = None,
        average = None
    ))]
    #[allow(non_snake_case, clippy::too_many_arguments)]
    fn partial_fit<'py>(
        &mut self,
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
        let muon = parse_muon(&optimizer.1)?;
        let optimizer = parse_optimizer(&optimizer.0, &optimizer.1)?;
        let (clip_value, clip_norm) = (clip_value.unwrap_or(f64::INFINITY), clip_norm.unwrap_or(f64::INFINITY));
        let weights = as_weights(&weights)?;
        let plain = one_batch(optimizer, penalty, loss_scale, seed, threads);
        let options = Options { muon, clip_value, clip_norm, average, weights, ..plain };
        check_options(&options).map_err(exception)?;
        let mut host = Interpreter::new(None).with_loss(loss);
        with_core!(&mut *self.inner, net, workspace => {
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
    fn takes<'py>(&self, X: &Bound<'py, PyAny>, Y: Option<&Bound<'py, PyAny>>) -> PyResult<bool> {
        with_core!(&*self.inner, net => {
            let mut rows = 0;
            let x = arrays::is_plain(X, |shape| {
                rows = shape[0];
                matches!(*shape, [rows, columns] if rows > 0 && columns == net.features())
            });
            if !x {
                return Ok(false);
            }
            Y.map_or(Ok(true), |y| takes_labels(net, y, rows))
        })
    }

    /// What the last layer returns, (m, n_outputs): probabilities or values, or its logits.
    #[pyo3(signature = (X, *, logits, threads))]
    #[allow(non_snake_case)]
    fn outputs<'py>(
        &self,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        logits: bool,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        check_threads(threads).map_err(exception)?;
        with_model!(&*self.inner, model => {
            let x = Samples::new("X", X)?;
            let x = x.matrix();
            let filled = arrays::filled(py, [x.rows(), model.net.outputs()], |numbers| {
                let wanted = if logits { Wanted::Logits(numbers) } else { Wanted::Outputs(numbers) };
                answer(py, model, &x, None, wanted, threads)
            });
            Ok(filled?.1)
        })
    }

    /// What every layer returns, A1 (m, n1), ..., AL; in a prediction.
    #[pyo3(signature = (X))]
    #[allow(non_snake_case)]
    fn activations<'py>(&self, py: Python<'py>, X: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mut host = Interpreter::new(None);
        with_model!(&*self.inner, model => {
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
        &mut self,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        seed: u64,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        with_model!(&mut *self.inner, model => {
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
        &self,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        check_threads(threads).map_err(exception)?;
        with_model!(&*self.inner, model => {
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
        &self,
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
        with_model!(&*self.inner, model => {
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
            let mean = infer::weighted_mean(&losses, weights);
            Ok((mean + penalty::penalty(net, as_penalty(penalty)), outputs))
        })
    }

    /// The loss of all rows as one batch, and its gradient, shaped as the parameters, as the next step would see them.
    #[pyo3(signature = (X, Y, *, loss_scale, penalty, loss, weights, seed, threads))]
    #[allow(non_snake_case, clippy::too_many_arguments)]
    fn loss_and_gradients<'py>(
        &mut self,
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
        with_core!(&mut *self.inner, net, workspace => {
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
        &mut self,
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
        let optimizer = parse_optimizer(&optimizer.0, &optimizer.1)?;
        let batch_size = check_batch(Some(batch_size)).map_err(exception)?;
        let weights = as_weights(&weights)?;
        let one = one_batch(optimizer, NO_PENALTY, loss_scale, 0, threads);
        let options = Options { batch_size, weights, epochs: epochs.max(1), ..one };
        check_options(&options).map_err(exception)?;
        let by = Scikit { gradient_scale, alpha };
        with_core!(&mut *self.inner, net, workspace => {
            scikit::epochs(py, net, workspace, X, Y, order, turn, &options, by)
        })
    }

    /// The loss of all rows as one batch by scikit-learn's conventions, and its gradient, shaped as the parameters.
    #[pyo3(signature = (X, Y, *, alpha, loss_scale, gradient_scale, weights, threads))]
    #[allow(non_snake_case, clippy::too_many_arguments)]
    fn objective<'py>(
        &mut self,
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
        with_core!(&mut *self.inner, net, workspace => {
            // Where it failed there may be no gradient.
            let loss = scikit::objective(py, net, workspace, X, Y, &options, by)?;
            let gradients = get_layers(py, net, GRADIENT);
            net.arena.release(GRADIENT);
            Ok((loss, gradients))
        })
    }

    /// What the penalty (l1, l2, whether on biases) adds to the loss.
    fn penalty(&self, penalty: (f64, f64, bool)) -> f64 {
        with_core!(&*self.inner, net => penalty::penalty(net, as_penalty(penalty)))
    }

    /// From now on the weights of each output of layer l are at most `limits[l]` long after an update; None for no limit.
    fn set_max_norms(&mut self, limits: Vec<Option<f64>>) -> PyResult<()> {
        with_core!(&mut *self.inner, net => {
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
    fn get_average<'py>(&mut self, py: Python<'py>) -> Option<Vec<Bound<'py, PyAny>>> {
        with_core!(&mut *self.inner, net => {
            if net.arena.buffer(AVERAGE).is_empty() { None } else { Some(get_layers(py, net, AVERAGE)) }
        })
    }

    /// Takes over what `get_average` gave of a network of these layers.
    fn set_average(&mut self, arrays: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
        with_core!(&mut *self.inner, net => checkpoint::set_average(net, &arrays))
    }

    /// Takes the mean norms of the gradient in the epochs finished since they were last taken, where fits clipped by it.
    fn take_gradient_norms(&mut self) -> Vec<f64> {
        with_core!(&mut *self.inner, net => std::mem::take(&mut net.gradient_norms).epochs)
    }

    /// Weights and biases.
    #[getter]
    fn n_parameters(&self) -> usize {
        with_core!(&*self.inner, net => net.n_parameters())
    }

    /// Bytes that parameters in their packed forms and optimizer state take now.
    #[getter]
    fn n_bytes(&self) -> usize {
        with_core!(&*self.inner, net => net.bytes())
    }

    /// Updates made since the start or `reset`.
    #[getter]
    fn steps(&self) -> u64 {
        with_core!(&*self.inner, net => net.progress.steps)
    }

    /// Epochs finished since the start or `reset`.
    #[getter]
    fn epochs(&self) -> u64 {
        with_core!(&*self.inner, net => net.progress.epochs)
    }

    /// The counters, the state's name among them, and for each number of state that a weight has, arrays shaped as the
    /// parameters.
    fn get_state<'py>(&mut self, py: Python<'py>) -> PyResult<checkpoint::State<'py>> {
        with_core!(&mut *self.inner, net => checkpoint::get_state(py, net))
    }

    /// Takes counters and state of a network of these layers over. Everything is checked before anything is changed.
    fn set_state(&mut self, counters: &Bound<'_, PyDict>, states: Vec<Vec<Bound<'_, PyAny>>>) -> PyResult<()> {
        with_core!(&mut *self.inner, net => checkpoint::set_state(net, counters, &states))
    }

    /// Forgets optimizer state and counters.
    fn reset(&mut self) {
        with_core!(&mut *self.inner, net => net.reset());
    }
}

/// Neither l1 nor l2.
const NO_PENALTY: (f64, f64, bool) = (0.0, 0.0, false);

/// A layer as Python tells of it: units, activation and its parameter, whether it has biases, normalisation ("batch" or "layer",
/// epsilon, momentum), dropout, whether its input is added.
type LayerTuple = (usize, String, f64, bool, Option<(String, f64, f64)>, f64, bool);

fn layer_spec((units, name, parameter, bias, norm, dropout, residual): LayerTuple) -> Result<LayerSpec, Error> {
    let norm = norm.map(|(name, epsilon, momentum)| match name.as_str() {
        _ if !(epsilon > 0.0 && epsilon.is_finite()) => {
            Err(Error::expected("norm: epsilon", "a finite number above 0", epsilon))
        }
        "batch" if (0.0..=1.0).contains(&momentum) => Ok(Norm::Batch { epsilon, momentum }),
        "batch" => Err(Error::expected("norm: momentum", "a number in [0, 1]", momentum)),
        "layer" => Ok(Norm::Layer { epsilon }),
        _ => Err(Error::expected("norm", "batch or layer", format!("{name:?}"))),
    });
    let activation = Activation::parse(&name, parameter)?;
    Ok(LayerSpec { units, activation, bias, norm: norm.transpose()?, dropout, residual })
}

/// Options for all rows as one batch.
fn one_batch(
    optimizer: Optimizer,
    penalty: (f64, f64, bool),
    loss_scale: f64,
    seed: u64,
    threads: Option<usize>,
) -> Options<'static> {
    Options {
        epochs: 1,
        batch_size: usize::MAX,
        optimizer,
        penalty: as_penalty(penalty),
        clip_value: f64::INFINITY,
        clip_norm: f64::INFINITY,
        average: None,
        muon: None,
        loss_scale,
        weights: None,
        rows: None,
        shuffle: false,
        seed,
        threads,
        report_every: 0,
        stretch: Stretch::WHOLE,
    }
}

pub(super) fn parse_optimizer(name: &str, parameters: &Bound<'_, PyDict>) -> PyResult<Optimizer> {
    let get = |key: &str| -> PyResult<f64> {
        let missing = || exception(Error::expected(format!("optimizer {name}"), format!("a {key}"), "none"));
        parameters.get_item(key)?.ok_or_else(missing)?.extract()
    };
    let moments = || -> PyResult<Moments> {
        Ok(Moments { beta1: get("beta1")?, beta2: get("beta2")?, epsilon: get("epsilon")? })
    };
    let kind = match name {
        "sgd" => Kind::Sgd { momentum: get("momentum")?, nesterov: get("nesterov")? != 0.0 },
        "velocity" => Kind::Velocity { momentum: get("momentum")?, nesterov: get("nesterov")? != 0.0 },
        "adam_hat" => Kind::AdamHat { moments: moments()? },
        "adam" => Kind::Adam { moments: moments()?, amsgrad: get("amsgrad")? != 0.0 },
        "nadam" => Kind::Nadam { moments: moments()?, momentum_decay: get("momentum_decay")? },
        "rmsprop" => Kind::RmsProp {
            alpha: get("alpha")?,
            epsilon: get("epsilon")?,
            momentum: get("momentum")?,
            centered: get("centered")? != 0.0,
        },
        "adagrad" => Kind::Adagrad { epsilon: get("epsilon")?, rate_decay: get("learning_rate_decay")? },
        "lion" => Kind::Lion { beta1: get("beta1")?, beta2: get("beta2")? },
        _ => {
            let names = "one of sgd, velocity, adam, adam_hat, nadam, rmsprop, adagrad, lion";
            return Err(exception(Error::expected("optimizer", names, format!("{name:?}"))));
        }
    };
    let weight_decay = if parameters.contains("weight_decay")? { get("weight_decay")? } else { 0.0 };
    Ok(Optimizer { learning_rate: get("learning_rate")?, weight_decay, kind })
}

/// Muon's settings, which stand beside those of the optimizer that biases follow.
pub(super) fn parse_muon(parameters: &Bound<'_, PyDict>) -> PyResult<Option<Muon>> {
    if !parameters.contains("muon_learning_rate")? {
        return Ok(None);
    }
    let get = |key: &str| -> PyResult<f64> {
        let missing = || exception(Error::expected("optimizer muon", format!("a {key}"), "none"));
        parameters.get_item(format!("muon_{key}"))?.ok_or_else(missing)?.extract()
    };
    let muon = Muon {
        learning_rate: get("learning_rate")?,
        weight_decay: get("weight_decay")?,
        momentum: get("momentum")?,
        nesterov: get("nesterov")? != 0.0,
        coefficients: [get("a")?, get("b")?, get("c")?],
        epsilon: get("epsilon")?,
        steps: get("ns_steps")? as usize,
        adjust: [Adjust::Original, Adjust::MatchRmsAdamw, Adjust::SpectralUnclamped][get("adjust")? as usize % 3],
        rounds: get("bfloat16")? != 0.0,
        hidden_only: get("hidden_only")? != 0.0,
    };
    muon.check().map_err(exception)?;
    Ok(Some(muon))
}

pub(super) fn as_penalty((l1, l2, biases): (f64, f64, bool)) -> Penalty {
    Penalty { l1, l2, biases }
}

/// Weights as they lie.
pub(super) fn as_weights<'a>(weights: &'a Option<PyReadonlyArray1<'_, f64>>) -> PyResult<Option<&'a [f64]>> {
    let Some(weights) = weights else { return Ok(None) };
    let strided = |_| exception(Error::expected("weights", "an array without gaps", "one with strides"));
    weights.as_slice().map(Some).map_err(strided)
}

/// Weights are finite and not negative, one for each row.
pub(super) fn check_weights(weights: Option<&[f64]>, rows: usize) -> Result<(), Error> {
    let Some(weights) = weights else { return Ok(()) };
    if weights.len() != rows {
        return Err(Error::expected("weights", format!("{rows} numbers"), weights.len()));
    }
    let bad = |weight: &&f64| !(0.0..f64::INFINITY).contains(*weight);
    if let Some(weight) = weights.iter().find(bad) {
        return Err(Error::expected("weights", "finite numbers of at least 0", weight));
    }
    Ok(())
}

pub(super) fn check_threads(threads: Option<usize>) -> Result<(), Error> {
    match threads {
        Some(0) => Err(Error::expected("threads", "at least 1, or None", 0)),
        _ => Ok(()),
    }
}

fn check_seconds(seconds: Option<f64>) -> Result<Option<Duration>, Error> {
    match seconds {
        Some(seconds) if seconds.is_nan() || seconds < 0.0 => {
            Err(Error::expected("seconds", "a number of at least 0, or None", seconds))
        }
        // More than there are is no limit.
        _ => Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())),
    }
}

pub(super) fn check_batch(batch_size: Option<usize>) -> Result<usize, Error> {
    match batch_size {
        Some(0) => Err(Error::expected("batch_size", "at least 1, or None for all rows", 0)),
        _ => Ok(batch_size.unwrap_or(usize::MAX)),
    }
}

pub(super) fn check_options(options: &Options<'_>) -> Result<(), Error> {
    check_threads(options.threads)?;
    let Penalty { l1, l2, .. } = options.penalty;
    for (name, x) in [("l1", l1), ("l2", l2), ("loss_scale", options.loss_scale)] {
        if !(x >= 0.0 && x.is_finite()) {
            return Err(Error::expected(name, "a finite number of at least 0", x));
        }
    }
    if options.clip_value.is_nan() || options.clip_value <= 0.0 {
        return Err(Error::expected("clip_value", "a number above 0, or None", options.clip_value));
    }
    if options.clip_norm.is_nan() || options.clip_norm <= 0.0 {
        return Err(Error::expected("clip_norm", "a number above 0, or None", options.clip_norm));
    }
    if let Some(decay) = options.average.filter(|decay| !(0.0..1.0).contains(decay)) {
        return Err(Error::expected("average", "a number in [0, 1), or None", decay));
    }
    options.optimizer.check()
}

pub(super) fn check_columns<T: Number>(net: &Core<T>, x: &Matrix<'_>, threads: Option<usize>) -> Result<(), Error> {
    check_width(net, x)?;
    check_fits(net, "X", x, threads)
}

fn check_width<T: Number>(net: &Core<T>, x: &Matrix<'_>) -> Result<(), Error> {
    if x.rows() == 0 {
        return Err(Error::expected("X", "at least one sample", 0));
    }
    if x.rows() > u32::MAX as usize {
        return Err(Error::expected("X", "fewer than 2^32 samples", x.rows()));
    }
    if x.columns() != net.features() {
        return Err(Error::expected("X", format!("{} features", net.features()), x.columns()));
    }
    Ok(())
}

fn check_fits<T: Number>(net: &Core<T>, name: &str, x: &Matrix<'_>, threads: Option<usize>) -> Result<(), Error> {
    let Some(bad) = x.first_unfit::<T>(net.isa, threads)? else { return Ok(()) };
    let within = if x.narrows::<T>() { format!(" within {}", T::NAME) } else { String::new() };
    // As Python writes it.
    let value = if bad.value.is_nan() { "nan".into() } else { format!("{:?}", bad.value) };
    let got = format!("{value} at row {}, column {}", bad.row, bad.column);
    Err(Error::expected(name, format!("finite numbers{within}"), got))
}

pub(super) fn check_data<T: Number>(
    net: &Core<T>,
    x: &Matrix<'_>,
    y: &TargetData<'_>,
    threads: Option<usize>,
) -> Result<(), Error> {
    check_shapes(net, x, y)?;
    check_fits(net, "X", x, threads)?;
    if let TargetData::Dense(y) = y {
        check_fits(net, "Y", y, threads)?;
    }
    Ok(())
}

fn check_shapes<T: Number>(net: &Core<T>, x: &Matrix<'_>, y: &TargetData<'_>) -> Result<(), Error> {
    check_width(net, x)?;
    let wanted = target_columns(net);
    let (rows, columns) = match y {
        TargetData::Classes(classes) => (classes.len(), wanted),
        TargetData::Dense(y) => (y.rows(), y.columns()),
        TargetData::Elsewhere(rows) => (*rows, wanted),
    };
    if (rows, columns) != (x.rows(), wanted) {
        let expected = format!("{} rows of {wanted} outputs", x.rows());
        return Err(Error::expected("Y", expected, format!("{rows} of {columns}")));
    }
    Ok(())
}

/// Numbers that a sample's target has.
fn target_columns<T: Number>(net: &Core<T>) -> usize {
    net.outputs() / net.loss.outputs_per_target()
}

/// The targets as they came: held, so that views of them can be made.
pub(super) enum Labels<'py> {
    Classes(Vec<u32>),
    Dense(Held<'py>),
    /// So many, which the loss in Python reads.
    Elsewhere(usize),
}

impl<'py> Labels<'py> {
    pub(super) fn new<T: Number>(net: &Core<T>, object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if net.loss == Loss::Custom {
            return Ok(Labels::Elsewhere(object.len()?));
        }
        let vector = arrays::untyped("Y", object)?.ndim() == 1;
        if net.loss.takes_classes() && vector {
            return Ok(Labels::Classes(arrays::classes("Y", object, net.outputs())?));
        }
        if vector && target_columns(net) == 1 {
            return Ok(Labels::Dense(Held::new("Y", &object.call_method1("reshape", (-1, 1))?)?));
        }
        Ok(Labels::Dense(Held::new("Y", object)?))
    }

    pub(super) fn as_data(&self) -> TargetData<'_> {
        match self {
            Labels::Classes(classes) => TargetData::Classes(classes),
            Labels::Dense(held) => TargetData::Dense(held.matrix()),
            Labels::Elsewhere(rows) => TargetData::Elsewhere(*rows),
        }
    }
}

/// Whether labels of `rows` rows can be taken as they are.
fn takes_labels<T: Number>(net: &Core<T>, labels: &Bound<'_, PyAny>, rows: usize) -> PyResult<bool> {
    if net.loss.takes_classes() {
        let n = net.outputs();
        let Ok(classes) = labels.cast_exact::<PyArray1<i64>>() else { return Ok(false) };
        if classes.len() != rows || !classes.is_aligned() {
            return Ok(false);
        }
        let classes = classes.try_readonly()?;
        return Ok(classes.as_array().iter().all(|&class| usize::try_from(class).is_ok_and(|class| class < n)));
    }
    // Counts must not be negative, which nobody here looks at, and a loss in Python says itself what it takes.
    if [Loss::Poisson, Loss::Custom].contains(&net.loss) {
        return Ok(false);
    }
    let n = target_columns(net);
    let fits = |shape: &[usize]| *shape == [rows, n] || (n == 1 && *shape == [rows]);
    if !arrays::is_plain(labels, fits) {
        return Ok(false);
    }
    let labels = Labels::new(net, labels)?;
    Ok(match labels.as_data() {
        TargetData::Dense(y) if net.loss.takes_bits() => y.is_binary(),
        TargetData::Dense(y) => y.first_unfit::<T>(net.isa, Some(1)).is_ok_and(|bad| bad.is_none()),
        TargetData::Classes(_) | TargetData::Elsewhere(_) => false,
    })
}

/// The arrays of a network's parameters in order: name, layer, rows, columns.
pub(super) fn parameter_names<T: Number>(net: &Core<T>) -> Vec<(String, usize, usize, usize)> {
    let mut names = Vec::new();
    for (l, layer) in net.layers.iter().enumerate() {
        names.push((format!("W{}", l + 1), l, layer.outputs, layer.inputs));
        let vectors = [("b", layer.bias), ("gamma", layer.norm.is_some()), ("beta", layer.norm.is_some())];
        let there = vectors.into_iter().filter(|(_, there)| *there);
        names.extend(there.map(|(name, _)| (format!("{name}{}", l + 1), l, layer.outputs, 1)));
    }
    names
}

/// A finite array, read as a matrix.
fn finite<T: Number + numpy::Element>(name: &str, array: &Bound<'_, PyAny>, shape: (usize, usize)) -> PyResult<Vec<T>> {
    let numbers: Vec<T> = arrays::plain(name, array, shape)?;
    match numbers.iter().all(|x| x.is_finite()) {
        true => Ok(numbers),
        false => Err(exception(Error::expected(name, "finite numbers", "NaN or infinity"))),
    }
}

pub(super) fn set_parameters<T: Number + numpy::Element>(
    net: &mut Core<T>,
    arrays: &[Bound<'_, PyAny>],
) -> PyResult<()> {
    let names = parameter_names(net);
    if arrays.len() != names.len() {
        let expected = format!("{} arrays, {} ... {}", names.len(), names[0].0, names[names.len() - 1].0);
        return Err(exception(Error::expected("parameters", expected, arrays.len())));
    }
    // Everything is checked before anything is changed.
    let read = |((name, _, rows, columns), array): (&(String, usize, usize, usize), _)| {
        finite::<T>(name, array, (*rows, *columns))
    };
    let mut plain = names.iter().zip(arrays).map(read).collect::<PyResult<Vec<_>>>()?.into_iter();
    for l in 0..net.layers.len() {
        let layer = net.layers[l];
        let weights = plain.next().unwrap_or_default();
        let biases = if layer.bias { plain.next() } else { None };
        net.set_layer(l, |j, i| weights[j * layer.inputs + i], |j| biases.as_ref().map_or(T::ZERO, |b| b[j]));
        if layer.norm.is_some() {
            let (gamma, beta) = (plain.next().unwrap_or_default(), plain.next().unwrap_or_default());
            net.set_affine(l, |j| gamma[j], |j| beta[j]);
        }
    }
    Ok(())
}

fn set_statistics<T: Number + numpy::Element>(net: &mut Core<T>, arrays: &[Bound<'_, PyAny>]) -> PyResult<()> {
    if arrays.len() != 2 * net.coupled.len() {
        return Err(exception(Error::expected(
            "statistics",
            format!("{} arrays", 2 * net.coupled.len()),
            arrays.len(),
        )));
    }
    // Everything is checked before anything is changed.
    let mut plain = Vec::with_capacity(net.coupled.len());
    for (&l, pair) in net.coupled.iter().zip(arrays.chunks_exact(2)) {
        let layer = net.layers[l];
        let mean: Vec<T> = finite(&format!("mean{}", l + 1), &pair[0], (layer.outputs, 1))?;
        let variance: Vec<T> = finite(&format!("variance{}", l + 1), &pair[1], (layer.outputs, 1))?;
        if variance.iter().any(|&x| x < T::ZERO) {
            return Err(exception(Error::expected(format!("variance{}", l + 1), "numbers of at least 0", "less")));
        }
        plain.push((layer, mean, variance));
    }
    for (place, (layer, mean, variance)) in plain.into_iter().enumerate() {
        let mut statistics = net.statistics.write(place);
        statistics.running_mean[..layer.outputs].copy_from_slice(&mean);
        statistics.running_variance[..layer.outputs].copy_from_slice(&variance);
        statistics.renew(&layer);
    }
    Ok(())
}

/// All layers' plain arrays from one of the arena's buffers.
pub(super) fn get_layers<'py, T: Number + numpy::Element>(
    py: Python<'py>,
    net: &mut Core<T>,
    buffer: usize,
) -> Vec<Bound<'py, PyAny>> {
    let mut arrays = Vec::with_capacity(2 * net.layers.len());
    for l in 0..net.layers.len() {
        let layer = net.layers[l];
        let (weights, biases) = net.get_layer(l, buffer);
        arrays.push(arrays::matrix(py, layer.outputs, layer.inputs, weights));
        if layer.bias {
            arrays.push(biases.into_pyarray(py).into_any());
        }
        if layer.norm.is_some() {
            let (gamma, beta) = net.get_affine(l, buffer);
            arrays.extend([gamma, beta].map(|numbers| numbers.into_pyarray(py).into_any()));
        }
    }
    arrays
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

/// A vector of zeros, or an error where the memory cannot be had.
pub(super) fn zeros<T: Number>(len: usize) -> Result<Vec<T>, Error> {
    let mut numbers = Vec::new();
    let bytes = len.saturating_mul(size_of::<T>());
    let refused = || Error::Memory { what: "outputs", bytes };
    if !crate::memory::suffices(bytes) {
        return Err(refused());
    }
    numbers.try_reserve_exact(len).map_err(|_| refused())?;
    numbers.resize(len, T::ZERO);
    Ok(numbers)
}
