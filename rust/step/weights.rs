//! The arena's buffers as a pass through the network reads them, and who computes with them.

use crate::kernels::{Number, StepKernels};
use crate::network::{MIRROR, PAIRS, WEIGHTS};
use crate::panel::ArenaReading;

/// What the products read of the arena, and the kernels that make them.
#[derive(Clone, Copy)]
pub struct Weights<'a, T> {
    /// Weights and biases.
    pub weights: &'a [T],
    /// Mirrors.
    pub mirror: &'a [T],
    /// Pairs, in mixed precision.
    pub pairs: &'a [T],
    /// Those of the network, or what stands before them.
    pub kernels: &'a dyn StepKernels<T>,
}

impl<'a, T: Number> Weights<'a, T> {
    /// Of an arena that is being read.
    pub fn of(reading: &'a ArenaReading<'_, T>, kernels: &'a dyn StepKernels<T>) -> Self {
        let [weights, mirror, pairs] = [WEIGHTS, MIRROR, PAIRS].map(|index| reading.buffer(index));
        Weights { weights, mirror, pairs, kernels }
    }
}
