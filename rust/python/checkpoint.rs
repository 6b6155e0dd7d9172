//! What is kept of a model, as Python sees it: the header of a file of tensors, and an optimizer's state as plain arrays.

use super::parameters::{get_layers, parameter_names};
use super::{arrays, exception, unlocked};
use lamella::error::Error;
use lamella::kernels::Number;
use lamella::network::{AVERAGE, Network as Core, Parameter, Progress, STATES};
use lamella::train::checkpoint;
use lamella::train::optimizer::state_of;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};

/// The beginning of a safetensors file: tensors as (name, "F32" or "F64", shape), whose numbers follow it, and a text.
#[pyfunction]
pub fn file_header<'py>(
    py: Python<'py>,
    tensors: Vec<(String, String, Vec<usize>)>,
    text: String,
) -> PyResult<Bound<'py, PyBytes>> {
    let header = unlocked(py, || checkpoint::header(&tensors, text)).map_err(exception)?;
    Ok(PyBytes::new(py, &header))
}

/// Steps and epochs that are believed: more than a machine makes, and counters far from their end.
const MOST_STEPS: u64 = 1 << 53;

/// A tensor's name, dtype, shape, and where its bytes begin and end.
type Place = (String, String, Vec<usize>, usize, usize);

/// What lies in a safetensors file of `size` bytes, in order, and the text of its writer; `head` are its first bytes, the
/// header among them.
#[pyfunction]
pub fn parse_file(py: Python<'_>, head: PyBackedBytes, size: usize) -> PyResult<(Vec<Place>, Option<String>)> {
    let (entries, text) = unlocked(py, || checkpoint::parse(&head, size)).map_err(exception)?;
    let place = |entry: checkpoint::Entry| (entry.name, entry.dtype, entry.shape, entry.bytes.start, entry.bytes.end);
    Ok((entries.into_iter().map(place).collect(), text))
}

/// Counters, and each state's arrays.
pub type State<'py> = (Bound<'py, PyDict>, Vec<Vec<Bound<'py, PyAny>>>);

/// The counters, and each state's arrays.
pub fn get_state<'py, T: Number + numpy::Element>(py: Python<'py>, net: &Core<T>) -> PyResult<State<'py>> {
    let Progress { steps, state_steps, epochs, beta1_power, beta2_power, optimizer } = net.progress;
    let counters = PyDict::new(py);
    counters.set_item("steps", steps)?;
    counters.set_item("state_steps", state_steps)?;
    counters.set_item("epochs", epochs)?;
    counters.set_item("beta1_power", beta1_power)?;
    counters.set_item("beta2_power", beta2_power)?;
    counters.set_item("optimizer", optimizer)?;
    let count = match optimizer.map(|name| (name, state_of(name))) {
        None => 0,
        Some((_, Some((_, count)))) => count,
        Some((name, None)) => return Err(exception(Error::expected("state", "one that can be kept", name))),
    };
    let states = STATES.into_iter().take(count).map(|index| get_layers(py, net, index)).collect();
    Ok((counters, states))
}

/// Takes counters and state over, or refuses them all.
pub fn set_state<T: Number + numpy::Element>(
    net: &mut Core<T>,
    counters: &Bound<'_, PyDict>,
    states: &[Vec<Bound<'_, PyAny>>],
) -> PyResult<()> {
    let progress = progress(counters)?;
    let known = progress.optimizer.and_then(state_of);
    let count = known.map_or(0, |(_, count)| count);
    if states.len() != count {
        let expected = format!("{count} for optimizer {:?}", progress.optimizer.unwrap_or("none"));
        return Err(exception(Error::expected("state: its arrays", expected, states.len())));
    }
    let names = parameter_names(net);
    let mut plain = Vec::new();
    for (&index, (s, state)) in STATES.iter().zip((1..).zip(states)) {
        // Infinity is a second moment that overflowed, which training takes.
        plain.push((index, one_each(&names, &format!("state{s}"), state, |x: &T| !x.to_f64().is_nan())?));
    }
    // Room first: where there is none, the state stays what it was.
    if let Some((name, count)) = known {
        net.prepare_state(name, count).map_err(exception)?;
    }
    net.reset();
    plain.iter().for_each(|(index, numbers)| place(net, &names, *index, numbers));
    net.progress = progress;
    Ok(())
}

/// Takes a moving average of the parameters over, with which a training that keeps one goes on.
pub fn set_average<T: Number + numpy::Element>(net: &mut Core<T>, average: &[Bound<'_, PyAny>]) -> PyResult<()> {
    let names = parameter_names(net);
    let plain = one_each(&names, "average", average, |x: &T| x.is_finite())?;
    net.prepare_average().map_err(exception)?;
    place(net, &names, AVERAGE, &plain);
    Ok(())
}

/// A parameter's name, layer, rows and columns.
type Name = (String, usize, usize, usize);

/// Reads one array for each parameter, of numbers that pass.
fn one_each<T: Number + numpy::Element>(
    names: &[Name],
    what: &str,
    given: &[Bound<'_, PyAny>],
    passes: impl Fn(&T) -> bool,
) -> PyResult<Vec<Vec<T>>> {
    if given.len() != names.len() {
        return Err(exception(Error::expected(what, format!("{} arrays", names.len()), given.len())));
    }
    let read = |((name, _, rows, columns), array): (&Name, _)| {
        let name = format!("{what}.{name}");
        let numbers: Vec<T> = arrays::plain(&name, array, (*rows, *columns))?;
        match numbers.iter().find(|x| !passes(x)) {
            None => Ok(numbers),
            Some(bad) => Err(exception(Error::expected(name, "numbers", bad.to_f64()))),
        }
    };
    names.iter().zip(given).map(read).collect()
}

/// Copies one array for each parameter into one of the arena's buffers.
fn place<T: Number>(net: &mut Core<T>, names: &[Name], index: usize, arrays: &[Vec<T>]) {
    for ((name, layer, ..), numbers) in names.iter().zip(arrays) {
        let kind = match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "W" => Parameter::Weights,
            "b" => Parameter::Biases,
            "gamma" => Parameter::Gamma,
            _ => Parameter::Beta,
        };
        net.set_state(*layer, index, kind, numbers);
    }
}

/// The counters, checked.
fn progress(counters: &Bound<'_, PyDict>) -> PyResult<Progress> {
    let wrong =
        |key: &str, expected: &str, got: String| exception(Error::expected(format!("counters: {key}"), expected, got));
    let get = |key: &str| counters.get_item(key)?.ok_or_else(|| wrong(key, "a number or a name", "none".into()));
    let count = |key: &str| {
        let item = get(key)?;
        let count = item.extract().ok().filter(|&count: &u64| count <= MOST_STEPS);
        count.ok_or_else(|| wrong(key, "a count of what was done", format!("{item}")))
    };
    let power = |key: &str| {
        let item = get(key)?;
        let power = item.extract().ok().filter(|power: &f64| (0.0..=1.0).contains(power));
        power.ok_or_else(|| wrong(key, "a number from 0 to 1", format!("{item}")))
    };
    let name = get("optimizer")?;
    let optimizer = match name.extract::<Option<String>>() {
        Ok(None) => None,
        Ok(Some(text)) if state_of(&text).is_some() => state_of(&text).map(|(name, _)| name),
        _ => return Err(wrong("optimizer", "the name of an optimizer's state", format!("{name}"))),
    };
    Ok(Progress {
        steps: count("steps")?,
        state_steps: count("state_steps")?,
        epochs: count("epochs")?,
        beta1_power: power("beta1_power")?,
        beta2_power: power("beta2_power")?,
        optimizer,
    })
}
