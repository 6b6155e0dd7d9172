//! Batch and layer normalisation: `Y = gamma (Z - mean) / sqrt(variance + epsilon) + beta`, and the way back.
//!
//! Batch normalisation (Ioffe and Szegedy 2015) takes mean and variance of a unit over the batch's samples: in chunks of
//! [`CHUNK`] samples, each by two passes, merged in order (Chan, Golub and LeVeque 1979), so that they depend on neither slices
//! nor threads. Layer normalisation (Ba, Kiros and Hinton 2016) takes those of a sample over its units: 32 strided partials,
//! then a tree.

use super::math::Math;
use crate::isa::{Operation, Simd};
use crate::panel::Panels;

/// Samples of a chunk. A constant of the format: changing it changes bits.
pub const CHUNK: usize = 32;

/// Which statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Of a unit over the batch.
    Batch {
        /// Added to the variance.
        epsilon: f64,
        /// How much of the running statistics a batch replaces.
        momentum: f64,
    },
    /// Of a sample over its units.
    Layer {
        /// Added to the variance.
        epsilon: f64,
    },
}

/// A step of normalisation on a slice's matrices, all `rows x units`.
pub enum Normalize<'a, T> {
    /// Mean and sum of squared distances from it of every chunk of Z: rows 2c and 2c + 1 of `sums`.
    Moments {
        /// Z
        z: &'a Panels<T>,
        /// See above.
        sums: &'a mut Panels<T>,
    },
    /// Y by given statistics of the units, `[padded units]` each.
    ByUnit {
        /// Z in, Y out.
        units: &'a mut Panels<T>,
        /// `(Z - mean) inverse`, out, where it has rows.
        normed: &'a mut Panels<T>,
        /// The units' means.
        mean: &'a [T],
        /// One over the units' standard deviations.
        inverse: &'a [T],
        /// gamma, then beta: `[2][padded units]`.
        affine: &'a [T],
    },
    /// Y by each sample's own statistics.
    BySample {
        /// Z in, Y out.
        units: &'a mut Panels<T>,
        /// As above.
        normed: &'a mut Panels<T>,
        /// One over the samples' standard deviations, out: `[rows]`.
        inverse: &'a mut [T],
        /// gamma, then beta.
        affine: &'a [T],
        /// Added to the variance.
        epsilon: f64,
    },
    /// Sums of every chunk of dY and of dY times the normed: rows 2c and 2c + 1 of `sums`.
    Sums {
        /// dY
        deltas: &'a Panels<T>,
        /// As above.
        normed: &'a Panels<T>,
        /// See above.
        sums: &'a mut Panels<T>,
    },
    /// `dZ = gamma inverse (dY - (sum of dY + normed (sum of dY normed)) / m)`
    BackByUnit {
        /// dY in, dZ out.
        deltas: &'a mut Panels<T>,
        /// As above.
        normed: &'a Panels<T>,
        /// One over the units' standard deviations.
        inverse: &'a [T],
        /// gamma, then beta.
        affine: &'a [T],
        /// The batch's mean of dY and of dY times the normed: `[2][padded units]`.
        means: &'a [T],
    },
    /// The same with sums over a sample's units, of dY times gamma.
    BackBySample {
        /// dY in, dZ out.
        deltas: &'a mut Panels<T>,
        /// As above.
        normed: &'a Panels<T>,
        /// One over the samples' standard deviations.
        inverse: &'a [T],
        /// gamma, then beta.
        affine: &'a [T],
    },
}

/// [`Normalize`] as an operation for one instruction set.
pub struct NormalizeOp<'p, 'a, T>(pub &'p mut Normalize<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for NormalizeOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        match self.0 {
            Normalize::Moments { z, sums } => chunks(s, z, sums, moments),
            Normalize::ByUnit { units, normed, mean, inverse, affine } => {
                by_unit(s, units, normed, mean, inverse, affine);
            }
            Normalize::BySample { units, normed, inverse, affine, epsilon } => {
                by_sample(s, units, normed, inverse, affine, *epsilon);
            }
            Normalize::Sums { deltas, normed, sums } => {
                let (normed, mut at) = (*normed, (0, 0));
                chunks(
                    s,
                    deltas,
                    sums,
                    #[inline(always)]
                    |s, chunk, width, target| {
                        // Chunk after chunk of panel after panel, as `chunks` goes.
                        if at.1 == normed.panel(at.0).len() {
                            at = (at.0 + 1, 0);
                        }
                        let other = &normed.panel(at.0)[at.1..at.1 + chunk.len()];
                        at.1 += chunk.len();
                        products(s, chunk, other, width, target);
                    },
                );
            }
            Normalize::BackByUnit { deltas, normed, inverse, affine, means } => {
                back_by_unit(s, deltas, normed, inverse, affine, means);
            }
            Normalize::BackBySample { deltas, normed, inverse, affine } => {
                back_by_sample(s, deltas, normed, inverse, affine);
            }
        }
    }
}

/// `f(chunk, width, its two rows of sums)` of every chunk of every panel.
#[inline(always)]
fn chunks<T: Math, S: Simd<T>>(
    s: S,
    source: &Panels<T>,
    sums: &mut Panels<T>,
    mut f: impl FnMut(S, &[T], usize, &mut [T]),
) {
    assert_eq!((sums.lanes(), sums.rows()), (source.lanes(), 2 * source.rows().div_ceil(CHUNK)));
    for p in 0..source.panels() {
        let width = source.width(p);
        let rows = source.panel(p).chunks(CHUNK * width);
        rows.zip(sums.panel_mut(p).chunks_exact_mut(2 * width)).for_each(|(chunk, target)| f(s, chunk, width, target));
    }
}

/// Mean and squared distances of a chunk `[rows][width]`.
#[inline(always)]
fn moments<T: Math, S: Simd<T>>(s: S, chunk: &[T], width: usize, target: &mut [T]) {
    assert!(chunk.len().is_multiple_of(width) && target.len() == 2 * width && width.is_multiple_of(S::LANES));
    let rows = chunk.len() / width;
    let count = s.splat(T::from_f64(rows as f64));
    for lane in (0..width).step_by(S::LANES) {
        // SAFETY: every row has `width` numbers and lane + LANES <= width; the target has two rows.
        unsafe {
            let at = |row: usize| s.load(chunk.as_ptr().add(row * width + lane));
            let mut sum = s.splat(T::ZERO);
            for row in 0..rows {
                sum = s.add(sum, at(row));
            }
            let mean = s.div(sum, count);
            let mut squares = s.splat(T::ZERO);
            for row in 0..rows {
                let d = s.sub(at(row), mean);
                squares = s.mul_add(d, d, squares);
            }
            s.store(target.as_mut_ptr().add(lane), mean);
            s.store(target.as_mut_ptr().add(width + lane), squares);
        }
    }
}

/// Sums of a chunk and of its products with another.
#[inline(always)]
fn products<T: Math, S: Simd<T>>(s: S, chunk: &[T], other: &[T], width: usize, target: &mut [T]) {
    assert!(chunk.len().is_multiple_of(width) && target.len() == 2 * width && width.is_multiple_of(S::LANES));
    assert_eq!(chunk.len(), other.len());
    for lane in (0..width).step_by(S::LANES) {
        let (mut sum, mut both) = (s.splat(T::ZERO), s.splat(T::ZERO));
        for at in (lane..chunk.len()).step_by(width) {
            // SAFETY: at is a lane of a row of `width` numbers, lane + LANES <= width; both slices have the same length.
            let (d, x) = unsafe { (s.load(chunk.as_ptr().add(at)), s.load(other.as_ptr().add(at))) };
            sum = s.add(sum, d);
            both = s.mul_add(d, x, both);
        }
        // SAFETY: the target has two rows of `width` numbers.
        unsafe {
            s.store(target.as_mut_ptr().add(lane), sum);
            s.store(target.as_mut_ptr().add(width + lane), both);
        }
    }
}

/// A vector of a slice of numbers.
#[inline(always)]
fn at<T: Math, S: Simd<T>>(s: S, x: &[T], index: usize) -> S::V {
    // SAFETY: the slice is bounds-checked and holds LANES numbers.
    unsafe { s.load(x[index..index + S::LANES].as_ptr()) }
}

#[inline(always)]
fn put<T: Math, S: Simd<T>>(s: S, x: &mut [T], index: usize, value: S::V) {
    // SAFETY: the slice is bounds-checked and holds LANES numbers.
    unsafe { s.store(x[index..index + S::LANES].as_mut_ptr(), value) }
}

#[inline(always)]
fn by_unit<T: Math, S: Simd<T>>(
    s: S,
    units: &mut Panels<T>,
    normed: &mut Panels<T>,
    mean: &[T],
    inverse: &[T],
    affine: &[T],
) {
    let keeps = normed.rows() > 0;
    let (gamma, beta) = affine.split_at(affine.len() / 2);
    for (p, lane) in vectors::<T, S>(units) {
        let (width, unit) = (units.width(p), p * units.geometry().panel() + lane);
        let of = |x: &[T]| at(s, x, unit);
        let (mean, inverse, gamma, beta) = (of(mean), of(inverse), of(gamma), of(beta));
        let panel = units.panel_mut(p);
        for index in (lane..panel.len()).step_by(width) {
            let x = s.mul(s.sub(at(s, panel, index), mean), inverse);
            put(s, panel, index, s.mul_add(x, gamma, beta));
            if keeps {
                put(s, normed.panel_mut(p), index, x);
            }
        }
    }
}

#[inline(always)]
fn back_by_unit<T: Math, S: Simd<T>>(
    s: S,
    deltas: &mut Panels<T>,
    normed: &Panels<T>,
    inverse: &[T],
    affine: &[T],
    means: &[T],
) {
    let (of_deltas, of_products) = means.split_at(means.len() / 2);
    for (p, lane) in vectors::<T, S>(deltas) {
        let (width, unit) = (deltas.width(p), p * deltas.geometry().panel() + lane);
        let of = |x: &[T]| at(s, x, unit);
        let factor = s.mul(of(affine), of(inverse));
        let (of_deltas, of_products) = (of(of_deltas), of(of_products));
        let (panel, normed) = (deltas.panel_mut(p), normed.panel(p));
        for index in (lane..panel.len()).step_by(width) {
            let rest = s.mul_add(at(s, normed, index), of_products, of_deltas);
            put(s, panel, index, s.mul(factor, s.sub(at(s, panel, index), rest)));
        }
    }
}

/// The sum over a sample's units of `term(panel, index in it, first unit)`: 32 strided partials, then a tree.
#[inline(always)]
fn sum_of_row<T: Math, S: Simd<T>>(
    s: S,
    panels: &Panels<T>,
    row: usize,
    term: impl Fn(usize, usize, usize) -> S::V,
) -> T {
    // A panel is one vector or two, and so many panels have 32 units: in turns of a constant length the partials stay in registers.
    const { assert!(S::LANES <= 16) };
    let mut partial = [s.splat(T::ZERO); 32];
    for first in (0..panels.panels()).step_by(16 / S::LANES) {
        for nth in 0..16 / S::LANES {
            let p = first + nth;
            if p < panels.panels() {
                let (index, unit) = (row * panels.width(p), p * 2 * S::LANES);
                partial[2 * nth] = s.add(partial[2 * nth], term(p, index, unit));
                if panels.width(p) > S::LANES {
                    partial[2 * nth + 1] = s.add(partial[2 * nth + 1], term(p, index + S::LANES, unit + S::LANES));
                }
            }
        }
    }
    let mut slots = 32 / S::LANES;
    while slots > 1 {
        slots /= 2;
        (0..slots).for_each(|i| partial[i] = s.add(partial[i], partial[i + slots]));
    }
    let mut numbers = [T::ZERO; 16];
    put(s, &mut numbers, 0, partial[0]);
    let mut half = S::LANES;
    while half > 1 {
        half /= 2;
        (0..half).for_each(|i| numbers[i] += numbers[i + half]);
    }
    numbers[0]
}

/// Panel and first lane of each of the vectors that a row is.
#[inline(always)]
fn vectors<T: Math, S: Simd<T>>(panels: &Panels<T>) -> impl Iterator<Item = (usize, usize)> + use<T, S> {
    let (geometry, lanes) = (panels.geometry(), panels.lanes());
    (0..panels.panels()).flat_map(move |p| (0..geometry.width(lanes, p)).step_by(S::LANES).map(move |lane| (p, lane)))
}

/// 1 for the units that there are, 0 for padding, from unit `unit` on.
#[inline(always)]
fn present<T: Math, S: Simd<T>>(s: S, units: usize, unit: usize) -> S::V {
    let mut ones = [T::ONE; 32];
    ones[units.saturating_sub(unit).min(S::LANES)..].fill(T::ZERO);
    at(s, &ones, 0)
}

#[inline(always)]
fn by_sample<T: Math, S: Simd<T>>(
    s: S,
    units: &mut Panels<T>,
    normed: &mut Panels<T>,
    inverse: &mut [T],
    affine: &[T],
    epsilon: f64,
) {
    let (n, keeps) = (units.lanes(), normed.rows() > 0);
    let (gamma, beta) = affine.split_at(affine.len() / 2);
    let (count, epsilon) = (T::from_f64(n as f64), T::from_f64(epsilon));
    let mut means = [T::ZERO; CHUNK];
    for first_row in (0..units.rows()).step_by(CHUNK) {
        let rows = first_row..units.rows().min(first_row + CHUNK);
        for row in rows.clone() {
            let z = &*units;
            let mean = sum_of_row(
                s,
                z,
                row,
                #[inline(always)]
                |p, index, _| at(s, z.panel(p), index),
            ) / count;
            means[row - first_row] = mean;
            let mean = s.splat(mean);
            let variance = sum_of_row(
                s,
                z,
                row,
                #[inline(always)]
                |p, index, unit| {
                    let d = s.sub(at(s, z.panel(p), index), mean);
                    let d = if unit + S::LANES > n { s.mul(d, present(s, n, unit)) } else { d };
                    s.mul(d, d)
                },
            ) / count;
            inverse[row] = T::ONE / (variance + epsilon).sqrt();
        }
        for (p, lane) in vectors::<T, S>(units) {
            let (width, unit) = (units.width(p), p * units.geometry().panel() + lane);
            let (gamma, beta) = (at(s, gamma, unit), at(s, beta, unit));
            let panel = units.panel_mut(p);
            for row in rows.clone() {
                let index = row * width + lane;
                let (mean, factor) = (s.splat(means[row - first_row]), s.splat(inverse[row]));
                let x = s.mul(s.sub(at(s, panel, index), mean), factor);
                put(s, panel, index, s.mul_add(x, gamma, beta));
                if keeps {
                    put(s, normed.panel_mut(p), index, x);
                }
            }
        }
    }
    // Where there is no unit, a mean may have become infinite times a factor.
    units.clear_padding();
    if keeps {
        normed.clear_padding();
    }
}

#[inline(always)]
fn back_by_sample<T: Math, S: Simd<T>>(s: S, deltas: &mut Panels<T>, normed: &Panels<T>, inverse: &[T], affine: &[T]) {
    let count = T::from_f64(deltas.lanes() as f64);
    let mut means = [[T::ZERO; 2]; CHUNK];
    for first_row in (0..deltas.rows()).step_by(CHUNK) {
        let rows = first_row..deltas.rows().min(first_row + CHUNK);
        for row in rows.clone() {
            // Padding has a gamma of 0.
            let d = &*deltas;
            let plain = sum_of_row(
                s,
                d,
                row,
                #[inline(always)]
                |p, index, unit| s.mul(at(s, d.panel(p), index), at(s, affine, unit)),
            );
            let both = sum_of_row(
                s,
                d,
                row,
                #[inline(always)]
                |p, index, unit| {
                    s.mul(s.mul(at(s, d.panel(p), index), at(s, affine, unit)), at(s, normed.panel(p), index))
                },
            );
            means[row - first_row] = [plain / count, both / count];
        }
        for (p, lane) in vectors::<T, S>(deltas) {
            let (width, gamma) = (deltas.width(p), at(s, affine, p * deltas.geometry().panel() + lane));
            let (panel, normed) = (deltas.panel_mut(p), normed.panel(p));
            for row in rows.clone() {
                let (index, [plain, both]) = (row * width + lane, means[row - first_row]);
                let rest = s.mul_add(at(s, normed, index), s.splat(both), s.splat(plain));
                let d = s.sub(s.mul(at(s, panel, index), gamma), rest);
                put(s, panel, index, s.mul(s.splat(inverse[row]), d));
            }
        }
    }
    // Where there is no unit, the means were taken off nothing.
    deltas.clear_padding();
}
