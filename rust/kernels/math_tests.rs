//! The promises of `math.rs`, held.
//!
//! f32: every float there is, on the best instruction set, against our own f64 functions (`math_every_f32.rs`); those
//! against the double-double arithmetic of `math_oracle.rs`, on samples; that against numbers from mpmath. An f64
//! function within 4 of its ULPs is within 2^-26 of an f32 ULP. All other instruction sets: equal bits, on samples.
#![allow(clippy::disallowed_methods)]

#[path = "math_oracle.rs"]
mod oracle;

use super::*;
#[cfg(target_arch = "x86_64")]
use crate::isa::{Avx2, Avx512};
use crate::isa::{Isa, Operation, Portable};
use Function::{Bell, Exp, Expm1, Log, Log1p, Normal, Sigmoid, Tanh};
use every_f32::error_f32;
use oracle::{Double, Exact, exact};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    Exp,
    Log,
    Log1p,
    Tanh,
    Sigmoid,
    Expm1,
    Normal,
    Bell,
}

const FUNCTIONS: [Function; 5] = [Exp, Log, Log1p, Tanh, Sigmoid];

impl Function {
    /// No result is larger than this.
    fn greatest(self) -> f64 {
        match self {
            Exp | Log | Log1p => f64::INFINITY,
            Tanh | Sigmoid | Expm1 | Normal | Bell => 1.0,
        }
    }
}

/// Runs `op` with the token of `isa`, which this CPU has.
macro_rules! with_token {
    ($isa:expr, $t:ty, $op:expr) => {
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512 => Simd::<$t>::vectorize(Avx512::new().expect("available"), $op),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Simd::<$t>::vectorize(Avx2::new().expect("available"), $op),
            Isa::Scalar => Simd::<$t>::vectorize(Portable::<1>, $op),
            _ => Simd::<$t>::vectorize(Portable::<4>, $op),
        }
    };
}

// Behind the macro, which it uses.
#[path = "math_every_f32.rs"]
mod every_f32;

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

fn best() -> Isa {
    available().next().expect("portable kernels run everywhere")
}

/// `y[i] = function(x[i])`; the length is a multiple of every vector's.
struct Map<'a, T>(Function, &'a [T], &'a mut [T]);

impl<T: Math, S: Simd<T>> Operation<T, S> for Map<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Map(function, x, y) = self;
        // One loop a function: a choice inside the loop would be made for every vector.
        macro_rules! each {
            ($f:ident) => {
                for (x, y) in x.chunks_exact(S::LANES).zip(y.chunks_exact_mut(S::LANES)) {
                    // SAFETY: both chunks hold LANES numbers.
                    unsafe { s.store(y.as_mut_ptr(), $f(s, s.load(x.as_ptr()))) };
                }
            };
        }
        assert!(x.len() == y.len() && x.len().is_multiple_of(S::LANES));
        match function {
            Exp => each!(exp),
            Log => each!(log),
            Log1p => each!(log1p),
            Tanh => each!(tanh),
            Sigmoid => each!(sigmoid),
            Expm1 => each!(expm1),
            Normal => each!(probability),
            Bell => each!(density),
        }
    }
}

#[inline(always)]
fn probability<T: Math, S: Simd<T>>(s: S, x: S::V) -> S::V {
    normal(s, x).0
}

#[inline(always)]
fn density<T: Math, S: Simd<T>>(s: S, x: S::V) -> S::V {
    normal(s, x).1
}

/// The largest number of lanes; samples come in multiples of it.
const MOST_LANES: usize = 16;

/// A number type as the tests need it.
trait Bits: Math {
    /// Bits of the significand that are stored.
    const MANTISSA: u32;
    /// Bits of all.
    const WIDTH: u32;
    /// The distance from 1 to the next number.
    const EPSILON: f64;
    fn of_bits(bits: u64) -> Self;
    fn map_padded(isa: Isa, map: Map<'_, Self>);
}

macro_rules! bits {
    ($t:ident, $bits:ident) => {
        impl Bits for $t {
            const MANTISSA: u32 = $t::MANTISSA_DIGITS - 1;
            const WIDTH: u32 = $bits::BITS;
            const EPSILON: f64 = $t::EPSILON as f64;
            fn of_bits(bits: u64) -> $t {
                $t::from_bits(bits as $bits)
            }
            fn map_padded(isa: Isa, map: Map<'_, $t>) {
                with_token!(isa, $t, map)
            }
        }
    };
}
bits!(f32, u32);
bits!(f64, u64);

fn map<T: Bits>(isa: Isa, function: Function, x: &[T]) -> Vec<T> {
    let mut padded = x.to_vec();
    padded.resize(x.len().next_multiple_of(MOST_LANES), T::ONE);
    let mut y = vec![T::ZERO; padded.len()];
    T::map_padded(isa, Map(function, &padded, &mut y));
    y.truncate(x.len());
    y
}

// ---- errors ----

/// The largest error seen, in ULPs, and where.
#[derive(Clone, Copy)]
struct Worst<T> {
    error: f64,
    x: T,
    got: T,
    expected: f64,
}

impl<T: Math> std::fmt::Display for Worst<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Worst { error, x, got, expected } = self;
        write!(f, "{error:.4} ULPs at {x:?}: {got:?}, expected {expected:?}")
    }
}

impl<T: Math> Worst<T> {
    const NONE: Self = Worst { error: 0.0, x: T::ZERO, got: T::ZERO, expected: 0.0 };

    fn max(self, other: Self) -> Self {
        if other.error > self.error { other } else { self }
    }
}

#[test]
fn the_ruler_measures() {
    let inf = f64::INFINITY;
    for (y, expected, error) in [
        (1.0, 1.0, 0.0),
        (1.0 + f32::EPSILON, 1.0, 1.0),
        (1.0 - f32::EPSILON / 2.0, 1.0, 0.5),
        (0.0, 1e-60, 1e-60 * 2f64.powi(149)),
        (f32::from_bits(3), 0.0, 3.0),
        (0.0, 1.0, 2f64.powi(23)),
        (f32::INFINITY, 1e39, 0.0),
        (f32::INFINITY, f64::from(f32::MAX), inf),
        (f32::MAX, inf, inf),
        (f32::NEG_INFINITY, inf, inf),
        (f32::NAN, f64::NAN, 0.0),
        (f32::NAN, 1.0, inf),
        (1.0, f64::NAN, inf),
    ] {
        assert_eq!(error_f32(y, expected, inf), error, "{y} for {expected}");
    }
    assert_eq!(error_f32(1.5, 1.5, 1.0), inf);
    for (y, value, scale, error) in [
        (1.0, Double(1.0, f64::EPSILON / 4.0), 0, 0.25),
        (f64::from_bits(1), Double(1.0, 0.0), -1074, 0.0),
        (0.0, Double(1.0, 0.0), -1076, 0.25),
        (f64::from_bits(2), Double(1.5, 0.0), -1074, 0.5),
        (inf, Double(1.0, 0.0), 1024, 0.0),
        (f64::MAX, Double(1.0, 0.0), 1024, 1.0),
        (inf, Double(1.0 - f64::EPSILON, 0.0), 1024, inf),
        (-inf, Double(1.0, 0.0), 1024, inf),
        (f64::NAN, Double(1.0, 0.0), 0, inf),
    ] {
        assert_eq!(Exact { value, scale }.error_of(y), error, "{y} for {value:?} 2^{scale}");
    }
}

// ---- samples ----

/// The n-th number of a fixed random sequence (the finalizer of splitmix64).
fn random(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Every sign and exponent (of infinities and NaNs too), each with the least, the greatest and
/// `count` random significands.
fn every_exponent<T: Bits>(count: u64) -> Vec<T> {
    let low = (1u64 << T::MANTISSA) - 1;
    let significands = move |top: u64| {
        [0, 1, 2, low - 1, low].into_iter().chain((0..count).map(move |i| random(top * count + i) & low))
    };
    let tops = 0..1u64 << (T::WIDTH - T::MANTISSA);
    tops.flat_map(|top| significands(top).map(move |low| T::of_bits(top << T::MANTISSA | low))).collect()
}

/// `count` numbers spread evenly over an interval.
fn uniform<T: Math>(count: u64, from: f64, to: f64) -> impl Iterator<Item = T> {
    let unit = |n: u64| (random(!n) >> 11) as f64 / 2f64.powi(53);
    (0..count).map(move |n| T::from_f64(from + (to - from) * unit(n)))
}

/// Numbers within a few ULPs of where a function changes its ways.
fn edges<T: Bits>() -> Vec<T> {
    let ln_2 = std::f64::consts::LN_2;
    let halves = (-40..=40).map(|i| f64::from(i) * ln_2 / 2.0);
    let limits = [T::EXP_LOWEST, T::EXP_HIGHEST, T::MIN_POSITIVE].map(Float::to_f64);
    let overflows =
        [88.722_839, -87.336_54, -103.278_93, -103.972_08, 709.782_712_893, -708.396_418_53, -745.133_219_1];
    let others =
        [std::f64::consts::SQRT_2, std::f64::consts::FRAC_1_SQRT_2, 1.0, 2.0, 0.55, 32.0, 40.0, 9.010_913, 19.061_547];
    let centres = halves.chain(limits).chain(overflows).chain(others);
    let near =
        |centre: f64| (-40..=40).map(move |i| T::from_f64(centre + centre.abs() * <T as Bits>::EPSILON * f64::from(i)));
    centres.flat_map(|centre| near(centre).chain(near(-centre))).collect()
}

/// Where most arguments of `function` lie, or its results change most.
fn heart(function: Function) -> [(f64, f64); 2] {
    match function {
        Exp => [(-745.2, 709.9), (-2.0, 2.0)],
        Log => [(0.5, 2.0), (0.0, 1e4)],
        Log1p => [(0.0, 1.0), (0.0, 1e-3)],
        Tanh => [(-20.0, 20.0), (-0.5, 0.5)],
        Sigmoid => [(-745.2, 40.0), (-3.0, 3.0)],
        Expm1 | Normal | Bell => unreachable!("held to mpmath's numbers"),
    }
}

fn samples<T: Bits>(function: Function, random_significands: u64, spread: u64) -> Vec<T> {
    let mut x = every_exponent(random_significands);
    x.extend(edges::<T>());
    x.extend(heart(function).into_iter().flat_map(|(from, to)| uniform::<T>(spread, from, to)));
    if function == Log1p {
        x.retain(|x| (0.0..=1.0).contains(&x.to_f64()));
    }
    x
}

fn same_bits<T: Math>(a: T, b: T) -> bool {
    // Widening is exact, so equal bits stay equal and others differ; NaNs are NaNs.
    let (a, b) = (a.to_f64(), b.to_f64());
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

fn assert_same_bits_everywhere<T: Bits>(random_significands: u64) {
    for function in FUNCTIONS {
        let x = samples::<T>(function, random_significands, 200_000);
        let expected = map(best(), function, &x);
        for isa in available().skip(1) {
            let got = map(isa, function, &x);
            for ((&x, &got), &expected) in x.iter().zip(&got).zip(&expected) {
                let name = isa.name();
                assert!(same_bits(got, expected), "{function:?}({x:?}) on {name}: {got:?}, on the best {expected:?}");
            }
        }
    }
}

#[test]
fn same_bits_on_every_isa_f32() {
    assert_same_bits_everywhere::<f32>(8000);
}

#[test]
fn same_bits_on_every_isa_f64() {
    assert_same_bits_everywhere::<f64>(1000);
}

#[test]
fn tanh_is_odd() {
    fn check<T: Bits>(random_significands: u64) {
        let x = samples::<T>(Tanh, random_significands, 100_000);
        let mirrored: Vec<T> = x.iter().map(|&x| -x).collect();
        for ((&x, y), z) in x.iter().zip(map(best(), Tanh, &x)).zip(map(best(), Tanh, &mirrored)) {
            assert!(same_bits(y, -z), "tanh({x:?}) is {y:?}, of its negative {z:?}");
        }
    }
    check::<f32>(1000);
    check::<f64>(100);
}

// ---- f64 ----

/// Whether the oracle has a word on `function(x)`: not on what is 0, infinite or NaN.
fn oracle_knows(function: Function, x: f64) -> bool {
    x.is_finite()
        && match function {
            Exp => (-760.0..710.4).contains(&x),
            Log => x > 0.0 && x != 1.0,
            Log1p | Tanh => x != 0.0,
            Sigmoid => x > -760.0,
            Expm1 | Normal | Bell => false,
        }
}

fn worst_f64(function: Function, x: &[f64]) -> Worst<f64> {
    let y = map(best(), function, x);
    let each = x.iter().zip(&y).filter(|&(&x, _)| oracle_knows(function, x)).map(|(&x, &got)| {
        let exact = exact(function, x);
        let in_range = got.abs() <= function.greatest();
        let error = if in_range { exact.error_of(got) } else { f64::INFINITY };
        Worst { error, x, got, expected: exact.nearest() }
    });
    each.fold(Worst::NONE, Worst::max)
}

fn assert_sampled_f64(function: Function, bound: f64) {
    let x = samples::<f64>(function, 50, 400_000);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let worst = std::thread::scope(|scope| {
        let shares = x.chunks(x.len().div_ceil(threads));
        let workers: Vec<_> = shares.map(|x| scope.spawn(move || worst_f64(function, x))).collect();
        workers.into_iter().map(|w| w.join().expect("the comparison")).fold(Worst::NONE, Worst::max)
    });
    println!("{function:?} f64 on {}: {worst}", best().name());
    assert!(worst.error <= bound, "{function:?}, bound {bound}: {worst}");
}

#[test]
fn exp_of_sampled_f64() {
    assert_sampled_f64(Exp, MAX_EXP_ERROR_ULPS_F64);
}

#[test]
fn log_of_sampled_f64() {
    assert_sampled_f64(Log, MAX_LOG_ERROR_ULPS_F64);
}

#[test]
fn log1p_of_sampled_f64() {
    assert_sampled_f64(Log1p, MAX_LOG1P_ERROR_ULPS_F64);
}

#[test]
fn tanh_of_sampled_f64() {
    assert_sampled_f64(Tanh, MAX_TANH_ERROR_ULPS_F64);
}

#[test]
fn sigmoid_of_sampled_f64() {
    assert_sampled_f64(Sigmoid, MAX_SIGMOID_ERROR_ULPS_F64);
}

/// Results of mpmath 1.4 with 60 digits, as the sum of two floats.
const FROM_MPMATH: [(Function, f64, [f64; 2]); 25] = [
    (Exp, 0.1, [1.1051709180756477, -8.149523913327619e-17]),
    (Exp, -1.7, [0.18268352405273466, -5.430659906894856e-18]),
    (Exp, 33.3, [289738526663660.5, 0.01911633804672778]),
    (Exp, -607.25, [1.8822437522202351e-264, 1.8607154798426914e-281]),
    (Exp, 701.5, [4.545472714492388e+304, 4.548380859900674e+287]),
    (Log, 1.0000001, [9.999999505838704e-08, 1.5249709528441489e-24]),
    (Log, 0.99999, [-1.0000050000287824e-05, -6.988117163381056e-22]),
    (Log, 0.3, [-1.2039728043259361, 8.935521583403776e-17]),
    (Log, 7.5e-301, [-691.0632099706655, 3.9308738020428505e-14]),
    (Log, 123456.789, [11.723646487185881, -4.1025541885795297e-16]),
    (Log1p, 1e-18, [1e-18, -5.0000000000000005e-37]),
    (Log1p, 0.0003, [0.00029995500899797546, 2.1595299159307186e-21]),
    (Log1p, 0.09, [0.08617769624105233, 3.341697619138765e-19]),
    (Log1p, 0.5, [0.4054651081081644, -2.8811380259626426e-18]),
    (Log1p, 0.997, [0.6916460544336782, -5.214703606127659e-17]),
    (Tanh, 1e-09, [1e-09, -3.3333333333333338e-28]),
    (Tanh, -0.0004, [-0.00039999997866666805, 2.883121991085526e-21]),
    (Tanh, 0.03, [0.029991003238820143, 5.423737654509034e-19]),
    (Tanh, -0.7, [-0.6043677771171635, 2.7916180015425346e-17]),
    (Tanh, 17.5, [0.9999999999999988, -3.9778024941724886e-17]),
    (Sigmoid, -3e-05, [0.49999250000000056, 1.0111765769191454e-18]),
    (Sigmoid, 1.25, [0.7772998611746912, -3.978306200575455e-17]),
    (Sigmoid, -2.5, [0.07585818002124355, 5.328066821693456e-18]),
    (Sigmoid, 36.0, [0.9999999999999998, -9.907678099325577e-18]),
    (Sigmoid, -512.5, [2.655082526589927e-223, -7.378541761299005e-241]),
];

#[test]
fn oracle_agrees_with_mpmath() {
    for (function, x, [high, low]) in FROM_MPMATH {
        let Exact { value, scale } = exact(function, x);
        let power = 2f64.powi(scale);
        let difference = ((value.0 * power - high) + (value.1 * power - low)) / high;
        assert!(difference.abs() <= 2f64.powi(-95), "{function:?}({x}): off by {difference:e}");
    }
}

// ---- the edges of the domains ----

fn assert_special_values<T: Bits>() {
    let (inf, nan, least) = (f64::INFINITY, f64::NAN, T::of_bits(1).to_f64());
    let infinity_bits = ((1 << (T::WIDTH - 1 - T::MANTISSA)) - 1) << T::MANTISSA;
    let huge = T::of_bits(infinity_bits - 1).to_f64();
    let (overflow, underflow) = (T::EXP_HIGHEST.to_f64(), T::EXP_LOWEST.to_f64());
    let cases: [(Function, &[(f64, f64)]); 8] = [
        (Exp, &[(0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, 0.0), (nan, nan), (least, 1.0), (-least, 1.0)]),
        (Exp, &[(overflow, inf), (underflow, 0.0), (huge, inf), (-huge, 0.0)]),
        (
            Log,
            &[(1.0, 0.0), (0.0, -inf), (-0.0, -inf), (inf, inf), (nan, nan), (-least, nan), (-inf, nan), (-1.0, nan)],
        ),
        (Log1p, &[(0.0, 0.0), (least, least), (nan, nan)]),
        (Tanh, &[(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (nan, nan), (least, least), (-least, -least)]),
        (Tanh, &[(huge, 1.0), (-huge, -1.0), (20.0, 1.0), (-20.0, -1.0)]),
        (Sigmoid, &[(0.0, 0.5), (-0.0, 0.5), (inf, 1.0), (-inf, 0.0), (nan, nan), (huge, 1.0), (-huge, 0.0)]),
        (Sigmoid, &[(40.0, 1.0), (underflow, 0.0), (least, 0.5)]),
    ];
    for isa in available() {
        for (function, pairs) in cases {
            let x: Vec<T> = pairs.iter().map(|&(x, _)| T::from_f64(x)).collect();
            for (got, &(x, expected)) in map(isa, function, &x).into_iter().zip(pairs) {
                let (name, got) = (isa.name(), got.to_f64());
                assert!(same_bits(got, expected), "{function:?}({x}) on {name}: {got}, expected {expected}");
            }
        }
    }
}

#[test]
fn special_values_f32() {
    assert_special_values::<f32>();
}

#[test]
fn special_values_f64() {
    assert_special_values::<f64>();
}

// ---- what the smooth activations need besides ----

/// Results of mpmath 1.4: x, the normal distribution's probability up to it and its density there.
const NORMAL: [(f64, f64, f64); 14] = [
    (-37.5, 4.605353009581955e-308, 1.728233732284104e-306),
    (-20.0, 2.7536241186062337e-89, 5.520948362159763e-88),
    (-8.25, 7.919726314642478e-17, 6.627137455968751e-16),
    (-5.0, 2.866515718791939e-7, 1.4867195147342977e-6),
    (-3.1, 0.0009676032132183566, 0.00326681905619992),
    (-1.0, 0.15865525393145705, 0.24197072451914335),
    (-0.3, 0.3820885778110474, 0.3813878154605241),
    (-1.0e-5, 0.49999601057719605, 0.39894228038148556),
    (0.0, 0.5, 0.3989422804014327),
    (1.0e-5, 0.500003989422804, 0.39894228038148556),
    (0.7, 0.758036347776927, 0.31225393336676127),
    (1.9, 0.9712834401839982, 0.0656158147746766),
    (4.4, 0.9999945874560923, 2.494247129005353e-5),
    (9.0, 1.0, 1.0279773571668915e-18),
];

/// The same of `e^x - 1`.
const EXPM1: [(f64, f64); 9] = [
    (-41.0, -1.0),
    (-36.0, -0.9999999999999998),
    (-10.5, -0.9999724635506502),
    (-2.0, -0.8646647167633873),
    (-0.7, -0.5034146962085905),
    (-0.3, -0.2591817793182821),
    (-1.0e-3, -0.0009995001666250084),
    (-1.0e-9, -9.999999995e-10),
    (-1.0e-300, -1.0e-300),
];

#[test]
fn normal_and_expm1_agree_with_mpmath() {
    for isa in available() {
        for (x, probability, density) in NORMAL {
            for (function, wanted) in [(Normal, probability), (Bell, density)] {
                let got = map::<f64>(isa, function, &[x])[0];
                assert!((got / wanted - 1.0).abs() <= 1.5e-15, "{function:?}({x}) on {isa:?}: {got}, not {wanted}");
            }
        }
        for (x, wanted) in EXPM1 {
            let got = map::<f64>(isa, Expm1, &[x])[0];
            assert!((got / wanted - 1.0).abs() <= 3e-16, "expm1({x}) on {isa:?}: {got}, not {wanted}");
        }
        for function in [Normal, Bell, Expm1] {
            assert!(map(isa, function, &[f64::NAN])[0].is_nan() && map(isa, function, &[f32::NAN])[0].is_nan());
        }
    }
}

#[test]
fn normal_and_expm1_of_f32_agree_with_those_of_f64() {
    // Of every 997th float up to 0 (expm1's domain) and of its negative.
    for (function, sign) in [(Normal, 1.0f32), (Normal, -1.0), (Bell, -1.0), (Expm1, -1.0)] {
        let x: Vec<f32> = (0..=u64::from(16f32.to_bits())).step_by(997).map(|b| sign * f32::of_bits(b)).collect();
        let double: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let wanted = map::<f64>(best(), function, &double);
        for (i, got) in map::<f32>(best(), function, &x).into_iter().enumerate() {
            // Below, results are subnormal, whose own distance is larger.
            if wanted[i].abs() >= f64::from(f32::MIN_POSITIVE) {
                let error = (f64::from(got) / wanted[i] - 1.0).abs();
                assert!(error <= 3.0 * f64::from(f32::EPSILON), "{function:?}({}): {got}, not {}", x[i], wanted[i]);
            }
        }
    }
}
