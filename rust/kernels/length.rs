//! Lengths of the rows of a weight matrix, and linear combinations: what clipping by norm, max-norm constraints, averages of
//! weights and Muon are made of.
//!
//! A sum of squares, or of sizes, runs over a layer's inputs, in 32 strided partials (input mod 32) and one fixed tree, whichever way
//! the weights lie: the same bits for every form and panel width. Where results become subnormal they are set to
//! zero, so that nothing crawls.

use super::math::Math;
use super::update::{Shrink, flush, shrunk};
use crate::isa::{Operation, Simd};

/// Partial sums of a strided sum. A constant of the format: changing it changes bits.
const PARTIALS: usize = 32;

/// What is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// `x^2`
    Squares,
    /// `|x|`
    Sizes,
}

/// `sum` and one more term.
#[inline(always)]
fn with_term<T: Math, S: Simd<T>>(s: S, of: Of, x: S::V, sum: S::V) -> S::V {
    match of {
        Of::Squares => s.mul_add(x, x, sum),
        Of::Sizes => s.add(s.abs(x), sum),
    }
}

/// The sum of each lane of a panel: of each output's weights in the wide form.
pub struct LaneSums<'a, T> {
    /// The terms.
    pub of: Of,
    /// `[inputs][width]`
    pub rows: &'a [T],
    /// `[width]`
    pub sums: &'a mut [T],
}

/// [`LaneSums`] as an operation for one instruction set.
pub struct LaneSumsOp<'p, 'a, T>(pub &'p mut LaneSums<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for LaneSumsOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let LaneSums { of, rows, sums } = self.0;
        match of {
            Of::Squares => lane_sums(s, Of::Squares, rows, sums),
            Of::Sizes => lane_sums(s, Of::Sizes, rows, sums),
        }
    }
}

#[inline(always)]
fn lane_sums<T: Math, S: Simd<T>>(s: S, of: Of, rows: &[T], sums: &mut [T]) {
    let width = sums.len();
    assert!(width > 0 && width.is_multiple_of(S::LANES) && rows.len().is_multiple_of(width));
    for lane in (0..width).step_by(S::LANES) {
        let mut partial = [s.splat(T::ZERO); PARTIALS];
        for rows in rows.chunks(PARTIALS * width) {
            for (row, sum) in rows.chunks_exact(width).zip(&mut partial) {
                // SAFETY: a row has `width` numbers, and lane + LANES <= width.
                let x = unsafe { s.load(row.as_ptr().add(lane)) };
                *sum = with_term(s, of, x, *sum);
            }
        }
        for half in [16, 8, 4, 2, 1] {
            for i in 0..half {
                partial[i] = s.add(partial[i], partial[i + half]);
            }
        }
        // SAFETY: lane + LANES <= width, the length of sums.
        unsafe { s.store(sums.as_mut_ptr().add(lane), partial[0]) };
    }
}

/// The sum of one row of a matrix in panels: of one output's weights in the narrow form.
pub struct RowSum<'a, T> {
    /// The terms.
    pub of: Of,
    /// `[panel][rows][P]`, the last panel narrowed; padding is zero.
    pub panels: &'a [T],
    /// Rows of the matrix.
    pub rows: usize,
    /// Which of them.
    pub row: usize,
}

/// [`RowSum`] as an operation for one instruction set.
pub struct RowSumOp<'p, 'a, T>(pub &'p RowSum<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for RowSumOp<'_, '_, T> {
    type Output = T;

    #[inline(always)]
    fn run(self, s: S) -> T {
        let RowSum { of, panels, rows, row } = *self.0;
        let panel = 2 * S::LANES;
        assert!(row < rows && panels.len().is_multiple_of(rows * S::LANES));
        // Vector i holds the partials from i * LANES on.
        let (mut partial, vectors) = ([s.splat(T::ZERO); PARTIALS], PARTIALS / S::LANES);
        for (p, panel_rows) in panels.chunks(rows * panel).enumerate() {
            let width = panel_rows.len() / rows;
            for lane in (0..width).step_by(S::LANES) {
                // SAFETY: row < rows and lane + LANES <= width, and the panel has rows x width numbers.
                let x = unsafe { s.load(panel_rows.as_ptr().add(row * width + lane)) };
                let sum = &mut partial[(p * panel + lane) / S::LANES % vectors];
                *sum = with_term(s, of, x, *sum);
            }
        }
        let mut sums = [T::ZERO; PARTIALS];
        for (i, sum) in partial[..vectors].iter().enumerate() {
            // SAFETY: `vectors` vectors are PARTIALS numbers.
            unsafe { s.store(sums.as_mut_ptr().add(i * S::LANES), *sum) };
        }
        for half in [16, 8, 4, 2, 1] {
            for i in 0..half {
                sums[i] += sums[i + half];
            }
        }
        sums[0]
    }
}

/// What each number of a block is multiplied by.
#[derive(Clone, Copy)]
pub enum Factors<'a, T> {
    /// One number a lane: `[width]`.
    Lanes(&'a [T]),
    /// One number a row: `[rows]`.
    Rows(&'a [T]),
}

/// Multiplies a block `[rows][width]` by factors.
pub struct Scale<'a, T> {
    /// `[rows][width]`
    pub block: &'a mut [T],
    /// Lanes of the block with padding.
    pub width: usize,
    /// See [`Factors`].
    pub factors: Factors<'a, T>,
}

/// [`Scale`] as an operation for one instruction set.
pub struct ScaleOp<'p, 'a, T>(pub &'p mut Scale<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for ScaleOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Scale { block, width, factors } = self.0;
        let width = *width;
        assert!(width > 0 && width.is_multiple_of(S::LANES) && block.len().is_multiple_of(width));
        match factors {
            Factors::Lanes(lanes) => assert_eq!(lanes.len(), width),
            Factors::Rows(rows) => assert_eq!(rows.len(), block.len() / width),
        }
        for (r, row) in block.chunks_exact_mut(width).enumerate() {
            for (lane, x) in row.chunks_exact_mut(S::LANES).enumerate() {
                // SAFETY: x has LANES numbers; the factors have `width` numbers, or one for each row.
                unsafe {
                    let factor = match factors {
                        Factors::Lanes(lanes) => s.load(lanes.as_ptr().add(lane * S::LANES)),
                        Factors::Rows(rows) => s.splat(rows[r]),
                    };
                    s.store(x.as_mut_ptr(), s.mul(s.load(x.as_ptr()), factor));
                }
            }
        }
    }
}

/// `x = keep x + share y`, rounded as `fma(share, y, keep x)`; without y, `x = keep x`.
pub struct Blend<'a, T> {
    /// A whole number of vectors.
    pub x: &'a mut [T],
    /// See above.
    pub keep: T,
    /// As long as x, or empty.
    pub y: &'a [T],
    /// See above.
    pub share: T,
}

/// [`Blend`] as an operation for one instruction set.
pub struct BlendOp<'p, 'a, T>(pub &'p mut Blend<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for BlendOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Blend { x, keep, y, share } = self.0;
        let (keep, share) = (s.splat(*keep), s.splat(*share));
        assert!(x.len().is_multiple_of(S::LANES) && (y.is_empty() || y.len() == x.len()));
        for (i, x) in x.chunks_exact_mut(S::LANES).enumerate() {
            // SAFETY: x has LANES numbers, and y where it is not empty as many vectors as all of x.
            unsafe {
                let kept = s.mul(keep, s.load(x.as_ptr()));
                let sum =
                    if y.is_empty() { kept } else { s.mul_add(share, s.load(y.as_ptr().add(i * S::LANES)), kept) };
                s.store(x.as_mut_ptr(), flush(s, sum));
            }
        }
    }
}

/// `x = x + share (y - x)`: a step of a moving average, which stays where x is y.
pub struct Approach<'a, T> {
    /// A whole number of vectors.
    pub x: &'a mut [T],
    /// As long.
    pub y: &'a [T],
    /// See above.
    pub share: T,
}

/// [`Approach`] as an operation for one instruction set.
pub struct ApproachOp<'p, 'a, T>(pub &'p mut Approach<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for ApproachOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Approach { x, y, share } = self.0;
        let share = s.splat(*share);
        assert!(x.len().is_multiple_of(S::LANES) && y.len() == x.len());
        for (x, y) in x.chunks_exact_mut(S::LANES).zip(y.chunks_exact(S::LANES)) {
            // SAFETY: both have LANES numbers.
            unsafe {
                let from = s.load(x.as_ptr());
                let next = s.mul_add(share, s.sub(s.load(y.as_ptr()), from), from);
                s.store(x.as_mut_ptr(), flush(s, next));
            }
        }
    }
}

/// Penalties and clipping by value on a gradient in memory; decay is left to the update.
pub struct Penalise<'a, T> {
    /// What is added and clipped.
    pub shrink: Shrink<T>,
    /// The weights: a whole number of vectors.
    pub weights: &'a [T],
    /// Their gradient, as long.
    pub gradient: &'a mut [T],
}

/// [`Penalise`] as an operation for one instruction set.
pub struct PenaliseOp<'p, 'a, T>(pub &'p mut Penalise<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for PenaliseOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Penalise { shrink, weights, gradient } = self.0;
        assert!(gradient.len().is_multiple_of(S::LANES) && weights.len() == gradient.len());
        for (w, g) in weights.chunks_exact(S::LANES).zip(gradient.chunks_exact_mut(S::LANES)) {
            // SAFETY: both have LANES numbers.
            unsafe {
                let (_, penalised) = shrunk(s, *shrink, s.load(w.as_ptr()), s.load(g.as_ptr()));
                s.store(g.as_mut_ptr(), penalised);
            }
        }
    }
}
