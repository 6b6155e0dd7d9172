//! A network's parameters and running statistics as plain arrays: weights (n1, n0), vectors (n1,).

use super::{arrays, exception};
use lamella::error::Error;
use lamella::kernels::Number;
use lamella::network::Network as Core;
use numpy::IntoPyArray;
use pyo3::prelude::*;

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

pub(super) fn set_statistics<T: Number + numpy::Element>(
    net: &mut Core<T>,
    arrays: &[Bound<'_, PyAny>],
) -> PyResult<()> {
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
    net: &Core<T>,
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
