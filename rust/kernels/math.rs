//! exp, expm1, log, log1p, tanh, sigmoid and the normal distribution: once, for f32 and f64, for every instruction set.
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
pub const MAX_EXP_ERROR_ULPS_F32: f64 = 1.02;
/// The largest error of [`log`]`::<f32>`, over all floats.
pub const MAX_LOG_ERROR_ULPS_F32: f64 = 0.95;
/// The largest error of [`log1p`]`::<f32>`, over all floats of its domain.
pub const MAX_LOG1P_ERROR_ULPS_F32: f64 = 1.32;
/// The largest error of [`tanh`]`::<f32>`, over all floats.
pub const MAX_TANH_ERROR_ULPS_F32: f64 = 1.34;
/// The largest error of [`sigmoid`]`::<f32>`, over all floats.
pub const MAX_SIGMOID_ERROR_ULPS_F32: f64 = 2.0;
/// The largest error of [`exp`]`::<f64>`, over millions of samples.
pub const MAX_EXP_ERROR_ULPS_F64: f64 = 1.25;
/// The largest error of [`log`]`::<f64>`, over millions of samples.
pub const MAX_LOG_ERROR_ULPS_F64: f64 = 1.25;
/// The largest error of [`log1p`]`::<f64>`, over millions of samples of its domain.
pub const MAX_LOG1P_ERROR_ULPS_F64: f64 = 1.5;
/// The largest error of [`tanh`]`::<f64>`, over millions of samples.
pub const MAX_TANH_ERROR_ULPS_F64: f64 = 1.5;
/// The largest error of [`sigmoid`]`::<f64>`, over millions of samples.
pub const MAX_SIGMOID_ERROR_ULPS_F64: f64 = 2.25;

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
    /// About half the largest exponent: moves any exponent that exp meets into the range of normal numbers.
    const HALF_RANGE: Self;
    /// ln 2 in two parts: the nearest number and the nearest to what it misses.
    const LN_2: [Self; 2];
    /// c in `e^r = 1 + r + r^2 (c[0] + c[1] r + ...)` on `|r| <= ln(2) / 2`.
    const EXP_TAIL: &'static [Self];
    /// c in `2 artanh(s) = 2 s + s z (c[0] + c[1] z + ...)`, where `z = s^2`, on `|s| <= 1/3`.
    const ARTANH_TAIL: &'static [Self];
    /// c in `tanh(x) = x + x z (c[0] + c[1] z + ...)`, where `z = x^2`, on `|x| <= 0.55`.
    const TANH_TAIL: &'static [Self];
    /// Where the polynomial of the normal distribution has its middle.
    const NORMAL_MIDDLE: Self;
    /// c in `Phi(-x) = e^(-x^2 / 2) (c[0] + c[1] u + ...) / (x + k)` for positive x, where k is the middle and `u = (x - k) /
    /// (x + k)`.
    const NORMAL_TAIL: &'static [Self];
}

// The polynomials are minimax fits by the Remez exchange in 60 digits, weighted to the relative error of the
// whole function, and rounded. The errors stated are those of the rounded polynomials in exact arithmetic.

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
    const HALF_RANGE: f32 = 64.0;
    const LN_2: [f32; 2] = [std::f32::consts::LN_2, -1.904_654_2e-9];
    // Relative error of e^r: 3.8e-9, a thirtieth of f32's epsilon.
    const EXP_TAIL: &'static [f32] = &[0.499_999_94, 0.166_665_23, 0.041_668_348, 0.008_368_508, 0.001_381_567_6];
    // Relative error of 2 artanh(s): 4.5e-9.
    const ARTANH_TAIL: &'static [f32] = &[0.666_664_2, 0.400_214_37, 0.280_030_25, 0.280_067_86];
    // Relative error of tanh(x): 6.4e-9.
    const TANH_TAIL: &'static [f32] = &[-0.333_333_2, 0.133_325_98, -0.053_853_404, 0.021_075_625, -0.006_279_262];
    const NORMAL_MIDDLE: f32 = 4.0;
    // Relative error: 2.6e-8, two fifths of f32's epsilon; interpolated at Chebyshev's nodes.
    const NORMAL_TAIL: &'static [f32] = &[
        0.755_285_14,
        -0.607_896_6,
        0.387_136_7,
        -0.186_522_68,
        0.060_406_69,
        -0.007_529_251,
        -0.003_526_183_8,
        0.001_572_317_9,
        0.000_201_261_73,
        -0.000_120_184_4,
    ];
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
    const HALF_RANGE: f64 = 512.0;
    const LN_2: [f64; 2] = [std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17];
    // Relative error of e^r: 1.1e-17, a twentieth of f64's epsilon.
    const EXP_TAIL: &'static [f64] = &[
        0.500_000_000_000_000_9,
        0.166_666_666_666_664_27,
        0.041_666_666_666_545_63,
        0.008_333_333_333_490_324,
        0.001_388_888_894_004_047_5,
        0.000_198_412_695_070_775,
        2.480_149_646_013_093_5e-5,
        2.755_759_139_917_859_4e-6,
        2.762_914_775_259_796_7e-7,
        2.499_716_301_804_196e-8,
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
    // Relative error of tanh(x): 2.2e-17.
    const TANH_TAIL: &'static [f64] = &[
        -0.333_333_333_333_324_4,
        0.133_333_333_331_815_66,
        -0.053_968_253_881_035_91,
        0.021_869_486_072_698,
        -0.008_863_195_628_874_799,
        0.003_591_727_653_009_747,
        -0.001_453_251_898_167_125_1,
        0.000_579_231_504_345_745,
        -0.000_210_443_884_955_223_57,
        5.111_195_012_908_059_5e-5,
    ];
    const NORMAL_MIDDLE: f64 = 5.0;
    // Relative error: 5.4e-17, half of f64's epsilon; interpolated at Chebyshev's nodes.
    const NORMAL_TAIL: &'static [f64] = &[
        0.769_193_049_750_063,
        -0.665_382_502_890_056_7,
        0.495_305_615_969_976_4,
        -0.313_533_156_671_304_55,
        0.165_020_366_170_384_7,
        -0.069_118_638_706_310_16,
        0.020_795_066_799_883_178,
        -0.002_993_376_770_508_542_2,
        -0.000_797_869_398_466_070_1,
        0.000_544_899_064_773_129_8,
        -5.937_572_800_991_586e-5,
        -4.976_281_427_058_58e-5,
        1.668_121_374_204_206_3e-5,
        3.980_902_157_868_041_4e-6,
        -2.769_267_095_997_43e-6,
        -3.366_153_681_012_471e-7,
        4.331_410_356_862_585e-7,
        4.227_499_374_006_534_6e-8,
        -6.594_221_662_477_223e-8,
        -9.313_560_994_326_06e-9,
        7.663_071_800_760_04e-9,
        1.753_048_401_408_232e-9,
        -1.587_746_882_747_336_5e-10,
    ];
}

/// Functions of one vector: inlined, but for tokens that are [`Simd::APART`], which have one of each.
macro_rules! elementary {
    ($($(#[$about:meta])* pub fn $name:ident($s:ident, $x:ident) -> $out:ty $body:block)*) => {$(
        $(#[$about])*
        #[inline(always)]
        pub fn $name<T: Math, S: Simd<T>>($s: S, $x: S::V) -> $out {
            #[inline(always)]
            fn inlined<T: Math, S: Simd<T>>($s: S, $x: S::V) -> $out $body
            #[inline(never)]
            fn apart<T: Math, S: Simd<T>>($s: S, $x: S::V) -> $out {
                inlined($s, $x)
            }
            if S::APART { apart::<T, S>($s, $x) } else { inlined::<T, S>($s, $x) }
        }
    )*};
}

elementary! {
    /// `e^x`. Overflow gives infinity, underflow passes through the subnormals to 0, NaN gives NaN.
    pub fn exp(s, x) -> S::V {
        let (e_r, n) = reduce(s, at_least(s, at_most(s, x, T::EXP_HIGHEST), T::EXP_LOWEST));
        // 2^n itself may be no normal number: it is applied in two factors, the first product exact, the second
        // rounded once.
        let (zero, half) = (s.splat(T::ZERO), T::HALF_RANGE);
        let rest = s.select_lt(x, zero, s.splat(-half), s.splat(half));
        let power_of_rest = s.select_lt(x, zero, s.splat(T::pow2(-half)), s.splat(T::pow2(half)));
        let power = s.pow2(s.sub(n, rest));
        s.mul(s.mul_add(power, e_r, power), power_of_rest)
    }

    /// `e^x - 1` for `x` up to 0, with a small relative error however small x is; NaN gives NaN, other arguments anything.
    pub fn expm1(s, x) -> S::V {
        // Beyond, -1 to the last bit.
        let (e_r, n) = reduce(s, at_least(s, at_most(s, x, T::ZERO), T::from_f64(-40.0)));
        let power = s.pow2(n);
        s.mul_add(power, e_r, s.sub(power, s.splat(T::ONE)))
    }

    /// The normal distribution's probability up to `x` and its density there; NaN gives NaN.
    pub fn normal(s, x) -> (S::V, S::V) {
        let (zero, one, half) = (s.splat(T::ZERO), s.splat(T::ONE), s.splat(T::from_f64(0.5)));
        // Beyond, nothing is left of the density.
        let size = at_most(s, s.abs(x), T::from_f64(40.0));
        let square = s.mul(size, size);
        // What the square lost in rounding.
        let lost = s.mul_add(size, size, s.sub(zero, square));
        let bell = exp(s, s.mul(square, s.splat(T::from_f64(-0.5))));
        let bell = s.sub(bell, s.mul(s.mul(bell, half), lost));
        let k = s.splat(T::NORMAL_MIDDLE);
        let q = s.div(one, s.add(size, k));
        let tail = s.mul(s.mul(bell, q), polynomial(s, T::NORMAL_TAIL, s.mul(s.sub(size, k), q)));
        let cdf = s.select_lt(x, zero, tail, s.sub(one, tail));
        // 1 / sqrt(2 pi)
        (cdf, s.mul(bell, s.splat(T::from_f64(0.398_942_280_401_432_7))))
    }

    /// The natural logarithm. `log(0)` (of either sign) is minus infinity, of negative numbers NaN; `log(inf)` is
    /// infinity, NaN gives NaN.
    pub fn log(s, x) -> S::V {
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
    pub fn log1p(s, x) -> S::V {
        s.add(x, log1p_correction(s, x, s.splat(T::ZERO)))
    }

    /// The hyperbolic tangent: odd, down to the sign of zero; 1 at infinity; NaN gives NaN.
    pub fn tanh(s, x) -> S::V {
        let (zero, one, two) = (s.splat(T::ZERO), s.splat(T::ONE), s.splat(T::from_f64(2.0)));
        let size = s.abs(x);

        // tanh x = 1 - 2 / (e^2x + 1), where what is subtracted is at most 1/2 and so are its errors.
        // Long before 2 |x| = 64 that is nothing.
        let (e_r, n) = reduce(s, at_most(s, s.add(size, size), T::from_f64(64.0)));
        let power = s.pow2(n);
        let denominator = s.add(s.mul_add(power, e_r, one), power);
        let large = s.sub(one, s.div(two, denominator));
        let large = s.select_lt(x, zero, s.sub(zero, large), large);

        // As a product, so that the result has the sign of x even where both are zero.
        let z = s.mul(x, x);
        let small = s.mul(x, s.mul_add(z, polynomial(s, T::TANH_TAIL, z), one));
        // 0.55 is where tanh passes 1/2.
        s.select_lt(size, s.splat(T::from_f64(0.55)), small, large)
    }

    /// `1 / (1 + e^-x)`, with a small relative error for large negative `x` too; 0 at minus infinity, 1 at infinity, NaN
    /// gives NaN.
    pub fn sigmoid(s, x) -> S::V {
        // e^40 is past the last bit of 1 + e^-x. Numerator and denominator are scaled by 2^-HALF_RANGE: where e^-x
        // would overflow, the sigmoid is still a subnormal number.
        let x = at_least(s, at_most(s, x, T::from_f64(40.0)), T::EXP_LOWEST);
        let (e_r, n) = reduce(s, s.sub(s.splat(T::ZERO), x));
        let (one, power) = (s.splat(T::pow2(-T::HALF_RANGE)), s.pow2(s.sub(n, s.splat(T::HALF_RANGE))));
        // 1 + 2^n + 2^n (e^r - 1): adding the power last saves the rounding of e^-x itself.
        s.div(one, s.add(s.mul_add(power, e_r, one), power))
    }
}

/// `(e^r - 1, n)`, where `x = n ln 2 + r`, `n` is a whole number and `|r| <= ln(2) / 2`.
///
/// The reduction of Cody and Waite (Software Manual for the Elementary Functions, 1980), with a
/// fused first product, which is exact here.
#[inline(always)]
fn reduce<T: Math, S: Simd<T>>(s: S, x: S::V) -> (S::V, S::V) {
    let rounder = s.splat(T::ROUNDER);
    let log2_e = s.splat(T::from_f64(std::f64::consts::LOG2_E));
    let n = s.sub(s.mul_add(x, log2_e, rounder), rounder);
    let [high, low] = T::LN_2.map(|part| s.splat(-part));
    let r = s.mul_add(n, low, s.mul_add(n, high, x));
    (s.mul_add(s.mul(r, r), polynomial(s, T::EXP_TAIL, r), r), n)
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
