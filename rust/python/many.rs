//! Many networks as Python sees them: one call, the interpreter lock released, each outcome told to a callable.

use super::arrays::Samples;
use super::inputs::{self, Labels};
use super::model::{Any, Network};
use super::settings;
use super::{exception, unlocked};
use lamella::data::Matrix;
use lamella::error::Error;
use lamella::kernels::Loss;
use lamella::step::TargetData;
use lamella::train::many::{self, Audience, Finished, HeldOut, Job, Outputs, Trainee};
use lamella::train::options::Options;
use lamella::train::stretch::Stretch;
use numpy::{IntoPyArray, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::HashSet;

/// A network, its settings, and which of the targets and of the selections of rows are its own.
type Task<'py> = (Bound<'py, Network>, Bound<'py, PyDict>, usize, Option<usize>, Option<usize>);

/// Trains networks, each on one thread, at most so many at once; `report(task, seconds, losses, error, loss, outputs)` hears of
/// each as it ends.
///
/// A task is (network, settings of fit, index of its targets, index of the rows it is trained on or None, of the rows it answers
/// afterwards or None). The settings have `weights`, one of each of the data's rows or None, and `rates`, one of each step or None.
#[pyfunction]
#[pyo3(signature = (tasks, X, targets, selections, *, keep_state, threads, report))]
#[allow(non_snake_case, clippy::too_many_arguments)]
pub fn fit_many<'py>(
    py: Python<'py>,
    tasks: Vec<Task<'py>>,
    X: &Bound<'py, PyAny>,
    targets: Vec<Bound<'py, PyAny>>,
    selections: Vec<PyReadonlyArray1<'py, u32>>,
    keep_state: bool,
    threads: Option<usize>,
    report: Py<PyAny>,
) -> PyResult<()> {
    settings::check_threads(threads).map_err(exception)?;
    let samples = Samples::new("X", X)?;
    let x = samples.matrix();
    let selections = checked_selections(&selections, x.rows())?;
    let selected = |at: Option<usize>| match at {
        Some(at) => selections.get(at).copied().map(Some).ok_or_else(|| no_such("selection", at)),
        None => Ok(None),
    };
    let given: Vec<Given<'_>> = tasks.iter().map(|task| Given::of(&task.1)).collect::<PyResult<_>>()?;
    let mut options = Vec::with_capacity(tasks.len());
    let mut networks = Vec::with_capacity(tasks.len());
    for (i, (network, settings, ..)) in tasks.iter().enumerate() {
        options.push(options_of(settings)?);
        let in_use = |_| PyValueError::new_err(format!("network {i}: expected one that is not in use, got it twice"));
        networks.push(network.try_borrow_mut().map_err(in_use)?);
    }
    let labels = labels(&tasks, &networks, &targets)?;
    let data: Vec<TargetData<'_>> = labels.iter().map(Labels::as_data).collect();
    let mut jobs = Vec::with_capacity(tasks.len());
    let settings = options.into_iter().zip(&given);
    for ((network, (options, given)), (_, _, target, rows, held_out)) in networks.iter_mut().zip(settings).zip(&tasks) {
        let network = match &mut *network.inner {
            Any::F32(model) => Trainee::F32(&mut model.net),
            Any::F64(model) => Trainee::F64(&mut model.net),
        };
        let (rows, held_out) = (selected(*rows)?, selected(*held_out)?);
        let weights = settings::as_weights(&given.weights)?;
        settings::check_weights(weights, x.rows()).map_err(exception)?;
        let stretch = Stretch { rates: given.rates.as_deref(), ..Stretch::WHOLE };
        jobs.push(Job { network, y: &data[*target], held_out, options: Options { rows, weights, stretch, ..options } });
    }
    let targets: Vec<usize> = tasks.iter().map(|task| task.2).collect();
    let mut listener = Listener { report, raised: None };
    let result = unlocked(py, || {
        check(&jobs, &targets, &x, threads)?;
        many::train(jobs, &x, keep_state, threads, &mut listener)
    });
    listener.settle(result)
}

/// The arrays among a task's settings, held.
struct Given<'py> {
    /// What each of the data's rows counts.
    weights: Option<PyReadonlyArray1<'py, f64>>,
    /// The rate of each step.
    rates: Option<Vec<f64>>,
}

impl<'py> Given<'py> {
    fn of(settings: &Bound<'py, PyDict>) -> PyResult<Self> {
        let get = |name: &str| -> PyResult<Option<PyReadonlyArray1<'py, f64>>> {
            let item = settings.get_item(name)?.filter(|item| !item.is_none());
            item.map(|item| item.extract()).transpose()
        };
        Ok(Given { weights: get("weights")?, rates: get("rates")?.map(|rates| rates.as_array().to_vec()) })
    }
}

fn no_such(what: &str, at: usize) -> PyErr {
    exception(Error::value(format!("tasks: there is no {what} {at}")))
}

/// Lists of rows as slices, each of at least one of the data's rows.
fn checked_selections<'s>(selections: &'s [PyReadonlyArray1<'_, u32>], rows: usize) -> PyResult<Vec<&'s [u32]>> {
    let check = |selection: &'s PyReadonlyArray1<'_, u32>| {
        let selection = selection.as_slice().map_err(|_| exception(Error::value("selections: expected no gaps")))?;
        match selection.iter().max() {
            None => Err(exception(Error::expected("selections", "at least one row", "none"))),
            Some(&last) if last as usize >= rows => {
                Err(exception(Error::expected("selections", format!("rows in 0..{rows}"), last)))
            }
            Some(_) => Ok(selection),
        }
    };
    selections.iter().map(check).collect()
}

/// What decides whether targets fit a network.
fn kind(network: &Network) -> (Loss, usize) {
    match &*network.inner {
        Any::F32(model) => (model.net.loss.clone(), model.net.outputs()),
        Any::F64(model) => (model.net.loss.clone(), model.net.outputs()),
    }
}

/// The targets, held; all networks that have the same ones have the same loss and as many outputs.
fn labels<'py>(
    tasks: &[Task<'py>],
    networks: &[PyRefMut<'py, Network>],
    targets: &[Bound<'py, PyAny>],
) -> PyResult<Vec<Labels<'py>>> {
    if let Some(task) = tasks.iter().find(|task| task.2 >= targets.len()) {
        return Err(no_such("target", task.2));
    }
    let of_target = |(at, target): (usize, &Bound<'py, PyAny>)| {
        let mut users = networks.iter().zip(tasks).filter(|(_, task)| task.2 == at).map(|(network, _)| network);
        let first = users.next().ok_or_else(|| exception(Error::expected("targets", "a network for each", "none")))?;
        if users.any(|network| kind(network) != kind(first)) {
            return Err(exception(Error::value("targets: expected networks of one loss and width")));
        }
        match &*first.inner {
            Any::F32(model) => Labels::new(&model.net, target),
            Any::F64(model) => Labels::new(&model.net, target),
        }
    };
    targets.iter().enumerate().map(of_target).collect()
}

/// Checks the data for every network; its numbers once for each kind of network.
fn check(jobs: &[Job<'_, '_>], targets: &[usize], x: &Matrix<'_>, threads: Option<usize>) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for (job, target) in jobs.iter().zip(targets) {
        let loss = match &job.network {
            Trainee::F32(network) => &network.loss,
            Trainee::F64(network) => &network.loss,
        };
        if *loss == Loss::Custom {
            return Err(Error::expected("loss", "one of the core's own, for many networks", "a function"));
        }
        match &job.network {
            Trainee::F32(network) if seen.insert((*target, false, network.features())) => {
                inputs::check_data(network, x, job.y, threads)?;
            }
            Trainee::F64(network) if seen.insert((*target, true, network.features())) => {
                inputs::check_data(network, x, job.y, threads)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The settings of a fit, by the names of `Network.fit`'s arguments.
fn options_of(settings: &Bound<'_, PyDict>) -> PyResult<Options<'static>> {
    let get = |name: &str| {
        let missing = || exception(Error::expected("settings", name, "none"));
        settings.get_item(name)?.ok_or_else(missing)
    };
    let (name, parameters): (String, Bound<'_, PyDict>) = get("optimizer")?.extract()?;
    let options = Options {
        epochs: get("epochs")?.extract()?,
        batch_size: settings::check_batch(get("batch_size")?.extract()?).map_err(exception)?,
        optimizer: settings::parse_optimizer(&name, &parameters)?,
        penalty: settings::as_penalty(get("penalty")?.extract()?),
        clip_value: get("clip_value")?.extract::<Option<f64>>()?.unwrap_or(f64::INFINITY),
        clip_norm: get("clip_norm")?.extract::<Option<f64>>()?.unwrap_or(f64::INFINITY),
        average: get("average")?.extract()?,
        muon: settings::parse_muon(&parameters)?,
        loss_scale: get("loss_scale")?.extract()?,
        weights: None,
        rows: None,
        shuffle: get("shuffle")?.extract()?,
        seed: get("seed")?.extract()?,
        threads: Some(1),
        report_every: 0,
        stretch: Stretch::WHOLE,
    };
    settings::check_options(&options).map_err(exception)?;
    Ok(options)
}

/// The interpreter, as the audience: signals stop the call, a callable hears of every network.
struct Listener {
    report: Py<PyAny>,
    raised: Option<PyErr>,
}

impl Listener {
    fn keep(&mut self, result: PyResult<()>) -> Result<(), Error> {
        result.map_err(|error| {
            self.raised = Some(error);
            Error::Interrupted
        })
    }

    fn settle(self, result: Result<(), Error>) -> PyResult<()> {
        result.map_err(|error| match (error, self.raised) {
            (Error::Interrupted, Some(raised)) => raised,
            (error, _) => exception(error),
        })
    }

    fn tell(&self, py: Python<'_>, finished: Finished) -> PyResult<()> {
        let Finished { job, seconds, outcome } = finished;
        let (losses, error, held_out) = match outcome {
            Ok((losses, held_out)) => (Some(losses.into_pyarray(py)), None, held_out),
            Err(error) => (None, Some(exception(error)), None),
        };
        let (loss, outputs) = held_out.map(|HeldOut { loss, outputs }| (loss, plain(py, outputs))).unzip();
        self.report.call1(py, (job, seconds, losses, error, loss, outputs)).map(|_| ())
    }
}

/// Outputs row after row, `(rows n[L],)`.
fn plain(py: Python<'_>, outputs: Outputs) -> Bound<'_, PyAny> {
    match outputs {
        Outputs::F32(numbers) => numbers.into_pyarray(py).into_any(),
        Outputs::F64(numbers) => numbers.into_pyarray(py).into_any(),
    }
}

impl Audience for Listener {
    fn poll(&mut self) -> Result<(), Error> {
        let result = Python::attach(|py| py.check_signals());
        self.keep(result)
    }

    fn finished(&mut self, finished: Finished) -> Result<(), Error> {
        let result = Python::attach(|py| self.tell(py, finished));
        self.keep(result)
    }
}
