//! Workers, the barrier between phases, and claims: the only file that spawns.
//!
//! The caller is worker 0; the others are started when a call begins and joined before it ends, so nothing outlives
//! a call and `fork` is safe. A panic anywhere poisons the barrier, so that nobody waits for ever, and arrives
//! as [`Error::Panic`].

use crate::error::Error;
use crate::isa::DefaultEnvironment;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Rounds of waiting before the thread sleeps: some 40 to 100 microseconds by processor, longer than the slices and jobs of
/// neighbours usually differ, since sleeping and being woken costs about as much. Giving the processor up in between
/// (`sched_yield`) was many times slower beside a busy neighbour: the scheduler takes it for a whole slice.
const SPINS: usize = 2_000;
/// More threads than this are never started.
pub const MAX_THREADS: usize = 256;

/// Bits for the number of workers in [`Team::phase`].
const SIZE_BITS: u32 = 16;
const MAX_SIZE: usize = (1 << SIZE_BITS) - 1;
const _: () = assert!(MAX_THREADS <= MAX_SIZE);

/// What [`set_limit`] asked for; 0 while nobody has.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// The most threads that a call may use of its own accord: `LAMELLA_NUM_THREADS`, or `OMP_NUM_THREADS` and at most the
/// processors that this process may use; and at most what [`set_limit`] asked for.
///
/// The environment is read once a process, so that a call neither pays for it nor races with a program that changes it;
/// the processors are counted anew, since a process may be bound to fewer of them, above all after a fork.
pub fn limit() -> usize {
    let (own, others) = *environment();
    let most = own.unwrap_or_else(|| others.map_or_else(processors, |n| n.min(processors())));
    match ASKED.load(Ordering::Relaxed) {
        0 => most.min(MAX_THREADS),
        asked => asked.min(most).min(MAX_THREADS),
    }
}

/// From now on [`limit`] is at most `threads`; 0 takes that back.
pub fn set_limit(threads: usize) {
    ASKED.store(threads, Ordering::Relaxed);
}

/// `LAMELLA_NUM_THREADS` and `OMP_NUM_THREADS` as they stood when they were first asked for.
pub fn environment() -> &'static (Option<usize>, Option<usize>) {
    static FOUND: OnceLock<(Option<usize>, Option<usize>)> = OnceLock::new();
    // OMP_NUM_THREADS may be a list, one number a nesting level: the first counts.
    let from = |name: &str| {
        let value = std::env::var(name).ok()?;
        value.split(',').next()?.trim().parse::<usize>().ok().filter(|&n| n > 0)
    };
    FOUND.get_or_init(|| (from("LAMELLA_NUM_THREADS"), from("OMP_NUM_THREADS")))
}

/// Processors that this process may use: by its quota, which is looked up once (in files), and by its binding.
fn processors() -> usize {
    static AT_FIRST: OnceLock<usize> = OnceLock::new();
    let at_first = *AT_FIRST.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from));
    bound_to().map_or(at_first, |n| n.clamp(1, at_first))
}

/// Processors that this thread is bound to, where the system says.
fn bound_to() -> Option<usize> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: a set of processors is an array of bits, for which all zeros is a value.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the call writes at most the size it is given to `set`, which is that large, and nothing else.
        let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0;
        // SAFETY: only reads the set, which is initialised.
        if failed { None } else { usize::try_from(unsafe { libc::CPU_COUNT(&set) }).ok() }
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// [`set_limit`] for tools that find it by name in the loaded library, such as threadpoolctl.
// SAFETY: the name begins with the crate's, so nothing else in a process has it.
#[unsafe(no_mangle)]
pub extern "C" fn lamella_set_num_threads(threads: c_int) {
    set_limit(usize::try_from(threads).unwrap_or(0));
}

/// [`limit`] for the same tools.
// SAFETY: the name begins with the crate's, so nothing else in a process has it.
#[unsafe(no_mangle)]
pub extern "C" fn lamella_get_num_threads() -> c_int {
    limit() as c_int
}

/// Runs `work` on `threads` workers, the caller among them, and waits for all.
///
/// Where a thread cannot be started, those that could do the work: `work` learns their number from its [`Team`].
///
/// # Errors
/// [`Error::Panic`] where a worker panicked.
pub fn run<F>(threads: usize, work: F) -> Result<(), Error>
where
    F: Fn(&Team, usize) + Sync,
{
    run_some(threads, threads, work)
}

/// The same, where only the first `active` begin; `work` says how many go on ([`Team::resize`], [`Team::joins`]).
///
/// # Errors
/// As for [`run`].
pub fn run_some<F>(threads: usize, active: usize, work: F) -> Result<(), Error>
where
    F: Fn(&Team, usize) + Sync,
{
    let team = Team::new();
    let contained = |worker: usize| {
        let _environment = DefaultEnvironment::new();
        if let Err(message) = contain(|| work(&team, worker)) {
            team.poison(message);
        }
    };
    std::thread::scope(|scope| {
        let mut started = 1;
        for worker in 1..threads.clamp(1, MAX_THREADS) {
            let contained = &contained;
            let team = &team;
            let spawned = std::thread::Builder::new().name("lamella".into()).spawn_scoped(scope, move || {
                team.wait_for_start();
                contained(worker);
            });
            match spawned {
                Ok(_) => started += 1,
                Err(_) => break,
            }
        }
        team.start(started, active);
        contained(0);
        // Worker 0 always takes part, so all is done: who rests may leave.
        team.dismiss();
    });
    match lock(&team.panic).take() {
        Some(message) => Err(Error::Panic(message)),
        None => Ok(()),
    }
}

/// Runs `work`; a panic in it becomes its message.
///
/// # Errors
/// The message of the panic.
pub fn contain<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The workers of one call, and their barrier.
pub struct Team {
    /// Workers that are there.
    started: AtomicUsize,
    /// The phase's number, and below it, in [`SIZE_BITS`], how many take part: the first so many workers; none before the start.
    /// In one number, so that who joins arrives at this phase's barrier and all count alike.
    phase: AtomicUsize,
    /// How many are to take part in the next one; touched between two phases only.
    next_size: AtomicUsize,
    /// Whether those that rest may leave.
    over: AtomicBool,
    /// Nanoseconds that workers slept at barriers, where that counts in this phase.
    slept: AtomicU64,
    counts_sleep: AtomicBool,
    arrived: AtomicUsize,
    poisoned: AtomicBool,
    panic: Mutex<Option<String>>,
    at_barrier: Waiters,
    /// Apart from the others: nobody wakes them at every barrier.
    resting: Waiters,
}

impl Team {
    fn new() -> Self {
        Team {
            started: AtomicUsize::new(0),
            phase: AtomicUsize::new(0),
            next_size: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            slept: AtomicU64::new(0),
            counts_sleep: AtomicBool::new(true),
            arrived: AtomicUsize::new(0),
            poisoned: AtomicBool::new(false),
            panic: Mutex::new(None),
            at_barrier: Waiters::new(),
            resting: Waiters::new(),
        }
    }

    /// How many workers take part.
    #[inline]
    pub fn size(&self) -> usize {
        self.phase.load(Ordering::Relaxed) & MAX_SIZE
    }

    /// How many there are, with those that rest.
    #[inline]
    pub fn started(&self) -> usize {
        self.started.load(Ordering::Relaxed)
    }

    /// From the next phase on the first `active` workers take part, at least one and at most those that were started. Only for
    /// the last to arrive at a barrier.
    pub fn resize(&self, active: usize) {
        self.next_size.store(active.clamp(1, self.started()), Ordering::Relaxed);
    }

    /// Waits while `worker` is to rest; false where it is to leave, because all is done or a worker panicked.
    #[must_use]
    #[inline]
    pub fn joins(&self, worker: usize) -> bool {
        let takes_part = || worker < self.phase.load(Ordering::Acquire) & MAX_SIZE;
        if !takes_part() {
            let leaves = || self.over.load(Ordering::Acquire) || self.poisoned.load(Ordering::Acquire);
            self.resting.wait_until(|| takes_part() || leaves());
            return !leaves();
        }
        true
    }

    fn dismiss(&self) {
        self.over.store(true, Ordering::Release);
        self.resting.wake();
    }

    /// Whether sleep at the next phase's barrier counts as such: not where the others wait for what one does alone. Only for the
    /// last to arrive at a barrier.
    #[inline]
    pub fn count_sleep(&self, counts: bool) {
        self.counts_sleep.store(counts, Ordering::Relaxed);
    }

    /// How long workers slept at barriers since this was last asked, added up.
    #[inline]
    pub fn take_slept(&self) -> Duration {
        Duration::from_nanos(self.slept.swap(0, Ordering::Relaxed))
    }

    fn start(&self, started: usize, active: usize) {
        self.started.store(started, Ordering::Relaxed);
        self.resize(active);
        self.begin_phase(0, 0);
    }

    /// Publishes the next phase and whatever was written before; in the last one `before` workers took part.
    fn begin_phase(&self, number: usize, before: usize) {
        let size = self.next_size.load(Ordering::Relaxed);
        self.phase.store(number << SIZE_BITS | size, Ordering::Release);
        self.at_barrier.wake();
        if size > before {
            self.resting.wake();
        }
    }

    fn wait_for_start(&self) {
        self.at_barrier.wait_until(|| self.phase.load(Ordering::Acquire) != 0);
    }

    fn poison(&self, message: String) {
        lock(&self.panic).get_or_insert(message);
        self.poisoned.store(true, Ordering::Release);
        self.at_barrier.wake();
        self.resting.wake();
    }

    /// Waits until all workers are here; the last to arrive does `last` before anybody goes on.
    ///
    /// Returns false where a worker panicked: then leave.
    #[must_use]
    pub fn barrier(&self, last: impl FnOnce()) -> bool {
        let phase = self.phase.load(Ordering::Acquire);
        let (number, size) = (phase >> SIZE_BITS, phase & MAX_SIZE);
        if size == 1 {
            last();
            if self.next_size.load(Ordering::Relaxed) > 1 {
                self.begin_phase(number.wrapping_add(1), size);
            }
            return true;
        }
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == size {
            last();
            self.arrived.store(0, Ordering::Relaxed);
            self.begin_phase(number.wrapping_add(1), size);
        } else {
            let counts = self.counts_sleep.load(Ordering::Relaxed);
            let slept = self
                .at_barrier
                .wait_until(|| self.phase.load(Ordering::Acquire) != phase || self.poisoned.load(Ordering::Acquire));
            if counts && !slept.is_zero() {
                self.slept.fetch_add(slept.as_nanos() as u64, Ordering::Relaxed);
            }
        }
        !self.poisoned.load(Ordering::Acquire)
    }
}

/// Threads that wait for something which others make so.
struct Waiters {
    /// Asleep or about to be: waking costs a system call, which is made only for them.
    asleep: AtomicUsize,
    sleepers: Mutex<()>,
    woken: Condvar,
}

impl Waiters {
    fn new() -> Self {
        Waiters { asleep: AtomicUsize::new(0), sleepers: Mutex::new(()), woken: Condvar::new() }
    }

    /// Wakes whoever sleeps, after what they wait for was made so.
    fn wake(&self) {
        // With the fence in `wait_until`: either this sees the sleeper, or the sleeper sees what was made so.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) > 0 {
            // A sleeper that found `ready` false holds the lock until it really waits.
            let _guard = lock(&self.sleepers);
            self.woken.notify_all();
        }
    }

    /// Spins, then sleeps until `ready`; whoever makes it so calls `wake`. Returns how long it slept.
    fn wait_until(&self, ready: impl Fn() -> bool) -> Duration {
        for _ in 0..SPINS {
            if ready() {
                return Duration::ZERO;
            }
            std::hint::spin_loop();
        }
        let since = Instant::now();
        let mut guard = lock(&self.sleepers);
        self.asleep.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        while !ready() {
            guard = self.woken.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, Ordering::Relaxed);
        since.elapsed()
    }
}

/// A number on a cache line of its own, so that its writer does not slow the neighbours' down.
#[repr(align(128))]
struct Apart<A>(A);

/// Numbers from 0 on, each given to one worker.
///
/// A worker takes its own share first, in order, and step after step the same one, whose data lies in its
/// cache; then it helps the others with theirs, so that a busy neighbour on one processor does not hold up the rest.
pub struct Claims(Box<[Apart<AtomicUsize>]>);

impl Claims {
    /// For at most so many workers; nothing taken.
    pub fn new(workers: usize) -> Self {
        Claims((0..workers).map(|_| Apart(AtomicUsize::new(0))).collect())
    }
    /// The next number for `worker` of `workers`, where `share(w)` begins worker w's share, the first at 0, and `share(workers)` ends
    /// the last. Those who share one share all say that they are worker 0 of 1.
    #[inline]
    pub fn next(&self, worker: usize, workers: usize, share: impl Fn(usize) -> usize) -> Option<usize> {
        if workers == 1 {
            // One share, which others may be counting too.
            let (taken, end) = (&self.0[worker].0, share(1));
            if taken.load(Ordering::Relaxed) >= end {
                return None;
            }
            return Some(taken.fetch_add(1, Ordering::Relaxed)).filter(|&claimed| claimed < end);
        }
        self.next_of_several(worker, workers, share)
    }
    fn next_of_several(&self, worker: usize, workers: usize, share: impl Fn(usize) -> usize) -> Option<usize> {
        (0..workers).find_map(|other| {
            let owner = (worker + other) % workers;
            let (begin, end) = (share(owner), share(owner + 1));
            let taken = &self.0[owner].0;
            // Looked at first: a share that is used up is not written to again.
            if begin + taken.load(Ordering::Relaxed) >= end {
                return None;
            }
            Some(begin + taken.fetch_add(1, Ordering::Relaxed)).filter(|&claimed| claimed < end)
        })
    }
    /// Nothing taken again: between two barriers, by the last to arrive.
    #[inline]
    pub fn reset(&self) {
        self.0.iter().for_each(|taken| taken.0.store(0, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn barriers_separate_phases_and_one_worker_does_the_last_step() {
        for threads in [1, 2, 3, 7] {
            let (sum, lasts) = (AtomicUsize::new(0), AtomicUsize::new(0));
            run(threads, |team, _| {
                for round in 0..200 {
                    sum.fetch_add(1, Ordering::Relaxed);
                    let fine = team.barrier(|| {
                        assert_eq!(sum.load(Ordering::Relaxed), (round + 1) * team.size());
                        lasts.fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(fine && team.barrier(|| ()));
                }
            })
            .unwrap();
            assert_eq!(lasts.load(Ordering::Relaxed), 200);
        }
    }

    #[test]
    fn workers_rest_and_join_again_between_two_barriers() {
        for threads in [2, 3, 7] {
            let sums: Vec<AtomicUsize> = (0..300).map(|_| AtomicUsize::new(0)).collect();
            let (round, sizes) = (AtomicUsize::new(0), [threads, 1, 2, 1, threads - 1, threads, 1]);
            run_some(threads, sizes[0], |team, worker| {
                while team.joins(worker) {
                    let now = round.load(Ordering::Acquire);
                    if now == sums.len() {
                        break;
                    }
                    sums[now].fetch_add(1, Ordering::Relaxed);
                    let fine = team.barrier(|| {
                        round.store(now + 1, Ordering::Release);
                        team.resize(sizes[(now + 1) % sizes.len()]);
                    });
                    assert!(fine);
                }
            })
            .unwrap();
            for (now, sum) in sums.iter().enumerate() {
                assert_eq!(sum.load(Ordering::Relaxed), sizes[now % sizes.len()], "round {now} of {threads}");
            }
        }
    }

    #[test]
    fn a_panic_reaches_those_who_rest() {
        let result = run_some(3, 1, |team, worker| {
            while team.joins(worker) {
                assert!(!team.barrier(|| panic!("alone")), "the last step panicked");
            }
        });
        assert_eq!(result, Err(Error::Panic("alone".into())));
    }

    #[test]
    fn claims_cover_everything_once() {
        let counts: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
        for shares in [[0, 300, 301, 1000], [0, 0, 0, 1000], [0, 333, 666, 1000]] {
            let claims = Claims::new(3);
            run(3, |team, worker| {
                // Where fewer threads could be started, those take everything.
                let share = |w: usize| if w == team.size() { 1000 } else { shares[w] };
                while let Some(i) = claims.next(worker, team.size(), share) {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                }
            })
            .unwrap();
        }
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 3));
    }

    #[test]
    fn one_share_of_all_is_claimed_once() {
        let counts: Vec<AtomicUsize> = (0..100_000).map(|_| AtomicUsize::new(0)).collect();
        let claims = Claims::new(1);
        run(3, |_, _| {
            while let Some(i) = claims.next(0, 1, |w| w * counts.len()) {
                counts[i].fetch_add(1, Ordering::Relaxed);
            }
        })
        .unwrap();
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn a_worker_alone_takes_its_share_first() {
        let claims = Claims::new(2);
        let take = || claims.next(1, 2, |w| [0, 2, 5][w]);
        let order: Vec<usize> = std::iter::from_fn(take).collect();
        assert_eq!(order, [2, 3, 4, 0, 1]);
    }

    #[test]
    fn a_panic_in_any_worker_is_an_error_and_hangs_nobody() {
        for culprit in 0..3 {
            let result = run(3, |team, worker| {
                assert!(worker != culprit, "worker {culprit} gave up");
                while team.barrier(|| ()) {}
            });
            assert_eq!(result, Err(Error::Panic(format!("worker {culprit} gave up"))));
        }
    }

    #[test]
    fn a_panic_in_the_last_step_is_an_error_and_hangs_nobody() {
        let result = run(3, |team, _| while team.barrier(|| panic!("last")) {});
        assert_eq!(result, Err(Error::Panic("last".into())));
    }
}
