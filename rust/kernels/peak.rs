//! What the machine can do at most: multiply-adds that never leave the registers, dot products of bf16, and reading.
//!
//! These compute nothing that anybody needs. Each does a known amount of work as fast as the instruction set can, so that
//! whoever times it learns the roof that the other kernels work under. Results go through `black_box`: no compiler may
//! find out that nobody wants them.

use super::math::Math;
use super::operand::Operand;
use crate::isa::{Operation, Simd};
use std::hint::black_box;

/// Rounds of multiply-adds, each one a multiply-add in every accumulator of a product's register tile.
///
/// The tile has more accumulators than a multiply-add's latency times the units that start one in each cycle, and
/// none depends on another: only the units' number limits them. Returns the floating-point operations done.
pub struct MultiplyAddOp<O> {
    /// How many.
    pub rounds: usize,
    /// Of what: plain numbers, or pairs of bf16.
    pub operand: O,
}

impl<T: Math, S: Simd<T>, O: Operand<T, S>> Operation<T, S> for MultiplyAddOp<O> {
    type Output = usize;

    #[inline(always)]
    fn run(self, s: S) -> usize {
        // The tiles of the instruction sets: 12 x 2 or 6 x 2. The other arm is compiled away.
        let (operand, rounds) = (self.operand, self.rounds);
        if const { S::ROWS >= 12 } {
            chains::<T, S, O, 12>(s, operand, rounds)
        } else {
            chains::<T, S, O, 6>(s, operand, rounds)
        }
    }
}

/// `acc = acc + x x` in R x 2 accumulators, each from a start of its own.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn chains<T: Math, S: Simd<T>, O: Operand<T, S>, const R: usize>(s: S, operand: O, rounds: usize) -> usize {
    // As pairs of bf16 the bits of 1 are 1 and 0.
    let x = s.splat(black_box(T::ONE));
    let mut acc = [[x; 2]; R];
    for r in 0..R {
        for n in 0..2 {
            acc[r][n] = s.splat(black_box(T::from_f64((2 * r + n) as f64)));
        }
    }
    for _ in 0..rounds {
        for r in 0..R {
            for n in 0..2 {
                acc[r][n] = operand.mul_add(s, x, x, acc[r][n]);
            }
        }
    }
    let mut sum = s.splat(T::ZERO);
    for r in 0..R {
        sum = s.add(sum, s.add(acc[r][0], acc[r][1]));
    }
    black_box(sum);
    2 * O::TERMS * 2 * R * S::LANES * rounds
}

/// Vectors that [`ReadOp`] adds up side by side, so that reading does not wait for adding.
const READ_CHAINS: usize = 8;

/// Reads every number once, front to back; returns their sum, in an order of its own.
pub struct ReadOp<'a, T>(pub &'a [T]);

impl<T: Math, S: Simd<T>> Operation<T, S> for ReadOp<'_, T> {
    type Output = T;

    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    fn run(self, s: S) -> T {
        let mut acc = [s.splat(T::ZERO); READ_CHAINS];
        let blocks = self.0.chunks_exact(READ_CHAINS * S::LANES);
        let rest: T = blocks.remainder().iter().fold(T::ZERO, |sum, &x| sum + x);
        for block in blocks {
            for i in 0..READ_CHAINS {
                // SAFETY: the block has READ_CHAINS vectors of LANES numbers.
                acc[i] = s.add(acc[i], unsafe { s.load(block.as_ptr().add(i * S::LANES)) });
            }
        }
        let mut lanes = [T::ZERO; 16];
        for i in 1..READ_CHAINS {
            acc[0] = s.add(acc[0], acc[i]);
        }
        // SAFETY: no instruction set has more than 16 lanes.
        unsafe { s.store(lanes.as_mut_ptr(), acc[0]) };
        lanes.into_iter().fold(rest, |sum, x| sum + x)
    }
}
