//! What Python's arguments say about a network and its training, and the checks of their numbers.

use super::exception;
use lamella::activation::Activation;
use lamella::error::Error;
use lamella::kernels::Norm;
use lamella::network::LayerSpec;
use lamella::step::muon::{Adjust, Muon};
use lamella::train::optimizer::{Kind, Moments, Optimizer};
use lamella::train::options::Options;
use lamella::train::penalty::Penalty;
use lamella::train::stretch::Stretch;
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::time::Duration;

/// Neither l1 nor l2.
pub(super) const NO_PENALTY: (f64, f64, bool) = (0.0, 0.0, false);

/// A layer as Python tells of it: units, activation and its parameter, whether it has biases, normalisation ("batch" or "layer",
/// epsilon, momentum), dropout, whether its input is added.
pub(super) type LayerTuple = (usize, String, f64, bool, Option<(String, f64, f64)>, f64, bool);

pub(super) fn layer_spec(
    (units, name, parameter, bias, norm, dropout, residual): LayerTuple,
) -> Result<LayerSpec, Error> {
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
pub(super) fn one_batch(
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

pub(super) fn check_seconds(seconds: Option<f64>) -> Result<Option<Duration>, Error> {
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
