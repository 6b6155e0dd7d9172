//! What the f64 functions of `math.rs` ought to give: double-double arithmetic, good to about 2^-95.
//!
//! That is 2^-42 of an f64 ULP, so errors measured against it are errors of the functions. It shares no formula
//! or coefficient with them: Taylor series, and logarithms by Newton's method on the exponential. The arithmetic is
//! that of Dekker (A floating-point technique for extending the available precision, 1971) with fused products.
//! `oracle_agrees_with_mpmath` in `math_tests.rs` holds it against numbers from elsewhere.

use super::Function;
use std::ops::{Add, Div, Mul, Sub};

/// The unevaluated sum of two numbers, the second below half an ULP of the first.
#[derive(Clone, Copy, Debug)]
pub struct Double(pub f64, pub f64);

impl Double {
    const ONE: Double = Double(1.0, 0.0);
    const LN_2: Double = Double(std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17);

    /// `a + b`, where `a` is not the smaller one.
    fn fast_sum(a: f64, b: f64) -> Double {
        let sum = a + b;
        Double(sum, b - (sum - a))
    }

    fn sum(a: f64, b: f64) -> Double {
        let sum = a + b;
        let b_share = sum - a;
        Double(sum, (a - (sum - b_share)) + (b - b_share))
    }

    fn product(a: f64, b: f64) -> Double {
        let product = a * b;
        Double(product, a.mul_add(b, -product))
    }

    fn of(x: f64) -> Double {
        Double(x, 0.0)
    }
}

impl Add for Double {
    type Output = Double;
    fn add(self, b: Double) -> Double {
        let (high, low) = (Double::sum(self.0, b.0), Double::sum(self.1, b.1));
        let first = Double::fast_sum(high.0, high.1 + low.0);
        Double::fast_sum(first.0, first.1 + low.1)
    }
}

impl Sub for Double {
    type Output = Double;
    fn sub(self, b: Double) -> Double {
        self + Double(-b.0, -b.1)
    }
}

impl Mul for Double {
    type Output = Double;
    fn mul(self, b: Double) -> Double {
        let product = Double::product(self.0, b.0);
        Double::fast_sum(product.0, product.1 + (self.0 * b.1 + self.1 * b.0))
    }
}

impl Div for Double {
    type Output = Double;
    fn div(self, b: Double) -> Double {
        let first = self.0 / b.0;
        let rest = self - b * Double::of(first);
        let second = rest.0 / b.0;
        let rest = rest - b * Double::of(second);
        Double::fast_sum(first, second) + Double::of(rest.0 / b.0)
    }
}

/// `value * 2^scale`: results that f64 itself would round as subnormal keep all their bits.
#[derive(Clone, Copy, Debug)]
pub struct Exact {
    pub value: Double,
    pub scale: i32,
}

impl Exact {
    /// As one float.
    pub fn nearest(self) -> f64 {
        times_power(self.value.0, self.scale)
    }

    /// How many ULPs `y` is from this number: the distances between the floats around it, 2^-1074 for all subnormal
    /// ones. Infinity is right for what rounds to it, and wrong for all else.
    pub fn error_of(self, y: f64) -> f64 {
        if !y.is_finite() {
            return if y == self.nearest() { 0.0 } else { f64::INFINITY };
        }
        let exponent = exponent(self.value.0) + self.scale;
        let ulp = exponent.clamp(-1022, 1023) - 52;
        let in_ulps = |part: f64, scale: i32| times_power(part, scale - ulp);
        ((in_ulps(y, 0) - in_ulps(self.value.0, self.scale)) - in_ulps(self.value.1, self.scale)).abs()
    }
}

/// `floor(log2(|x|))`, of subnormal numbers too.
fn exponent(x: f64) -> i32 {
    let biased = |x: f64| (x.to_bits() >> 52 & 0x7ff) as i32;
    if biased(x) > 0 { biased(x) - 1023 } else { biased(x * 2f64.powi(54)) - 1023 - 54 }
}

/// `x * 2^n`, in steps that stay in range as long as the result does.
fn times_power(mut x: f64, mut n: i32) -> f64 {
    while n != 0 {
        let step = n.clamp(-1000, 1000);
        x *= 2f64.powi(step);
        n -= step;
    }
    x
}

/// The exact result of `function`; `x` is finite, in its domain, and its result is not 0 or infinite.
pub fn exact(function: Function, x: f64) -> Exact {
    let unscaled = |value| Exact { value, scale: 0 };
    match function {
        Function::Exp => exp(Double::of(x)),
        Function::Log => unscaled(log(x)),
        Function::Log1p => unscaled(log1p(x)),
        Function::Tanh => unscaled(tanh(x)),
        Function::Sigmoid => sigmoid(x),
        Function::Expm1 | Function::Normal | Function::Bell => unreachable!("held to mpmath's numbers"),
    }
}

/// `2^n e^r` with `|r|` up to half of ln 2: 26 terms of the Taylor series leave 2^-125.
fn exp(x: Double) -> Exact {
    let n = (x.0 / std::f64::consts::LN_2).round();
    // The overflow of any x that f64 holds is decided long before 2^2000.
    let r = x - Double::LN_2 * Double::of(n.clamp(-3000.0, 3000.0));
    let series = (1..=26).rev().fold(Double::ONE, |sum, k| Double::ONE + r * sum / Double::of(f64::from(k)));
    // For n = 1024 and 1025 the scale stays 1024, which `error_of` takes for its largest.
    let scale = (n as i32).min(1024);
    Exact { value: Double(times_power(series.0, n as i32 - scale), times_power(series.1, n as i32 - scale)), scale }
}

/// [`exp`] of a number whose result is a normal one, without the scale.
fn plain_exp(x: Double) -> Double {
    let Exact { value, scale } = exp(x);
    Double(times_power(value.0, scale), times_power(value.1, scale))
}

/// `2 artanh(f / (2 + f))` by its Taylor series; for `|f|` below 2^-6, 8 terms leave 2^-110.
fn log_near_one(f: Double) -> Double {
    let s = f / (Double::of(2.0) + f);
    let z = s * s;
    let series = (0..8).rev().fold(Double::of(0.0), |sum, k| sum * z + Double::ONE / Double::of(f64::from(2 * k + 1)));
    Double::of(2.0) * s * series
}

/// The logarithm of a number from 1/2 to 2 and not near 1: one Newton step from the standard library's.
fn newton_log(x: Double) -> Double {
    let start = x.0.ln();
    let e = x * plain_exp(Double::of(-start)) - Double::ONE;
    Double::of(start) + (e - e * e * Double::of(0.5))
}

fn log_from_half_to_two(x: Double) -> Double {
    let f = x - Double::ONE;
    if f.0.abs() < 1.0 / 64.0 { log_near_one(f) } else { newton_log(x) }
}

fn log(x: f64) -> Double {
    let n = exponent(x);
    let m = times_power(x, -n);
    let (n, m) = if m > std::f64::consts::SQRT_2 { (n + 1, m / 2.0) } else { (n, m) };
    Double::LN_2 * Double::of(f64::from(n)) + log_from_half_to_two(Double::of(m))
}

fn log1p(x: f64) -> Double {
    if x < 1.0 / 64.0 { log_near_one(Double::of(x)) } else { newton_log(Double::sum(1.0, x)) }
}

/// By the exponential, or by five terms of the Taylor series for small arguments, whose relative rest is 2^-106.
fn tanh(x: f64) -> Double {
    if x.abs() < 1.0 / 1024.0 {
        let z = Double::product(x, x);
        let ratio = |a: f64, b: f64| Double::of(a) / Double::of(b);
        let series = [ratio(62.0, 2835.0), ratio(-17.0, 315.0), ratio(2.0, 15.0), ratio(-1.0, 3.0), Double::ONE]
            .into_iter()
            .fold(Double::of(0.0), |sum, term| sum * z + term);
        return series * Double::of(x);
    }
    // From 50 on, tanh is within 2^-144 of 1.
    let e = plain_exp(Double::of(-2.0 * x.abs().min(50.0)));
    (Double::ONE - e) / (Double::ONE + e) * Double::of(x.signum())
}

fn sigmoid(x: f64) -> Exact {
    let Exact { value, scale } = exp(Double::of(-x.abs()));
    let e =
        if scale > -900 { Double(times_power(value.0, scale), times_power(value.1, scale)) } else { Double::of(0.0) };
    let one_plus = Double::ONE + e;
    if x < 0.0 { Exact { value: value / one_plus, scale } } else { Exact { value: Double::ONE / one_plus, scale: 0 } }
}
