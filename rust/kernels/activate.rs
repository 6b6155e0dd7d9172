//! The activations and their derivatives, a vector at a time.
//!
//! Which function it is is decided by the caller outside its loops: these are inlined with a constant, and a decision
//! inside a loop would be made for every vector.

use super::math::{self, Math};
use crate::activation::Activation;
use crate::isa::Simd;

/// `f(z)`; of softmax, which is not elementwise, z.
#[inline(always)]
pub fn value<T: Math, S: Simd<T>>(s: S, f: Activation, z: S::V) -> S::V {
    match f {
        Activation::Identity | Activation::Softmax => z,
        Activation::Relu => relu(s, z),
        Activation::LeakyRelu { slope } => leaky_relu(s, z, slope),
        Activation::Tanh => math::tanh(s, z),
        Activation::Sigmoid => math::sigmoid(s, z),
        Activation::Exponential => math::exp(s, z),
        _ => value_and_slope(s, f, z).0,
    }
}

/// `z < 0 ? 0 : z`: NaN passes on.
#[inline(always)]
pub fn relu<T: Math, S: Simd<T>>(s: S, z: S::V) -> S::V {
    s.clear_lt(z, s.splat(T::ZERO), z)
}

/// `z < 0 ? slope z : z`
#[inline(always)]
pub fn leaky_relu<T: Math, S: Simd<T>>(s: S, z: S::V, slope: f64) -> S::V {
    s.select_lt(z, s.splat(T::ZERO), s.mul(z, s.splat(T::from_f64(slope))), z)
}

/// `f(z)` and `f'(z)`; NaN gives NaN as the value.
#[inline(always)]
pub fn value_and_slope<T: Math, S: Simd<T>>(s: S, f: Activation, z: S::V) -> (S::V, S::V) {
    let number = |x: f64| s.splat(T::from_f64(x));
    let (zero, one) = (s.splat(T::ZERO), s.splat(T::ONE));
    match f {
        Activation::Identity | Activation::Softmax => (z, one),
        Activation::Exponential => {
            let a = math::exp(s, z);
            (a, a)
        }
        Activation::Relu => (relu(s, z), s.select_lt(zero, z, one, zero)),
        Activation::LeakyRelu { slope } => (leaky_relu(s, z, slope), s.select_lt(zero, z, one, number(slope))),
        Activation::Tanh => {
            let a = math::tanh(s, z);
            (a, s.sub(one, s.mul(a, a)))
        }
        Activation::Sigmoid => {
            let a = math::sigmoid(s, z);
            (a, s.mul(a, s.sub(one, a)))
        }
        Activation::Elu { alpha, scale } => {
            let (alpha, scale) = (number(scale * alpha), number(scale));
            let below = s.mul(alpha, math::expm1(s, z));
            let value = s.select_lt(z, zero, below, s.mul(scale, z));
            (value, s.select_lt(zero, z, scale, s.add(below, alpha)))
        }
        Activation::Gelu => {
            let (cdf, density) = math::normal(s, z);
            (s.mul(z, cdf), s.mul_add(z, density, cdf))
        }
        Activation::GeluTanh => gelu_tanh(s, z),
        Activation::Silu => {
            let p = math::sigmoid(s, z);
            let a = s.mul(z, p);
            // p + a (1 - p)
            (a, s.mul_add(a, s.sub(one, p), p))
        }
        Activation::Mish => mish(s, z),
        Activation::Softplus => {
            let e = math::exp(s, s.sub(zero, s.abs(z)));
            (s.add(relu(s, z), math::log1p(s, e)), math::sigmoid(s, z))
        }
        Activation::Softsign => {
            let q = s.div(one, s.add(one, s.abs(z)));
            (s.mul(z, q), s.mul(q, q))
        }
        Activation::HardTanh => clamped(s, z, -1.0, 1.0),
        Activation::Relu6 => clamped(s, z, 0.0, 6.0),
        Activation::HardSigmoid => {
            let sixth = number(1.0 / 6.0);
            let (p, slope) = clamped(s, s.mul_add(z, sixth, number(0.5)), 0.0, 1.0);
            (p, s.mul(slope, sixth))
        }
        Activation::HardSwish => {
            // z (z + 3) / 6 between -3 and 3.
            let (p, _) = clamped(s, s.mul_add(z, number(1.0 / 6.0), number(0.5)), 0.0, 1.0);
            let between = s.mul_add(z, number(1.0 / 3.0), number(0.5));
            let slope = s.select_lt(z, number(3.0), between, one);
            (s.mul(z, p), s.select_lt(number(-3.0), z, slope, zero))
        }
    }
}

/// z held between two bounds, and 1 strictly between them, else 0.
#[inline(always)]
fn clamped<T: Math, S: Simd<T>>(s: S, z: S::V, least: f64, most: f64) -> (S::V, S::V) {
    let (least, most) = (s.splat(T::from_f64(least)), s.splat(T::from_f64(most)));
    let (zero, one) = (s.splat(T::ZERO), s.splat(T::ONE));
    let value = s.select_lt(z, least, least, s.select_lt(most, z, most, z));
    (value, s.select_lt(least, z, s.select_lt(z, most, one, zero), zero))
}

#[inline(always)]
fn gelu_tanh<T: Math, S: Simd<T>>(s: S, z: S::V) -> (S::V, S::V) {
    let number = |x: f64| s.splat(T::from_f64(x));
    let (one, half, cubic) = (s.splat(T::ONE), number(0.5), number(0.044715));
    let root = number(0.797_884_560_802_865_4); // sqrt(2 / pi)
    // Beyond, tanh is -1 or 1 to the last bit, and no power of z may overflow.
    let (z_near, _) = clamped(s, z, -20.0, 20.0);
    let square = s.mul(z_near, z_near);
    let t = math::tanh(s, s.mul(s.mul(root, z_near), s.mul_add(cubic, square, one)));
    let p = s.mul_add(half, t, half);
    // d tanh(u(z)) / dz = (1 - t^2) sqrt(2 / pi) (1 + 3 cubic z^2)
    let inner = s.mul(root, s.mul_add(number(3.0 * 0.044715), square, one));
    let density = s.mul(s.mul(half, s.sub(one, s.mul(t, t))), inner);
    (s.mul(z, p), s.mul_add(z_near, density, p))
}

/// With `e = exp(-|z|)`, `tanh(softplus(z))` is `(e^2 + 2 e) / (e^2 + 2 e + 2)` for negative z and `(1 + 2 e) /
/// (1 + 2 e + 2 e^2)` for others.
#[inline(always)]
fn mish<T: Math, S: Simd<T>>(s: S, z: S::V) -> (S::V, S::V) {
    let (zero, one, two) = (s.splat(T::ZERO), s.splat(T::ONE), s.splat(T::from_f64(2.0)));
    let e = math::exp(s, s.sub(zero, s.abs(z)));
    let square = s.mul(e, e);
    let numerator = s.select_lt(z, zero, s.mul_add(two, e, square), s.mul_add(two, e, one));
    let rest = s.select_lt(z, zero, two, s.mul(two, square));
    let t = s.div(numerator, s.add(numerator, rest));
    let p = math::sigmoid(s, z);
    let slope = s.mul_add(s.mul(z, p), s.sub(one, s.mul(t, t)), t);
    (s.mul(z, t), slope)
}
