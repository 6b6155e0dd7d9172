//! What every worker does between two barriers, phase by phase.

use super::{Options, Phase, Run, State, ratio, read, write};
use crate::data::Selection;
use crate::error::Error;
use crate::kernels::{Number, SAMPLE_SEGMENT, Shrink, StepKernels};
use crate::step::gradient::{self, Group};
use crate::step::run::Finishing;
use crate::step::share::{self, Sharing, Stage};
use crate::step::weights::Weights;
use crate::step::{Draw, Slice, route};
use crate::threads::Team;
use crate::train::amendments::Amendments;
use crate::train::exchange::Losses;
use crate::train::{Host, Poller, lock};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

impl<T: Number> Run<'_, '_, '_, T> {
    /// Gather, forward, loss and backward data, slice by slice; or the part of these that is a phase of its own. The network's
    /// kernels compute it, or what stands before them.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn samples(
        &self,
        kernels: &dyn StepKernels<T>,
        team: &Team,
        worker: usize,
        phase: Phase,
        state: State<T>,
        poller: &mut Poller,
        host: &Mutex<&mut dyn Host>,
    ) {
        let gathers = match phase {
            Phase::Samples(stretch) => stretch == 0,
            // The slices of a batch's only group still hold what backward reads.
            _ => state.group_rows < state.rows,
        };
        let reading = self.network.arena.read();
        let from = Weights::of(&reading, kernels);
        let order = &self.order().rows;
        let slices = self.plan.slices(state.group_rows);
        let share = |w: usize| if w == team.size() { slices } else { w * slices / team.size() };
        while let Some(i) = self.slice_claims.next(worker, team.size(), share) {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let slice = &mut *self.buffers.slices.write(i);
            slice.walk_from(i, slices);
            let begin = i * self.plan.slice_rows;
            let rows = self.plan.slice_rows.min(state.group_rows - begin);
            let first = state.batch + state.group + begin;
            let selection =
                if order.is_empty() { Selection::From(first) } else { Selection::Rows(&order[first..first + rows]) };
            if gathers && !self.gathered.load(Ordering::Relaxed) {
                slice.gather(self.network, self.x, selection, rows);
                slice.gather_targets(self.y, selection);
            }
            if gathers {
                slice.trains(state.group + begin, Draw { seed: self.options.seed, step: state.step });
            }
            match (phase, &self.sharing) {
                (Phase::Samples(stage), Some(sharing)) => {
                    if let Stage::Alone(items) = &sharing.stages[stage] {
                        let loss = |slice: &mut Slice<T>| self.loss(kernels, slice, selection, state);
                        share::alone(self.network, from, slice, items.clone(), loss);
                    }
                }
                (Phase::Samples(stretch), None) => route::stretch(self.network, from, slice, stretch, |slice| {
                    if self.exchange.is_none() {
                        self.loss(kernels, slice, selection, state);
                    }
                    self.exchange.is_none()
                }),
                _ => {
                    if gathers {
                        route::stretch(self.network, from, slice, 0, |_| false);
                    }
                    self.own_gradient(slice, selection, state, state.group + begin);
                    route::back(self.network, from, slice);
                }
            }
            if worker == 0
                && let Err(error) = poller.poll(self.slice_work, host)
            {
                self.fail(error);
            }
        }
        if let (Some(shared), Phase::Samples(0), 0) = (&self.shared_penalty, phase, state.group) {
            shared.measure(self.network, from.weights, team, worker);
        }
        // Also where others took all slices.
        if worker == 0
            && let Err(error) = poller.poll(self.slice_work, host)
        {
            self.fail(error);
        }
    }

    /// The product that is item `item` of the way of the batch's only slice, panel by panel.
    pub(super) fn share(
        &self,
        team: &Team,
        worker: usize,
        (sharing, item): (&Sharing<T>, usize),
        scratch: &mut [T],
        poller: &mut Poller,
        host: &Mutex<&mut dyn Host>,
    ) {
        let reading = self.network.arena.read();
        let (from, slices) = (Weights::of(&reading, self.network.kernels), self.buffers.slices.read());
        sharing.work(self.network, from, slices.get(0), item, (team, worker), scratch);
        if worker == 0
            && let Err(error) = poller.poll(self.slice_work, host)
        {
            self.fail(error);
        }
    }

    /// The loss of a slice's rows and its gradient.
    fn loss(&self, kernels: &dyn StepKernels<T>, slice: &mut Slice<T>, selection: Selection<'_>, state: State<T>) {
        let of = (&self.network.loss, kernels);
        let scale = self.options.loss_scale;
        let of_gradient = self.scikit.map_or(scale, |scikit| scikit.gradient_scale);
        match self.options.weights {
            None => slice.loss(of, self.y, T::from_f64(scale), T::from_f64(of_gradient / state.weight)),
            Some(weights) => {
                let factor = |i| T::from_f64(ratio(of_gradient * weights[selection.row(i)], state.weight));
                slice.weighted_loss(of, self.y, T::from_f64(scale), factor);
            }
        }
    }

    /// dZ[L] of a slice whose first row is the batch's `at`th, from the host's gradient.
    fn own_gradient(&self, slice: &mut Slice<T>, selection: Selection<'_>, state: State<T>, at: usize) {
        let exchange = read(self.exchange.as_ref().expect("the host's loss"));
        let n = exchange.outputs;
        let gradient = &exchange.gradient[at * n..(at + slice.rows()) * n];
        match exchange.losses {
            Losses::Batch(_) => slice.set_delta(gradient, |_| T::ONE),
            Losses::Rows(_) => {
                let weight = |i| self.options.weights.map_or(1.0, |weights| weights[selection.row(i)]);
                slice.set_delta(gradient, |i| T::from_f64(ratio(weight(i), state.weight)));
            }
        }
    }

    /// The host's loss of the whole batch, on the caller's thread.
    pub(super) fn ask(&self, worker: usize, host: &Mutex<&mut dyn Host>) {
        if worker != 0 || self.stop.load(Ordering::Relaxed) {
            return;
        }
        let mut exchange = write(self.exchange.as_ref().expect("the host's loss"));
        let asked = self.hosting(|| lock(host).loss(exchange.typed()));
        let (numbers, rows) = (exchange.logits.len(), exchange.rows());
        let fits = exchange.gradient.len() == numbers
            && !matches!(&exchange.losses, Losses::Rows(losses) if losses.len() != rows);
        let refused = || Error::expected("loss", "a gradient of the logits' shape and a value a row or one", "others");
        if let Err(error) = asked.and(if fits { Ok(()) } else { Err(refused()) }) {
            self.fail(error);
        }
    }

    /// The next epoch's order, on the caller's thread.
    pub(super) fn turn(&self, worker: usize, host: &Mutex<&mut dyn Host>) {
        if worker != 0 {
            return;
        }
        let loss = lock(&self.books).losses.last().copied().unwrap_or(f64::NAN);
        let order = &mut *write(&self.order);
        match self.hosting(|| lock(host).turn(loss, &mut order.rows)) {
            Ok(rate) => lock(&self.books).turned = rate,
            Err(error) => self.fail(error),
        }
        if let Some(&row) = order.rows.iter().find(|&&row| row as usize >= self.x.rows()) {
            self.fail(Error::expected("order", format!("rows below {}", self.x.rows()), row));
        }
    }

    /// Gradient and update, job by job.
    pub(super) fn weights(
        &self,
        kernels: &dyn StepKernels<T>,
        team: &Team,
        worker: usize,
        state: State<T>,
        scratch: &mut [T],
    ) {
        let last = state.group + state.group_rows == state.rows;
        let amend = self.amendments.in_weights();
        let how = Finishing {
            goes_on: state.group > 0,
            rule: state.rule.filter(|_| last),
            shrink: self.shrink(true, state),
            shrink_biases: self.shrink(self.options.penalty.biases, state),
        };
        let besides = if last && self.amendments.amends_weights() { Some(&amend) } else { None };
        let slices = self.buffers.slices.read();
        let group = Group {
            kernels,
            slices: &slices,
            used: self.plan.slices(state.group_rows),
            per_segment: if state.rows <= SAMPLE_SEGMENT { usize::MAX } else { SAMPLE_SEGMENT / self.plan.slice_rows },
        };
        let share = |w: usize| self.network.share(w, team.size());
        while let Some(claim) = self.job_claims.next(worker, team.size(), share) {
            gradient::job(self.network, self.network.order[claim], &group, how, besides, scratch);
        }
    }

    /// The update that had to wait, or the constraint, job by job.
    pub(super) fn amend(&self, team: &Team, worker: usize, phase: Phase, state: State<T>) {
        let shrink = |penalised| Amendments::shrink_of_update(self.shrink(penalised, state));
        self.amendments.with_amend(phase, |amend| {
            let how = Finishing {
                goes_on: true,
                rule: state.rule.filter(|_| phase == Phase::Update),
                shrink: shrink(true),
                shrink_biases: shrink(self.options.penalty.biases),
            };
            let share = |w: usize| self.network.share(w, team.size());
            while let Some(claim) = self.job_claims.next(worker, team.size(), share) {
                gradient::amend(self.network, self.network.order[claim], how, amend);
            }
        });
    }

    /// What is done to weights, or to biases, besides the rule.
    pub(super) fn shrink(&self, penalised: bool, state: State<T>) -> Shrink<T> {
        let Options { penalty, clip_value, .. } = *self.options;
        let clip = T::from_f64(clip_value);
        if let (true, Some(scikit)) = (penalised, self.scikit) {
            Shrink { l2: T::from_f64(ratio(scikit.alpha, state.weight)), ..Shrink::NONE }
        } else if penalised {
            Shrink { l1: T::from_f64(penalty.l1), l2: T::from_f64(penalty.l2), clip, keep: state.keep }
        } else {
            Shrink { clip, ..Shrink::NONE }
        }
    }

    /// Worker 0 tells the host of an epoch; the others need not wait.
    pub(super) fn report(&self, host: &Mutex<&mut dyn Host>) {
        if self.options.report_every == 0 {
            return;
        }
        let report = lock(&self.books).report.take();
        if let Some((epoch, loss)) = report
            && let Err(error) = self.hosting(|| lock(host).report(epoch, loss))
        {
            self.fail(error);
        }
    }
}
