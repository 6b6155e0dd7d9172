//! Steps of a small network on one thread: one is made and its kernel calls written down, the further ones are those calls.
//!
//! Does what the phases and the transitions between them do in a plain step, with the same bits; whatever is not plain is left to
//! them.

use super::{Phase, Run, State, ratio};
use crate::data::Selection;
use crate::kernels::{Calls, Number, Recorder, Script, Shrink};
use crate::network::Network;
use crate::plan::SLICE_ROWS;
use crate::threads::Team;
use crate::train::sums::StridedSum;
use crate::train::{Host, Poller, lock};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// Multiply-adds of a step's forward beyond which working out the calls is a small part of making them.
const SMALL_WORK: usize = 1 << 19;
/// Steps that are worth writing one down.
const LEAST_STEPS: usize = 3;

/// Room for the calls of the samples' way and of the weights' update.
pub(super) type Room<T> = [Calls<T>; 2];

impl<T: Number> Run<'_, '_, '_, T> {
    /// Whether its steps are plain ones of a small network, on one thread and in one slice.
    pub(super) fn is_small(&self) -> bool {
        let Network { layers, pair_kernels, .. } = self.network;
        let batch = self.options.batch_size.min(self.n_rows());
        let work = self.network.n_parameters().saturating_mul(batch);
        let alone = self.plan.threads == 1 && self.sharing.is_none() && batch <= self.plan.slice_rows.min(SLICE_ROWS);
        let plain =
            self.updates && self.amendments.is_nothing() && self.penalty.is_none() && self.options.weights.is_none();
        let layers = pair_kernels.is_none() && layers.iter().all(|layer| layer.is_plain());
        // Decoupled decay goes with the rate: with one of its own, each step is different.
        let alike = self.options.optimizer.weight_decay == 0.0 || self.options.stretch.rates.is_none();
        alone && plain && layers && alike && work <= SMALL_WORK && self.exchange.is_none()
    }

    /// Whether the batch that begins has followers enough that are as large.
    pub(super) fn is_worth_writing(&self, state: State<T>) -> bool {
        let (all, stretch) = (self.n_rows(), &self.options.stretch);
        let full = state.phase == Some(Phase::Samples(0)) && state.rows == self.options.batch_size.min(all);
        let of_epoch = (all - state.batch) / state.rows;
        let epochs = if self.turns || !all.is_multiple_of(state.rows) { 1 } else { self.options.epochs - state.epoch };
        let stretch = stretch.steps.map_or(usize::MAX, |steps| steps.try_into().unwrap_or(usize::MAX));
        full && of_epoch.saturating_mul(epochs).min(stretch) >= LEAST_STEPS
    }

    /// Makes the step that begins, and further ones for as long as they have the same calls; returns where it stands then. Takes
    /// the room away where calls cannot be made again.
    pub(super) fn steps(
        &self,
        team: &Team,
        mut state: State<T>,
        room: &mut Option<Room<T>>,
        scratch: &mut [T],
        poller: &mut Poller,
        host: &Mutex<&mut dyn Host>,
    ) -> State<T> {
        let kernels = self.network.kernels;
        let mut calls = room.take().unwrap_or_default();
        let [of_samples, of_weights] = &mut calls;
        self.samples(&Recorder::new(kernels, of_samples), team, 0, Phase::Samples(0), state, poller, host);
        state = self.advance(Phase::Samples(0), state);
        if state.phase != Some(Phase::Weights) {
            return state;
        }
        let shrink = self.shrinks(state);
        self.weights(&Recorder::new(kernels, of_weights), team, 0, state, scratch);
        state = self.advance(Phase::Weights, state);
        self.report(host);
        let ended = {
            let (mut slice, mut arena) = (self.buffers.slices.write(0), self.network.arena.write_whole());
            let Some(mut memory) = slice.memory() else { return state };
            for numbers in arena.buffers().chain([scratch]) {
                if memory.others.try_push(numbers).is_err() {
                    return state;
                }
            }
            let Some(mut script) = Script::new(kernels, &calls, &self.network.loss, memory) else { return state };
            self.again(&mut script, state, shrink, poller, host)
        };
        *room = Some(calls);
        // Where a loss is not finite, what follows looks into the slice.
        ended.unwrap_or_else(|state| self.advance(Phase::Samples(0), state))
    }

    /// Makes the step that begins, and further ones, by the calls of the one before; returns where it stands then, as an error where
    /// that is after samples whose loss is not finite.
    fn again(
        &self,
        script: &mut Script<'_, T>,
        mut state: State<T>,
        shrink: [Shrink<T>; 2],
        poller: &mut Poller,
        host: &Mutex<&mut dyn Host>,
    ) -> Result<State<T>, State<T>> {
        while state.phase == Some(Phase::Samples(0)) && state.rows == script.input().rows() {
            let loss = self.pass(script, state).ok_or(state)?;
            if let Err(error) = poller.poll(self.slice_work, host) {
                self.fail(error);
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(State { phase: None, ..state });
            }
            state = self.enter(&mut lock(&self.books), loss, state);
            let Some(rule) = state.rule.filter(|_| self.shrinks(state) == shrink) else { break };
            script.learn(rule);
            state = self.advance(Phase::Weights, state);
            self.report(host);
        }
        Ok(state)
    }

    /// Gather, forward, loss and backward; returns the batch's loss, if that needs no looking into.
    fn pass(&self, script: &mut Script<'_, T>, state: State<T>) -> Option<f64> {
        if !self.gathered.load(Ordering::Relaxed) {
            let (order, first) = (&self.order().rows, state.batch);
            let places = first..first + state.rows;
            let selection = if order.is_empty() { Selection::From(first) } else { Selection::Rows(&order[places]) };
            self.x.gather_lanes(self.network.isa, selection, script.input());
            let (dense, classes) = script.targets();
            self.y.gather(selection, state.rows, dense, classes);
        }
        script.pass();
        let mut sum = StridedSum::new();
        sum.extend(script.losses());
        let loss = ratio(sum.total(), state.weight);
        (loss.is_finite() || self.scikit.is_some()).then_some(loss)
    }

    /// What is done to weights and to biases besides the rule.
    fn shrinks(&self, state: State<T>) -> [Shrink<T>; 2] {
        [self.shrink(true, state), self.shrink(self.options.penalty.biases, state)]
    }
}
