//! What a number of a product's operand is: a term of the sum, or in mixed precision (`bf16.rs`) a pair of terms.

use super::math::Math;
use crate::isa::Simd;

/// How the numbers of two operands enter a sum.
pub trait Operand<T: Math, S: Simd<T>>: Copy {
    /// Terms of a sum in one number of an operand.
    const TERMS: usize;
    /// `acc` plus all terms of `x y`.
    fn mul_add(self, s: S, x: S::V, y: S::V, acc: S::V) -> S::V;
    /// `acc` plus all terms of `y`.
    fn add(self, s: S, y: S::V, acc: S::V) -> S::V;
}

/// Operands of the computation's own type.
#[derive(Clone, Copy)]
pub struct Plain;

impl<T: Math, S: Simd<T>> Operand<T, S> for Plain {
    const TERMS: usize = 1;
    #[inline(always)]
    fn mul_add(self, s: S, x: S::V, y: S::V, acc: S::V) -> S::V {
        s.mul_add(x, y, acc)
    }
    #[inline(always)]
    fn add(self, s: S, y: S::V, acc: S::V) -> S::V {
        s.add(acc, y)
    }
}
