//! What couples all weights of a step: clipping by the gradient's norm, Muon's directions, max-norm constraints; and the
//! average of weights.
//!
//! Owns the buffers and the bookkeeping of the phases that come after the weights' gradient where one of these is asked
//! for, and says which they are. A plain step has none of them.

use super::LOSSES_AT_ONCE;
use super::lock;
use super::options::Options;
use super::phase::Phase;
use crate::error::Error;
use crate::kernels::{Number, Of, Shrink};
use crate::network::{FIRST, GRADIENT, Network, Norms, WEIGHTS};
use crate::step::amend::Amend;
use crate::step::measure::{Measures, strided_total};
use crate::step::muon::{Directions, Muon};
use crate::threads::{Claims, Team};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Added to a gradient's norm before it is divided by, as in PyTorch's `clip_grad_norm_`.
const GRADIENT_EPSILON: f64 = 1e-6;
/// Added to the length of weights that exceed their limit, as in PyTorch's `renorm`.
const LENGTH_EPSILON: f64 = 1e-7;

/// The options of a run and what they need.
pub(super) struct Amendments<T: Number> {
    clip_norm: f64,
    /// Whether penalties or clipping by value change a gradient in memory.
    penalises: bool,
    measures: Option<Measures<T>>,
    muon: Option<(Muon, Directions<T>)>,
    constrains: bool,
    /// Muon's learning rate in this step, as bits.
    rate: AtomicU64,
    /// One minus the average's decay.
    average: Option<T>,
    claims: Claims,
    /// What this step's gradient is multiplied by, as bits.
    factor: AtomicU64,
    /// Whether any output's weights are too long in this step.
    shortens: AtomicBool,
    norms: Mutex<Norms>,
}

impl<T: Number> Amendments<T> {
    /// What `options` ask for; nothing where a run makes no updates.
    pub fn new(
        network: &mut Network<T>,
        kept: &mut Option<Directions<T>>,
        options: &Options,
        threads: usize,
        updates: bool,
    ) -> Result<Self, Error> {
        let clips = updates && options.clip_norm < f64::INFINITY;
        let constrains = updates && network.max_norms.iter().any(|&limit| limit < f64::INFINITY);
        let average = options.average.filter(|_| updates);
        if average.is_some() {
            network.prepare_average()?;
        }
        let measures = if clips || constrains { Some(Measures::new(network)?) } else { None };
        let muon = match options.muon.filter(|_| updates) {
            Some(muon) => Some((muon, Directions::of(network, &muon, kept.take())?)),
            None => None,
        };
        let mut norms = std::mem::take(&mut network.gradient_norms);
        if options.stretch.begin.row == 0 {
            // Of an epoch that was never finished.
            (norms.sum, norms.steps) = (0.0, 0);
        }
        norms.epochs.reserve(if clips { options.epochs.min(LOSSES_AT_ONCE) } else { 0 });
        Ok(Amendments {
            clip_norm: options.clip_norm,
            penalises: options.penalty.l1 != 0.0 || options.penalty.l2 != 0.0 || options.clip_value < f64::INFINITY,
            measures,
            muon,
            constrains,
            rate: AtomicU64::new(options.muon.map_or(0.0, |muon| muon.learning_rate).to_bits()),
            average: average.map(|decay| T::from_f64(1.0 - decay)),
            claims: Claims::new(threads),
            factor: AtomicU64::new(1.0f64.to_bits()),
            shortens: AtomicBool::new(false),
            norms: Mutex::new(norms),
        })
    }

    fn clips(&self) -> bool {
        self.measures.is_some() && self.clip_norm < f64::INFINITY
    }

    /// Whether the whole gradient has to be in memory before the update.
    pub fn splits(&self) -> bool {
        self.clips() || self.muon.is_some()
    }

    /// Whether a step is a plain one.
    pub fn is_nothing(&self) -> bool {
        !self.splits() && !self.constrains && self.average.is_none()
    }

    /// The phase after `phase` of a step whose gradient is complete; `None` where the step is done.
    pub fn following(&self, phase: Phase) -> Option<Phase> {
        if !self.splits() && !self.constrains {
            return None;
        }
        let next = match phase {
            Phase::Samples(_) | Phase::Asking | Phase::Returning => Phase::Weights,
            Phase::Weights => Phase::Norm,
            Phase::Norm => Phase::Directions,
            Phase::Directions => Phase::Update,
            Phase::Update => Phase::Lengths,
            Phase::Lengths => Phase::Constraint,
            Phase::Constraint | Phase::Turning => return None,
        };
        let wanted = match next {
            Phase::Samples(_) | Phase::Asking | Phase::Returning | Phase::Weights | Phase::Turning => true,
            Phase::Norm => self.clips(),
            Phase::Directions => self.muon.is_some(),
            Phase::Update => self.splits(),
            Phase::Lengths => self.constrains,
            Phase::Constraint => self.constrains && (self.average.is_some() || self.shortens.load(Ordering::Relaxed)),
        };
        if wanted { Some(next) } else { self.following(next) }
    }

    /// What [`Phase::Weights`] does besides with the batch's last group.
    pub fn in_weights(&self) -> Amend<'_, T> {
        let splits = self.splits();
        let average = self.average.filter(|_| !splits && !self.constrains);
        Amend { penalises: splits && self.penalises, average, ..Amend::nothing() }
    }

    /// Whether [`in_weights`](Self::in_weights) is more than nothing.
    pub fn amends_weights(&self) -> bool {
        (self.splits() && self.penalises) || (self.average.is_some() && !self.splits() && !self.constrains)
    }

    /// [`Phase::Update`] and [`Phase::Constraint`], with `amend`'s help, on the jobs that it is called with.
    pub fn with_amend(&self, phase: Phase, work: impl FnOnce(&Amend<'_, T>)) {
        let average = self.average.filter(|_| !self.constrains || phase == Phase::Constraint);
        let nothing = Amend::nothing();
        if phase == Phase::Constraint {
            let measured = self.measures.as_ref().expect("a constraint measures").read();
            return work(&Amend { lengths: Some(&measured), average, ..nothing });
        }
        let factor = self.factor();
        match &self.muon {
            None => work(&Amend { factor, average, ..nothing }),
            Some((muon, directions)) => {
                let reading = directions.layers.read();
                let learning_rate = f64::from_bits(self.rate.load(Ordering::Relaxed));
                let muon = Muon { learning_rate, ..*muon };
                work(&Amend { factor, average, directions: Some((&muon, &reading)), ..nothing });
            }
        }
    }

    /// What is left of a shrink for [`Phase::Update`], whose gradient has its penalties.
    pub fn shrink_of_update(shrink: Shrink<T>) -> Shrink<T> {
        Shrink { keep: shrink.keep, ..Shrink::NONE }
    }

    /// From now on this is Muon's learning rate.
    pub fn set_rate(&self, rate: f64) {
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    fn factor(&self) -> T {
        T::from_f64(f64::from_bits(self.factor.load(Ordering::Relaxed)))
    }

    /// [`Phase::Norm`] and [`Phase::Lengths`]: sums of squares of the gradient; factors of the weights.
    pub fn measure(&self, network: &Network<T>, phase: Phase, team: &Team, worker: usize) {
        let measures = self.measures.as_ref().expect("this phase measures");
        let reading = network.arena.read();
        let share = |w: usize| w * measures.units() / team.size();
        while let Some(unit) = self.claims.next(worker, team.size(), share) {
            if phase == Phase::Norm {
                measures.measure(network, unit, Of::Squares, reading.buffer(GRADIENT), |_, sum| sum);
            } else {
                let factor = |layer: usize, sum: T| length_factor(sum, network.max_norms[layer]);
                measures.measure(network, unit, Of::Squares, reading.buffer(WEIGHTS), factor);
            }
        }
    }

    /// [`Phase::Directions`], layer by layer.
    pub fn direct(&self, network: &Network<T>, team: &Team, worker: usize) {
        let (muon, directions) = self.muon.as_ref().expect("this phase is Muon's");
        let reading = network.arena.read();
        // One queue: the most work is begun first.
        let share = |w: usize| if w == 0 { 0 } else { directions.order.len() };
        while let Some(claim) = self.claims.next(worker, team.size(), share) {
            let l = directions.order[claim];
            let mut direction = directions.layers.write(l);
            let (gradient, momentum) = (reading.buffer(GRADIENT), reading.buffer(FIRST));
            direction.compute(network, l, muon, gradient, momentum, self.factor());
        }
    }

    /// The last worker's bookkeeping after one of these phases.
    ///
    /// # Errors
    /// The layer, from 1, whose gradient is not finite.
    pub fn finish(&self, network: &Network<T>, phase: Phase) -> Result<(), usize> {
        self.claims.reset();
        match phase {
            Phase::Norm => self.finish_norm(network),
            Phase::Lengths => {
                let measured = self.measures.as_ref().expect("this phase measures").read();
                let is_long = |l: usize| measured.layer(l)[..network.layers[l].outputs].iter().any(|&x| x != T::ONE);
                let shortens = (0..network.layers.len()).any(is_long);
                self.shortens.store(shortens, Ordering::Relaxed);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The norm over all layers, and the factor that clips it.
    fn finish_norm(&self, network: &Network<T>) -> Result<(), usize> {
        let measured = self.measures.as_ref().expect("this phase measures").read();
        let reading = network.arena.read();
        let (gradient, mut total) = (reading.buffer(GRADIENT), 0.0);
        for (l, layer) in network.layers.iter().enumerate() {
            let sums = measured.layer(l)[..layer.outputs].iter();
            total += strided_total(sums.map(|sum| sum.to_f64()));
            let square = |at: usize| gradient[at].to_f64() * gradient[at].to_f64();
            total += strided_total((0..layer.outputs).map(|j| square(layer.bias(j))));
            // Gamma, then beta.
            for begin in layer.affine().step_by(layer.padded_outputs()) {
                total += strided_total((0..layer.outputs).map(|j| square(begin + j)));
            }
            if !total.is_finite() {
                return Err(l + 1);
            }
        }
        let norm = total.sqrt();
        let factor = (self.clip_norm / (norm + GRADIENT_EPSILON)).min(1.0);
        self.factor.store(factor.to_bits(), Ordering::Relaxed);
        let mut norms = lock(&self.norms);
        norms.sum += norm;
        norms.steps += 1;
        Ok(())
    }

    /// Closes an epoch's mean of norms.
    pub fn end_epoch(&self) {
        if self.clips() {
            let mut norms = lock(&self.norms);
            let mean = norms.sum / norms.steps as f64;
            norms.epochs.push(mean);
            (norms.sum, norms.steps) = (0.0, 0);
        }
    }

    /// The norms, and what can be kept for the next run.
    pub fn settle(self) -> (Norms, Option<Directions<T>>) {
        let norms = self.norms.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        (norms, self.muon.map(|(_, directions)| directions))
    }
}

/// What weights whose squares have this sum are multiplied by to be no longer than `limit`.
fn length_factor<T: Number>(sum: T, limit: f64) -> T {
    let (length, limit) = (sum.sqrt(), T::from_f64(limit));
    if length > limit { limit / (length + T::from_f64(LENGTH_EPSILON)) } else { T::ONE }
}
