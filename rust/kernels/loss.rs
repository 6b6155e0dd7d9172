//! Losses and their gradients, from logits, a vector of samples at a time.
//!
//! The logits of `V` samples are turned so that lanes are samples: sums over a sample's outputs then run
//! down the lanes, over the logical index of the output in 32 strided partials and one fixed tree, whatever
//! the vector and panel widths. Exponentials are of numbers that are not positive, so nothing overflows.

use super::epilogue::each_vector;
use super::lanes::{MOST, at, put, read, read_apart, write, write_apart};
use super::losses;
use super::math::{self, Math};
use crate::activation::Activation;
use crate::error::Error;
use crate::isa::{Operation, Simd};
use crate::panel::{Geometry, Panels};
use std::ops::Range;

/// What training minimises, per sample, before the mean over the batch.
///
/// `z` are logits, `y` targets; sums run over a sample's outputs. `losses.rs` has the formulas and their sources.
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// `sum max(z, 0) - z y + log(1 + exp(-|z|))`: cross-entropy of sigmoid outputs.
    BinaryCrossEntropy,
    /// The same with targets `y (1 - smoothing) + smoothing / 2`, the loss of a 1 times `positive`.
    WeighedBinaryCrossEntropy {
        /// In [0, 1].
        smoothing: f64,
        /// One number an output, at least 0.
        positive: Vec<f64>,
    },
    /// `sum y (log(sum exp z) - z)`: cross-entropy of a softmax.
    CrossEntropy,
    /// The same with targets `y (1 - smoothing) + smoothing / outputs`.
    SmoothedCrossEntropy {
        /// In [0, 1].
        smoothing: f64,
    },
    /// `sum a (1 - p)^gamma (-log p)`, where p is the probability that a sigmoid gives to what is so.
    BinaryFocal {
        /// At least 0.
        gamma: f64,
        /// a where y is 1.
        positive: f64,
        /// a where y is 0.
        negative: f64,
    },
    /// `alpha (1 - p)^gamma (-log p)`, where p is the probability that a softmax gives to the class.
    Focal {
        /// At least 0.
        gamma: f64,
        /// One number a class, at least 0.
        alpha: Vec<f64>,
    },
    /// `sum max(0, 1 - (2 y - 1) z)`, or of its square.
    Hinge {
        /// Whether the square is taken.
        squared: bool,
    },
    /// `sum over the other classes j of max(0, 1 - z[class] + z[j])`, or of its square.
    MultiMargin {
        /// Whether the square is taken.
        squared: bool,
    },
    /// `sum (z - y)^2 / 2`
    SquaredError,
    /// `sum |z - y|`
    AbsoluteError,
    /// `sum (z - y)^2 / 2` up to a distance of delta, `delta (|z - y| - delta / 2)` beyond.
    Huber {
        /// Above 0.
        delta: f64,
    },
    /// `sum exp(z) - y z`
    Poisson,
    /// The cross-entropy of sigmoid outputs, probabilities held within eps of 0 and 1; targets are 0 and 1. `scikit.rs` has this
    /// and the next two.
    BoundedBinaryCrossEntropy,
    /// The cross-entropy of a softmax with one class, probabilities held within eps of 0 and 1.
    BoundedCrossEntropy,
    /// `sum exp(z) - y + y log(y / exp(z))`
    PoissonDeviance,
    /// `sum max(q (y - z), (q - 1) (y - z))`; each target has as many outputs as there are quantiles, side by side.
    Quantile {
        /// Each in (0, 1).
        quantiles: Vec<f64>,
    },
    /// The host's: it sees a whole batch's logits, and no kernel knows it.
    Custom,
}

impl Loss {
    /// The loss called `name` with its parameters, in the order of the fields above.
    ///
    /// # Errors
    /// [`Error::Value`] for an unknown name, and for parameters that are out of range, too few or too many.
    pub fn parse(name: &str, parameters: &[f64]) -> Result<Self, Error> {
        let wrong = || Error::expected("loss", format!("parameters that {name} has"), format!("{parameters:?}"));
        let not_negative = |x: &[f64]| x.iter().all(|x| (0.0..f64::INFINITY).contains(x));
        let loss = match (name, parameters) {
            ("binary_cross_entropy", []) => Loss::BinaryCrossEntropy,
            ("weighed_binary_cross_entropy", [smoothing, positive @ ..]) => {
                Loss::WeighedBinaryCrossEntropy { smoothing: *smoothing, positive: positive.to_vec() }
            }
            ("cross_entropy", []) => Loss::CrossEntropy,
            ("smoothed_cross_entropy", &[smoothing]) => Loss::SmoothedCrossEntropy { smoothing },
            ("binary_focal", &[gamma, positive, negative]) => Loss::BinaryFocal { gamma, positive, negative },
            ("focal", [gamma, alpha @ ..]) => Loss::Focal { gamma: *gamma, alpha: alpha.to_vec() },
            ("hinge", &[squared]) => Loss::Hinge { squared: squared != 0.0 },
            ("multi_margin", &[squared]) => Loss::MultiMargin { squared: squared != 0.0 },
            ("squared_error", []) => Loss::SquaredError,
            ("absolute_error", []) => Loss::AbsoluteError,
            ("huber", &[delta]) => Loss::Huber { delta },
            ("poisson", []) => Loss::Poisson,
            ("bounded_binary_cross_entropy", []) => Loss::BoundedBinaryCrossEntropy,
            ("bounded_cross_entropy", []) => Loss::BoundedCrossEntropy,
            ("poisson_deviance", []) => Loss::PoissonDeviance,
            ("custom", []) => Loss::Custom,
            ("quantile", quantiles @ [_, ..]) => Loss::Quantile { quantiles: quantiles.to_vec() },
            _ => {
                let names = "one of binary_cross_entropy, weighed_binary_cross_entropy, cross_entropy, \
                             smoothed_cross_entropy, binary_focal, focal, hinge, multi_margin, squared_error, \
                             absolute_error, huber, poisson, quantile, custom, with its parameters";
                return Err(Error::expected("loss", names, format!("{name:?} with {parameters:?}")));
            }
        };
        let fits = not_negative(parameters)
            && match &loss {
                Loss::WeighedBinaryCrossEntropy { smoothing, .. } | Loss::SmoothedCrossEntropy { smoothing } => {
                    *smoothing <= 1.0
                }
                Loss::Huber { delta } => *delta > 0.0,
                Loss::Quantile { quantiles } => quantiles.iter().all(|&q| q > 0.0 && q < 1.0),
                _ => true,
            };
        if fits { Ok(loss) } else { Err(wrong()) }
    }

    /// Whether it can train a network whose last layer has so many outputs and this activation.
    ///
    /// # Errors
    /// [`Error::Value`] where it cannot.
    pub fn check(&self, output: Activation, outputs: usize) -> Result<(), Error> {
        let (activation, numbers) = match self {
            Loss::BinaryCrossEntropy | Loss::BinaryFocal { .. } => (Activation::Sigmoid, outputs),
            Loss::WeighedBinaryCrossEntropy { positive, .. } => (Activation::Sigmoid, positive.len()),
            Loss::CrossEntropy | Loss::SmoothedCrossEntropy { .. } => (Activation::Softmax, outputs),
            Loss::Focal { alpha, .. } => (Activation::Softmax, alpha.len()),
            Loss::BoundedBinaryCrossEntropy => (Activation::Sigmoid, outputs),
            Loss::BoundedCrossEntropy => (Activation::Softmax, outputs),
            Loss::Poisson | Loss::PoissonDeviance => (Activation::Exponential, outputs),
            Loss::Quantile { quantiles } => (Activation::Identity, outputs.next_multiple_of(quantiles.len())),
            Loss::Custom => (output, outputs),
            _ => (Activation::Identity, outputs),
        };
        if activation != output {
            let expected = format!("the output that matches it, {activation:?}");
            return Err(Error::expected(format!("loss {self:?}"), expected, format!("{output:?}")));
        }
        if numbers != outputs {
            let expected = format!("parameters for {outputs} outputs");
            return Err(Error::expected("loss", expected, format!("{self:?}")));
        }
        Ok(())
    }

    /// Whether a sample's target is one class.
    pub fn takes_classes(&self) -> bool {
        use Loss::{BoundedCrossEntropy, CrossEntropy, Focal, MultiMargin, SmoothedCrossEntropy};
        let bounded = *self == BoundedCrossEntropy;
        bounded || matches!(self, CrossEntropy | SmoothedCrossEntropy { .. } | Focal { .. } | MultiMargin { .. })
    }

    /// Whether targets are 0 and 1.
    pub fn takes_bits(&self) -> bool {
        use Loss::{BinaryCrossEntropy, BinaryFocal, BoundedBinaryCrossEntropy, Hinge, WeighedBinaryCrossEntropy};
        let bounded = *self == BoundedBinaryCrossEntropy;
        bounded
            || matches!(self, BinaryCrossEntropy | WeighedBinaryCrossEntropy { .. } | BinaryFocal { .. } | Hinge { .. })
    }

    /// Outputs that each target has.
    pub fn outputs_per_target(&self) -> usize {
        if let Loss::Quantile { quantiles } = self { quantiles.len() } else { 1 }
    }
}

/// What the outputs should have been.
#[derive(Clone, Copy)]
pub enum Targets<'a, T> {
    /// One number an output, or where a loss has several outputs a target one for these: `[rows][targets]`.
    Dense(&'a [T]),
    /// One class a sample, below the number of outputs: `[rows]`.
    Classes(&'a [u32]),
}

impl<T: Math> Targets<'_, T> {
    /// # Panics
    /// Where there are not enough of them.
    fn check(&self, rows: usize, columns: usize) {
        match self {
            Targets::Dense(values) => assert!(values.len() >= rows * columns),
            Targets::Classes(classes) => assert!(classes.len() >= rows),
        }
    }
}

/// What the gradient of a sample's loss is multiplied by.
#[derive(Clone, Copy)]
pub enum GradientScale<'a, T> {
    /// The same for all samples: the scale over the rows of the batch.
    Same(T),
    /// Each sample's own: the scale times its weight over the sum of the batch's weights, `[rows]`.
    Rows(&'a [T]),
}

impl<T: Math> GradientScale<'_, T> {
    /// Of at most a vector of samples.
    #[inline(always)]
    fn of<S: Simd<T>>(&self, s: S, samples: Range<usize>) -> S::V {
        match self {
            GradientScale::Same(scale) => s.splat(*scale),
            GradientScale::Rows(scales) => read(s, &scales[samples]),
        }
    }
}

/// The losses of a slice of samples, whose logits become the gradient.
pub struct LossRows<'a, T> {
    /// Which loss.
    pub loss: &'a Loss,
    /// Logits in, their gradient out: `rows x outputs`. Padding stays as it is.
    pub logits: &'a mut Panels<T>,
    /// The targets of these rows.
    pub targets: Targets<'a, T>,
    /// What a sample's loss is multiplied by.
    pub scale: T,
    /// What its gradient is multiplied by.
    pub gradient_scale: GradientScale<'a, T>,
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
        let (rows, outputs) = (l.logits.rows(), l.logits.lanes());
        assert_eq!(l.losses.len(), rows);
        l.targets.check(rows, outputs / l.loss.outputs_per_target());
        match (l.loss, outputs, l.targets) {
            (Loss::BinaryCrossEntropy, 1, Targets::Dense(y)) => {
                columns(
                    s,
                    l,
                    y,
                    #[inline(always)]
                    |z, y| binary_cross_entropy(s, 1, z, y),
                );
            }
            (Loss::SquaredError, 1, Targets::Dense(y)) => {
                columns(
                    s,
                    l,
                    y,
                    #[inline(always)]
                    |z, y| squared_error(s, 1, z, y),
                );
            }
            _ => turned(s, l),
        }
    }
}

/// One output: its logits are lanes without being turned in scratch, which would cost more than the loss.
#[inline(always)]
fn columns<T: Math, S: Simd<T>>(s: S, l: &mut LossRows<'_, T>, y: &[T], loss: impl Fn(&mut [T], &[T]) -> S::V) {
    let (v, rows) = (S::LANES, l.losses.len());
    let (mut z_lanes, mut y_lanes) = ([T::ZERO; MOST], [T::ZERO; MOST]);
    let logits = l.logits.data_mut();
    for first in (0..rows).step_by(v) {
        let samples = v.min(rows - first);
        let here = first..first + samples;
        let column = &mut logits[here.start * v..here.end * v];
        put(s, &mut z_lanes, 0, read_apart(s, column, v, samples));
        put(s, &mut y_lanes, 0, read(s, &y[here.clone()]));
        let loss = loss(&mut z_lanes, &y_lanes);
        write(s, s.mul(loss, s.splat(l.scale)), &mut l.losses[here.clone()]);
        write_apart(s, s.mul(at(s, &z_lanes, 0), l.gradient_scale.of(s, here)), column, v, samples);
    }
}

/// The general way: the logits of a vector of samples are turned, so that each output's are lanes.
#[inline(always)]
fn turned<T: Math, S: Simd<T>>(s: S, l: &mut LossRows<'_, T>) {
    let (rows, outputs, v) = (l.logits.rows(), l.logits.lanes(), S::LANES);
    let repeat = l.loss.outputs_per_target();
    let turned = l.logits.geometry().padded(outputs) * v;
    let (z, y) = l.scratch[..turned + outputs * v].split_at_mut(turned);
    for first in (0..rows).step_by(v) {
        let samples = v.min(rows - first);
        turn(s, l.logits, first, samples, z);
        targets(s, &l.targets, first, samples, outputs, repeat, y);
        let loss = match l.loss {
            Loss::BinaryCrossEntropy => binary_cross_entropy(s, outputs, z, y),
            Loss::CrossEntropy => cross_entropy(s, outputs, z, y),
            Loss::SquaredError => squared_error(s, outputs, z, y),
            other => losses::further(s, other, outputs, z, y),
        };
        write(s, s.mul(loss, s.splat(l.scale)), &mut l.losses[first..first + samples]);
        let scale = l.gradient_scale.of(s, first..first + samples);
        each_vector(
            s,
            &mut z[..outputs * v],
            #[inline(always)]
            |d| s.mul(d, scale),
        );
        turn_back(s, l.logits, first, samples, z);
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
            for (output, target) in target.chunks_exact_mut(v).take(used).enumerate() {
                put(s, target, 0, read_apart(s, &source[output..], width, samples));
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
                write_apart(s, at(s, source, output), &mut target[output..], width, samples);
            }
        }
    }
}

/// `y[output][lane]` of the samples, each target `repeat` times; lanes beyond them are zero.
#[inline(always)]
fn targets<T: Math, S: Simd<T>>(
    s: S,
    targets: &Targets<'_, T>,
    first: usize,
    samples: usize,
    outputs: usize,
    repeat: usize,
    y: &mut [T],
) {
    let v = S::LANES;
    match targets {
        Targets::Dense(values) => {
            let columns = outputs / repeat;
            let values = &values[first * columns..(first + samples) * columns];
            for (output, y) in y.chunks_exact_mut(v).enumerate() {
                put(s, y, 0, read_apart(s, &values[output / repeat..], columns, samples));
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
            let linear = s.sub(s.clear_lt(x, zero, x), s.mul(x, t));
            s.add(linear, math::log1p(s, e))
        },
    )
}

/// Replaces logits by `exp(z - max)`; returns the maximum and the sum.
#[inline(always)]
pub(super) fn exponentials<T: Math, S: Simd<T>>(s: S, outputs: usize, z: &mut [T]) -> (S::V, S::V) {
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
