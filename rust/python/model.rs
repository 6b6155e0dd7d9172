//! The network and the L-layer functions, as Python sees them: one set of functions for both dtypes.

use super::arrays::{self, Held};
use super::{Interpreter, exception, unlocked};
use crate::activation::Activation;
use crate::data::Matrix;
use crate::error::Error;
use crate::isa::Isa;
use crate::kernels::{Function, Loss, Number};
use crate::network::{GRADIENT, LayerSpec, Network as Core, WEIGHTS};
use crate::panel::Panels;
use crate::step::TargetData;
use crate::train::course::{self, Caches};
use crate::train::infer::{self, Wanted, infer};
use crate::train::optimizer::Optimizer;
use crate::train::trainer::{self, Options};
use numpy::prelude::*;
use numpy::{IntoPyArray, PyArrayDyn, PyUntypedArray};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The slope that leaky relu has in the L-layer functions.
const SLOPE: f64 = 0.01;

/// A network of either dtype.
enum Any {
    F32(Core<f32>),
    F64(Core<f64>),
}

/// Evaluates `$body` with `$net` bound to the typed network.
macro_rules! with_core {
    ($any:expr, $net:ident => $body:expr) => {
        match $any {
            Any::F32($net) => $body,
            Any::F64($net) => $body,
        }
    };
}

/// A dense network in the core: plain arrays in and out, samples x features.
#[pyclass(module = "lamella._core")]
pub struct Network {
    inner: Any,
}

#[pymethods]
impl Network {
    #[new]
    fn new(n_features: usize, layers: Vec<(usize, String, f64)>, loss: &str, dtype: &str) -> PyResult<Self> {
        let specs: Result<Vec<LayerSpec>, Error> = layers
            .iter()
            .map(|(units, name, parameter)| {
                Ok(LayerSpec { units: *units, activation: Activation::parse(name, *parameter)? })
            })
            .collect();
        let specs = specs.map_err(exception)?;
        let loss = parse_loss(loss).map_err(exception)?;
        let isa = Isa::choose().map_err(exception)?;
        let inner = match dtype {
            "float32" => Core::new(n_features, &specs, loss, isa).map(Any::F32),
            "float64" => Core::new(n_features, &specs, loss, isa).map(Any::F64),
            _ => Err(Error::expected("dtype", "\"float32\" or \"float64\"", format!("{dtype:?}"))),
        };
        Ok(Network { inner: inner.map_err(exception)? })
    }

    /// Copies plain arrays in: W1 (n1, n0), b1 (n1,) or (n1, 1), W2, ... Optimizer state is kept.
    fn set_parameters(&mut self, arrays: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
        with_core!(&mut self.inner, net => set_parameters(net, &arrays))
    }

    /// Copies the parameters out: W1 (n1, n0), b1 (n1,), W2, ...
    fn get_parameters<'py>(&mut self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        with_core!(&mut self.inner, net => get_layers(py, net, WEIGHTS))
    }

    /// Trains; returns each epoch's loss.
    #[pyo3(signature = (X, Y, *, epochs, batch_size, optimizer, l2, loss_scale, shuffle, seed, threads, report, report_every))]
    #[allow(non_snake_case, clippy::too_many_arguments)]
    fn fit<'py>(
        &mut self,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        Y: &Bound<'py, PyAny>,
        epochs: usize,
        batch_size: Option<usize>,
        optimizer: (String, Bound<'py, PyDict>),
        l2: f64,
        loss_scale: f64,
        shuffle: bool,
        seed: u64,
        threads: Option<usize>,
        report: Option<Py<PyAny>>,
        report_every: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let batch_size = check_batch(batch_size).map_err(exception)?;
        let optimizer = parse_optimizer(&optimizer.0, &optimizer.1)?;
        let report_every = if report.is_some() { report_every } else { 0 };
        let options = Options { epochs, batch_size, optimizer, l2, loss_scale, shuffle, seed, threads, report_every };
        check_options(&options).map_err(exception)?;
        let mut host = Interpreter::new(report);
        with_core!(&mut self.inner, net => {
            let (x, y) = (Held::new("X", X)?, Labels::new(net, Y)?);
            let (x, y) = (x.matrix(), y.as_data());
            let fitted = unlocked(py, || {
                check_data(net, &x, &y)?;
                if epochs == 0 { Ok(Vec::new()) } else { trainer::fit(net, &x, &y, &options, &mut host) }
            });
            Ok(host.settle(fitted)?.into_pyarray(py).into_any())
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
        let wanted = if logits { Wanted::Logits } else { Wanted::Outputs };
        with_core!(&self.inner, net => {
            let x = Held::new("X", X)?;
            Ok(outputs(py, net, &x.matrix(), None, wanted, threads)?.1)
        })
    }

    /// The mean loss and what the last layer returns, (m, n_outputs).
    #[pyo3(signature = (X, Y, *, loss_scale, l2, threads))]
    #[allow(non_snake_case)]
    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        Y: &Bound<'py, PyAny>,
        loss_scale: f64,
        l2: f64,
        threads: Option<usize>,
    ) -> PyResult<(f64, Bound<'py, PyAny>)> {
        check_threads(threads).map_err(exception)?;
        with_core!(&self.inner, net => {
            let (x, y) = (Held::new("X", X)?, Labels::new(net, Y)?);
            let (x, y) = (x.matrix(), y.as_data());
            let (losses, outputs) = outputs(py, net, &x, Some((&y, loss_scale)), Wanted::Outputs, threads)?;
            let mut sum = infer::StridedSum::new();
            losses.iter().for_each(|&loss| sum.add(loss));
            Ok((sum.total() / losses.len() as f64 + infer::penalty(net, l2), outputs))
        })
    }

    /// The loss of all rows as one batch, and its gradient, shaped as the parameters.
    #[pyo3(signature = (X, Y, *, loss_scale, l2, threads))]
    #[allow(non_snake_case)]
    fn loss_and_gradients<'py>(
        &mut self,
        py: Python<'py>,
        X: &Bound<'py, PyAny>,
        Y: &Bound<'py, PyAny>,
        loss_scale: f64,
        l2: f64,
        threads: Option<usize>,
    ) -> PyResult<(f64, Vec<Bound<'py, PyAny>>)> {
        let optimizer = Optimizer::Sgd { learning_rate: 0.0, momentum: 0.0, nesterov: false };
        let options = Options {
            epochs: 1,
            batch_size: usize::MAX,
            optimizer,
            l2,
            loss_scale,
            shuffle: false,
            seed: 0,
            threads,
            report_every: 0,
        };
        check_options(&options).map_err(exception)?;
        let mut host = Interpreter::new(None);
        with_core!(&mut self.inner, net => {
            let (x, y) = (Held::new("X", X)?, Labels::new(net, Y)?);
            let (x, y) = (x.matrix(), y.as_data());
            let loss = unlocked(py, || {
                check_data(net, &x, &y)?;
                trainer::loss_and_gradient(net, &x, &y, &options, &mut host)
            });
            let loss = host.settle(loss)?;
            let gradients = get_layers(py, net, GRADIENT);
            net.arena.release(GRADIENT);
            Ok((loss, gradients))
        })
    }

    /// Weights and biases.
    #[getter]
    fn n_parameters(&self) -> usize {
        with_core!(&self.inner, net => net.n_parameters())
    }

    /// Updates made since the start or `reset`.
    #[getter]
    fn steps(&self) -> u64 {
        with_core!(&self.inner, net => net.progress.steps)
    }

    /// Epochs finished since the start or `reset`.
    #[getter]
    fn epochs(&self) -> u64 {
        with_core!(&self.inner, net => net.progress.epochs)
    }

    /// Forgets optimizer state and counters.
    fn reset(&mut self) {
        with_core!(&mut self.inner, net => net.reset());
    }
}

fn parse_loss(name: &str) -> Result<Loss, Error> {
    match name {
        "binary_cross_entropy" => Ok(Loss::BinaryCrossEntropy),
        "cross_entropy" => Ok(Loss::CrossEntropy),
        "squared_error" => Ok(Loss::SquaredError),
        _ => {
            let names = "one of binary_cross_entropy, cross_entropy, squared_error";
            Err(Error::expected("loss", names, format!("{name:?}")))
        }
    }
}

fn parse_optimizer(name: &str, parameters: &Bound<'_, PyDict>) -> PyResult<Optimizer> {
    let get = |key: &str| -> PyResult<f64> {
        let missing = || exception(Error::expected(format!("optimizer {name}"), format!("a {key}"), "none"));
        parameters.get_item(key)?.ok_or_else(missing)?.extract()
    };
    match name {
        "sgd" => Ok(Optimizer::Sgd {
            learning_rate: get("learning_rate")?,
            momentum: get("momentum")?,
            nesterov: get("nesterov")? != 0.0,
        }),
        "adam" => Ok(Optimizer::Adam {
            learning_rate: get("learning_rate")?,
            beta1: get("beta1")?,
            beta2: get("beta2")?,
            epsilon: get("epsilon")?,
        }),
        _ => Err(exception(Error::expected("optimizer", "\"sgd\" or \"adam\"", format!("{name:?}")))),
    }
}

fn check_threads(threads: Option<usize>) -> Result<(), Error> {
    match threads {
        Some(0) => Err(Error::expected("threads", "at least 1, or None", 0)),
        _ => Ok(()),
    }
}

fn check_batch(batch_size: Option<usize>) -> Result<usize, Error> {
    match batch_size {
        Some(0) => Err(Error::expected("batch_size", "at least 1, or None for all rows", 0)),
        _ => Ok(batch_size.unwrap_or(usize::MAX)),
    }
}

fn check_options(options: &Options) -> Result<(), Error> {
    check_threads(options.threads)?;
    for (name, x) in [("l2", options.l2), ("loss_scale", options.loss_scale)] {
        if !(x >= 0.0 && x.is_finite()) {
            return Err(Error::expected(name, "a finite number of at least 0", x));
        }
    }
    options.optimizer.check()
}

fn check_columns<T: Number>(net: &Core<T>, x: &Matrix<'_>) -> Result<(), Error> {
    if x.rows() == 0 {
        return Err(Error::expected("X", "at least one sample", 0));
    }
    if x.rows() > u32::MAX as usize {
        return Err(Error::expected("X", "fewer than 2^32 samples", x.rows()));
    }
    if x.columns() != net.features() {
        return Err(Error::expected("X", format!("{} features", net.features()), x.columns()));
    }
    check_finite("X", x)
}

fn check_finite(name: &str, x: &Matrix<'_>) -> Result<(), Error> {
    match x.first_non_finite() {
        None => Ok(()),
        Some((row, column)) => {
            let got = format!("NaN or infinity at row {row}, column {column}");
            Err(Error::expected(name, "finite numbers", got))
        }
    }
}

fn check_data<T: Number>(net: &Core<T>, x: &Matrix<'_>, y: &TargetData<'_>) -> Result<(), Error> {
    check_columns(net, x)?;
    let (rows, columns) = match y {
        TargetData::Classes(classes) => (classes.len(), net.outputs()),
        TargetData::Dense(y) => (y.rows(), y.columns()),
    };
    if (rows, columns) != (x.rows(), net.outputs()) {
        let expected = format!("{} rows of {} outputs", x.rows(), net.outputs());
        return Err(Error::expected("Y", expected, format!("{rows} of {columns}")));
    }
    if let TargetData::Dense(y) = y {
        check_finite("Y", y)?;
    }
    Ok(())
}

/// The targets as they came: held, so that views of them can be made.
enum Labels<'py> {
    Classes(Vec<u32>),
    Dense(Held<'py>),
}

impl<'py> Labels<'py> {
    fn new<T: Number>(net: &Core<T>, object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let vector = arrays::untyped("Y", object)?.ndim() == 1;
        if net.loss == Loss::CrossEntropy && vector {
            return Ok(Labels::Classes(arrays::classes("Y", object, net.outputs())?));
        }
        Ok(Labels::Dense(Held::new("Y", object)?))
    }

    fn as_data(&self) -> TargetData<'_> {
        match self {
            Labels::Classes(classes) => TargetData::Classes(classes.clone()),
            Labels::Dense(held) => TargetData::Dense(held.matrix()),
        }
    }
}

fn set_parameters<T: Number + numpy::Element>(net: &mut Core<T>, arrays: &[Bound<'_, PyAny>]) -> PyResult<()> {
    let layers = net.layers.clone();
    if arrays.len() != 2 * layers.len() {
        let expected = format!("{} arrays, W1, b1, ... W{1}, b{1}", 2 * layers.len(), layers.len());
        return Err(exception(Error::expected("parameters", expected, arrays.len())));
    }
    // Everything is checked before anything is changed.
    let mut plain = Vec::with_capacity(layers.len());
    for (l, (pair, layer)) in arrays.chunks_exact(2).zip(&layers).enumerate() {
        let (w, b) = (format!("W{}", l + 1), format!("b{}", l + 1));
        let weights: Vec<T> = arrays::plain(&w, &pair[0], (layer.outputs, layer.inputs))?;
        let biases: Vec<T> = arrays::plain(&b, &pair[1], (layer.outputs, 1))?;
        for (name, numbers) in [(w, &weights), (b, &biases)] {
            if !numbers.iter().all(|x| x.is_finite()) {
                return Err(exception(Error::expected(name, "finite numbers", "NaN or infinity")));
            }
        }
        plain.push((weights, biases));
    }
    for (l, (weights, biases)) in plain.iter().enumerate() {
        let inputs = layers[l].inputs;
        net.set_layer(l, |j, i| weights[j * inputs + i], |j| biases[j]);
    }
    Ok(())
}

/// All layers' plain arrays from one of the arena's buffers.
fn get_layers<'py, T: Number + numpy::Element>(
    py: Python<'py>,
    net: &mut Core<T>,
    buffer: usize,
) -> Vec<Bound<'py, PyAny>> {
    let mut arrays = Vec::with_capacity(2 * net.layers.len());
    for l in 0..net.layers.len() {
        let layer = net.layers[l];
        let (weights, biases) = net.get_layer(l, buffer);
        arrays.push(arrays::matrix(py, layer.outputs, layer.inputs, weights));
        arrays.push(biases.into_pyarray(py).into_any());
    }
    arrays
}

fn outputs<'py, T: Number + numpy::Element>(
    py: Python<'py>,
    net: &Core<T>,
    x: &Matrix<'_>,
    y: Option<(&TargetData<'_>, f64)>,
    wanted: Wanted,
    threads: Option<usize>,
) -> PyResult<(Vec<f64>, Bound<'py, PyAny>)> {
    let mut host = Interpreter::new(None);
    let (rows, n) = (x.rows(), net.outputs());
    let result = unlocked(py, || {
        match y {
            Some((y, _)) => check_data(net, x, y)?,
            None => check_columns(net, x)?,
        }
        let mut numbers = zeros(rows.saturating_mul(n))?;
        let y = y.map(|(y, scale)| (y, T::from_f64(scale)));
        let losses = infer(net, x, y, wanted, threads, &mut numbers, &mut host)?;
        Ok((losses, numbers))
    });
    let (losses, numbers) = host.settle(result)?;
    Ok((losses, arrays::matrix(py, rows, n, numbers)))
}

/// A vector of zeros, or an error where the memory cannot be had.
fn zeros<T: Number>(len: usize) -> Result<Vec<T>, Error> {
    let mut numbers = Vec::new();
    let bytes = len.saturating_mul(size_of::<T>());
    numbers.try_reserve_exact(len).map_err(|_| Error::Memory { what: "outputs", bytes })?;
    numbers.resize(len, T::ZERO);
    Ok(numbers)
}

/// Applies a function to every number: relu, leaky_relu, tanh, sigmoid, identity, exp or log.
#[pyfunction]
#[allow(non_snake_case)]
pub fn elementwise<'py>(py: Python<'py>, name: &str, Z: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let function = match name {
        "exp" => Function::Exp,
        "log" => Function::Log,
        _ => Function::Activate(Activation::parse(name, SLOPE).map_err(exception)?),
    };
    if let Ok(array) = Z.cast::<PyArrayDyn<f32>>() {
        return map(py, function, array);
    }
    if let Ok(array) = Z.cast::<PyArrayDyn<f64>>() {
        return map(py, function, array);
    }
    Err(not_float(Z))
}

fn map<'py, T: Number + numpy::Element>(
    py: Python<'py>,
    function: Function,
    array: &Bound<'py, PyArrayDyn<T>>,
) -> PyResult<Bound<'py, PyAny>> {
    let isa = Isa::choose().map_err(exception)?;
    let aligned = if array.is_aligned() { array.clone() } else { array.call_method0("copy")?.cast_into()? };
    let mut result = aligned.readonly().as_array().as_standard_layout().into_owned();
    let _environment = crate::isa::DefaultEnvironment::new();
    T::kernels(isa).map(function, result.as_slice_mut().expect("a standard layout is contiguous"));
    Ok(result.into_pyarray(py).into_any())
}

fn not_float(object: &Bound<'_, PyAny>) -> PyErr {
    let got = match object.cast::<PyUntypedArray>() {
        Ok(array) => array.dtype().to_string(),
        Err(_) => object.get_type().to_string(),
    };
    exception(Error::Type(format!("Z: expected a NumPy array of float32 or float64, got {got}")))
}

/// Softmax over the last axis of an array (m, C).
#[pyfunction]
#[allow(non_snake_case)]
pub fn softmax<'py>(py: Python<'py>, Z: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let held = Held::new("Z", Z)?;
    match &held {
        Held::F32(_) => softmax_rows::<f32>(py, &held.matrix()),
        Held::F64(_) => softmax_rows::<f64>(py, &held.matrix()),
        _ => Err(not_float(Z)),
    }
}

fn softmax_rows<'py, T: Number + numpy::Element>(py: Python<'py>, z: &Matrix<'_>) -> PyResult<Bound<'py, PyAny>> {
    let kernels = T::kernels(Isa::choose().map_err(exception)?);
    let (rows, lanes) = (z.rows(), z.columns());
    let mut numbers = zeros(rows.saturating_mul(lanes)).map_err(exception)?;
    if rows > 0 && lanes > 0 {
        let _environment = crate::isa::DefaultEnvironment::new();
        let mut panels = Panels::zeroed(rows, lanes, kernels.geometry(), "softmax").map_err(exception)?;
        let mut scratch = zeros(lanes * kernels.geometry().lanes).map_err(exception)?;
        z.gather(crate::data::Selection::From(0), &mut panels);
        kernels.softmax(&mut panels, &mut scratch);
        infer::unpack(&panels, &mut numbers);
    }
    Ok(arrays::matrix(py, rows, lanes, numbers))
}

/// Every layer's (Z, A), each (n[l], m), of X (n_x, m).
#[pyfunction]
#[pyo3(signature = (X, weights, biases, hidden, output, threads))]
#[allow(non_snake_case)]
pub fn forward<'py>(
    py: Python<'py>,
    X: &Bound<'py, PyAny>,
    weights: Vec<Bound<'py, PyAny>>,
    biases: Vec<Bound<'py, PyAny>>,
    hidden: &str,
    output: &str,
    threads: Option<usize>,
) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    check_threads(threads).map_err(exception)?;
    let x = Held::new("X", X)?;
    match &x {
        Held::F32(_) => forward_as::<f32>(py, &x.transposed(), &weights, &biases, hidden, output),
        Held::F64(_) => forward_as::<f64>(py, &x.transposed(), &weights, &biases, hidden, output),
        _ => Err(not_float(X)),
    }
}

fn forward_as<'py, T: Number + numpy::Element>(
    py: Python<'py>,
    x: &Matrix<'_>,
    weights: &[Bound<'py, PyAny>],
    biases: &[Bound<'py, PyAny>],
    hidden: &str,
    output: &str,
) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    let mut net = network_of::<T>(weights, hidden, output)?;
    let arrays: Vec<_> = weights.iter().zip(biases).flat_map(|(w, b)| [w.clone(), b.clone()]).collect();
    set_parameters(&mut net, &arrays)?;
    let traced = unlocked(py, || {
        check_columns(&net, x)?;
        course::trace(&net, x)
    });
    let layers = traced.map_err(exception)?.into_iter().zip(&net.layers);
    let turned = |numbers: &[T], n: usize| arrays::transposed(py, x.rows(), n, numbers);
    Ok(layers.map(|((z, a), layer)| (turned(&z, layer.outputs), turned(&a, layer.outputs))).collect())
}

/// A network shaped by plain weight matrices.
fn network_of<T: Number>(weights: &[Bound<'_, PyAny>], hidden: &str, output: &str) -> PyResult<Core<T>> {
    let mut specs = Vec::with_capacity(weights.len());
    let mut features = 0;
    for (l, w) in weights.iter().enumerate() {
        let name = format!("W{}", l + 1);
        let [outputs, inputs] = *arrays::untyped(&name, w)?.shape() else {
            return Err(exception(Error::expected(name, "a matrix", "another number of dimensions")));
        };
        features = if l == 0 { inputs } else { features };
        let activation = if l + 1 < weights.len() { hidden } else { output };
        let activation = Activation::parse(activation, SLOPE).map_err(exception)?;
        specs.push(LayerSpec { units: outputs, activation });
    }
    let loss = match output {
        "sigmoid" => Loss::BinaryCrossEntropy,
        "softmax" => Loss::CrossEntropy,
        _ => Loss::SquaredError,
    };
    Core::new(features, &specs, loss, Isa::choose().map_err(exception)?).map_err(exception)
}

/// dW1, db1, ... dWL, dbL from dZL (n[L], m), each layer's A_prev (n[l-1], m) and W, and the hidden layers' Z.
#[pyfunction]
#[pyo3(signature = (dZL, A_prevs, weights, Zs, hidden, threads))]
#[allow(non_snake_case)]
pub fn backward<'py>(
    py: Python<'py>,
    dZL: &Bound<'py, PyAny>,
    A_prevs: Vec<Bound<'py, PyAny>>,
    weights: Vec<Bound<'py, PyAny>>,
    Zs: Vec<Bound<'py, PyAny>>,
    hidden: &str,
    threads: Option<usize>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    check_threads(threads).map_err(exception)?;
    if A_prevs.len() != weights.len() || Zs.len() != weights.len() || weights.is_empty() {
        let got = format!("{}, {} and {}", A_prevs.len(), weights.len(), Zs.len());
        return Err(exception(Error::expected("caches", "as many A_prev and Z as weights", got)));
    }
    let delta = Held::new("dZL", dZL)?;
    let hold = |name: &str, arrays: &[Bound<'py, PyAny>]| -> PyResult<Vec<Held<'py>>> {
        arrays.iter().enumerate().map(|(l, array)| Held::new(&format!("{name}{}", l + 1), array)).collect()
    };
    let (inputs, zs) = (hold("A_prev", &A_prevs)?, hold("Z", &Zs)?);
    let caches = Caches {
        inputs: inputs.iter().map(Held::transposed).collect(),
        hidden: zs[..zs.len() - 1].iter().map(Held::transposed).collect(),
        delta: delta.transposed(),
    };
    match &delta {
        Held::F32(_) => backward_as::<f32>(py, &caches, &weights, hidden),
        Held::F64(_) => backward_as::<f64>(py, &caches, &weights, hidden),
        _ => Err(not_float(dZL)),
    }
}

fn backward_as<'py, T: Number + numpy::Element>(
    py: Python<'py>,
    caches: &Caches<'_>,
    weights: &[Bound<'py, PyAny>],
    hidden: &str,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let mut net = network_of::<T>(weights, hidden, "identity")?;
    let layers = net.layers.clone();
    for (l, (w, layer)) in weights.iter().zip(&layers).enumerate() {
        let w: Vec<T> = arrays::plain(&format!("W{}", l + 1), w, (layer.outputs, layer.inputs))?;
        net.set_layer(l, |j, i| w[j * layer.inputs + i], |_| T::ZERO);
    }
    let done = unlocked(py, || {
        let rows = caches.delta.rows();
        let shape = |name: String, matrix: &Matrix<'_>, units: usize| {
            if (matrix.columns(), matrix.rows()) == (units, rows) && rows > 0 {
                return Ok(());
            }
            let got = format!("shape ({}, {})", matrix.columns(), matrix.rows());
            Err(Error::expected(name, format!("shape ({units}, {})", rows.max(1)), got))
        };
        shape("dZL".into(), &caches.delta, net.outputs())?;
        for (l, layer) in layers.iter().enumerate() {
            shape(format!("A_prev{}", l + 1), &caches.inputs[l], layer.inputs)?;
            if let Some(z) = caches.hidden.get(l) {
                shape(format!("Z{}", l + 1), z, layer.outputs)?;
            }
        }
        course::gradient(&mut net, caches)
    });
    done.map_err(exception)?;
    let gradients = get_layers(py, &mut net, GRADIENT).into_iter().enumerate();
    // db is a column in the L-layer functions.
    gradients.map(|(i, g)| if i % 2 == 1 { g.call_method1("reshape", ((-1, 1),)) } else { Ok(g) }).collect()
}
