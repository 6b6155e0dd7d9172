//! The losses that an output has by nature: cross-entropies of sigmoid and softmax, the squared error of identity.
//!
//! `z[output][lane]` are logits and become the gradient; `y[output][lane]` are targets. Sums run over the logical index of the
//! output in 32 strided partials and one fixed tree, whatever the vector and panel widths. Exponentials are of numbers that are
//! not positive, so nothing overflows.

use super::lanes::{at, put};
use super::math::{self, Math};
use crate::isa::Simd;

/// The sum over outputs of `term(output)`: 32 strided partials, then a tree. Absent partials are zero.
#[inline(always)]
pub(super) fn strided_sum<T: Math, S: Simd<T>>(s: S, outputs: usize, mut term: impl FnMut(usize) -> S::V) -> S::V {
    let zero = s.splat(T::ZERO);
    if outputs == 1 {
        return s.add(zero, term(0));
    }
    let mut partial = [zero; 32];
    for output in 0..outputs {
        let slot = &mut partial[output % 32];
        *slot = s.add(*slot, term(output));
    }
    for half in [16, 8, 4, 2, 1] {
        // Beyond the outputs stand zeros, which would not change a sum.
        for i in 0..half.min(outputs.saturating_sub(half)) {
            partial[i] = s.add(partial[i], partial[i + half]);
        }
    }
    partial[0]
}

/// `1 / (1 + exp(-x))`, and `exp(-|x|)`, of which it is made.
#[inline(always)]
pub(super) fn probability<T: Math, S: Simd<T>>(s: S, x: S::V) -> (S::V, S::V) {
    let (zero, one) = (s.splat(T::ZERO), s.splat(T::ONE));
    let e = math::exp(s, s.sub(zero, s.abs(x)));
    (s.div(s.select_lt(x, zero, e, one), s.add(one, e)), e)
}

#[inline(always)]
pub(super) fn binary_cross_entropy<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T]) -> S::V {
    let zero = s.splat(T::ZERO);
    strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| {
            let (x, t) = (at(s, z, output), at(s, y, output));
            let (p, e) = probability(s, x);
            put(s, z, output, s.sub(p, t));
            // max(z, 0) - z y + log(1 + exp(-|z|)); a NaN stays one.
            let linear = s.sub(s.clear_lt(x, zero, x), s.mul(x, t));
            s.add(linear, math::log1p(s, e))
        },
    )
}

/// The greatest of each sample's logits.
#[inline(always)]
pub(super) fn greatest<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &[T]) -> S::V {
    let mut max = at(s, z, 0);
    for output in 1..outputs {
        let x = at(s, z, output);
        max = s.select_lt(max, x, x, max);
    }
    max
}

/// Replaces logits by `exp(z - max)`; returns the maximum and the sum.
#[inline(always)]
pub(super) fn exponentials<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T]) -> (S::V, S::V) {
    let max = greatest(s, outputs, z);
    let sum = strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| {
            let e = math::exp(s, s.sub(at(s, z, output), max));
            put(s, z, output, e);
            e
        },
    );
    (max, sum)
}

#[inline(always)]
pub(super) fn cross_entropy<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T]) -> S::V {
    // sum of y z first: the exponentials take the logits' place.
    let mut weight = s.splat(T::ZERO);
    let agreement = strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| s.mul(at(s, y, output), at(s, z, output)),
    );
    let (max, sum) = exponentials(s, outputs, z);
    for output in 0..outputs {
        let t = at(s, y, output);
        weight = s.add(weight, t);
        put(s, z, output, s.sub(s.div(at(s, z, output), sum), t));
    }
    // sum of y (max + log(sum) - z)
    s.sub(s.mul(weight, s.add(max, math::log(s, sum))), agreement)
}

#[inline(always)]
pub(super) fn squared_error<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T]) -> S::V {
    let sum = strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| {
            let d = s.sub(at(s, z, output), at(s, y, output));
            put(s, z, output, d);
            s.mul(d, d)
        },
    );
    s.mul(s.splat(T::from_f64(0.5)), sum)
}
