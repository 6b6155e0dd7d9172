//! Losses and their gradients, from logits, a vector of samples at a time.
//!
//! The logits of `V` samples are turned so that lanes are samples: sums over a sample's outputs then run
//! down the lanes, over the logical index of the output in 32 strided partials and one fixed tree, whatever
//! the vector and panel widths. Exponentials are of numbers that are not positive, so nothing overflows.

use super::epilogue::each_vector;
use super::math::{self, Math};
use crate::isa::{Operation, Simd};
use crate::panel::{Geometry, Panels};

/// What training minimises, per sample, before the mean over the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// `sum over outputs of max(z, 0) - z y + log(1 + exp(-|z|))`: cross-entropy of sigmoid outputs.
    BinaryCrossEntropy,
    /// `sum over outputs of y (log(sum exp z) - z)`: cross-entropy of a softmax.
    CrossEntropy,
    /// `sum over outputs of (z - y)^2 / 2`
    SquaredError,
}

/// What the outputs should have been.
#[derive(Clone, Copy)]
pub enum Targets<'a, T> {
    /// One number an output: `[rows][outputs]`.
    Dense(&'a [T]),
    /// One class a sample, below the number of outputs: `[rows]`.
    Classes(&'a [u32]),
}

impl<T: Math> Targets<'_, T> {
    /// # Panics
    /// Where there are not enough of them.
    fn check(&self, rows: usize, outputs: usize) {
        match self {
            Targets::Dense(values) => assert!(values.len() >= rows * outputs),
            Targets::Classes(classes) => assert!(classes.len() >= rows),
        }
    }
}

/// The losses of a slice of samples, whose logits become the gradient.
pub struct LossRows<'a, T> {
    /// Which loss.
    pub loss: Loss,
    /// Logits in, their gradient out: `rows x outputs`. Padding stays as it is.
    pub logits: &'a mut Panels<T>,
    /// The targets of these rows.
    pub targets: Targets<'a, T>,
    /// What a sample's loss is multiplied by.
    pub scale: T,
    /// What its gradient is multiplied by: the scale over the rows of the batch.
    pub gradient_scale: T,
    /// Each sample's loss: `[rows]`.
    pub losses: &'a mut [T],
    /// Room for [`scratch`] numbers.
    pub scratch: &'a mut [T],
}

/// [`LossRows`] as an operation for one instruction set.
pub struct LossOp<'p, 'a, T>(pub &'p mut LossRows<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for LossOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let l = self.0;
        let (rows, outputs, v) = (l.logits.rows(), l.logits.lanes(), S::LANES);
        assert_eq!(l.losses.len(), rows);
        l.targets.check(rows, outputs);
        let turned = l.logits.geometry().padded(outputs) * v;
        let (z, y) = l.scratch[..turned + outputs * v].split_at_mut(turned);
        for first in (0..rows).step_by(v) {
            let samples = v.min(rows - first);
            turn(s, l.logits, first, samples, z);
            targets(&l.targets, first, samples, outputs, v, y);
            let loss = match l.loss {
                Loss::BinaryCrossEntropy => binary_cross_entropy(s, outputs, z, y),
                Loss::CrossEntropy => cross_entropy(s, outputs, z, y),
                Loss::SquaredError => squared_error(s, outputs, z, y),
            };
            let mut lane = [T::ZERO; 16];
            // SAFETY: no instruction set has more than 16 lanes.
            unsafe { s.store(lane.as_mut_ptr(), s.mul(loss, s.splat(l.scale))) };
            l.losses[first..first + samples].copy_from_slice(&lane[..samples]);
            let scale = s.splat(l.gradient_scale);
            each_vector(
                s,
                &mut z[..outputs * v],
                #[inline(always)]
                |d| s.mul(d, scale),
            );
            turn_back(s, l.logits, first, samples, z);
        }
    }
}

/// Turns the logits of a slice of samples into what the output layer returns.
pub struct SoftmaxOp<'a, T> {
    /// `rows x outputs`
    pub logits: &'a mut Panels<T>,
    /// Room for [`scratch`] numbers.
    pub scratch: &'a mut [T],
}

impl<T: Math, S: Simd<T>> Operation<T, S> for SoftmaxOp<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let (rows, outputs, v) = (self.logits.rows(), self.logits.lanes(), S::LANES);
        let z = &mut self.scratch[..self.logits.geometry().padded(outputs) * v];
        for first in (0..rows).step_by(v) {
            let samples = v.min(rows - first);
            turn(s, self.logits, first, samples, z);
            let (_, sum) = exponentials(s, outputs, z);
            each_vector(
                s,
                &mut z[..outputs * v],
                #[inline(always)]
                |e| s.div(e, sum),
            );
            turn_back(s, self.logits, first, samples, z);
        }
    }
}

/// Numbers of scratch that losses and softmax of `outputs` outputs need.
pub fn scratch(geometry: Geometry, outputs: usize) -> usize {
    geometry.padded(outputs).saturating_add(outputs).saturating_mul(geometry.lanes)
}

/// Up to so many outputs are moved one by one: turning a whole square of registers costs more.
const FEW: usize = 4;

/// `z[output][lane] = panels[first + lane][output]`; lanes beyond the samples are zero.
#[inline(always)]
fn turn<T: Math, S: Simd<T>>(s: S, panels: &Panels<T>, first: usize, samples: usize, z: &mut [T]) {
    let v = S::LANES;
    if samples < v {
        z.fill(T::ZERO);
    }
    for base in (0..panels.lanes()).step_by(v) {
        let (p, lane) = (base / (2 * v), base % (2 * v));
        let width = panels.width(p);
        let used = v.min(panels.lanes() - base);
        let source = &panels.panel(p)[first * width + lane..][..(samples - 1) * width + v];
        let target = &mut z[base * v..][..v * v];
        if samples == v && used > FEW {
            // SAFETY: V rows of V numbers, `width` apart, and V rows of V: the slices were cut to just that.
            unsafe { s.transpose(source.as_ptr(), width, target.as_mut_ptr(), v) };
        } else {
            for output in 0..used {
                for i in 0..samples {
                    target[output * v + i] = source[i * width + output];
                }
            }
        }
    }
}

/// The way back from [`turn`]; z is zero where panels have padding.
#[inline(always)]
fn turn_back<T: Math, S: Simd<T>>(s: S, panels: &mut Panels<T>, first: usize, samples: usize, z: &[T]) {
    let v = S::LANES;
    for base in (0..panels.lanes()).step_by(v) {
        let (p, lane) = (base / (2 * v), base % (2 * v));
        let width = panels.width(p);
        let used = v.min(panels.lanes() - base);
        let source = &z[base * v..][..v * v];
        let target = &mut panels.panel_mut(p)[first * width + lane..][..(samples - 1) * width + v];
        if samples == v && used > FEW {
            // SAFETY: as for `turn`.
            unsafe { s.transpose(source.as_ptr(), v, target.as_mut_ptr(), width) };
        } else {
            for output in 0..used {
                for i in 0..samples {
                    target[i * width + output] = source[output * v + i];
                }
            }
        }
    }
}

/// `y[output][lane]` of the samples; lanes beyond them are zero.
#[inline(always)]
fn targets<T: Math>(targets: &Targets<'_, T>, first: usize, samples: usize, outputs: usize, v: usize, y: &mut [T]) {
    match targets {
        Targets::Dense(values) => {
            let values = &values[first * outputs..(first + samples) * outputs];
            if samples < v {
                y.fill(T::ZERO);
            }
            for output in 0..outputs {
                let lanes = &mut y[output * v..][..samples];
                lanes.iter_mut().zip(values[output..].iter().step_by(outputs)).for_each(|(y, &value)| *y = value);
            }
        }
        Targets::Classes(classes) => {
            y.fill(T::ZERO);
            let classes = &classes[first..first + samples];
            classes.iter().enumerate().for_each(|(lane, &class)| y[class as usize * v + lane] = T::ONE);
        }
    }
}

/// The sum over outputs of `term(output)`: 32 strided partials, then a tree. Absent partials are zero.
#[inline(always)]
fn strided_sum<T: Math, S: Simd<T>>(s: S, outputs: usize, mut term: impl FnMut(usize) -> S::V) -> S::V {
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

#[inline(always)]
fn at<T: Math, S: Simd<T>>(s: S, x: &[T], output: usize) -> S::V {
    // SAFETY: the slice is bounds-checked and holds LANES numbers.
    unsafe { s.load(x[output * S::LANES..][..S::LANES].as_ptr()) }
}

#[inline(always)]
fn put<T: Math, S: Simd<T>>(s: S, x: &mut [T], output: usize, value: S::V) {
    // SAFETY: the slice is bounds-checked and holds LANES numbers.
    unsafe { s.store(x[output * S::LANES..][..S::LANES].as_mut_ptr(), value) }
}

#[inline(always)]
fn binary_cross_entropy<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T]) -> S::V {
    let (zero, one) = (s.splat(T::ZERO), s.splat(T::ONE));
    strided_sum(
        s,
        outputs,
        #[inline(always)]
        |output| {
            let (x, t) = (at(s, z, output), at(s, y, output));
            let e = math::exp(s, s.sub(zero, s.abs(x)));
            let p = s.div(s.select_lt(x, zero, e, one), s.add(one, e));
            put(s, z, output, s.sub(p, t));
            // max(z, 0) - z y + log(1 + exp(-|z|)); a NaN stays one.
            let linear = s.sub(s.select_lt(x, zero, zero, x), s.mul(x, t));
            s.add(linear, math::log1p(s, e))
        },
    )
}

/// Replaces logits by `exp(z - max)`; returns the maximum and the sum.
#[inline(always)]
fn exponentials<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T]) -> (S::V, S::V) {
    let mut max = at(s, z, 0);
    for output in 1..outputs {
        let x = at(s, z, output);
        max = s.select_lt(max, x, x, max);
    }
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
fn cross_entropy<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T]) -> S::V {
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
fn squared_error<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T], y: &[T]) -> S::V {
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
