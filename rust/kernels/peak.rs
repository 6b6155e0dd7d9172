//! What the machine can do at most: multiply-adds that never leave the registers, dot products of bf16, and reading.
//!
//! These compute nothing that anybody needs. Each does a known amount of work as fast as the instruction set can, so that
//! whoever times it learns the roof that the other kernels work under. Results go through `black_box`: no compiler may
//! find out that nobody wants them.

use super::math::Math;
use crate::isa::{Operation, Simd};
use std::hint::black_box;

/// Rounds of multiply-adds, each one a multiply-add in every accumulator of a product's register tile.
///
/// The tile has more accumulators than a multiply-add's latency times the units that start one in each cycle, and
/// none depends on another: only the units' number limits them. Returns the floating-point operations done.
pub struct MultiplyAddOp {
    /// How many.
    pub rounds: usize,
}

impl<T: Math, S: Simd<T>> Operation<T, S> for MultiplyAddOp {
    type Output = usize;

    #[inline(always)]
    fn run(self, s: S) -> usize {
        // The tiles of the instruction sets: 12 x 2 or 6 x 2. The other arm is compiled away.
        if S::ROWS >= 12 { chains::<T, S, 12>(s, self.rounds) } else { chains::<T, S, 6>(s, self.rounds) }
    }
}

/// `acc = acc / 2 + 1` in R x 2 accumulators, each of which approaches 2 from a start of its own.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn chains<T: Math, S: Simd<T>, const R: usize>(s: S, rounds: usize) -> usize {
    let (half, one) = (s.splat(black_box(T::from_f64(0.5))), s.splat(black_box(T::ONE)));
    let mut acc = [[one; 2]; R];
    for r in 0..R {
        for n in 0..2 {
            acc[r][n] = s.splat(black_box(T::from_f64((2 * r + n) as f64)));
        }
    }
    for _ in 0..rounds {
        for r in 0..R {
            for n in 0..2 {
                acc[r][n] = s.mul_add(acc[r][n], half, one);
            }
        }
    }
    let mut sum = s.splat(T::ZERO);
    for r in 0..R {
        sum = s.add(sum, s.add(acc[r][0], acc[r][1]));
    }
    black_box(sum);
    2 * 2 * R * S::LANES * rounds
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

#[cfg(target_arch = "x86_64")]
pub use bf16::DotOp;

/// Dot products of pairs of bf16 numbers, which only some CPUs have.
#[cfg(target_arch = "x86_64")]
mod bf16 {
    use crate::isa::{Avx512Bf16, Operation};
    use std::hint::black_box;

    /// Accumulators: as many as the register tile of f32 has.
    const CHAINS: usize = 24;
    /// Operations of one instruction: two products and two sums in each of 16 lanes.
    const OPERATIONS: usize = 64;

    /// [`MultiplyAddOp`](super::MultiplyAddOp) with dot products in the multiply-adds' place.
    pub struct DotOp {
        /// How many rounds.
        pub rounds: usize,
    }

    impl Operation<f32, Avx512Bf16> for DotOp {
        type Output = usize;

        #[inline(always)]
        #[allow(clippy::needless_range_loop)]
        fn run(self, s: Avx512Bf16) -> usize {
            let (x, y) = (s.splat_pairs(black_box(0.5)), s.splat_pairs(black_box(0.25)));
            let mut acc = [s.splat(0.0); CHAINS];
            for i in 0..CHAINS {
                acc[i] = s.splat(black_box(i as f32));
            }
            for _ in 0..self.rounds {
                for i in 0..CHAINS {
                    acc[i] = s.dot_add(acc[i], x, y);
                }
            }
            for i in 0..CHAINS {
                black_box(acc[i]);
            }
            OPERATIONS * CHAINS * self.rounds
        }
    }
}
