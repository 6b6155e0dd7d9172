//! Losses and their gradients, from logits, a vector of samples at a time.
//!
//! Lanes are samples. The logits of `V` samples are turned for it, but where one output has its cross-entropy or squared error:
//! these are read where they stand. The formulas (`canonical.rs`, `losses.rs`) then run down a sample's outputs.

use super::canonical::{binary_cross_entropy, cross_entropy, exponentials, squared_error};
use super::epilogue::each_vector;
use super::lanes::{MOST_LANES, at, put, read, read_apart, write, write_apart};
use super::loss::Loss;
use super::losses;
use super::math::Math;
use crate::isa::{Operation, Simd};
use crate::panel::{Geometry, Panels, PanelsMut};
use std::ops::Range;

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
    pub logits: PanelsMut<'a, T>,
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
    let (mut z_lanes, mut y_lanes) = ([T::ZERO; MOST_LANES], [T::ZERO; MOST_LANES]);
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
        turn(s, &l.logits, first, samples, z);
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
        turn_back(s, &mut l.logits, first, samples, z);
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
        let mut logits = self.logits.view_mut();
        let (rows, outputs, v) = (logits.rows(), logits.lanes(), S::LANES);
        let z = &mut self.scratch[..logits.geometry().padded(outputs) * v];
        for first in (0..rows).step_by(v) {
            let samples = v.min(rows - first);
            turn(s, &logits, first, samples, z);
            let (_, sum) = exponentials(s, outputs, z);
            each_vector(
                s,
                &mut z[..outputs * v],
                #[inline(always)]
                |e| s.div(e, sum),
            );
            turn_back(s, &mut logits, first, samples, z);
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
fn turn<T: Math, S: Simd<T>>(s: S, panels: &PanelsMut<'_, T>, first: usize, samples: usize, z: &mut [T]) {
    let v = S::LANES;
    if samples < v {
        z.fill(T::ZERO);
    }
    for base in (0..panels.lanes()).step_by(v) {
        let (p, lane) = (base / (2 * v), base % (2 * v));
        let width = panels.width(p);
        let used = v.min(panels.lanes() - base);
        let source = &panels.view().panel(p)[first * width + lane..][..(samples - 1) * width + v];
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
fn turn_back<T: Math, S: Simd<T>>(s: S, panels: &mut PanelsMut<'_, T>, first: usize, samples: usize, z: &[T]) {
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
