//! Data and targets of a call, and whether they fit a network.

use super::arrays::{self, Held};
use lamella::data::Matrix;
use lamella::error::Error;
use lamella::kernels::{Loss, Number};
use lamella::network::Network as Core;
use lamella::step::TargetData;
use numpy::PyArray1;
use numpy::prelude::*;
use pyo3::prelude::*;

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

pub(super) fn check_shapes<T: Number>(net: &Core<T>, x: &Matrix<'_>, y: &TargetData<'_>) -> Result<(), Error> {
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
pub(super) fn takes_labels<T: Number>(net: &Core<T>, labels: &Bound<'_, PyAny>, rows: usize) -> PyResult<bool> {
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
