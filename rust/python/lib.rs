//! The module `lamella._core`: arguments in, one pure-Rust call with the interpreter lock released, results out.
//!
//! Here [`Error`] becomes an exception, and nowhere else. A panic becomes RuntimeError: nothing that a user can pass
//! ends the process.

mod arrays;
mod checkpoint;
mod functional;
mod inputs;
mod many;
mod model;
mod parameters;
mod scikit;
mod settings;

use lamella::error::Error;
use lamella::isa::Isa;
use lamella::kernels::Number;
use lamella::limits::{self, Limit};
use lamella::threads::contain;
use lamella::train::Host;
use lamella::train::exchange::{Exchange, Exchanged, Losses};
use numpy::{IntoPyArray, PyReadonlyArray1};
use pyo3::create_exception;
use pyo3::exceptions::{PyArithmeticError, PyMemoryError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySlice};

create_exception!(lamella, DivergenceError, PyArithmeticError, "Training left the finite numbers.");

/// The exception for an error of the core.
pub(crate) fn exception(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Value(_) => PyValueError::new_err(message),
        Error::Type(_) => PyTypeError::new_err(message),
        Error::Memory { .. } => PyMemoryError::new_err(message),
        Error::Divergence { .. } => DivergenceError::new_err(message),
        Error::Interrupted | Error::Panic(_) => PyRuntimeError::new_err(message),
    }
}

/// Runs `work` without the interpreter lock; a panic in it becomes [`Error::Panic`].
fn unlocked<R: Send>(py: Python<'_>, work: impl FnOnce() -> Result<R, Error> + Send) -> Result<R, Error> {
    py.detach(|| {
        let _environment = lamella::isa::DefaultEnvironment::new();
        contain(work).unwrap_or_else(|message| Err(Error::Panic(message)))
    })
}

/// The interpreter, as the core's host: signals stop a call, a callable hears of epochs.
struct Interpreter {
    report: Option<Py<PyAny>>,
    loss: Option<Py<PyAny>>,
    turn: Option<Py<PyAny>>,
    raised: Option<PyErr>,
}

impl Interpreter {
    fn new(report: Option<Py<PyAny>>) -> Self {
        Interpreter { report, loss: None, turn: None, raised: None }
    }

    /// With a loss in Python: of a batch's logits `(rows, n)` and a slice or vector of its rows, either its value and None or
    /// None and the rows' values, and the gradient `(rows, n)`.
    fn with_loss(self, loss: Option<Py<PyAny>>) -> Self {
        Interpreter { loss, ..self }
    }

    /// With a callable that draws an epoch's order: see [`scikit::epochs`].
    fn with_turn(self, turn: Option<Py<PyAny>>) -> Self {
        Interpreter { turn, ..self }
    }

    fn keep(&mut self, result: PyResult<()>) -> Result<(), Error> {
        result.map_err(|error| {
            self.raised = Some(error);
            Error::Interrupted
        })
    }

    /// What the call ends with: the exception that stopped it, if one did.
    fn settle<R>(self, result: Result<R, Error>) -> PyResult<R> {
        result.map_err(|error| match (error, self.raised) {
            (Error::Interrupted, Some(raised)) => raised,
            (error, _) => exception(error),
        })
    }
}

/// Asks Python for a batch's loss and gradient.
fn ask<T: Number + numpy::Element>(py: Python<'_>, loss: &Py<PyAny>, batch: &mut Exchange<T>) -> PyResult<()> {
    let (rows, outputs) = (batch.rows(), batch.outputs);
    let logits = arrays::matrix(py, rows, outputs, batch.logits.clone());
    let selection = if batch.order.is_empty() {
        PySlice::new(py, batch.first as isize, (batch.first + rows) as isize, 1).into_any()
    } else {
        batch.order.iter().map(|&row| i64::from(row)).collect::<Vec<_>>().into_pyarray(py).into_any()
    };
    type Answer<'py> = (Option<f64>, Option<PyReadonlyArray1<'py, f64>>, Bound<'py, PyAny>);
    let (value, values, gradient): Answer<'_> = loss.bind(py).call1((logits, selection))?.extract()?;
    batch.gradient = arrays::plain("loss gradient", &gradient, (rows, outputs))?;
    batch.losses = match (value, values) {
        (None, Some(values)) => Losses::Rows(values.as_array().to_vec()),
        (value, _) => Losses::Batch(value.unwrap_or(f64::NAN)),
    };
    Ok(())
}

impl Host for Interpreter {
    fn loss(&mut self, batch: Exchanged<'_>) -> Result<(), Error> {
        let Some(loss) = &self.loss else {
            return Err(Error::expected("loss", "a function", "None"));
        };
        let result = Python::attach(|py| match batch {
            Exchanged::F32(batch) => ask(py, loss, batch),
            Exchanged::F64(batch) => ask(py, loss, batch),
        });
        self.keep(result)
    }

    fn turn(&mut self, loss: f64, order: &mut [u32]) -> Result<Option<f64>, Error> {
        let Some(turn) = &self.turn else { return Ok(None) };
        let answer = Python::attach(|py| scikit::turned(turn.bind(py).call1((loss,))?.as_any(), order));
        match answer {
            Ok(rate) => Ok(rate),
            Err(error) => self.keep(Err(error)).map(|()| None),
        }
    }

    fn poll(&mut self) -> Result<(), Error> {
        let result = Python::attach(|py| py.check_signals());
        self.keep(result)
    }

    fn report(&mut self, epoch: usize, loss: f64) -> Result<(), Error> {
        let result = Python::attach(|py| match &self.report {
            Some(report) => report.call1(py, (epoch, loss)).map(|_| ()),
            None => Ok(()),
        });
        self.keep(result)
    }
}

/// What machine this is and which kernels serve it.
#[pyfunction]
fn info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    let available: Vec<&str> = Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(Isa::name).collect();
    dict.set_item("arch", std::env::consts::ARCH)?;
    dict.set_item("features", features())?;
    dict.set_item("isa", Isa::choose().map_err(exception)?.name())?;
    dict.set_item("available", available)?;
    dict.set_item("threads", lamella::threads::limit())?;
    Ok(dict)
}

/// Raises MemoryError where a result of so many bytes has no room.
#[pyfunction]
fn check_memory(bytes: usize) -> PyResult<()> {
    let refused = || exception(Error::Memory { what: "result", bytes });
    lamella::memory::suffices(bytes).then_some(()).ok_or_else(refused)
}

/// What this machine can do at most: billions of operations a second ("f32", "f64", "bf16") or of bytes read ("memory").
///
/// One measurement of so many seconds on so many threads, with the kernels that are chosen.
#[pyfunction]
fn measure(py: Python<'_>, what: &str, threads: i64, seconds: f64) -> PyResult<f64> {
    let limit = Limit::parse(what).map_err(exception)?;
    let isa = Isa::choose().map_err(exception)?;
    let mut host = Interpreter::new(None);
    let count = usize::try_from(threads);
    let count = count.map_err(|_| exception(Error::expected("threads", "a number of at least 1", threads)))?;
    let rate = unlocked(py, || limits::measure(limit, isa, count, seconds, &mut || host.poll()));
    host.settle(rate)
}

/// The CPU features that bear on the kernels.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    let all = [
        ("sse2", is_x86_feature_detected!("sse2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512dq", is_x86_feature_detected!("avx512dq")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    let tiles = [("amx", lamella::isa::Isa::Amx.is_available())];
    all.into_iter().chain(tiles).filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

/// The CPU features that bear on the kernels.
#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

/// The compiled core of Lamella.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::DivergenceError;
    #[pymodule_export]
    use super::check_memory;
    #[pymodule_export]
    use super::checkpoint::{file_header, parse_file};
    #[pymodule_export]
    use super::functional::{backward, elementwise, forward, softmax};
    #[pymodule_export]
    use super::info;
    #[pymodule_export]
    use super::many::fit_many;
    #[pymodule_export]
    use super::measure;
    #[pymodule_export]
    use super::model::Network;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // Read now, while no other thread can change it.
        lamella::threads::environment();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
