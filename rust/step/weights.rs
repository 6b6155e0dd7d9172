//! The arena's buffers as a pass through the network reads them.

use crate::kernels::Number;
use crate::network::{MIRROR, PAIRS, WEIGHTS};
use crate::panel::ArenaReading;

/// What the products read of the arena.
#[derive(Clone, Copy)]
pub struct Weights<'a, T> {
    /// Weights and biases.
    pub weights: &'a [T],
    /// Mirrors.
    pub mirror: &'a [T],
    /// Pairs, in mixed precision.
    pub pairs: &'a [T],
}

impl<'a, T: Number> Weights<'a, T> {
    /// Of an arena that is being read.
    pub fn of(reading: &'a ArenaReading<'_, T>) -> Self {
        Weights { weights: reading.buffer(WEIGHTS), mirror: reading.buffer(MIRROR), pairs: reading.buffer(PAIRS) }
    }
}
