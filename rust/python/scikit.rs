//! What the estimators of `lamella.sklearn` need of a network besides what everybody uses (`model.rs`): epochs in a given order
//! and objectives by scikit-learn's conventions.

use super::arrays::Samples;
use super::inputs::Labels;
use super::{Interpreter, exception, unlocked};
use lamella::data::Matrix;
use lamella::error::Error;
use lamella::kernels::Number;
use lamella::network::Network;
use lamella::step::TargetData;
use lamella::train::options::{Options, Scikit};
use lamella::train::scikit;
use lamella::train::trainer::Workspace;
use numpy::PyArray1;
use numpy::prelude::*;
use pyo3::prelude::*;

/// An X and a Y that the estimators checked; only their shapes are looked at again.
fn check_shapes<T: Number>(
    net: &Network<T>,
    x: &Matrix<'_>,
    y: &TargetData<'_>,
    weights: Option<&[f64]>,
) -> Result<(), Error> {
    if weights.is_some_and(|weights| weights.len() != x.rows()) {
        return Err(Error::expected("weights", format!("{} numbers", x.rows()), "others"));
    }
    if x.rows() == 0 || x.rows() > u32::MAX as usize {
        return Err(Error::expected("X", "between 1 and 2^32 - 1 samples", x.rows()));
    }
    if x.columns() != net.features() {
        return Err(Error::expected("X", format!("{} features", net.features()), x.columns()));
    }
    let (rows, columns) = match y {
        TargetData::Classes(classes) => (classes.len(), net.outputs()),
        TargetData::Dense(y) => (y.rows(), y.columns()),
        TargetData::Elsewhere(_) => return Err(Error::expected("loss", "one of the core", "one in Python")),
    };
    if (rows, columns) != (x.rows(), net.outputs()) {
        let expected = format!("{} rows of {} outputs", x.rows(), net.outputs());
        return Err(Error::expected("Y", expected, format!("{rows} of {columns}")));
    }
    Ok(())
}

/// Rows from an int64 vector.
fn rows(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let expected = || exception(Error::expected(name, "a vector of int64 rows", "something else"));
    let array = object.cast::<PyArray1<i64>>().map_err(|_| expected())?.try_readonly()?;
    let row = |&row: &i64| {
        u32::try_from(row).map_err(|_| exception(Error::expected(name, "rows in 0..2^32", format!("{row}"))))
    };
    array.as_array().iter().map(row).collect()
}

/// Epochs in given orders; see [`scikit::epochs`]. `turn` gets an epoch's loss, and returns the next order and its learning rate,
/// or None.
#[allow(clippy::too_many_arguments)]
pub fn epochs<'py, T: Number>(
    py: Python<'py>,
    net: &mut Network<T>,
    workspace: &mut Workspace<T>,
    x: &Bound<'py, PyAny>,
    y: &Bound<'py, PyAny>,
    order: &Bound<'py, PyAny>,
    turn: Option<Py<PyAny>>,
    options: &Options<'_>,
    convention: Scikit,
) -> PyResult<f64> {
    let turns = turn.is_some();
    let mut host = Interpreter::new(None).with_turn(turn);
    let order = rows("order", order)?;
    let (x, y) = (Samples::new("X", x)?, Labels::new(net, y)?);
    let (x, y) = (x.matrix(), y.as_data());
    let loss = unlocked(py, || {
        check_shapes(net, &x, &y, options.weights)?;
        scikit::epochs(net, workspace, &x, &y, &order, turns, options, convention, &mut host)
    });
    host.settle(loss)
}

/// The answer of a `turn`: fills `order`, returns the learning rate.
pub fn turned(answer: &Bound<'_, PyAny>, order: &mut [u32]) -> PyResult<Option<f64>> {
    let Some((next, rate)) = answer.extract::<Option<(Bound<'_, PyAny>, f64)>>()? else { return Ok(None) };
    let next = rows("order", &next)?;
    if next.len() != order.len() {
        return Err(exception(Error::expected("order", format!("{} rows, as before", order.len()), next.len())));
    }
    if !(rate.is_finite() && rate >= 0.0) {
        return Err(exception(Error::expected("learning_rate", "a finite number of at least 0", rate)));
    }
    order.copy_from_slice(&next);
    Ok(Some(rate))
}

/// Loss of all rows as one batch, its gradient left in the arena; see [`scikit::objective`].
pub fn objective<'py, T: Number>(
    py: Python<'py>,
    net: &mut Network<T>,
    workspace: &mut Workspace<T>,
    x: &Bound<'py, PyAny>,
    y: &Bound<'py, PyAny>,
    options: &Options<'_>,
    convention: Scikit,
) -> PyResult<f64> {
    let mut host = Interpreter::new(None);
    let (x, y) = (Samples::new("X", x)?, Labels::new(net, y)?);
    let (x, y) = (x.matrix(), y.as_data());
    let loss = unlocked(py, || {
        check_shapes(net, &x, &y, options.weights)?;
        scikit::objective(net, workspace, &x, &y, options, convention, &mut host)
    });
    host.settle(loss)
}
