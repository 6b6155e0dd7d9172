//! The f32 functions at every float there is.
//!
//! Expected is what our own f64 function says; where that hardly changes over a block of floats, it is asked at the ends alone.
//! Every f32 result is compared.

use super::*;
use std::ops::RangeInclusive;

const BLOCK: usize = 1024;

/// Compares the f32 function with the f64 one at every `step`-th float of `bits`.
#[derive(Clone)]
struct Scan {
    function: Function,
    bits: RangeInclusive<u32>,
    step: u32,
}

/// The largest error of a scan, and where the block with it starts.
type Largest = (f64, u32);

/// The numbers of a block: arguments, as f64 too, results, and what is expected.
struct Numbers {
    x: [f32; BLOCK],
    wide: [f64; BLOCK],
    y: [f32; BLOCK],
    expected: [f64; BLOCK],
}

impl<S: Simd<f32> + Simd<f64>> Operation<f32, S> for Scan {
    type Output = Largest;

    #[inline(always)]
    fn run(self, s: S) -> Largest {
        let mut block = Numbers { x: [0.0; BLOCK], wide: [0.0; BLOCK], y: [0.0; BLOCK], expected: [0.0; BLOCK] };
        let mut largest = (-1.0, 0);
        for start in self.bits.clone().step_by(BLOCK * self.step as usize) {
            self.fill(start, &mut block.x);
            Operation::<f32, S>::run(Map(self.function, &block.x, &mut block.y), s);
            let uncertain = self.expect(s, &mut block);
            let error = uncertain + largest_error(&block.y, &block.expected, self.function.greatest());
            if error > largest.0 {
                largest = (error, start);
            }
        }
        largest
    }
}

impl Scan {
    /// The floats that follow `start`; past the end the last one again.
    #[inline(always)]
    fn fill(&self, start: u32, x: &mut [f32; BLOCK]) {
        let last = *self.bits.end();
        for (i, x) in x.iter_mut().enumerate() {
            let offset = (i as u32).wrapping_mul(self.step);
            *x = f32::from_bits(start.saturating_add(offset).min(last));
        }
    }

    /// Fills in what is expected, and says how much of an ULP more an error may be.
    ///
    /// All functions here are monotonic, and so are `tanh(x) / x` and `log1p(x) / x` on either side of 0. So where one of the
    /// two is as good as equal at both ends of a block, it is in between: nearly all floats are too small or too large for
    /// anything else, and need no f64 function each.
    #[inline(always)]
    fn expect<S: Simd<f32> + Simd<f64>>(&self, s: S, block: &mut Numbers) -> f64 {
        for (wide, &x) in block.wide.iter_mut().zip(&block.x) {
            *wide = f64::from(x);
        }
        let mut ends = [block.wide[0]; MOST_LANES];
        ends[1] = block.wide[BLOCK - 1];
        let mut values = [0.0; MOST_LANES];
        Operation::<f64, S>::run(Map(self.function, &ends, &mut values), s);
        if ends[0].is_sign_negative() == ends[1].is_sign_negative() {
            if let Some(uncertain) = spread(values[0], values[1]) {
                block.expected.fill(values[0]);
                return uncertain;
            }
            let ratio = values[0] / ends[0];
            if matches!(self.function, Tanh | Log1p)
                && let Some(uncertain) = spread(ratio, values[1] / ends[1])
            {
                for (expected, wide) in block.expected.iter_mut().zip(&block.wide) {
                    *expected = ratio * wide;
                }
                return uncertain;
            }
        }
        Operation::<f64, S>::run(Map(self.function, &block.wide, &mut block.expected), s);
        0.0
    }

    fn worst(self) -> Worst<f32> {
        let (largest, start) = with_token!(best(), f32, self.clone());
        let mut x = [0.0; BLOCK];
        self.fill(start, &mut x);
        let expected = map(best(), self.function, &x.map(f64::from));
        let each = x.into_iter().zip(map(best(), self.function, &x)).zip(expected).map(|((x, got), expected)| {
            let error = error_f32(got, expected, self.function.greatest());
            Worst { error, x, got, expected }
        });
        let worst = each.fold(Worst::NONE, Worst::max);
        let same = largest.is_infinite() || (largest - worst.error).abs() <= 2.0 * UNCERTAIN;
        assert!(same, "{largest} and {worst}: the same block");
        worst
    }
}

/// The part of an ULP that does not matter.
const UNCERTAIN: f64 = 1.0 / 1024.0;

/// How far from `a`, in f32's ULPs, numbers between `a` and `b` can be, if that does not matter.
#[inline(always)]
fn spread(a: f64, b: f64) -> Option<f64> {
    // An ULP is at least 2^-24 of its number.
    let ulps = if a == b || a.is_nan() && b.is_nan() { 0.0 } else { (b / a - 1.0).abs() * 2f64.powi(24) };
    (ulps <= UNCERTAIN).then_some(ulps)
}

/// The largest error of a block.
#[inline(always)]
fn largest_error(y: &[f32; BLOCK], expected: &[f64; BLOCK], greatest: f64) -> f64 {
    let mut largest = [0f64; MOST_LANES];
    for (y, expected) in y.chunks_exact(MOST_LANES).zip(expected.chunks_exact(MOST_LANES)) {
        for i in 0..MOST_LANES {
            largest[i] = largest[i].max(error_f32(y[i], expected[i], greatest));
        }
    }
    largest.into_iter().fold(0.0, f64::max)
}

/// The error of `y` in f32's ULPs, the distances between the floats around `expected`: 2^-149 for all subnormal
/// ones. Infinity is right for what rounds to it, NaN for NaN; nothing is right beyond `greatest`. No branches, so that
/// it vectorises.
#[inline(always)]
pub fn error_f32(y: f32, expected: f64, greatest: f64) -> f64 {
    let biased = (expected.to_bits() >> 52 & 0x7ff).clamp(1023 - 126, 1023 + 127);
    let per_ulp = f64::from_bits((1023 + 23 + 1023u64).wrapping_sub(biased) << 52);
    let error = (f64::from(y) - expected).abs() * per_ulp;
    let not_finite_and_right = (y.is_infinite() & (y == expected as f32)) | (y.is_nan() & expected.is_nan());
    let wrong = error.is_nan() | (f64::from(y).abs() > greatest);
    if not_finite_and_right {
        0.0
    } else if wrong {
        f64::INFINITY
    } else {
        error
    }
}

/// Scans `bits` on all cores.
fn scan_all(function: Function, bits: RangeInclusive<u32>) -> Worst<f32> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()) as u64;
    // Where `mul_add` is a call into the C library, all floats would take minutes.
    let step = if cfg!(target_arch = "x86_64") && best() == Isa::Portable { 257 } else { 1 };
    let (first, last) = (u64::from(*bits.start()), u64::from(*bits.end()));
    let share = (last - first + 1).div_ceil(threads);
    std::thread::scope(|scope| {
        let starts = (0..threads).map(|t| first + t * share).filter(|&start| start <= last);
        let workers: Vec<_> = starts
            .map(|start| {
                let bits = start as u32..=(start + share - 1).min(last) as u32;
                scope.spawn(move || Scan { function, bits, step }.worst())
            })
            .collect();
        workers.into_iter().map(|w| w.join().expect("the scan")).fold(Worst::NONE, Worst::max)
    })
}

fn assert_every_f32(function: Function, bits: RangeInclusive<u32>, bound: f64) {
    let worst = scan_all(function, bits);
    println!("{function:?} f32 on {}: {worst}", best().name());
    assert!(worst.error <= bound, "{function:?}, bound {bound}: {worst}");
}

#[test]
fn exp_of_every_f32() {
    assert_every_f32(Exp, 0..=u32::MAX, MAX_EXP_ERROR_ULPS_F32);
}

#[test]
fn log_of_every_f32() {
    assert_every_f32(Log, 0..=u32::MAX, MAX_LOG_ERROR_ULPS_F32);
}

#[test]
fn log1p_of_every_f32_of_its_domain() {
    assert_every_f32(Log1p, 0..=1f32.to_bits(), MAX_LOG1P_ERROR_ULPS_F32);
}

#[test]
fn tanh_of_every_f32() {
    assert_every_f32(Tanh, 0..=u32::MAX, MAX_TANH_ERROR_ULPS_F32);
}

#[test]
fn sigmoid_of_every_f32() {
    assert_every_f32(Sigmoid, 0..=u32::MAX, MAX_SIGMOID_ERROR_ULPS_F32);
}

#[test]
fn ends_that_as_good_as_agree_are_told_from_others() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    for (a, b) in [(1.0, 1.0), (0.0, -0.0), (inf, inf), (-inf, -inf), (nan, nan)] {
        assert_eq!(spread(a, b), Some(0.0), "{a} {b}");
    }
    assert_eq!(spread(-2.0, -2.0 - 2f64.powi(-34)), Some(2f64.powi(-11)));
    for (a, b) in
        [(1.0, 1.0 + 2f64.powi(-33)), (1.0, -1.0), (0.0, 1e-300), (1.0, inf), (-inf, 1.0), (inf, nan), (nan, 1.0)]
    {
        assert_eq!(spread(a, b), None, "{a} {b}");
    }
}
