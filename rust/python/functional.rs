//! The L-layer functions as Python sees them: features x samples, either dtype; the elementwise functions.

use super::arrays::{self, Held};
use super::inputs::check_columns;
use super::parameters::{get_layers, set_parameters};
use super::{exception, unlocked};
use lamella::activation::Activation;
use lamella::data::Matrix;
use lamella::error::Error;
use lamella::isa::Isa;
use lamella::kernels::{Function, Loss, Number, loss_rows};
use lamella::network::{GRADIENT, LayerSpec, Network as Core};
use lamella::panel::Panels;
use lamella::train::course::{self, Caches};
use lamella::train::infer;
use numpy::prelude::*;
use numpy::{IntoPyArray, PyArrayDyn, PyUntypedArray};
use pyo3::prelude::*;

/// The slope that leaky relu has in the L-layer functions.
const SLOPE: f64 = 0.01;

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
    let _environment = lamella::isa::DefaultEnvironment::new();
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
    let isa = Isa::choose().map_err(exception)?;
    let kernels = T::kernels(isa);
    let (rows, lanes) = (z.rows(), z.columns());
    let mut numbers = zeros(rows.saturating_mul(lanes)).map_err(exception)?;
    if rows > 0 && lanes > 0 {
        let _environment = lamella::isa::DefaultEnvironment::new();
        let mut panels = Panels::zeroed(rows, lanes, kernels.geometry(), "softmax").map_err(exception)?;
        let mut scratch = zeros(loss_rows::scratch(kernels.geometry(), lanes)).map_err(exception)?;
        z.gather(isa, lamella::data::Selection::From(0), &mut panels);
        kernels.softmax(&mut panels, &mut scratch);
        infer::unpack(&panels, &mut numbers);
    }
    Ok(arrays::matrix(py, rows, lanes, numbers))
}

/// Every layer's (Z, A), each (n[l], m), of X (n_x, m).
#[pyfunction]
#[pyo3(signature = (X, weights, biases, hidden, output))]
#[allow(non_snake_case)]
pub fn forward<'py>(
    py: Python<'py>,
    X: &Bound<'py, PyAny>,
    weights: Vec<Bound<'py, PyAny>>,
    biases: Vec<Bound<'py, PyAny>>,
    hidden: &str,
    output: &str,
) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
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
        check_columns(&net, x, None)?;
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
        let activation = Activation::named(activation).map_err(exception)?;
        specs.push(LayerSpec::plain(outputs, activation));
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
#[pyo3(signature = (dZL, A_prevs, weights, Zs, hidden))]
#[allow(non_snake_case)]
pub fn backward<'py>(
    py: Python<'py>,
    dZL: &Bound<'py, PyAny>,
    A_prevs: Vec<Bound<'py, PyAny>>,
    weights: Vec<Bound<'py, PyAny>>,
    Zs: Vec<Bound<'py, PyAny>>,
    hidden: &str,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
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
    let gradients = get_layers(py, &net, GRADIENT).into_iter().enumerate();
    // db is a column in the L-layer functions.
    gradients.map(|(i, g)| if i % 2 == 1 { g.call_method1("reshape", ((-1, 1),)) } else { Ok(g) }).collect()
}

/// A vector of zeros, or an error where the memory cannot be had.
fn zeros<T: Number>(len: usize) -> Result<Vec<T>, Error> {
    let mut numbers = Vec::new();
    let bytes = len.saturating_mul(size_of::<T>());
    let refused = || Error::Memory { what: "outputs", bytes };
    if !lamella::memory::suffices(bytes) {
        return Err(refused());
    }
    numbers.try_reserve_exact(len).map_err(|_| refused())?;
    numbers.resize(len, T::ZERO);
    Ok(numbers)
}
