//! exp, log, log1p, tanh and sigmoid: once, for f32 and f64, for every instruction set.
//!
//! Promise: a function is one fixed sequence of the exact or correctly rounded operations of
//! [`Simd`], so its bits are the same with every token (NaNs are NaN everywhere; their payload is not promised).
//! The errors stay below the `MAX_*_ERROR_ULPS_*` constants; one ULP is the distance between
//! the neighbouring floats around the exact result, and never less than the least subnormal, so the same bound is
//! an absolute one near zero. Infinities, NaNs, signed zeros and subnormals are documented per function.
//!
//! Not here: the loops over arrays ([`epilogue`](super::epilogue)) and the choice of the instruction set.

use crate::isa::{Float, Simd};

/// The largest error of [`exp`]`::<f32>`, over all floats.
pub const MAX_EXP_ERROR_ULPS_F32: f64 = 2.0;
/// The largest error of [`log`]`::<f32>`, over all floats.
pub const MAX_LOG_ERROR_ULPS_F32: f64 = 2.0;
/// The largest error of [`log1p`]`::<f32>`, over all floats of its domain.
pub const MAX_LOG1P_ERROR_ULPS_F32: f64 = 2.0;
/// The largest error of [`tanh`]`::<f32>`, over all floats.
pub const MAX_TANH_ERROR_ULPS_F32: f64 = 2.0;
/// The largest error of [`sigmoid`]`::<f32>`, over all floats.
pub const MAX_SIGMOID_ERROR_ULPS_F32: f64 = 2.0;

/// What the functions need to know about a number type.
pub trait Math: Float {
    /// Positive infinity.
    const INFINITY: Self;
    /// The quiet NaN of undefined results.
    const NAN: Self;
    /// 1.5 times the number from which on floats are whole: adding and subtracting it rounds to a whole number.
    const ROUNDER: Self;
    /// 2^52 or 2^23: makes a subnormal number normal, exactly.
    const SUBNORMAL_SCALE: Self;
    /// The base-2 logarithm of [`SUBNORMAL_SCALE`](Self::SUBNORMAL_SCALE).
    const SUBNORMAL_SHIFT: Self;
    /// Below this, exp rounds to 0.
    const EXP_LOWEST: Self;
    /// Above this, exp rounds to infinity.
    const EXP_HIGHEST: Self;
    /// Below this, tanh rounds to its argument.
    const TANH_IDENTITY: Self;
    /// ln 2 in two parts: the nearest number and the nearest to what it misses.
    const LN_2: [Self; 2];
    /// c in `e^r = 1 + r + r^2 (c[0] + c[1] r + ...)` on `|r| <= ln 2`.
    const EXP_TAIL: &'static [Self];
    /// c in `2 artanh(s) = 2 s + s z (c[0] + c[1] z + ...)`, where `z = s^2`, on `|s| <= 1/3`.
    const ARTANH_TAIL: &'static [Self];
}

// The polynomials are minimax fits by the Remez exchange in 60 digits, weighted to the relative error of the
// whole function. f32: coefficients rounded one by one, the rest fitted again after each. f64: all rounded at once.

impl Math for f32 {
    const INFINITY: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;
    const ROUNDER: f32 = 12_582_912.0;
    const SUBNORMAL_SCALE: f32 = 8_388_608.0;
    const SUBNORMAL_SHIFT: f32 = 23.0;
    // e^-103.98 is half the least subnormal.
    const EXP_LOWEST: f32 = -104.0;
    // e^88.73 is past the greatest float.
    const EXP_HIGHEST: f32 = 89.0;
    // x^2 / 3, the relative distance of tanh(x) from x, is 2^-25.6 here.
    const TANH_IDENTITY: f32 = 1.0 / 4096.0;
    const LN_2: [f32; 2] = [std::f32::consts::LN_2, -1.904_654_2e-9];
    // Relative error of e^r: 1.5e-8, an eighth of f32's epsilon.
    const EXP_TAIL: &'static [f32] =
        &[0.500_000_36, 0.166_666_16, 0.041_661_17, 0.008_335_909, 0.001_410_617_1, 0.000_196_440_4];
    // Relative error of 2 artanh(s): 4.5e-9.
    const ARTANH_TAIL: &'static [f32] = &[0.666_664_2, 0.400_214_37, 0.280_030_25, 0.280_067_86];
}

impl Math for f64 {
    const INFINITY: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;
    const ROUNDER: f64 = 6_755_399_441_055_744.0;
    const SUBNORMAL_SCALE: f64 = 4_503_599_627_370_496.0;
    const SUBNORMAL_SHIFT: f64 = 52.0;
    // e^-745.14 is half the least subnormal.
    const EXP_LOWEST: f64 = -746.0;
    // e^709.79 is past the greatest float.
    const EXP_HIGHEST: f64 = 710.0;
    // x^2 / 3 is 2^-55.6 here.
    const TANH_IDENTITY: f64 = 1.0 / 134_217_728.0;
    const LN_2: [f64; 2] = [std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17];
    // Relative error of e^r: 1.4e-17, a sixteenth of f64's epsilon.
    const EXP_TAIL: &'static [f64] = &[
        0.499_999_999_999_999_44,
        0.166_666_666_666_669_13,
        0.041_666_666_666_697_5,
        0.008_333_333_333_273_208,
        0.001_388_888_888_399_690_6,
        0.000_198_412_698_914_054_6,
        2.480_159_066_005_369_2e-5,
        2.755_730_080_189_515_6e-6,
        2.755_618_950_571_832e-7,
        2.505_505_565_806_203_7e-8,
        2.106_015_172_673_751_6e-9,
        1.593_156_186_380_125e-10,
    ];
    // Relative error of 2 artanh(s): 1.5e-18.
    const ARTANH_TAIL: &'static [f64] = &[
        0.666_666_666_666_665,
        0.400_000_000_001_038_47,
        0.285_714_285_534_090_3,
        0.222_222_236_723_969_73,
        0.181_817_532_037_184_34,
        0.153_863_814_445_533_85,
        0.133_031_192_621_353_93,
        0.120_903_771_059_332_16,
        0.084_041_689_719_689_02,
        0.169_069_746_609_288_22,
    ];
}

/// `e^x`. Overflow gives infinity, underflow passes through the subnormals to 0, NaN gives NaN.
#[inline(always)]
pub fn exp<T: Math, S: Simd<T>>(s: S, x: S::V) -> S::V {
    exp_below_overflow(s, at_most(s, x, T::EXP_HIGHEST))
}

/// The natural logarithm. `log(0)` (of either sign) is minus infinity, of negative numbers NaN; `log(inf)` is
/// infinity, NaN gives NaN.
#[inline(always)]
pub fn log<T: Math, S: Simd<T>>(s: S, x: S::V) -> S::V {
    let (zero, one) = (s.splat(T::ZERO), s.splat(T::ONE));
    let least_normal = s.splat(T::MIN_POSITIVE);
    let normal = s.select_lt(x, least_normal, s.mul(x, s.splat(T::SUBNORMAL_SCALE)), x);
    let shift = s.select_lt(x, least_normal, s.splat(T::SUBNORMAL_SHIFT), zero);

    // x = 2^n m, with m in [1/sqrt 2, sqrt 2) so that n = -1 never meets an m near 2, where the sum cancels.
    let (n, m) = (s.sub(s.exponent(normal), shift), s.significand(normal));
    let root_2 = s.splat(T::from_f64(std::f64::consts::SQRT_2));
    let n = s.select_lt(m, root_2, n, s.add(n, one));
    let m = s.select_lt(m, root_2, m, s.mul(m, s.splat(T::from_f64(0.5))));

    let f = s.sub(m, one);
    let [ln_2, ln_2_rest] = T::LN_2.map(|part| s.splat(part));
    let correction = log1p_correction(s, f, s.mul(n, ln_2_rest));
    let result = s.mul_add(n, ln_2, s.add(f, correction));

    let not_positive = s.select_lt(x, zero, s.splat(T::NAN), s.splat(-T::INFINITY));
    let result = s.select_lt(zero, x, result, not_positive);
    // Infinity and NaN are not below infinity, and are their own logarithm.
    s.select_lt(x, s.splat(T::INFINITY), result, x)
}

/// `log(1 + x)` for `x` in `[0, 1]`, with a small relative error however small `x` is: what softplus
/// needs, `max(z, 0) + log1p(exp(-|z|))`. NaN gives NaN; other arguments, anything.
#[inline(always)]
pub fn log1p<T: Math, S: Simd<T>>(s: S, x: S::V) -> S::V {
    s.add(x, log1p_correction(s, x, s.splat(T::ZERO)))
}

/// The hyperbolic tangent: odd, down to the sign of zero; 1 at infinity; NaN gives NaN.
#[inline(always)]
pub fn tanh<T: Math, S: Simd<T>>(s: S, x: S::V) -> S::V {
    // tanh |x| = -e / (e + 2), where e = exp(-2 |x|) - 1: the negative exponent keeps e within (-1, 0], so no error
    // of the reduced e^r - 1 is ever magnified. From -64 on, e is -1 whatever the argument.
    let size = s.abs(x);
    let (e_r, half_n) = reduce(s, at_least(s, s.mul(size, s.splat(T::from_f64(-2.0))), T::from_f64(-64.0)));
    let power = s.mul(s.pow2(half_n), s.pow2(half_n));
    let e = s.mul_add(power, e_r, s.sub(power, s.splat(T::ONE)));

    let zero = s.splat(T::ZERO);
    let result = s.div(s.select_lt(x, zero, e, s.sub(zero, e)), s.add(e, s.splat(T::from_f64(2.0))));
    // Tiny arguments are their own tangent; zero keeps its sign that way.
    s.select_lt(size, s.splat(T::TANH_IDENTITY), x, result)
}

/// `1 / (1 + e^-x)`, with a small relative error for large negative `x` too; 0 at minus infinity, 1 at infinity, NaN
/// gives NaN.
#[inline(always)]
pub fn sigmoid<T: Math, S: Simd<T>>(s: S, x: S::V) -> S::V {
    // e = e^-|x| cannot overflow; where x < 0, e^x / (1 + e^x) is the same number.
    let (zero, one) = (s.splat(T::ZERO), s.splat(T::ONE));
    let e = exp_below_overflow(s, s.sub(zero, s.abs(x)));
    s.div(s.select_lt(x, zero, e, one), s.add(one, e))
}

/// [`exp`] of numbers up to [`Math::EXP_HIGHEST`].
#[inline(always)]
fn exp_below_overflow<T: Math, S: Simd<T>>(s: S, x: S::V) -> S::V {
    let (e_r, half_n) = reduce(s, at_least(s, x, T::EXP_LOWEST));
    let root = s.pow2(half_n);
    // 2^n itself may be no normal number; its root is. The first product is exact, the second rounds once.
    s.mul(s.mul(s.add(e_r, s.splat(T::ONE)), root), root)
}

/// `(e^r - 1, n / 2)`, where `x = n ln 2 + r`, `n` is an even whole number and `|r| <= ln 2`.
///
/// The reduction of Cody and Waite (Software Manual for the Elementary Functions, 1980), with a
/// fused first product, which is exact here. An even `n` costs a term or two of the polynomial and saves splitting
/// 2^n into two factors.
#[inline(always)]
fn reduce<T: Math, S: Simd<T>>(s: S, x: S::V) -> (S::V, S::V) {
    let rounder = s.splat(T::ROUNDER);
    let half_log2_e = s.splat(T::from_f64(std::f64::consts::LOG2_E / 2.0));
    let half_n = s.sub(s.mul_add(x, half_log2_e, rounder), rounder);
    let [high, low] = T::LN_2.map(|part| s.splat(-(part + part)));
    let r = s.mul_add(half_n, low, s.mul_add(half_n, high, x));
    (s.mul_add(s.mul(r, r), polynomial(s, T::EXP_TAIL, r), r), half_n)
}

/// `log(1 + f) - f + more`, for `f` in `[1/sqrt 2 - 1, 1]`.
///
/// As in fdlibm's logarithm: with `s = f / (2 + f)`, `log(1 + f) = 2 artanh(s)`; written as `f - s (f - R)`,
/// where `2 s + s R = 2 artanh(s)`, the rounding error of the quotient enters only through a small term.
#[inline(always)]
fn log1p_correction<T: Math, S: Simd<T>>(s: S, f: S::V, more: S::V) -> S::V {
    let q = s.div(f, s.add(f, s.splat(T::from_f64(2.0))));
    let z = s.mul(q, q);
    let rest = s.mul(z, polynomial(s, T::ARTANH_TAIL, z));
    s.mul_add(q, s.sub(rest, f), more)
}

/// `c[0] + c[1] x + c[2] x^2 + ...` by Horner's rule: independent vectors hide its latency, so fewest operations win.
#[inline(always)]
fn polynomial<T: Math, S: Simd<T>>(s: S, c: &'static [T], x: S::V) -> S::V {
    let mut sum = s.splat(c[c.len() - 1]);
    for &term in c[..c.len() - 1].iter().rev() {
        sum = s.mul_add(sum, x, s.splat(term));
    }
    sum
}

/// `x`, or `limit` where that is less; NaN stays.
#[inline(always)]
fn at_most<T: Math, S: Simd<T>>(s: S, x: S::V, limit: T) -> S::V {
    let limit = s.splat(limit);
    s.select_lt(limit, x, limit, x)
}

/// `x`, or `limit` where that is greater; NaN stays.
#[inline(always)]
fn at_least<T: Math, S: Simd<T>>(s: S, x: S::V, limit: T) -> S::V {
    let limit = s.splat(limit);
    s.select_lt(x, limit, limit, x)
}

#[cfg(test)]
#[path = "math_tests.rs"]
mod tests;
