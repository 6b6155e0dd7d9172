//! Training: every worker runs the same loop of phases (`trainer/phases.rs`), and the last to arrive at a barrier does the
//! bookkeeping (`trainer/transitions.rs`).
//!
//! A plain step has two phases. Each worker claims slices of the group's samples and takes them through gather,
//! forward, loss and backward data; barrier; each claims parts of the weights for gradient and update; barrier.
//! Where a batch is too small to be cut into slices and layers are large, the first phase is several: each large product is one, whose
//! panels workers claim (`step/share.rs`).
//! A loss of the host's own couples the batch, and adds phases: forward; barrier; the caller's thread asks the host; barrier;
//! backward data, and so on. A batch of several groups then goes forward twice: once for the logits of all, and again group
//! by group for what backward reads.
//! One thread that makes plain steps of a small network makes many of them in a row, by the kernel calls of the first
//! (`trainer/small.rs`).
//! A batch of several groups adds its gradients up in memory and updates with the last. Nothing is allocated after the first
//! step, or the first whose calls are written down.

mod order;
mod phases;
mod small;
#[cfg(test)]
mod small_tests;
mod transitions;

use self::order::Order;
use super::amendments::Amendments;
use super::exchange::Exchange;
use super::options::{Options, Scikit};
use super::pace::Pace;
use super::penalty::{self, Penalty, add_gradient};
use super::phase::Phase;
use super::stretch::Cursor;
use super::sums::StridedSum;
use super::{Host, LOSSES_AT_ONCE, Poller, lock};
use crate::data::Matrix;
use crate::error::Error;
use crate::kernels::{Loss, Number, Rule};
use crate::network::{GRADIENT, Network, Norms, Progress, WEIGHTS};
use crate::panel::{Buffer, Parts};
use crate::plan::{self, MAX_COUPLED_ROWS, Plan, SLICE_ROWS};
use crate::step::muon::Directions;
use crate::step::share::{Sharing, Stage};
use crate::step::{Role, Slice, TargetData, gradient, route};
use crate::threads::{self, Claims, Team};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

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

struct Buffers<T> {
    slices: Parts<Slice<T>>,
    /// Of each worker.
    scratch: Parts<Buffer<T>>,
}

impl<T: Number> Buffers<T> {
    /// Those that were kept, or larger ones: `slices` of `rows` rows and scratch for `threads` workers, each for the
    /// gradient of a strip or of a small job, or a panel's totals.
    fn of(
        network: &Network<T>,
        kept: &mut Workspace<T>,
        slices: usize,
        rows: usize,
        threads: usize,
    ) -> Result<Self, Error> {
        let room = (rows.min(SLICE_ROWS) * network.geometry.panel()).max(gradient::scratch(network));
        if let Some(kept) = kept.buffers.take()
            && kept.slices.len() >= slices
            && kept.scratch.len() >= threads
            && kept.scratch.read().get(0).len() >= room
            && kept.slices.read().get(0).serves(rows, Role::Learns)
        {
            return Ok(kept);
        }
        let block = || Buffer::zeroed(room, "worker: its scratch");
        let slices = (0..slices).map(|_| Slice::new(network, rows, Role::Learns)).collect::<Result<_, _>>()?;
        let scratch = (0..threads).map(|_| block()).collect::<Result<_, _>>()?;
        Ok(Buffers { slices: Parts::new(slices), scratch: Parts::new(scratch) })
    }
}

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
    /// Operations of a slice, or of a stage of it.
    slice_work: f64,
    /// Stretches, or stages, of a step.
    stretches: usize,
    /// How threads share the products of a batch's only slice, where they do.
    sharing: Option<Sharing<T>>,
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
        let sharing = plan.by_panels.then(|| Sharing::training(network, rows, plan.threads));
        let run = Run {
            slice_work: 6.0 * (network.n_parameters() * rows) as f64
                / sharing.as_ref().map_or(1, |s| s.stages.len()) as f64,
            stretches: sharing.as_ref().map_or_else(|| route::stretches(network), |sharing| sharing.stages.len()),
            sharing,
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
        run.set_state(run.begin_epoch(0, options.stretch.begin.row));
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
        // One thread keeps it to itself.
        let alone = self.plan.threads == 1;
        let mut state = self.state();
        let mut room = self.is_small().then(small::Room::default);
        while team.joins(worker) {
            if !alone {
                state = self.state();
            }
            let Some(phase) = state.phase else { break };
            if room.is_some() && self.is_worth_writing(state) {
                state = self.steps(team, state, &mut room, &mut scratch, &mut poller, host);
                continue;
            }
            match phase {
                Phase::Samples(_) | Phase::Returning => match self.shared(phase) {
                    Some(product) => self.share(team, worker, product, &mut scratch, &mut poller, host),
                    None => self.samples(self.network.kernels, team, worker, phase, state, &mut poller, host),
                },
                Phase::Asking => self.ask(worker, host),
                Phase::Weights => self.weights(self.network.kernels, team, worker, state, &mut scratch),
                Phase::Norm | Phase::Lengths => self.amendments.measure(self.network, phase, team, worker),
                Phase::Directions => self.amendments.direct(self.network, team, worker),
                Phase::Update | Phase::Constraint => self.amend(team, worker, phase, state),
                Phase::Turning => self.turn(worker, host),
            }
            let now = state;
            let last = || {
                state = self.advance(phase, now);
                if !alone {
                    self.set_state(state);
                    self.keep_pace(team);
                }
            };
            if !team.barrier(last) {
                return;
            }
            if worker == 0 && phase >= Phase::Weights {
                self.report(host);
            }
        }
    }

    /// The product whose panels threads share in this phase, if it is such a one.
    fn shared(&self, phase: Phase) -> Option<(&Sharing<T>, usize)> {
        let (Some(sharing), Phase::Samples(stage)) = (&self.sharing, phase) else { return None };
        match sharing.stages[stage] {
            Stage::Shared(item) => Some((sharing, item)),
            Stage::Alone(_) => None,
        }
    }

    /// Whether one worker does a phase and the others wait.
    fn is_of_one(&self, phase: Phase) -> bool {
        match phase {
            Phase::Asking | Phase::Turning => true,
            Phase::Samples(_) => self.sharing.is_some() && self.shared(phase).is_none(),
            _ => false,
        }
    }

    /// Between two phases: after a step, how many take part in the next.
    fn keep_pace(&self, team: &Team) {
        let Some(pace) = &self.pace else { return };
        let state = self.state();
        team.count_sleep(!state.phase.is_some_and(|phase| self.is_of_one(phase)));
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

    fn fail(&self, error: Error) {
        self.stop.store(true, Ordering::Relaxed);
        let mut books = lock(&self.books);
        if books.outcome.is_ok() {
            books.outcome = Err(error);
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
