//! What this machine can do at most, measured: arithmetic of each kind and reading from memory, on some threads.
//!
//! Owns the timing: all threads begin together, each repeats a kernel of [`kernels::peak`](crate::kernels::peak) until the
//! time is over, and their rates are added up. Promises nothing about a machine that does something else meanwhile: take
//! the best of several short measurements.

use crate::error::Error;
use crate::isa::Isa;
use crate::kernels::Number;
use crate::panel::Buffer;
use crate::threads::{self, MAX_THREADS};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Multiply-adds of f32, each two operations.
    F32,
    /// Multiply-adds of f64.
    F64,
    /// Dot products of bf16 added to f32: four operations a lane.
    Bf16,
    /// Reading from memory, front to back.
    Memory,
}

impl Limit {
    /// The one of this name: "f32", "f64", "bf16" or "memory".
    ///
    /// # Errors
    /// [`Error::Value`] for another name.
    pub fn parse(name: &str) -> Result<Self, Error> {
        match name {
            "f32" => Ok(Limit::F32),
            "f64" => Ok(Limit::F64),
            "bf16" => Ok(Limit::Bf16),
            "memory" => Ok(Limit::Memory),
            _ => Err(Error::expected("what", "\"f32\", \"f64\", \"bf16\" or \"memory\"", format!("{name:?}"))),
        }
    }
}

/// Longer measurements only meet more of what else the machine does.
const MAX_SECONDS: f64 = 10.0;
/// Rounds between two looks at the clock: some ten microseconds with the widest vectors.
const ROUNDS: usize = 2048;
/// Bytes read between two looks at the clock.
const READ_BYTES: usize = 1 << 20;
/// Bytes that all threads read together before they begin again: several times a last cache...
const ALL_BYTES: usize = 256 << 20;
/// ... and that each one reads at least: more than its share of that of a large machine.
const LEAST_BYTES: usize = 32 << 20;
/// How often the caller is asked whether to go on.
const POLL_INTERVAL: Duration = Duration::from_millis(40);

/// Whether to go on, asked on the caller's thread.
pub type Poll<'a> = dyn FnMut() -> Result<(), Error> + Send + 'a;

/// Billions of operations a second, or for [`Limit::Memory`] of bytes, of `threads` threads in `seconds`.
///
/// # Errors
/// [`Error::Value`] for arguments out of range, dot products that this CPU or `isa` does not have, or threads that
/// could not be started; [`Error::Memory`]; what `poll` stopped the measurement with.
pub fn measure(limit: Limit, isa: Isa, threads: usize, seconds: f64, poll: &mut Poll<'_>) -> Result<f64, Error> {
    if !(1..=MAX_THREADS).contains(&threads) {
        return Err(Error::expected("threads", format!("a number in 1..={MAX_THREADS}"), threads));
    }
    if !(seconds > 0.0 && seconds <= MAX_SECONDS) {
        return Err(Error::expected("seconds", format!("a number above 0 and at most {MAX_SECONDS}"), seconds));
    }
    let time = Duration::from_secs_f64(seconds);
    match limit {
        Limit::F32 => rate(threads, time, poll, |_, _| f32::kernels(isa).multiply_add(ROUNDS)),
        Limit::F64 => rate(threads, time, poll, |_, _| f64::kernels(isa).multiply_add(ROUNDS)),
        Limit::Bf16 => {
            let missing = || {
                let got = format!("\"bf16\" on {}", isa.name());
                Error::expected("what", "a kind of arithmetic that these kernels have", got)
            };
            let pairs = f32::pair_kernels(isa).map_err(|_| missing())?;
            rate(threads, time, poll, |_, _| pairs.multiply_add(ROUNDS))
        }
        Limit::Memory => {
            let kernels = f32::kernels(isa);
            let (data, piece) = (read_data(threads)?, READ_BYTES / size_of::<f32>());
            rate(threads, time, poll, |worker, go| {
                let at = go * piece % data[worker].len();
                black_box(kernels.read(&data[worker][at..at + piece]));
                READ_BYTES
            })
        }
    }
}

/// What each thread reads: whole pieces of [`READ_BYTES`].
fn read_data(threads: usize) -> Result<Vec<Buffer<f32>>, Error> {
    let bytes = (ALL_BYTES / threads).max(LEAST_BYTES).next_multiple_of(READ_BYTES);
    (0..threads).map(|_| Buffer::zeroed(bytes / size_of::<f32>(), "measure: what is read")).collect()
}

/// Adds up the threads' rates of `work(worker, go)`, which returns how much it did, in billions a second.
fn rate<W>(threads: usize, time: Duration, poll: &mut Poll<'_>, work: W) -> Result<f64, Error>
where
    W: Fn(usize, usize) -> usize + Sync,
{
    let (total, stop) = (Mutex::new(Ok((0.0, 0))), AtomicBool::new(false));
    let poll = Mutex::new(poll);
    threads::run(threads, |team, worker| {
        // Once for the caches, the clock and the pages of memory.
        work(worker, 0);
        if !team.barrier(|| ()) {
            return;
        }
        let (began, mut asked, mut done, mut go) = (Instant::now(), Instant::now(), 0, 0);
        while began.elapsed() < time && !stop.load(Ordering::Relaxed) {
            go += 1;
            done += work(worker, go);
            if worker == 0 && asked.elapsed() >= POLL_INTERVAL {
                asked = Instant::now();
                let answer = poll.lock().unwrap_or_else(PoisonError::into_inner)();
                if let Err(error) = answer {
                    stop.store(true, Ordering::Relaxed);
                    *total.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
                }
            }
        }
        let rate = done as f64 / began.elapsed().as_secs_f64();
        if let Ok((sum, workers)) = &mut *total.lock().unwrap_or_else(PoisonError::into_inner) {
            *sum += rate;
            *workers += 1;
        }
    })?;
    match total.into_inner().unwrap_or_else(PoisonError::into_inner)? {
        (sum, workers) if workers == threads => Ok(sum / 1e9),
        (_, workers) => {
            Err(Error::expected("threads", "as many as the system starts", format!("{threads}, {workers} started")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: [Limit; 4] = [Limit::F32, Limit::F64, Limit::Bf16, Limit::Memory];

    fn quickly(limit: Limit, isa: Isa, threads: usize) -> Result<f64, Error> {
        measure(limit, isa, threads, 0.01, &mut || Ok(()))
    }

    #[test]
    fn every_instruction_set_has_limits_that_a_machine_can_have() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for limit in [Limit::F32, Limit::F64, Limit::Memory] {
                let rate = quickly(limit, isa, 1).unwrap();
                // 2 units of 64 bytes at 10 GHz do 640 f32 operations in a nanosecond.
                assert!((1e-3..1e3).contains(&rate), "{limit:?} {isa:?}: {rate}");
            }
        }
    }

    #[test]
    fn wider_numbers_are_slower_and_tiles_fastest() {
        let isa = Isa::choose().unwrap();
        if !matches!(isa, Isa::Amx | Isa::Avx512 | Isa::Avx2) {
            return println!("{}: no vectors of its own, skipped", isa.name());
        }
        // The best of many goes that alternate: other tests, and a host's neighbours, run at the same time.
        let ratio = |above, below| {
            let (mut a, mut b) = (0.0, 0.0);
            for _ in 0..96 {
                a = quickly(above, isa, 1).unwrap().max(a);
                b = quickly(below, isa, 1).unwrap().max(b);
            }
            a / b
        };
        let half = ratio(Limit::F64, Limit::F32);
        assert!((0.3..0.8).contains(&half), "f64 over f32: {half}");
        if quickly(Limit::Bf16, isa, 1).is_ok() {
            let more = ratio(Limit::Bf16, Limit::F32);
            // Intel's vectors of bf16 do half of what those of f32 do, AMD's twice as much; tiles sixteen times as much.
            let range = if isa == Isa::Amx { 6.0..40.0 } else { 0.3..5.0 };
            assert!(range.contains(&more), "bf16 over f32: {more}");
        }
    }

    #[test]
    fn dot_products_need_their_instructions() {
        for isa in [Isa::Avx2, Isa::Portable, Isa::Scalar] {
            let message = quickly(Limit::Bf16, isa, 1).unwrap_err().to_string();
            assert!(message.starts_with("what: ") && message.ends_with(isa.name()), "{message}");
        }
    }

    #[test]
    fn arguments_out_of_range_are_refused() {
        for threads in [0, MAX_THREADS + 1] {
            assert!(quickly(Limit::F32, Isa::Scalar, threads).unwrap_err().to_string().starts_with("threads: "));
        }
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY, 11.0] {
            let error = measure(Limit::F32, Isa::Scalar, 1, seconds, &mut || Ok(())).unwrap_err();
            assert!(error.to_string().starts_with("seconds: "));
        }
        assert_eq!(["f32", "f64", "bf16", "memory"].map(|name| Limit::parse(name).unwrap()), EVERYTHING);
        assert!(Limit::parse("f16").unwrap_err().to_string().ends_with("got \"f16\""));
    }

    #[test]
    fn the_caller_can_stop_a_measurement() {
        let began = Instant::now();
        let stopped = measure(Limit::F32, Isa::Scalar, 2, 10.0, &mut || Err(Error::Interrupted));
        assert_eq!(stopped, Err(Error::Interrupted));
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
