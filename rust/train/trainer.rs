//! Training: every worker runs the same loop, and the last to arrive at a barrier does the bookkeeping.
//!
//! A plain step has two phases. Each worker claims slices of the group's samples and takes them through gather,
//! forward, loss and backward data; barrier; each claims parts of the weights for gradient and update; barrier.
//! A loss of the host's own couples the batch, and adds phases: forward; barrier; the caller's thread asks the host; barrier;
//! backward data, and so on. A batch of several groups then goes forward twice: once for the logits of all, and again group
//! by group for what backward reads.
//! A batch of several groups adds its gradients up in memory and updates with the last. Nothing is
//! allocated after the first step.

use super::amendments::Amendments;
use super::exchange::{Exchange, Losses};
use super::infer::StridedSum;
use super::optimizer::Optimizer;
use super::pace::Pace;
use super::penalty::{self, Penalty, add_gradient};
use super::scikit::Scikit;
use super::stretch::{Cursor, Stretch};
use super::{Host, Poller, lock};
use crate::data::{Matrix, Selection};
use crate::error::Error;
use crate::kernels::{Loss, Number, Rule, SAMPLE_SEGMENT, Shrink};
use crate::network::{GRADIENT, Network, Norms, Progress, WEIGHTS};
use crate::panel::{Buffer, Parts};
use crate::plan::{self, MAX_COUPLED_ROWS, Plan};
use crate::rng;
use crate::step::backward::{self, Finishing, Group};
use crate::step::forward::Weights;
use crate::step::muon::{Directions, Muon};
use crate::step::{Draw, Role, Slice, TargetData, route};
use crate::threads::{self, Claims, Team};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

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
    /// The whole gradient is scaled down to this norm where it is longer; infinity for no limit.
    pub clip_norm: f64,
    /// The decay of a moving average of the weights, where one is kept.
    pub average: Option<f64>,
    /// What weight matrices follow in place of the optimizer's rule.
    pub muon: Option<Muon>,
    /// What a sample's loss is multiplied by.
    pub loss_scale: f64,
    /// What each sample counts in its batch's mean, finite and at least 0, one for each row; `None` for all the same. A batch
    /// whose weights are all 0 has the loss 0 and no gradient.
    pub weights: Option<&'o [f64]>,
    /// The rows that are trained on, in their order where that is not drawn; `None` for all. They are read where they lie, and
    /// the bits are those of training on a copy of them. Weights are by the data's rows.
    pub rows: Option<&'o [u32]>,
    /// Whether batches are drawn anew in each epoch; a full batch keeps its order.
    pub shuffle: bool,
    /// Of the shuffle.
    pub seed: u64,
    /// Workers; `None` for as many as help.
    pub threads: Option<usize>,
    /// Epochs between reports; 0 for none.
    pub report_every: usize,
    /// What part of the epochs this call does.
    pub stretch: Stretch<'o>,
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
    fit_stretch(network, workspace, x, y, options, host).map(|(losses, _)| losses)
}

/// Trains for the options' stretch; returns the loss of each epoch that it finished, and where it ended.
///
/// # Errors
/// As for [`fit`], and [`Error::Value`] for a stretch that does not fit the data.
pub fn fit_stretch<T: Number>(
    network: &mut Network<T>,
    workspace: &mut Workspace<T>,
    x: &Matrix<'_>,
    y: &TargetData<'_>,
    options: &Options<'_>,
    host: &mut dyn Host,
) -> Result<(Vec<f64>, Cursor), Error> {
    options.optimizer.check()?;
    options.optimizer.fits::<T>()?;
    let rows = options.rows.map_or(x.rows(), <[u32]>::len);
    check_coupled(network, options.batch_size.min(rows))?;
    options.stretch.check(options.epochs, rows, options.batch_size.min(rows))?;
    let (name, states) = match options.muon {
        None => (options.optimizer.state_name(), options.optimizer.states()),
        Some(_) => options.optimizer.state_with_muon(),
    };
    network.prepare_state(name, states)?;
    // The counters belong to the state that the steps left, also where an error ended them.
    let (done, progress, norms) = Run::new(network, workspace, x, y, options, Task::UPDATES)?.execute(workspace, host);
    network.progress = progress;
    network.gradient_norms = norms;
    done
}

/// Refuses batches too large to be held whole.
fn check_coupled<T: Number>(network: &Network<T>, batch: usize) -> Result<(), Error> {
    if network.coupled.is_empty() || batch <= MAX_COUPLED_ROWS {
        return Ok(());
    }
    let expected = format!("at most {MAX_COUPLED_ROWS} rows in a batch with batch normalisation");
    Err(Error::expected("batch_size", expected, batch))
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
    let (epochs, norms) = (network.progress.epochs, std::mem::take(&mut network.gradient_norms));
    let losses = fit(network, workspace, x, y, &options, host);
    network.progress.epochs = epochs;
    network.gradient_norms = norms;
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
    // The norms are of the fit that may go on.
    let norms = std::mem::take(&mut network.gradient_norms);
    let run = Run::new(network, workspace, x, y, &options, Task::GRADIENT).map(|run| run.execute(workspace, host));
    network.gradient_norms = norms;
    let loss = run?.0?.0[0];
    add_gradient(network, options.penalty);
    Ok(loss)
}

/// A training's buffers, kept from call to call of one network, so that a call on few rows costs little more than its steps.
/// Their memory is the largest batch's and, with shuffling, 4 bytes a row; it is given back with the network.
pub struct Workspace<T> {
    buffers: Option<Buffers<T>>,
    order: Order,
    directions: Option<Directions<T>>,
    pace: Option<Pace>,
}

impl<T> Workspace<T> {
    /// Nothing yet.
    pub fn new() -> Self {
        Workspace { buffers: None, order: Order::default(), directions: None, pace: None }
    }
}

impl<T> Default for Workspace<T> {
    fn default() -> Self {
        Workspace::new()
    }
}

/// An epoch's order of the rows, kept for the stretches that an epoch is cut into.
#[derive(Default)]
struct Order {
    rows: Vec<u32>,
    /// The seed and the epoch that it was drawn for, and whether from a selection.
    of: Option<(u64, u64, bool)>,
}

impl Order {
    /// Room for so many rows; what was drawn for as many stays.
    fn resized(self, rows: usize) -> Self {
        if self.rows.len() == rows { self } else { Order { rows: vec![0; rows], of: None } }
    }

    /// The order of an epoch: of all rows, or of those selected, drawn where they are to be shuffled.
    fn draw(&mut self, seed: u64, epoch: u64, selected: Option<&[u32]>, shuffles: bool) {
        let of = (seed, epoch, selected.is_some());
        if self.of == Some(of) {
            return;
        }
        if shuffles {
            rng::shuffle(&mut self.rows, seed, epoch);
        }
        match selected {
            Some(selected) if shuffles => self.rows.iter_mut().for_each(|at| *at = selected[*at as usize]),
            Some(selected) => self.rows.copy_from_slice(selected),
            None => {}
        }
        self.of = Some(of);
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
        threads: usize,
    ) -> Result<Self, Error> {
        if let Some(kept) = kept.buffers.take()
            && kept.slices.len() >= slices
            && kept.scratch.len() >= threads
            && kept.slices.read().get(0).serves(rows, Role::Learns)
        {
            return Ok(kept);
        }
        let panel = network.geometry.panel();
        let block = || Buffer::zeroed((panel + 1) * panel, "worker: its scratch");
        let slices = (0..slices).map(|_| Slice::new(network, rows, Role::Learns)).collect::<Result<_, _>>()?;
        let scratch = (0..threads).map(|_| block()).collect::<Result<_, _>>()?;
        Ok(Buffers { slices: Parts::new(slices), scratch: Parts::new(scratch) })
    }
}

/// Losses that there is room for from the start: more epochs than that make room as they go.
pub(super) const LOSSES_AT_ONCE: usize = 1 << 16;

/// Where the loop stands: the same for all workers between two barriers.
#[derive(Clone, Copy)]
struct State<T> {
    epoch: usize,
    /// The batch's first row in the order, and its rows.
    batch: usize,
    rows: usize,
    /// The step of the network's life, from 1: what masks are drawn for.
    step: u64,
    /// What the batch counts in its epoch: the sum of its rows' weights, or their number.
    weight: f64,
    /// The group's first row in the batch, and its rows.
    group: usize,
    group_rows: usize,
    /// This step's rule; `None` leaves the gradient in the arena.
    rule: Option<Rule<T>>,
    /// What it leaves of a weight by decoupled decay.
    keep: T,
    /// What is done next; `None` when all is done.
    phase: Option<Phase>,
}

/// What all workers do between two barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Phase {
    /// Slices of the samples are taken over a stretch of their way (`step/route.rs`): of gather, forward, loss, backward.
    Samples(usize),
    /// The host's own loss: the caller's thread asks for the batch's loss and gradient.
    Asking,
    /// Slices go backward from the host's gradient, until samples couple.
    Returning,
    /// Parts of the weights get their gradient and, with the batch's last group, their update, unless that has to wait.
    Weights,
    /// The whole gradient is measured.
    Norm,
    /// The gradients of weight matrices become Muon's directions.
    Directions,
    /// Parts of the weights get the update that had to wait.
    Update,
    /// The weights of each output are measured.
    Lengths,
    /// Parts of the weights are shortened.
    Constraint,
    /// The epoch is done, and the caller's thread asks the host for the next one's order.
    Turning,
}

/// Numbers that only the last to arrive at a barrier touches.
struct Books {
    progress: Progress,
    /// Steps before this call.
    steps_before: u64,
    batch_loss: StridedSum,
    /// Where the epoch stands; its row is kept where the call ends inside an epoch.
    cursor: Cursor,
    /// What the host's loss and the penalties are, while the batch goes backward.
    own_loss: f64,
    losses: Vec<f64>,
    report: Option<(usize, f64)>,
    /// The learning rate of an epoch that the host drew, or `None` where it drew no other.
    turned: Option<f64>,
    outcome: Result<(), Error>,
}

/// The losses of the epochs that a call finished, and where it ended.
pub(super) type Done = Result<(Vec<f64>, Cursor), Error>;

/// What a run is for.
#[derive(Clone, Copy)]
pub(super) struct Task {
    /// Whether weights are updated, or else the gradient is left in the arena.
    pub updates: bool,
    /// Whose conventions are followed, where they are not this crate's.
    pub scikit: Option<Scikit>,
    /// Whether the host draws the order of each epoch after the first, and says how many there are.
    pub turns: bool,
}

impl Task {
    const UPDATES: Self = Task { updates: true, scikit: None, turns: false };
    const GRADIENT: Self = Task { updates: false, scikit: None, turns: false };
}

pub(super) struct Run<'r, 'x, 'y, T: Number> {
    network: &'r Network<T>,
    x: &'r Matrix<'x>,
    y: &'r TargetData<'y>,
    options: &'r Options<'r>,
    plan: Plan,
    updates: bool,
    scikit: Option<Scikit>,
    turns: bool,
    buffers: Buffers<T>,
    amendments: Amendments<T>,
    /// What the loss counts; in scikit-learn's way it is divided by the batch's weight.
    penalty: Penalty,
    /// The same where several workers measure it.
    shared_penalty: Option<penalty::Shared<T>>,
    /// Where the loss is the host's.
    exchange: Option<RwLock<Exchange<T>>>,
    order: RwLock<Order>,
    /// Whether the slices hold the whole data for good.
    gathered: AtomicBool,
    state: RwLock<State<T>>,
    books: Mutex<Books>,
    slice_claims: Claims,
    job_claims: Claims,
    stop: AtomicBool,
    slice_work: f64,
    /// Stretches of a step.
    stretches: usize,
    /// How many workers take part, where there are several, and when the step began.
    pace: Option<Mutex<(Pace, Instant)>>,
    steps: f64,
    /// Nanoseconds of the step that the host took.
    hosted: AtomicU64,
}

impl<'r, 'x, 'y, T: Number> Run<'r, 'x, 'y, T> {
    pub(super) fn new(
        network: &'r mut Network<T>,
        workspace: &mut Workspace<T>,
        x: &'r Matrix<'x>,
        y: &'r TargetData<'y>,
        options: &'r Options<'r>,
        Task { updates, scikit, turns }: Task,
    ) -> Result<Self, Error> {
        let all = options.rows.map_or(x.rows(), <[u32]>::len);
        let batch = options.batch_size.min(all);
        check_coupled(network, batch)?;
        let steps = options.epochs as f64 * all.div_ceil(batch) as f64;
        let plan = plan::training(network, batch, steps, options.threads);
        let amendments = Amendments::new(network, &mut workspace.directions, options, plan.threads, updates)?;
        if batch > plan.group_rows || !updates || amendments.splits() {
            network.arena.materialise(GRADIENT, WEIGHTS, "network: its gradient")?;
        } else {
            network.arena.release(GRADIENT);
        }
        let slices = plan.group_rows.min(batch).div_ceil(plan.slice_rows);
        let rows = plan.slice_rows.min(batch);
        let buffers = Buffers::of(network, workspace, slices, rows, plan.threads)?;
        let own = (network.loss == Loss::Custom).then(|| Exchange::new(batch, network.outputs())).transpose()?;
        let ordered = options.rows.is_some() || options.shuffle && batch < all;
        let mut order = std::mem::take(&mut workspace.order).resized(if ordered { all } else { 0 });
        if options.rows.is_some() {
            // Another selection may have left it.
            order.of = None;
        }
        let state = State {
            epoch: 0,
            batch: 0,
            rows: 0,
            step: 0,
            weight: 0.0,
            group: 0,
            group_rows: 0,
            rule: None,
            keep: T::ONE,
            phase: None,
        };
        let books = Books {
            progress: network.progress,
            steps_before: network.progress.steps,
            batch_loss: StridedSum::new(),
            cursor: Cursor { row: 0, ..options.stretch.begin },
            own_loss: 0.0,
            losses: Vec::with_capacity(options.epochs.min(LOSSES_AT_ONCE)),
            report: None,
            turned: None,
            outcome: Ok(()),
        };
        let penalty = scikit.map_or(options.penalty, |scikit| Penalty { l2: scikit.alpha, ..Penalty::default() });
        let shares = plan.threads > 1 && !penalty.is_none();
        let shared_penalty = shares.then(|| penalty::Shared::new(network, penalty, plan.threads)).transpose()?;
        let run = Run {
            slice_work: 6.0 * (network.n_parameters() * rows) as f64,
            stretches: route::stretches(network),
            network,
            x,
            y,
            options,
            plan,
            updates,
            scikit,
            turns,
            buffers,
            amendments,
            penalty,
            shared_penalty,
            exchange: own.map(RwLock::new),
            order: RwLock::new(order),
            gathered: AtomicBool::new(false),
            state: RwLock::new(state),
            books: Mutex::new(books),
            pace: (plan.threads > 1).then(|| {
                let kept = workspace.pace.take().filter(|pace| pace.is_of(plan.threads, batch, updates));
                Mutex::new((kept.unwrap_or_else(|| Pace::new(plan.threads, batch, updates)), Instant::now()))
            }),
            steps,
            hosted: AtomicU64::new(0),
            slice_claims: Claims::new(plan.threads),
            job_claims: Claims::new(plan.threads),
            stop: AtomicBool::new(false),
        };
        run.begin_epoch(0, options.stretch.begin.row);
        Ok(run)
    }

    pub(super) fn execute(self, workspace: &mut Workspace<T>, host: &mut dyn Host) -> (Done, Progress, Norms) {
        let host = Mutex::new(host);
        let (most, active) = self.pace.as_ref().map_or((1, 1), |pace| {
            let pace = &mut *lock(pace);
            pace.1 = Instant::now();
            (pace.0.most_within(self.steps), pace.0.active())
        });
        let ran = threads::run_some(most, active, |team, worker| self.work(team, worker, &host));
        if ran.is_ok() {
            workspace.order = self.order.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
            workspace.buffers = Some(self.buffers);
            let pace = self.pace.map(|pace| pace.into_inner().unwrap_or_else(PoisonError::into_inner).0);
            workspace.pace = pace.or(workspace.pace.take());
        }
        let (norms, directions) = self.amendments.settle();
        workspace.directions = directions;
        let books = self.books.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        (ran.and(books.outcome).map(|()| (books.losses, books.cursor)), books.progress, norms)
    }

    /// How many rows are trained on.
    fn n_rows(&self) -> usize {
        self.options.rows.map_or(self.x.rows(), <[u32]>::len)
    }

    fn state(&self) -> State<T> {
        *self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn set_state(&self, state: State<T>) {
        *self.state.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = state;
    }

    fn order(&self) -> RwLockReadGuard<'_, Order> {
        self.order.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What every worker does.
    fn work(&self, team: &Team, worker: usize, host: &Mutex<&mut dyn Host>) {
        let mut scratch = self.buffers.scratch.write(worker);
        let mut poller = Poller::new();
        while team.joins(worker) {
            let state = self.state();
            let Some(phase) = state.phase else { break };
            match phase {
                Phase::Samples(_) | Phase::Returning => self.samples(team, worker, phase, state, &mut poller, host),
                Phase::Asking => self.ask(worker, host),
                Phase::Weights => self.weights(team, worker, state, &mut scratch),
                Phase::Norm | Phase::Lengths => self.amendments.measure(self.network, phase, team, worker),
                Phase::Directions => self.amendments.direct(self.network, team, worker),
                Phase::Update | Phase::Constraint => self.amend(team, worker, phase, state),
                Phase::Turning => self.turn(worker, host),
            }
            let last = || {
                self.advance(phase);
                self.keep_pace(team);
            };
            if !team.barrier(last) {
                return;
            }
            if worker == 0 && phase >= Phase::Weights {
                self.report(host);
            }
        }
    }

    /// Between two phases: after a step, how many take part in the next.
    fn keep_pace(&self, team: &Team) {
        let Some(pace) = &self.pace else { return };
        let state = self.state();
        team.count_sleep(!matches!(state.phase, Some(Phase::Asking | Phase::Turning)));
        let ended = state.phase.is_none();
        let begins = state.phase == Some(Phase::Samples(0)) && state.group == 0;
        if !begins && !ended || self.stop.load(Ordering::Relaxed) || lock(&self.books).outcome.is_err() {
            return;
        }
        let (pace, since) = &mut *lock(pace);
        let (now, slept) = (Instant::now(), team.take_slept());
        let hosted = Duration::from_nanos(self.hosted.swap(0, Ordering::Relaxed));
        // Where fewer were started than the pace asks for, their time tells nothing of more.
        if pace.active() <= team.started() {
            pace.step((now - *since).saturating_sub(hosted).as_secs_f64(), slept.as_secs_f64());
        }
        *since = now;
        if begins && pace.active() != team.size() {
            team.resize(pace.active());
        }
    }

    /// What the caller's thread does for the host, which is no time of the step.
    fn hosting<R>(&self, work: impl FnOnce() -> R) -> R {
        let since = self.pace.as_ref().map(|_| Instant::now());
        let result = work();
        if let Some(since) = since {
            self.hosted.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
        result
    }

    /// The last worker out of a phase decides on the next.
    fn advance(&self, phase: Phase) {
        match phase {
            Phase::Samples(stretch) if stretch == self.middle() && self.exchange.is_some() => self.after_forward(),
            Phase::Samples(stretch) if stretch + 1 < self.stretches => self.couple(stretch),
            Phase::Samples(_) if self.exchange.is_some() => self.after_backward(),
            Phase::Samples(_) => self.after_samples(),
            Phase::Asking => self.after_asking(),
            Phase::Returning if self.stretches > 1 => self.couple(self.middle()),
            Phase::Returning => self.after_backward(),
            Phase::Weights => self.after_weights(),
            Phase::Turning => self.after_turning(),
            _ => self.after_amending(phase),
        }
    }

    /// The stretch that has the loss.
    fn middle(&self) -> usize {
        self.stretches / 2
    }

    /// Gather, forward, loss and backward data, slice by slice; or the part of these that is a phase of its own.
    fn samples(
        &self,
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
        let from = Weights::of(&reading);
        let order = &self.order().rows;
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
            if gathers && !self.gathered.load(Ordering::Relaxed) {
                slice.gather(self.x, selection, rows);
                slice.gather_targets(self.y, selection);
            }
            if gathers {
                slice.trains(state.group + begin, Draw { seed: self.options.seed, step: state.step });
            }
            match phase {
                Phase::Samples(stretch) => route::stretch(self.network, from, slice, stretch, |slice| {
                    if self.exchange.is_none() {
                        self.loss(slice, selection, state);
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
    fn ask(&self, worker: usize, host: &Mutex<&mut dyn Host>) {
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
    fn turn(&self, worker: usize, host: &Mutex<&mut dyn Host>) {
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
    fn weights(&self, team: &Team, worker: usize, state: State<T>, scratch: &mut [T]) {
        let last = state.group + state.group_rows == state.rows;
        let amend = self.amendments.in_weights();
        let how = Finishing {
            goes_on: state.group > 0,
            rule: state.rule.filter(|_| last),
            shrink: self.shrink(true, state),
            shrink_biases: self.shrink(self.options.penalty.biases, state),
            amend: if last && self.amendments.amends_weights() { Some(&amend) } else { None },
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

    /// The update that had to wait, or the constraint, job by job.
    fn amend(&self, team: &Team, worker: usize, phase: Phase, state: State<T>) {
        let shrink = |penalised| Amendments::shrink_of_update(self.shrink(penalised, state));
        self.amendments.with_amend(phase, |amend| {
            let how = Finishing {
                goes_on: true,
                rule: state.rule.filter(|_| phase == Phase::Update),
                shrink: shrink(true),
                shrink_biases: shrink(self.options.penalty.biases),
                amend: Some(amend),
            };
            let share = |w: usize| self.network.share(w, team.size());
            while let Some(claim) = self.job_claims.next(worker, team.size(), share) {
                backward::amend(self.network, self.network.order[claim], how);
            }
        });
    }

    /// What is done to weights, or to biases, besides the rule.
    fn shrink(&self, penalised: bool, state: State<T>) -> Shrink<T> {
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

    fn fail(&self, error: Error) {
        self.stop.store(true, Ordering::Relaxed);
        let mut books = lock(&self.books);
        if books.outcome.is_ok() {
            books.outcome = Err(error);
        }
    }

    /// All samples have come to where they couple: statistics of the batch, and on.
    fn couple(&self, stretch: usize) {
        let state = self.state();
        self.slice_claims.reset();
        if self.stop.load(Ordering::Relaxed) {
            return self.set_state(State { phase: None, ..state });
        }
        let used = state.group_rows.div_ceil(self.plan.slice_rows);
        route::couple(self.network, &self.buffers.slices.read(), used, stretch, state.rows);
        self.set_state(State { phase: Some(Phase::Samples(stretch + 1)), ..state });
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
                    let row = |i: usize| if order.rows.is_empty() { first + i } else { order.rows[first + i] as usize };
                    let weighted = losses.iter().enumerate().map(|(i, &loss)| weights[row(i)] * loss.to_f64());
                    weighted.for_each(|loss| books.batch_loss.add(loss));
                }
            }
            first += losses.len();
        }
        if state.group + state.group_rows < state.rows {
            return self.set_state(State { phase: Some(Phase::Weights), ..state });
        }
        let mean = ratio(books.batch_loss.total(), state.weight);
        books.batch_loss = StridedSum::new();
        drop((slices, order));
        if let Some(loss) = self.finite(&mut books, mean, state) {
            self.enter(&mut books, loss, state);
        }
    }

    /// A batch's loss from its samples' mean; ends training where it is not finite.
    fn finite(&self, books: &mut Books, mean: f64, state: State<T>) -> Option<f64> {
        let loss = mean + self.penalty(state);
        if loss.is_finite() || self.scikit.is_some() {
            return Some(loss);
        }
        let slices = self.buffers.slices.read();
        let bad =
            |l: &usize| !(0..state.group_rows.div_ceil(self.plan.slice_rows)).all(|i| slices.get(i).is_finite(*l));
        let layer = (0..self.network.layers.len()).find(bad).unwrap_or(self.network.layers.len() - 1) + 1;
        books.outcome = Err(Error::Divergence { step: books.progress.steps + 1, layer });
        self.set_state(State { phase: None, ..state });
        None
    }

    /// The optimizer at the next step's rate, which is Muon's where that follows it.
    fn optimizer(&self, books: &Books) -> Optimizer {
        match self.options.stretch.rate(books.progress.steps - books.steps_before) {
            Some(rate) if self.options.muon.is_some() => {
                self.amendments.set_rate(rate);
                self.options.optimizer
            }
            Some(rate) => self.options.optimizer.at(rate),
            None => books.turned.map_or(self.options.optimizer, |rate| self.options.optimizer.at(rate)),
        }
    }

    /// What the penalty adds to the mean loss of the batch.
    fn penalty(&self, state: State<T>) -> f64 {
        let penalty = match &self.shared_penalty {
            Some(shared) => shared.settle(self.network),
            None => penalty::penalty(self.network, self.penalty),
        };
        if self.scikit.is_some() { ratio(penalty, state.weight) } else { penalty }
    }

    /// Enters a batch's loss; its update is next.
    fn enter(&self, books: &mut Books, loss: f64, state: State<T>) {
        // In scikit-learn a batch counts by its rows, whatever their weights.
        let counts = if self.scikit.is_some() { state.rows as f64 } else { state.weight };
        books.cursor.epoch_loss += loss * counts;
        books.cursor.epoch_weight += counts;
        books.cursor.loss = loss;
        let optimizer = self.optimizer(books);
        let now = self.updates && !self.amendments.splits();
        let rule = now.then(|| optimizer.step(&mut books.progress));
        self.set_state(State { rule, keep: optimizer.keep(), phase: Some(Phase::Weights), ..state });
        // An order that the host draws is read anew.
        let whole = !self.turns && state.rows == self.n_rows() && self.plan.group_rows >= state.rows;
        self.gathered.store(whole, Ordering::Relaxed);
    }

    /// The group's logits are there: the next group's, or the host's turn.
    fn after_forward(&self) {
        let state = self.state();
        self.slice_claims.reset();
        if self.stop.load(Ordering::Relaxed) {
            return self.set_state(State { phase: None, ..state });
        }
        let mut exchange = write(self.exchange.as_ref().expect("the host's loss"));
        if state.group == 0 {
            let order = self.order();
            let places = state.batch..state.batch + state.rows;
            exchange.begin(state.batch, if order.rows.is_empty() { &[] } else { &order.rows[places] });
        }
        let slices = self.buffers.slices.read();
        for i in 0..state.group_rows.div_ceil(self.plan.slice_rows) {
            exchange.append(slices.get(i).result(self.network.layers.len() - 1));
        }
        let group = state.group + state.group_rows;
        if group < state.rows {
            return self.begin_group(State { group, ..state }, Phase::Samples(0));
        }
        self.set_state(State { phase: Some(Phase::Asking), ..state });
    }

    /// The host has answered: backward, from the first group on.
    fn after_asking(&self) {
        let state = self.state();
        if self.stop.load(Ordering::Relaxed) {
            return self.set_state(State { phase: None, ..state });
        }
        let mean = {
            let (exchange, order) = (read(self.exchange.as_ref().expect("the host's loss")), self.order());
            let row =
                |i: usize| if order.rows.is_empty() { state.batch + i } else { order.rows[state.batch + i] as usize };
            exchange.mean(|i| self.options.weights.map_or(1.0, |weights| weights[row(i)]), state.weight)
        };
        let mut books = lock(&self.books);
        if let Some(loss) = self.finite(&mut books, mean, state) {
            books.own_loss = loss;
            self.begin_group(State { group: 0, ..state }, Phase::Returning);
        }
    }

    /// The group's dZ are there.
    fn after_backward(&self) {
        let state = self.state();
        self.slice_claims.reset();
        if self.stop.load(Ordering::Relaxed) {
            return self.set_state(State { phase: None, ..state });
        }
        if state.group + state.group_rows < state.rows {
            return self.set_state(State { phase: Some(Phase::Weights), ..state });
        }
        let mut books = lock(&self.books);
        let loss = books.own_loss;
        self.enter(&mut books, loss, state);
    }

    /// A group's gradient is in: the next group, or what comes after the last.
    fn after_weights(&self) {
        let state = self.state();
        self.job_claims.reset();
        let group = state.group + state.group_rows;
        if group < state.rows {
            let phase = if self.exchange.is_some() { Phase::Returning } else { Phase::Samples(0) };
            return self.begin_group(State { group, ..state }, phase);
        }
        self.go_on(state, Phase::Weights);
    }

    /// A phase beside samples and weights is through.
    fn after_amending(&self, phase: Phase) {
        let state = self.state();
        self.job_claims.reset();
        if let Err(layer) = self.amendments.finish(self.network, phase) {
            let mut books = lock(&self.books);
            books.outcome = Err(Error::Divergence { step: books.progress.steps + 1, layer });
            return self.set_state(State { phase: None, ..state });
        }
        self.go_on(state, phase);
    }

    /// The next phase of a step whose gradient is in, or the next batch or epoch.
    fn go_on(&self, state: State<T>, done: Phase) {
        if let Some(phase) = self.amendments.following(done) {
            let mut rule = state.rule;
            if phase == Phase::Update {
                let mut books = lock(&self.books);
                rule = Some(self.optimizer(&books).step(&mut books.progress));
            }
            return self.set_state(State { rule, phase: Some(phase), ..state });
        }
        // The step is done: what it saw of the batch counts.
        if self.updates {
            route::run_on(self.network, state.rows);
        }
        let batch = state.batch + state.rows;
        if batch < self.n_rows() {
            return if self.ends() { self.finish(batch) } else { self.begin_batch(state.epoch, batch) };
        }
        let mut books = lock(&self.books);
        // Where no row counts, what the last batch had: the penalties.
        let Cursor { epoch_loss, epoch_weight, loss, .. } = books.cursor;
        let loss = if epoch_weight > 0.0 { epoch_loss / epoch_weight } else { loss };
        (books.cursor.epoch_loss, books.cursor.epoch_weight) = (0.0, 0.0);
        books.losses.push(loss);
        books.progress.epochs += u64::from(self.updates);
        self.amendments.end_epoch();
        let every = self.options.report_every;
        if every > 0 && state.epoch.is_multiple_of(every) {
            books.report = Some((state.epoch, loss));
        }
        drop(books);
        if self.turns {
            return self.set_state(State { phase: Some(Phase::Turning), ..state });
        }
        if state.epoch + 1 == self.options.epochs || self.ends() {
            return self.finish(0);
        }
        self.begin_epoch(state.epoch + 1, 0);
    }

    /// The host has drawn an order, or not.
    fn after_turning(&self) {
        let goes_on = lock(&self.books).turned.is_some() && !self.stop.load(Ordering::Relaxed);
        if goes_on { self.begin_batch(self.state().epoch + 1, 0) } else { self.finish(0) }
    }

    /// Whether the stretch ends with the step that was made.
    fn ends(&self) -> bool {
        let stretch = &self.options.stretch;
        if stretch.steps.is_none() && stretch.deadline.is_none() {
            return false;
        }
        let books = lock(&self.books);
        stretch.ends(books.progress.steps - books.steps_before)
    }

    /// Nothing is left to do; the next batch would have begun at `row`.
    fn finish(&self, row: usize) {
        lock(&self.books).cursor.row = row;
        self.set_state(State { phase: None, ..self.state() });
    }

    fn begin_epoch(&self, epoch: usize, row: usize) {
        let mut order = self.order.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !order.rows.is_empty() {
            let shuffles = self.options.shuffle && self.options.batch_size < self.n_rows();
            order.draw(self.options.seed, lock(&self.books).progress.epochs, self.options.rows, shuffles);
        }
        drop(order);
        self.begin_batch(epoch, row);
    }

    fn begin_batch(&self, epoch: usize, batch: usize) {
        let rows = self.options.batch_size.min(self.n_rows() - batch);
        let step = lock(&self.books).progress.steps + 1;
        let weight = self.weight(batch..batch + rows);
        let (group, group_rows, rule, keep) = (0, 0, None, T::ONE);
        let state = State { epoch, batch, rows, step, weight, group, group_rows, rule, keep, phase: None };
        self.begin_group(state, Phase::Samples(0));
    }

    /// What these places in the order count together.
    fn weight(&self, places: Range<usize>) -> f64 {
        let Some(weights) = self.options.weights else { return places.len() as f64 };
        let order = self.order();
        let mut sum = StridedSum::new();
        if order.rows.is_empty() {
            weights[places].iter().for_each(|&weight| sum.add(weight));
        } else {
            order.rows[places].iter().for_each(|&row| sum.add(weights[row as usize]));
        }
        sum.total()
    }

    fn begin_group(&self, state: State<T>, phase: Phase) {
        let group_rows = self.plan.group_rows.min(state.rows - state.group);
        self.set_state(State { group_rows, phase: Some(phase), ..state });
    }

    /// Worker 0 tells the host of an epoch; the others need not wait.
    fn report(&self, host: &Mutex<&mut dyn Host>) {
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

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// `part / whole`, or 0 of nothing.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole != 0.0 { part / whole } else { 0.0 }
}
