//! Training: every worker runs the same loop, and the last to arrive at a barrier does the bookkeeping.
//!
//! A plain step has two phases. Each worker claims slices of the group's samples and takes them through gather,
//! forward, loss and backward data; barrier; each claims parts of the weights for gradient and update; barrier.
//! A batch of several groups adds its gradients up in memory and updates with the last. Nothing is
//! allocated after the first step.

use super::infer::{Penalty, StridedSum, penalty};
use super::optimizer::Optimizer;
use super::scikit::{Scikit, sum_of_squares};
use super::{Host, Poller, lock};
use crate::data::{Matrix, Selection};
use crate::error::Error;
use crate::kernels::{Number, Rule, SAMPLE_SEGMENT, Shrink};
use crate::network::{Form, GRADIENT, Network, Progress, WEIGHTS};
use crate::panel::{Buffer, Parts};
use crate::plan::{self, Plan};
use crate::rng;
use crate::step::backward::{self, Finishing, Group};
use crate::step::forward::Weights;
use crate::step::{Role, Slice, TargetData, forward};
use crate::threads::{self, Claims, Team};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock, RwLockReadGuard};

/// What is asked of a fit.
#[derive(Clone, Copy, Debug)]
pub struct Options<'o> {
    /// Passes over the data.
    pub epochs: usize,
    /// Rows of a batch; at most the data's.
    pub batch_size: usize,
    /// The rule.
    pub optimizer: Optimizer,
    /// Penalties on the weights.
    pub penalty: Penalty,
    /// The gradient of each weight and bias is held between minus and plus this; infinity for no limit.
    pub clip_value: f64,
    /// What a sample's loss is multiplied by.
    pub loss_scale: f64,
    /// What each sample counts in its batch's mean, finite and at least 0, one for each row; `None` for all the same. A batch
    /// whose weights are all 0 has the loss 0 and no gradient.
    pub weights: Option<&'o [f64]>,
    /// Whether batches are drawn anew in each epoch; a full batch keeps its order.
    pub shuffle: bool,
    /// Of the shuffle.
    pub seed: u64,
    /// Workers; `None` for as many as help.
    pub threads: Option<usize>,
    /// Epochs between reports; 0 for none.
    pub report_every: usize,
}

/// Trains; returns each epoch's loss, the mean over its rows before their updates.
///
/// # Errors
/// [`Error::Divergence`] where a loss is not finite, [`Error::Memory`], [`Error::Panic`], or what the host stopped the call
/// with. The weights are then those after the last finished step.
pub fn fit<T: Number>(
    network: &mut Network<T>,
    workspace: &mut Workspace<T>,
    x: &Matrix<'_>,
    y: &TargetData<'_>,
    options: &Options<'_>,
    host: &mut dyn Host,
) -> Result<Vec<f64>, Error> {
    options.optimizer.check()?;
    network.prepare_state(options.optimizer.state_name(), options.optimizer.states())?;
    // The counters belong to the state that the steps left, also where an error ended them.
    let (losses, progress) = Run::new(network, workspace, x, y, options, Task::UPDATES)?.execute(workspace, host);
    network.progress = progress;
    losses
}

/// One update on all rows as one batch, which is no epoch; returns the loss before it.
///
/// # Errors
/// As for [`fit`].
pub fn partial_fit<T: Number>(
    network: &mut Network<T>,
    workspace: &mut Workspace<T>,
    x: &Matrix<'_>,
    y: &TargetData<'_>,
    options: &Options<'_>,
    host: &mut dyn Host,
) -> Result<f64, Error> {
    let options = Options { epochs: 1, batch_size: x.rows(), report_every: 0, ..*options };
    let epochs = network.progress.epochs;
    let losses = fit(network, workspace, x, y, &options, host);
    network.progress.epochs = epochs;
    losses.map(|losses| losses[0])
}

/// The loss of all rows as one batch, its gradient left in the arena's [`GRADIENT`].
///
/// # Errors
/// As for [`fit`].
pub fn loss_and_gradient<T: Number>(
    network: &mut Network<T>,
    workspace: &mut Workspace<T>,
    x: &Matrix<'_>,
    y: &TargetData<'_>,
    options: &Options<'_>,
    host: &mut dyn Host,
) -> Result<f64, Error> {
    let options = Options { epochs: 1, batch_size: x.rows(), report_every: 0, ..*options };
    let (losses, _) = Run::new(network, workspace, x, y, &options, Task::GRADIENT)?.execute(workspace, host);
    let loss = losses?[0];
    add_penalty(network, options.penalty);
    Ok(loss)
}

/// Adds the penalty's gradient to the one in the arena, on the network's weights as the rules do it.
fn add_penalty<T: Number>(network: &mut Network<T>, Penalty { l1, l2, biases }: Penalty) {
    if l1 == 0.0 && l2 == 0.0 {
        return;
    }
    let (l1, l2) = (T::from_f64(l1), T::from_f64(l2));
    let weights = network.arena.buffer(WEIGHTS).to_vec();
    let layers = network.layers.clone();
    let gradient = network.arena.buffer(GRADIENT);
    let sign = |w: T| {
        if w > T::ZERO {
            T::ONE
        } else if w < T::ZERO {
            -T::ONE
        } else {
            T::ZERO
        }
    };
    let mut add = |at: usize| gradient[at] = l1.mul_add(sign(weights[at]), l2.mul_add(weights[at], gradient[at]));
    for layer in &layers {
        for j in 0..layer.outputs {
            (0..layer.inputs).for_each(|i| add(layer.weight(j, i)));
            if biases {
                add(layer.bias(j));
            }
        }
    }
}

/// A training's buffers, kept from call to call of one network, so that a call on few rows costs little more than its steps.
/// Their memory is the largest batch's, and is given back with the network.
pub struct Workspace<T>(Option<Buffers<T>>);

impl<T> Workspace<T> {
    /// Nothing yet.
    pub fn new() -> Self {
        Workspace(None)
    }
}

impl<T> Default for Workspace<T> {
    fn default() -> Self {
        Workspace::new()
    }
}

struct Buffers<T> {
    slices: Parts<Slice<T>>,
    /// A block of gradient for each worker.
    scratch: Parts<Buffer<T>>,
}

impl<T: Number> Buffers<T> {
    /// Those that were kept, or larger ones: `slices` of `rows` rows and scratch for `threads` workers.
    fn of(
        network: &Network<T>,
        kept: &mut Workspace<T>,
        slices: usize,
        rows: usize,
        role: Role,
        threads: usize,
    ) -> Result<Self, Error> {
        if let Some(kept) = kept.0.take()
            && kept.slices.len() >= slices
            && kept.scratch.len() >= threads
            && kept.slices.read().get(0).serves(rows, role)
        {
            return Ok(kept);
        }
        let panel = network.geometry.panel();
        let block = || Buffer::zeroed((panel + 1) * panel, "worker: its scratch");
        let slices = (0..slices).map(|_| Slice::new(network, rows, role)).collect::<Result<_, _>>()?;
        let scratch = (0..threads).map(|_| block()).collect::<Result<_, _>>()?;
        Ok(Buffers { slices: Parts::new(slices), scratch: Parts::new(scratch) })
    }
}

/// Bytes of a batch in two forms up to which they are kept: what a last cache holds, beside the weights. Beyond it, turning
/// the batch anew in each step costs less than reading twice as much from memory.
const BOTH_FORMS: usize = 24 << 20;
/// Losses that there is room for from the start: more epochs than that make room as they go.
const LOSSES_AT_ONCE: usize = 1 << 16;

/// Where the loop stands: the same for all workers between two barriers.
#[derive(Clone, Copy)]
struct State<T> {
    epoch: usize,
    /// The batch's first row in the order, and its rows.
    batch: usize,
    rows: usize,
    /// What the batch counts in its epoch: the sum of its rows' weights, or their number.
    weight: f64,
    /// The group's first row in the batch, and its rows.
    group: usize,
    group_rows: usize,
    /// This step's rule; `None` leaves the gradient in the arena.
    rule: Option<Rule<T>>,
    /// What is done next; `None` when all is done.
    phase: Option<Phase>,
}

/// What all workers do between two barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Slices of the samples are taken from one point where samples couple to the next: gather, forward, loss, backward.
    Samples,
    /// Parts of the weights get their gradient and, with the batch's last group, their update.
    Weights,
}

/// Numbers that only the last to arrive at a barrier touches.
struct Books {
    progress: Progress,
    batch_loss: StridedSum,
    epoch_loss: f64,
    /// The sum of the epoch's batches' weights.
    epoch_weight: f64,
    last_loss: f64,
    losses: Vec<f64>,
    report: Option<(usize, f64)>,
    outcome: Result<(), Error>,
}

/// What a run is for.
#[derive(Clone, Copy)]
pub(super) struct Task<'o> {
    /// Whether weights are updated, or else the gradient is left in the arena.
    pub updates: bool,
    /// Which rows an epoch takes, in which order; by default all, as the options say.
    pub order: Option<&'o [u32]>,
    /// Whose conventions are followed, where they are not this crate's.
    pub scikit: Option<Scikit>,
}

impl Task<'_> {
    const UPDATES: Self = Task { updates: true, order: None, scikit: None };
    const GRADIENT: Self = Task { updates: false, ..Self::UPDATES };
}

pub(super) struct Run<'r, 'x, 'y, T: Number> {
    network: &'r Network<T>,
    x: &'r Matrix<'x>,
    y: &'r TargetData<'y>,
    options: &'r Options<'r>,
    plan: Plan,
    updates: bool,
    scikit: Option<Scikit>,
    /// Of an epoch.
    rows: usize,
    buffers: Buffers<T>,
    order: RwLock<Vec<u32>>,
    /// Whether the slices hold the whole data for good.
    gathered: AtomicBool,
    state: RwLock<State<T>>,
    books: Mutex<Books>,
    slice_claims: Claims,
    job_claims: Claims,
    stop: AtomicBool,
    slice_work: f64,
}

impl<'r, 'x, 'y, T: Number> Run<'r, 'x, 'y, T> {
    pub(super) fn new(
        network: &'r mut Network<T>,
        workspace: &mut Workspace<T>,
        x: &'r Matrix<'x>,
        y: &'r TargetData<'y>,
        options: &'r Options<'r>,
        Task { updates, order, scikit }: Task<'_>,
    ) -> Result<Self, Error> {
        let epoch_rows = order.map_or(x.rows(), <[u32]>::len);
        let batch = options.batch_size.min(epoch_rows);
        let steps = options.epochs as f64 * epoch_rows.div_ceil(batch) as f64;
        let plan = plan::training(network, batch, steps, options.threads);
        if batch > plan.group_rows || !updates {
            network.arena.materialise(GRADIENT, WEIGHTS, "network: its gradient")?;
        } else {
            network.arena.release(GRADIENT);
        }
        let slices = plan.group_rows.min(batch).div_ceil(plan.slice_rows);
        let rows = plan.slice_rows.min(batch);
        let whole = batch == x.rows() && batch <= plan.group_rows;
        let both_forms = 2 * batch.saturating_mul(network.features()).saturating_mul(size_of::<T>());
        let turns = network.layers[0].form == Form::Narrow;
        let stays = turns && whole && steps > 1.0 && both_forms <= BOTH_FORMS;
        let role = if stays { Role::LearnsTheSameRows } else { Role::Learns };
        let buffers = Buffers::of(network, workspace, slices, rows, role, plan.threads)?;
        let shuffles = options.shuffle && batch < x.rows();
        let order = order.map_or_else(|| vec![0; if shuffles { x.rows() } else { 0 }], <[u32]>::to_vec);
        let state =
            State { epoch: 0, batch: 0, rows: 0, weight: 0.0, group: 0, group_rows: 0, rule: None, phase: None };
        let books = Books {
            progress: network.progress,
            batch_loss: StridedSum::new(),
            epoch_loss: 0.0,
            epoch_weight: 0.0,
            last_loss: 0.0,
            losses: Vec::with_capacity(options.epochs.min(LOSSES_AT_ONCE)),
            report: None,
            outcome: Ok(()),
        };
        let run = Run {
            slice_work: 6.0 * (network.n_parameters() * rows) as f64,
            network,
            x,
            y,
            options,
            plan,
            updates,
            scikit,
            rows: epoch_rows,
            buffers,
            order: RwLock::new(order),
            gathered: AtomicBool::new(false),
            state: RwLock::new(state),
            books: Mutex::new(books),
            slice_claims: Claims::new(plan.threads),
            job_claims: Claims::new(plan.threads),
            stop: AtomicBool::new(false),
        };
        run.begin_epoch(0);
        Ok(run)
    }

    pub(super) fn execute(
        self,
        workspace: &mut Workspace<T>,
        host: &mut dyn Host,
    ) -> (Result<Vec<f64>, Error>, Progress) {
        let host = Mutex::new(host);
        let ran = threads::run(self.plan.threads, |team, worker| self.work(team, worker, &host));
        if ran.is_ok() {
            *workspace = Workspace(Some(self.buffers));
        }
        let books = self.books.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        (ran.and(books.outcome).map(|()| books.losses), books.progress)
    }

    fn state(&self) -> State<T> {
        *self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn set_state(&self, state: State<T>) {
        *self.state.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = state;
    }

    fn order(&self) -> RwLockReadGuard<'_, Vec<u32>> {
        self.order.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What every worker does.
    fn work(&self, team: &Team, worker: usize, host: &Mutex<&mut dyn Host>) {
        let mut scratch = self.buffers.scratch.write(worker);
        let mut poller = Poller::new();
        let mut state = self.state();
        while let Some(phase) = state.phase {
            match phase {
                Phase::Samples => self.samples(team, worker, state, &mut poller, host),
                Phase::Weights => self.weights(team, worker, state, &mut scratch),
            }
            if !team.barrier(|| self.advance(phase)) {
                return;
            }
            if worker == 0 && phase == Phase::Weights {
                self.report(host);
            }
            state = self.state();
        }
    }

    /// The last worker out of a phase decides on the next.
    fn advance(&self, phase: Phase) {
        match phase {
            Phase::Samples => self.after_samples(),
            Phase::Weights => self.after_weights(),
        }
    }

    /// Gather, forward, loss, backward data, slice by slice.
    fn samples(&self, team: &Team, worker: usize, state: State<T>, poller: &mut Poller, host: &Mutex<&mut dyn Host>) {
        let reading = self.network.arena.read();
        let from = Weights::of(&reading);
        let order = self.order();
        let slices = state.group_rows.div_ceil(self.plan.slice_rows);
        let share = |w: usize| w * slices / team.size();
        while let Some(i) = self.slice_claims.next(worker, team.size(), share) {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let slice = &mut *self.buffers.slices.write(i);
            let begin = i * self.plan.slice_rows;
            let rows = self.plan.slice_rows.min(state.group_rows - begin);
            let first = state.batch + state.group + begin;
            let selection =
                if order.is_empty() { Selection::From(first) } else { Selection::Rows(&order[first..first + rows]) };
            if !self.gathered.load(Ordering::Relaxed) {
                slice.gather(self.x, selection, rows);
                slice.gather_targets(self.y, selection);
            }
            forward::forward(self.network, from, slice);
            self.loss(slice, selection, state);
            backward::backward(self.network, from, slice);
            if worker == 0
                && let Err(error) = poller.poll(self.slice_work, host)
            {
                self.fail(error);
            }
        }
        // Also where others took all slices.
        if worker == 0
            && let Err(error) = poller.poll(self.slice_work, host)
        {
            self.fail(error);
        }
    }

    /// The loss of a slice's rows and its gradient.
    fn loss(&self, slice: &mut Slice<T>, selection: Selection<'_>, state: State<T>) {
        let scale = self.options.loss_scale;
        let of_gradient = self.scikit.map_or(scale, |scikit| scikit.gradient_scale);
        match self.options.weights {
            None => slice.loss(self.network, self.y, T::from_f64(scale), T::from_f64(of_gradient / state.weight)),
            Some(weights) => {
                let factor = |i| T::from_f64(ratio(of_gradient * weights[selection.row(i)], state.weight));
                slice.weighted_loss(self.network, self.y, T::from_f64(scale), factor);
            }
        }
    }

    /// Gradient and update, job by job.
    fn weights(&self, team: &Team, worker: usize, state: State<T>, scratch: &mut [T]) {
        let last = state.group + state.group_rows == state.rows;
        let how = Finishing {
            goes_on: state.group > 0,
            rule: state.rule.filter(|_| last),
            shrink: self.shrink(true, state),
            shrink_biases: self.shrink(self.options.penalty.biases, state),
        };
        let slices = self.buffers.slices.read();
        let group = Group {
            slices: &slices,
            used: state.group_rows.div_ceil(self.plan.slice_rows),
            per_segment: if state.rows <= SAMPLE_SEGMENT { usize::MAX } else { SAMPLE_SEGMENT / self.plan.slice_rows },
        };
        let share = |w: usize| self.network.share(w, team.size());
        while let Some(claim) = self.job_claims.next(worker, team.size(), share) {
            backward::job(self.network, self.network.order[claim], &group, how, scratch);
        }
    }

    /// What is done to weights, or to biases, besides the rule.
    fn shrink(&self, penalised: bool, state: State<T>) -> Shrink<T> {
        let Options { penalty, clip_value, optimizer, .. } = *self.options;
        let clip = T::from_f64(clip_value);
        if let (true, Some(scikit)) = (penalised, self.scikit) {
            Shrink { l2: T::from_f64(ratio(scikit.alpha, state.weight)), ..Shrink::NONE }
        } else if penalised {
            Shrink { l1: T::from_f64(penalty.l1), l2: T::from_f64(penalty.l2), clip, keep: optimizer.keep() }
        } else {
            Shrink { clip, ..Shrink::NONE }
        }
    }

    /// What the penalty adds to the mean loss of the batch.
    fn penalty(&self, state: State<T>) -> f64 {
        match self.scikit {
            None => penalty(self.network, self.options.penalty),
            Some(Scikit { alpha: 0.0, .. }) => 0.0,
            Some(Scikit { alpha, .. }) => ratio(0.5 * alpha * sum_of_squares(self.network), state.weight),
        }
    }

    fn fail(&self, error: Error) {
        self.stop.store(true, Ordering::Relaxed);
        let mut books = lock(&self.books);
        if books.outcome.is_ok() {
            books.outcome = Err(error);
        }
    }

    /// All samples are through: losses, divergence, and whether to go on.
    fn after_samples(&self) {
        let state = self.state();
        self.slice_claims.reset();
        let mut books = lock(&self.books);
        if self.stop.load(Ordering::Relaxed) {
            return self.set_state(State { phase: None, ..state });
        }
        let slices = self.buffers.slices.read();
        let (order, mut first) = (self.order(), state.batch + state.group);
        for i in 0..state.group_rows.div_ceil(self.plan.slice_rows) {
            let losses = slices.get(i).losses();
            match self.options.weights {
                None => books.batch_loss.extend(losses),
                Some(weights) => {
                    let row = |i: usize| if order.is_empty() { first + i } else { order[first + i] as usize };
                    let weighted = losses.iter().enumerate().map(|(i, &loss)| weights[row(i)] * loss.to_f64());
                    weighted.for_each(|loss| books.batch_loss.add(loss));
                }
            }
            first += losses.len();
        }
        if state.group + state.group_rows < state.rows {
            return self.set_state(State { phase: Some(Phase::Weights), ..state });
        }
        let mean = ratio(books.batch_loss.total(), state.weight) + self.penalty(state);
        books.batch_loss = StridedSum::new();
        if !mean.is_finite() && self.scikit.is_none() {
            let bad =
                |l: &usize| !(0..state.group_rows.div_ceil(self.plan.slice_rows)).all(|i| slices.get(i).is_finite(*l));
            let layer = (0..self.network.layers.len()).find(bad).unwrap_or(self.network.layers.len() - 1) + 1;
            books.outcome = Err(Error::Divergence { step: books.progress.steps + 1, layer });
            return self.set_state(State { phase: None, ..state });
        }
        // There a batch counts by its rows, whatever their weights.
        let counts = if self.scikit.is_some() { state.rows as f64 } else { state.weight };
        books.epoch_loss += mean * counts;
        books.epoch_weight += counts;
        books.last_loss = mean;
        let rule = self.updates.then(|| self.options.optimizer.step(&mut books.progress));
        self.set_state(State { rule, phase: Some(Phase::Weights), ..state });
        let whole = state.rows == self.rows && self.plan.group_rows >= state.rows;
        self.gathered.store(whole, Ordering::Relaxed);
    }

    /// A group's gradient is in: the next group, batch or epoch.
    fn after_weights(&self) {
        let state = self.state();
        self.job_claims.reset();
        let group = state.group + state.group_rows;
        if group < state.rows {
            return self.begin_group(State { group, ..state });
        }
        let batch = state.batch + state.rows;
        if batch < self.rows {
            return self.begin_batch(state.epoch, batch);
        }
        let mut books = lock(&self.books);
        // Where no row counts, what the last batch had: the penalties.
        let loss = if books.epoch_weight > 0.0 { books.epoch_loss / books.epoch_weight } else { books.last_loss };
        (books.epoch_loss, books.epoch_weight) = (0.0, 0.0);
        books.losses.push(loss);
        books.progress.epochs += u64::from(self.updates);
        let every = self.options.report_every;
        if every > 0 && state.epoch.is_multiple_of(every) {
            books.report = Some((state.epoch, loss));
        }
        drop(books);
        if state.epoch + 1 == self.options.epochs {
            return self.set_state(State { phase: None, ..state });
        }
        self.begin_epoch(state.epoch + 1);
    }

    fn begin_epoch(&self, epoch: usize) {
        let mut order = self.order.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.options.shuffle && !order.is_empty() {
            rng::shuffle(&mut order, self.options.seed, lock(&self.books).progress.epochs);
        }
        drop(order);
        self.begin_batch(epoch, 0);
    }

    fn begin_batch(&self, epoch: usize, batch: usize) {
        let rows = self.options.batch_size.min(self.rows - batch);
        let weight = self.weight(batch..batch + rows);
        self.begin_group(State { epoch, batch, rows, weight, group: 0, group_rows: 0, rule: None, phase: None });
    }

    /// What these places in the order count together.
    fn weight(&self, places: Range<usize>) -> f64 {
        let Some(weights) = self.options.weights else { return places.len() as f64 };
        let order = self.order();
        let mut sum = StridedSum::new();
        if order.is_empty() {
            weights[places].iter().for_each(|&weight| sum.add(weight));
        } else {
            order[places].iter().for_each(|&row| sum.add(weights[row as usize]));
        }
        sum.total()
    }

    fn begin_group(&self, state: State<T>) {
        let group_rows = self.plan.group_rows.min(state.rows - state.group);
        self.set_state(State { group_rows, phase: Some(Phase::Samples), ..state });
    }

    /// Worker 0 tells the host of an epoch; the others need not wait.
    fn report(&self, host: &Mutex<&mut dyn Host>) {
        if self.options.report_every == 0 {
            return;
        }
        let report = lock(&self.books).report.take();
        if let Some((epoch, loss)) = report
            && let Err(error) = lock(host).report(epoch, loss)
        {
            self.fail(error);
        }
    }
}

/// `part / whole`, or 0 of nothing.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole != 0.0 { part / whole } else { 0.0 }
}
