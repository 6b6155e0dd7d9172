//! The formulas of the losses beside the three that belong to an output: value and gradient, a vector of samples at a time.
//!
//! `z[output][lane]` are logits and become the gradient; `y[output][lane]` are targets. `loss_rows.rs` turns the samples
//! and scales. Where a loss has a kink, its gradient there is 0 if a minimum can lie there, as PyTorch's mean absolute error.

use super::canonical::{exponentials, greatest, probability, strided_sum};
use super::lanes::{at, put};
use super::loss::Loss;
use super::math::{self, Math};
use super::scikit;
use crate::isa::Simd;

/// The loss of each lane's sample; the logits become its gradient.
#[inline(always)]
pub(super) fn further<T: Math, S: Simd<T>>(s: S, loss: &Loss, outputs: usize, z: &mut [T], y: &[T]) -> S::V {
    match loss {
        Loss::WeighedBinaryCrossEntropy { smoothing, positive } => {
            weighed_binary_cross_entropy(s, outputs, z, y, *smoothing, positive)
        }
        Loss::SmoothedCrossEntropy { smoothing } => smoothed_cross_entropy(s, outputs, z, y, *smoothing),
        Loss::BinaryFocal { gamma, positive, negative } => {
            binary_focal(s, outputs, z, y, *gamma, [*positive, *negative])
        }
        Loss::Focal { gamma, alpha } => focal(s, outputs, z, y, *gamma, alpha),
        Loss::Hinge { squared } => hinge(s, outputs, z, y, *squared),
        Loss::MultiMargin { squared } => multi_margin(s, outputs, z, y, *squared),
        Loss::AbsoluteError => absolute_error(s, outputs, z, y),
        Loss::Huber { delta } => huber(s, outputs, z, y, *delta),
        Loss::Poisson => poisson(s, outputs, z, y),
        Loss::Quantile { quantiles } => quantile(s, outputs, z, y, quantiles),
        Loss::BoundedBinaryCrossEntropy | Loss::BoundedCrossEntropy | Loss::PoissonDeviance => {
            scikit::reported(s, loss, outputs, z, y)
        }
        Loss::BinaryCrossEntropy | Loss::CrossEntropy | Loss::SquaredError => unreachable!("has a kernel of its own"),
        Loss::Custom => unreachable!("is the host's"),
    }
}

/// A loss that is a sum over outputs: `f(z, y, output)` is its term and the term's derivative by z.
#[inline(always)]
fn separable<T: Math, S: Simd<T>>(
    s: S,
    outputs: usize,
    z: &mut [T],
    y: &[T],
    f: impl Fn(S::V, S::V, usize) -> (S::V, S::V),
) -> S::V {
    strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| {
            let (loss, derivative) = f(at(s, z, output), at(s, y, output), output);
            put(s, z, output, derivative);
            loss
        },
    )
}

#[inline(always)]
fn number<T: Math, S: Simd<T>>(s: S, x: f64) -> S::V {
    s.splat(T::from_f64(x))
}

/// `x` where that is positive, else 0; NaN stays.
#[inline(always)]
fn positive_part<T: Math, S: Simd<T>>(s: S, x: S::V) -> S::V {
    let zero = s.splat(T::ZERO);
    s.clear_lt(x, zero, x)
}

/// What the losses of a sigmoid are made of, from `exp(-|z|)`.
struct Sigmoid<V> {
    /// `log(1 + exp(z))`, which is `-log(1 - p)`
    above: V,
    /// `log(1 + exp(-z))`, which is `-log p`
    below: V,
    /// `1 / (1 + exp(-z))`
    p: V,
    /// `1 / (1 + exp(z))`
    rest: V,
}

#[inline(always)]
fn sigmoid<T: Math, S: Simd<T>>(s: S, z: S::V) -> Sigmoid<S::V> {
    let (zero, one) = (s.splat(T::ZERO), s.splat(T::ONE));
    let (p, e) = probability(s, z);
    let (tail, whole) = (math::log1p(s, e), s.add(one, e));
    Sigmoid {
        above: s.add(positive_part(s, z), tail),
        below: s.add(positive_part(s, s.sub(zero, z)), tail),
        p,
        rest: s.div(s.select_lt(z, zero, one, e), whole),
    }
}

/// `positive t (-log p) - (1 - t) log(1 - p)`, `t = y (1 - smoothing) + smoothing / 2`.
#[inline(always)]
fn weighed_binary_cross_entropy<T: Math, S: Simd<T>>(
    s: S,
    outputs: usize,
    z: &mut [T],
    y: &[T],
    smoothing: f64,
    positive: &[f64],
) -> S::V {
    let one = s.splat(T::ONE);
    let (keep, share) = (number(s, 1.0 - smoothing), number(s, 0.5 * smoothing));
    separable(
        s,
        outputs,
        z,
        y,
        #[inline(always)]
        |z, y, output| {
            let of = sigmoid(s, z);
            let t = s.mul_add(y, keep, share);
            let (yes, no) = (s.mul(t, number(s, positive[output])), s.sub(one, t));
            let loss = s.add(s.mul(yes, of.below), s.mul(no, of.above));
            (loss, s.sub(s.mul(no, of.p), s.mul(yes, of.rest)))
        },
    )
}

/// Szegedy and others (2016), "Rethinking the Inception architecture", section 7: targets `y (1 - smoothing) + smoothing / n`.
#[inline(always)]
fn smoothed_cross_entropy<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T], smoothing: f64) -> S::V {
    let (keep, share) = (number(s, 1.0 - smoothing), number(s, smoothing / outputs as f64));
    let max = greatest(s, outputs, z);
    // sum of t (max - z), before the exponentials take the logits' place: all terms are at least 0.
    let gap = strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| s.mul(s.mul_add(at(s, y, output), keep, share), s.sub(max, at(s, z, output))),
    );
    let (_, sum) = exponentials(s, outputs, z);
    for output in 0..outputs {
        let t = s.mul_add(at(s, y, output), keep, share);
        put(s, z, output, s.sub(s.div(at(s, z, output), sum), t));
    }
    s.add(gap, math::log(s, sum))
}

/// Lin and others (2017), "Focal loss for dense object detection": `a (1 - p)^gamma (-log p)`, where p is the probability
/// of what is so. With `u = (2 y - 1) z`, `1 - p = exp(-log(1 + exp(u)))`, so that the power is one exponential.
#[inline(always)]
fn binary_focal<T: Math, S: Simd<T>>(
    s: S,
    outputs: usize,
    z: &mut [T],
    y: &[T],
    gamma: f64,
    [positive, negative]: [f64; 2],
) -> S::V {
    let (zero, half, gamma) = (s.splat(T::ZERO), number(s, 0.5), number(s, gamma));
    separable(
        s,
        outputs,
        z,
        y,
        #[inline(always)]
        |z, y, _| {
            let minus = s.sub(zero, z);
            let of = sigmoid(s, s.select_lt(half, y, z, minus));
            let a = s.select_lt(half, y, number(s, positive), number(s, negative));
            let focus = s.mul(a, math::exp(s, s.sub(zero, s.mul(gamma, of.above))));
            // By u: -focus (gamma p (-log p) + (1 - p)).
            let slope = s.mul(focus, s.mul_add(s.mul(gamma, of.p), of.below, of.rest));
            (s.mul(focus, of.below), s.select_lt(half, y, s.sub(zero, slope), slope))
        },
    )
}

/// The same of a softmax, where p is the class's probability and alpha the class's own factor.
#[inline(always)]
fn focal<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T], gamma: f64, alpha: &[f64]) -> S::V {
    let (zero, one, half) = (s.splat(T::ZERO), s.splat(T::ONE), number(s, 0.5));
    // Sums with one term that is not zero pick the class's numbers.
    let own_z = strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| s.mul(at(s, y, output), at(s, z, output)),
    );
    let alpha = strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| s.mul(at(s, y, output), number(s, alpha[output])),
    );
    let (max, sum) = exponentials(s, outputs, z);
    let own = strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| s.mul(at(s, y, output), at(s, z, output)),
    );
    let others = strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| s.select_lt(half, at(s, y, output), zero, at(s, z, output)),
    );
    let (p, rest) = (s.div(own, sum), s.div(others, sum));
    // -log p: near p = 1 from the others' share, which has not lost its digits.
    let far = s.add(s.sub(max, own_z), math::log(s, sum));
    let surprise = s.select_lt(own, others, far, math::log1p(s, s.div(others, own)));
    let power = if gamma == 0.0 { one } else { math::exp(s, s.mul(number(s, gamma), math::log(s, rest))) };
    let focus = s.mul(alpha, power);
    // -log p / (1 - p), which goes to 1 where p does.
    let ratio = s.select_lt(zero, rest, s.div(surprise, rest), one);
    let slope = s.mul(focus, s.mul_add(s.mul(number(s, gamma), p), ratio, one));
    for output in 0..outputs {
        let others = s.div(at(s, z, output), sum);
        let share = s.select_lt(half, at(s, y, output), s.sub(zero, rest), others);
        put(s, z, output, s.mul(slope, share));
    }
    s.mul(focus, surprise)
}

/// Cortes and Vapnik (1995), "Support-vector networks", for labels of 0 and 1.
#[inline(always)]
fn hinge<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T], squared: bool) -> S::V {
    let (zero, one, two) = (s.splat(T::ZERO), s.splat(T::ONE), number(s, 2.0));
    separable(
        s,
        outputs,
        z,
        y,
        #[inline(always)]
        |z, y, _| {
            let sign = s.sub(s.add(y, y), one);
            let missing = s.sub(one, s.mul(sign, z));
            let loss = positive_part(s, missing);
            if squared {
                (s.mul(loss, loss), s.sub(zero, s.mul(two, s.mul(sign, loss))))
            } else {
                (loss, s.select_lt(zero, missing, s.sub(zero, sign), zero))
            }
        },
    )
}

/// Weston and Watkins (1999), "Support vector machines for multi-class pattern recognition", as PyTorch's MultiMarginLoss.
#[inline(always)]
fn multi_margin<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T], squared: bool) -> S::V {
    let (zero, one, half, two) = (s.splat(T::ZERO), s.splat(T::ONE), number(s, 0.5), number(s, 2.0));
    let own = strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| s.mul(at(s, y, output), at(s, z, output)),
    );
    let wanted = s.sub(one, own);
    let sum = separable(
        s,
        outputs,
        z,
        y,
        #[inline(always)]
        |z, y, _| {
            let missing = s.select_lt(half, y, zero, s.add(wanted, z));
            let loss = positive_part(s, missing);
            if squared { (s.mul(loss, loss), s.mul(two, loss)) } else { (loss, s.select_lt(zero, missing, one, zero)) }
        },
    );
    let pull = strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| at(s, z, output),
    );
    for output in 0..outputs {
        let push = at(s, z, output);
        put(s, z, output, s.select_lt(half, at(s, y, output), s.sub(zero, pull), push));
    }
    sum
}

#[inline(always)]
fn absolute_error<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T]) -> S::V {
    let (zero, one) = (s.splat(T::ZERO), s.splat(T::ONE));
    separable(
        s,
        outputs,
        z,
        y,
        #[inline(always)]
        |z, y, _| {
            let d = s.sub(z, y);
            (s.abs(d), s.select_lt(zero, d, one, s.select_lt(d, zero, s.sub(zero, one), zero)))
        },
    )
}

/// Huber (1964), "Robust estimation of a location parameter", as PyTorch's HuberLoss.
#[inline(always)]
fn huber<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T], delta: f64) -> S::V {
    let (zero, half, delta) = (s.splat(T::ZERO), number(s, 0.5), number(s, delta));
    let minus = s.sub(zero, delta);
    separable(
        s,
        outputs,
        z,
        y,
        #[inline(always)]
        |z, y, _| {
            let d = s.sub(z, y);
            let size = s.abs(d);
            let (near, far) = (s.mul(half, s.mul(d, d)), s.mul(delta, s.sub(size, s.mul(half, delta))));
            let bound = s.select_lt(delta, d, delta, s.select_lt(d, minus, minus, d));
            (s.select_lt(delta, size, far, near), bound)
        },
    )
}

/// The negative log-likelihood of counts y whose mean is `exp(z)`, without `log(y!)`.
#[inline(always)]
fn poisson<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T]) -> S::V {
    separable(
        s,
        outputs,
        z,
        y,
        #[inline(always)]
        |z, y, _| {
            let mean = math::exp(s, z);
            (s.sub(mean, s.mul(y, z)), s.sub(mean, y))
        },
    )
}

/// Koenker and Bassett (1978), "Regression quantiles".
#[inline(always)]
fn quantile<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T], quantiles: &[f64]) -> S::V {
    let zero = s.splat(T::ZERO);
    separable(
        s,
        outputs,
        z,
        y,
        #[inline(always)]
        |z, y, output| {
            let q = quantiles[output % quantiles.len()];
            let (below, above) = (number(s, q), number(s, 1.0 - q));
            let d = s.sub(y, z);
            let loss = s.select_lt(d, zero, s.mul(above, s.sub(zero, d)), s.mul(below, d));
            (loss, s.select_lt(zero, d, s.sub(zero, below), s.select_lt(d, zero, above, zero)))
        },
    )
}

#[cfg(test)]
#[path = "losses_tests.rs"]
mod tests;
