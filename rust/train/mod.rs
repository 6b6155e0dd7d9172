//! The loop: epochs, batches, groups and phases, run by every worker alike; and passes forward over data.

mod amendments;
pub mod checkpoint;
pub mod course;
pub mod exchange;
pub mod infer;
pub mod input_gradients;
pub mod many;
pub mod optimizer;
pub mod options;
mod pace;
pub mod penalty;
mod phase;
pub mod scikit;
pub mod stretch;
pub mod sums;
pub mod trainer;

use crate::error::Error;
use exchange::Exchanged;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Losses that there is room for from the start: more epochs than that make room as they go.
const LOSSES_AT_ONCE: usize = 1 << 16;

/// What the caller's thread does beside the work: looks for interrupts, reports epochs.
pub trait Host: Send {
    /// Called every few hundredths of a second; an error stops the call.
    ///
    /// # Errors
    /// Whatever is to stop the call, such as [`Error::Interrupted`].
    fn poll(&mut self) -> Result<(), Error>;
    /// Called after an epoch that was asked for, with its number from 0 and its loss.
    ///
    /// # Errors
    /// Whatever is to stop the call.
    fn report(&mut self, epoch: usize, loss: f64) -> Result<(), Error>;
    /// Called in every step of a network whose loss is [`Custom`](crate::kernels::Loss::Custom): reads the batch's logits,
    /// leaves its loss and gradient.
    ///
    /// # Errors
    /// Whatever is to stop the call.
    fn loss(&mut self, _batch: Exchanged<'_>) -> Result<(), Error> {
        Err(Error::expected("loss", "a host that computes it", "another"))
    }
    /// Called after each epoch of a training whose orders the host draws ([`scikit::epochs`]), with its loss: leaves the next
    /// one's rows in `order`, as many as there stand, and returns its learning rate; or `None` to end.
    ///
    /// # Errors
    /// Whatever is to stop the call.
    fn turn(&mut self, _loss: f64, _order: &mut [u32]) -> Result<Option<f64>, Error> {
        Ok(None)
    }
}

pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often the host is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(40);
/// Claims' work after which the clock is read: a few microseconds of arithmetic.
const POLL_WORK: f64 = 1e6;

/// Polls the host now and then, without reading the clock at every claim.
pub(crate) struct Poller {
    last: Instant,
    work: f64,
}

impl Poller {
    pub(crate) fn new() -> Self {
        Poller { last: Instant::now(), work: 0.0 }
    }

    /// Counts `work` floating-point operations done; polls when time has passed.
    pub(crate) fn poll(&mut self, work: f64, host: &Mutex<&mut dyn Host>) -> Result<(), Error> {
        self.work += work;
        if self.work < POLL_WORK {
            return Ok(());
        }
        self.work = 0.0;
        if self.last.elapsed() < POLL_INTERVAL {
            return Ok(());
        }
        let polled = lock(host).poll();
        self.last = Instant::now();
        polled
    }
}
