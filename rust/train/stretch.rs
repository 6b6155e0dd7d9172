//! A stretch of a fit: where in an epoch it begins, what ends it before its epochs do, and the rates of its steps.
//!
//! Cutting a fit into stretches changes no bit: the caller hands the [`Cursor`] that one ended with to the next.

use crate::error::Error;
use std::time::Instant;

/// Where inside an epoch a fit stands, between two steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cursor {
    /// The next batch's first row in the epoch's order; 0 at an epoch's start.
    pub row: usize,
    /// The epoch's batches so far: each one's loss times its rows' weights, added up.
    pub epoch_loss: f64,
    /// The sum of those rows' weights, or their number.
    pub epoch_weight: f64,
    /// The last step's loss; NaN before the first.
    pub loss: f64,
}

impl Cursor {
    /// An epoch's start.
    pub const START: Cursor = Cursor { row: 0, epoch_loss: 0.0, epoch_weight: 0.0, loss: f64::NAN };
}

/// What part of a fit's epochs is done in one call.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<'a> {
    /// Where it begins.
    pub begin: Cursor,
    /// Steps after which it ends; `None` for no such end.
    pub steps: Option<u64>,
    /// It ends with the step in which this moment passes.
    pub deadline: Option<Instant>,
    /// The learning rate of each step, instead of the optimizer's.
    pub rates: Option<&'a [f64]>,
}

impl Stretch<'_> {
    /// All epochs, at the optimizer's own rate.
    pub const WHOLE: Stretch<'static> = Stretch { begin: Cursor::START, steps: None, deadline: None, rates: None };

    /// Refuses what does not fit `epochs` epochs over so many rows.
    ///
    /// # Errors
    /// [`Error::Value`], which names the argument.
    pub fn check(&self, epochs: usize, rows: usize, batch_size: usize) -> Result<(), Error> {
        let row = self.begin.row;
        if row >= rows || !row.is_multiple_of(batch_size) {
            return Err(Error::expected("begin", format!("a batch's first row of {rows}"), row));
        }
        if self.steps == Some(0) {
            return Err(Error::expected("steps", "at least 1, or None", 0));
        }
        let Some(rates) = self.rates else { return Ok(()) };
        let of_epoch = rows.div_ceil(batch_size);
        let all = (epochs as u64).saturating_mul(of_epoch as u64).saturating_sub((row / batch_size) as u64);
        let steps = self.steps.map_or(all, |steps| steps.min(all));
        if (rates.len() as u64) < steps {
            return Err(Error::expected("rates", format!("one for each of {steps} steps"), rates.len()));
        }
        match rates.iter().find(|rate| !(**rate >= 0.0 && rate.is_finite())) {
            Some(rate) => Err(Error::expected("learning_rate", "a finite number of at least 0", rate)),
            None => Ok(()),
        }
    }

    /// Whether it ends after its first `steps` steps. The clock is read where there is a deadline only.
    pub fn ends(&self, steps: u64) -> bool {
        self.steps.is_some_and(|most| steps >= most) || self.deadline.is_some_and(|moment| Instant::now() >= moment)
    }

    /// The rate of the step after `steps` steps.
    pub fn rate(&self, steps: u64) -> Option<f64> {
        self.rates.map(|rates| rates[steps as usize])
    }
}
