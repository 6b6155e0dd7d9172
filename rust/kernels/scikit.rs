//! Losses in the form in which scikit-learn reports them, beside those of `canonical.rs` and `losses.rs` with the same gradients.
//!
//! There probabilities are held within eps of 0 and 1, eps being the distance from 1 to the next number, and logarithms are
//! taken of the rounded probabilities; the Poisson deviance contains what depends on the targets alone.

use super::canonical::{cross_entropy, probability, strided_sum};
use super::lanes::{at, put};
use super::loss::Loss;
use super::math::{self, Math};
use crate::isa::Simd;

/// The loss of each lane's sample; the logits become its gradient.
#[inline(always)]
pub(super) fn reported<T: Math, S: Simd<T>>(s: S, loss: &Loss, outputs: usize, z: &mut [T], y: &[T]) -> S::V {
    match loss {
        Loss::BoundedBinaryCrossEntropy => binary_cross_entropy(s, outputs, z, y),
        Loss::BoundedCrossEntropy => {
            let (least, most) = (s.splat(epsilon()), s.splat(surprise()));
            within(s, least, most, cross_entropy(s, outputs, z, y))
        }
        Loss::PoissonDeviance => poisson(s, outputs, z, y),
        _ => unreachable!("has a kernel of its own"),
    }
}

/// The distance from 1 to the next number, to which also `-log(1 - eps)` rounds.
fn epsilon<T: Math>() -> T {
    T::from_f64(if T::IS_SINGLE { f64::from(f32::EPSILON) } else { f64::EPSILON })
}

/// `-log(eps)`
fn surprise<T: Math>() -> T {
    T::from_f64(std::f64::consts::LN_2 * if T::IS_SINGLE { 23.0 } else { 52.0 })
}

/// `x` within bounds; NaN stays.
#[inline(always)]
fn within<T: Math, S: Simd<T>>(s: S, least: S::V, most: S::V, x: S::V) -> S::V {
    let x = s.select_lt(x, least, least, x);
    s.select_lt(most, x, most, x)
}

/// `-log(q)` with `q` the rounded probability of what is so: p, or `1 - p`, which cannot resolve less than eps.
#[inline(always)]
fn binary_cross_entropy<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T]) -> S::V {
    let (zero, one, half) = (s.splat(T::ZERO), s.splat(T::ONE), s.splat(T::from_f64(0.5)));
    let (least, most) = (s.splat(epsilon()), s.splat(T::ONE - epsilon::<T>()));
    strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| {
            let (x, t) = (at(s, z, output), at(s, y, output));
            let (p, _) = probability(s, x);
            put(s, z, output, s.sub(p, t));
            let q = s.select_lt(t, half, s.sub(one, p), p);
            s.sub(zero, math::log(s, within(s, least, most, q)))
        },
    )
}

/// `y log(y / p) - y + p` with `p = exp(z)`, where `0 log 0` is 0: half the deviance. That of targets below 0 is NaN.
#[inline(always)]
fn poisson<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T]) -> S::V {
    let (zero, one) = (s.splat(T::ZERO), s.splat(T::ONE));
    strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| {
            let (x, t) = (at(s, z, output), at(s, y, output));
            let p = math::exp(s, x);
            put(s, z, output, s.sub(p, t));
            let log = math::log(s, s.select_lt(zero, t, t, s.select_lt(t, zero, t, one)));
            s.add(s.mul(t, s.sub(log, x)), s.sub(p, t))
        },
    )
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::kernels::{GradientScale, LossRows, Number, Targets};
    use crate::panel::Panels;

    /// Losses and gradients of rows of two outputs on every instruction set, which must agree in all bits.
    fn run(loss: Loss, z: [[f64; 2]; 3], y: &[f64; 6]) -> ([f64; 3], [[f64; 2]; 3]) {
        let mut all = Vec::new();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let kernels = f64::kernels(isa);
            let mut logits = Panels::zeroed(3, 2, kernels.geometry(), "test").unwrap();
            (0..6).for_each(|i| logits.set(i / 2, i % 2, z[i / 2][i % 2]));
            let mut losses = [0.0; 3];
            let mut scratch = vec![0.0; crate::kernels::loss_rows::scratch(kernels.geometry(), 2)];
            kernels.loss(&mut LossRows {
                loss: &loss,
                logits: logits.view_mut(),
                targets: Targets::Dense(y),
                scale: 1.0,
                gradient_scale: GradientScale::Same(1.0),
                losses: &mut losses,
                scratch: &mut scratch,
            });
            all.push((losses, [0, 1, 2].map(|r| [logits.get(r, 0), logits.get(r, 1)])));
        }
        let bits = |one: &([f64; 3], [[f64; 2]; 3])| (one.0.map(f64::to_bits), one.1.map(|row| row.map(f64::to_bits)));
        assert!(all.iter().all(|one| bits(one) == bits(&all[0])), "{loss:?}");
        all[0]
    }

    fn near(got: [f64; 3], wanted: [f64; 3]) {
        let is_near = |(g, w): (&f64, &f64)| (g - w).abs() <= 1e-15 * w.abs();
        assert!(got.iter().zip(&wanted).all(is_near), "{got:?} for {wanted:?}");
    }

    #[test]
    fn bounds_hold_each_cross_entropy_and_no_gradient() {
        // Right, wrong and even, all beyond doubt but the last.
        let (z, y) = ([[800.0, -800.0], [-800.0, 800.0], [0.0, 0.0]], [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
        let terms = [f64::EPSILON, 52.0 * std::f64::consts::LN_2, std::f64::consts::LN_2];
        let (losses, gradients) = run(Loss::BoundedCrossEntropy, z, &y);
        near(losses, terms);
        assert_eq!(gradients, [[0.0, 0.0], [-1.0, 1.0], [-0.5, 0.5]]);
        let (losses, gradients) = run(Loss::BoundedBinaryCrossEntropy, z, &y);
        near(losses, terms.map(|x| 2.0 * x));
        assert_eq!(gradients, [[0.0, 0.0], [-1.0, 1.0], [-0.5, 0.5]]);
    }

    #[test]
    fn a_wrong_label_costs_the_logarithm_of_a_rounded_probability() {
        let z = [[30.0, 2.0], [-30.0, 1.0], [5.0, 36.0]];
        let (losses, _) = run(Loss::BoundedBinaryCrossEntropy, z, &[0.0; 6]);
        let wanted = z.map(|row| row.map(|z| -(1.0 - 1.0 / (1.0 + f64::exp(-z))).ln()).iter().sum());
        near(losses, wanted);
        assert!((losses[0] - (30.0 + 2.0 + f64::ln(1.0 + f64::exp(-2.0)))).abs() > 1e-6);
    }

    #[test]
    fn the_deviance_is_zero_where_means_are_met_and_counts_may_be_zero() {
        let z = [[0.0, f64::ln(3.0)], [1.0, -2.0], [0.5, 0.25]];
        let y = [1.0, 3.0, 0.0, 0.0, 2.0, 5.0];
        let (losses, gradients) = run(Loss::PoissonDeviance, z, &y);
        let half = |z: f64, y: f64| y * (f64::ln(y) - z) - y + z.exp();
        assert!(losses[0].abs() < 1e-15);
        near([0.0, losses[1], losses[2]], [0.0, 1f64.exp() + (-2f64).exp(), half(0.5, 2.0) + half(0.25, 5.0)]);
        assert!((gradients[2][1] - (0.25f64.exp() - 5.0)).abs() < 1e-15);
    }

    #[test]
    fn targets_below_zero_have_no_deviance_and_the_gradient_of_others() {
        let (losses, gradients) = run(Loss::PoissonDeviance, [[0.0, 0.5]; 3], &[-1.0, 2.0, 1.0, -0.0, 3.0, -1e-300]);
        assert_eq!(losses.map(f64::is_nan), [true, false, true]);
        assert!((gradients[0][0] - 2.0).abs() < 1e-15);
    }
}
