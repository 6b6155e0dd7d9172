//! The weight gradient: `dZ^T A`, the third product made of the tile body in `gemm.rs`.
//!
//! The broadcast operand's lanes are the rows of a block of dW, the vector operand's its lanes; what is summed over are samples.
//! Where much of the broadcast operand is zero, samples are skipped that add nothing to a group of rows.
//!
//! Promise: as in `gemm.rs`, with segments of samples.

use super::gemm::{chain, term};
use super::math::Math;
use super::nonzeros::{Nonzeros, group_lanes};
use super::operand::Operand;
use crate::isa::{Operation, Simd, prefetch};
use crate::panel::PanelsRef;
use std::ops::Range;

/// Terms of one chain in the weight gradient: samples. A constant of the format: changing it changes bits.
pub const SAMPLE_SEGMENT: usize = 1024;

/// The most slices of a gradient.
pub const MAX_SLICES: usize = 64;

/// A panel of b serves at most so many rows where the next one is asked for meanwhile: it would come too late for so few.
const FEW_ROWS: usize = 32;
/// Bytes of a slice's b that do not stay in the second cache from the forward product on.
const LARGE: usize = 1 << 20;

/// The two operands of a weight gradient in one slice of samples; both have the slice's samples as rows.
#[derive(Clone, Copy)]
pub struct Pair<'a, T> {
    /// The broadcast operand: its lanes are the rows of the result.
    pub a: PanelsRef<'a, T>,
    /// The vector operand: its lanes are the lanes of the result.
    pub b: PanelsRef<'a, T>,
    /// Whether these samples begin a segment.
    pub opens: bool,
    /// Where `a` is not zero, if much of it is: samples whose rows of the result get nothing are skipped.
    pub nonzeros: Option<&'a Nonzeros<T>>,
    /// Whether `a` is of pairs and turned (`tiles.rs`).
    pub turned: bool,
}

/// A strip of a weight gradient, or several beside each other: rows of neighbouring panels of a, lanes of one panel of b.
///
/// `c[r] (+)= sum over samples of a[sample, first + r] * b[sample]`, and behind these rows, where it is wanted, the gradient
/// of the biases: `sum over samples of b[sample]`.
pub struct Gradient<'a, T> {
    /// The slices, in the order of their samples; the first opens a segment.
    pub pairs: &'a [Pair<'a, T>],
    /// The panels of a whose lanes are the rows.
    pub row_panels: Range<usize>,
    /// The panels of b, each of a strip.
    pub lane_panels: Range<usize>,
    /// Whether `c` holds the sum of earlier segments, to be added to.
    pub goes_on: bool,
    /// Whether the biases' gradient is wanted.
    pub bias: bool,
    /// The result, strip after strip: `[lanes of a's panels (+ 1)][width of b's panel]`.
    pub c: &'a mut [T],
}

/// The strips of a gradient.
pub(super) struct Strips {
    /// Their first row is this lane of a.
    pub first: usize,
    /// And the last one before this.
    pub end: usize,
    /// Rows of a strip, with that of the biases.
    pub rows: usize,
}

impl<T: Math> Gradient<'_, T> {
    /// Checks all lengths, for vectors `S`.
    #[inline(always)]
    pub(super) fn check<S: Simd<T>>(&self) -> Strips {
        let (a, b) = (self.pairs[0].a, self.pairs[0].b);
        let panel = 2 * S::LANES;
        let (first, end) = (self.row_panels.start * panel, (self.row_panels.end * panel).min(a.lanes()));
        assert!(first < end && self.row_panels.end <= a.geometry().panels(a.lanes()), "the panels have rows");
        let rows = end - first + usize::from(self.bias);
        assert!(self.pairs[0].opens, "the first slice opens a segment");
        assert_eq!(a.geometry().lanes, S::LANES);
        let lanes = (self.lane_panels.end * panel).min(b.geometry().padded(b.lanes()));
        assert!(
            self.lane_panels.start < self.lane_panels.end && self.lane_panels.start * panel < lanes,
            "the panels have lanes"
        );
        assert!(self.lane_panels.end <= b.geometry().panels(b.lanes()));
        assert_eq!(self.c.len(), rows * (lanes - self.lane_panels.start * panel));
        for pair in self.pairs {
            assert_eq!((pair.a.geometry(), pair.b.geometry()), (a.geometry(), a.geometry()));
            assert_eq!((pair.a.lanes(), pair.b.lanes(), pair.a.rows()), (a.lanes(), b.lanes(), pair.b.rows()));
            assert!(pair.nonzeros.is_none_or(|nonzeros| nonzeros.fits(pair.a)), "the places are this matrix's");
        }
        Strips { first, end, rows }
    }
}

/// One panel's part of a strip.
struct Block<'g, 'a, T> {
    pairs: &'g [Pair<'a, T>],
    row_panel: usize,
    lane_panel: usize,
    /// The width of a's panel.
    a_width: usize,
    goes_on: bool,
    bias: bool,
    /// Whether the next panel of b, as wide as panels are, is asked for meanwhile.
    asks: bool,
    c: *mut T,
}

/// Where panel `p` of a matrix begins: those before it are as wide as panels are. Short sums would show a bounds check.
///
/// # Safety
/// The matrix has that panel.
#[inline(always)]
unsafe fn panel_start<T: Copy>(matrix: PanelsRef<'_, T>, p: usize, panel: usize) -> *const T {
    // SAFETY: the matrix is whole (`PanelsRef::new`), and the caller vouches for the panel.
    unsafe { matrix.data().as_ptr().add(p * panel * matrix.rows()) }
}

/// [`Gradient`] as an operation for one instruction set.
pub struct GradientOp<'p, 'a, T, O>(pub &'p mut Gradient<'a, T>, pub O);

impl<T: Math, S: Simd<T>, O: Operand<T, S>> Operation<T, S> for GradientOp<'_, '_, T, O> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let g = self.0;
        let Strips { first, end, rows: rows_of } = g.check::<S>();
        debug_assert!(g.pairs.iter().all(|pair| !pair.turned), "turned pairs are for tiles");
        let (a, b, panel) = (g.pairs[0].a, g.pairs[0].b, 2 * S::LANES);
        let waits = a.lanes() <= FEW_ROWS && size_of_val(b.data()) >= LARGE;
        for lane_panel in g.lane_panels.clone() {
            let asks = waits && (lane_panel + 2) * panel <= b.lanes();
            let width = b.geometry().width(b.lanes(), lane_panel);
            let strip = &mut g.c[(lane_panel - g.lane_panels.start) * rows_of * panel..][..rows_of * width];
            for row_panel in g.row_panels.clone() {
                let row = row_panel * panel;
                let c = strip[(row - first) * width..].as_mut_ptr();
                let bias = g.bias && row + panel >= end;
                let a_width = a.geometry().width(a.lanes(), row_panel);
                let block = Block { pairs: g.pairs, row_panel, lane_panel, a_width, goes_on: g.goes_on, bias, asks, c };
                let rows = panel.min(end - row);
                // SAFETY: from there on the strip has rows x width numbers, and one row more in the last panel if the biases are
                // wanted; every pair has the same lanes, so the panels, which the assertions count, exist in each.
                unsafe {
                    if width == panel {
                        gradient_sweep::<T, S, O, 2>(s, self.1, &block, rows)
                    } else {
                        gradient_sweep::<T, S, O, 1>(s, self.1, &block, rows)
                    }
                }
            }
        }
    }
}

/// All rows: where a is zero in many places, group by group, and what is left of a panel as ever.
#[inline(always)]
unsafe fn gradient_sweep<T: Math, S: Simd<T>, O: Operand<T, S>, const N: usize>(
    s: S,
    operand: O,
    g: &Block<'_, '_, T>,
    rows: usize,
) {
    let mut row = 0;
    // SAFETY: row + the tile's rows <= rows, and with the biases equal; the rest is the caller's promise.
    unsafe {
        if const { O::TERMS == 1 } && g.pairs.iter().any(|pair| pair.nonzeros.is_some()) {
            while row + group_lanes(g.pairs[0].a.geometry()) <= rows {
                row += if const { S::LANES >= 2 } {
                    gradient_tile::<T, S, O, 4, N, 0, true>(s, operand, g, row)
                } else {
                    gradient_tile::<T, S, O, 2, N, 0, true>(s, operand, g, row)
                };
            }
            if g.bias && row == rows {
                gradient_tile::<T, S, O, 0, N, 1, false>(s, operand, g, row);
            }
        }
        gradient_rows::<T, S, O, N>(s, operand, g, row, rows);
    }
}

#[inline(always)]
unsafe fn gradient_rows<T: Math, S: Simd<T>, O: Operand<T, S>, const N: usize>(
    s: S,
    operand: O,
    g: &Block<'_, '_, T>,
    mut row: usize,
    rows: usize,
) {
    while row < rows {
        let left = (rows - row).min(S::GRADIENT_ROWS);
        // The biases' sums come with the last tile, but where it has six rows: two more sums are more than the registers hold.
        let bias = g.bias && left == rows - row && [8, 4, 2, 1].contains(&left);
        let six = !(g.bias && rows - row == 6);
        // SAFETY: row + the tile's rows <= rows, and with the biases equal; the rest is the caller's promise.
        row += unsafe {
            match (left, bias) {
                (8.., true) if const { S::GRADIENT_ROWS >= 8 } => {
                    gradient_tile::<T, S, O, 8, N, 1, false>(s, operand, g, row)
                }
                (8.., false) if const { S::GRADIENT_ROWS >= 8 } => {
                    gradient_tile::<T, S, O, 8, N, 0, false>(s, operand, g, row)
                }
                (6.., _) if const { S::GRADIENT_ROWS == 6 } && six => {
                    gradient_tile::<T, S, O, 6, N, 0, false>(s, operand, g, row)
                }
                (4.., true) if const { S::GRADIENT_ROWS >= 4 } => {
                    gradient_tile::<T, S, O, 4, N, 1, false>(s, operand, g, row)
                }
                (4.., false) if const { S::GRADIENT_ROWS >= 4 } => {
                    gradient_tile::<T, S, O, 4, N, 0, false>(s, operand, g, row)
                }
                (2.., true) => gradient_tile::<T, S, O, 2, N, 1, false>(s, operand, g, row),
                (2.., false) => gradient_tile::<T, S, O, 2, N, 0, false>(s, operand, g, row),
                (_, true) => gradient_tile::<T, S, O, 1, N, 1, false>(s, operand, g, row),
                (_, false) => gradient_tile::<T, S, O, 1, N, 0, false>(s, operand, g, row),
            }
        };
    }
}

/// R rows of N vectors, and B = 1: the biases' sums behind them; returns R. A tile that SKIPS has a group's rows.
#[inline(always)]
unsafe fn gradient_tile<
    T: Math,
    S: Simd<T>,
    O: Operand<T, S>,
    const R: usize,
    const N: usize,
    const B: usize,
    const SKIPS: bool,
>(
    s: S,
    operand: O,
    g: &Block<'_, '_, T>,
    row: usize,
) -> usize {
    let (v, panel, width) = (S::LANES, 2 * S::LANES, N * S::LANES);
    // SAFETY: the caller vouches for rows `row..row + R + B` of c and for the panels of a and b, whose rows are `a_width` and
    // `width` apart, and `row + R` is at most the lanes of a's panel; where it asks, there is a whole panel of b behind this one.
    unsafe {
        let c = g.c.add(row * width);
        let mut acc = [[s.splat(T::ZERO); N]; R];
        let mut sums = [[s.splat(T::ZERO); N]; B];
        let mut earlier = g.goes_on;
        for (i, pair) in g.pairs.iter().enumerate() {
            if pair.opens && i > 0 {
                fold(s, &acc, earlier, c);
                fold(s, &sums, earlier, c.add(R * width));
                acc = [[s.splat(T::ZERO); N]; R];
                sums = [[s.splat(T::ZERO); N]; B];
                earlier = true;
            }
            let a = panel_start(pair.a, g.row_panel, panel).add(row);
            let (b, samples) = (panel_start(pair.b, g.lane_panel, panel), pair.a.rows());
            if g.asks {
                // Each tile asks for its rows' share of the samples: all of them at once would be waited for.
                let (at, all) = (g.row_panel * panel + row, pair.a.lanes());
                let (from, to) = (at * samples / all, (at + R) * samples / all);
                let next = panel_start(pair.b, g.lane_panel + 1, panel);
                prefetch(std::slice::from_raw_parts(next.add(from * panel), (to - from) * panel));
            }
            if let (true, Some(nonzeros)) = (SKIPS, pair.nonzeros) {
                let samples = nonzeros.group((g.row_panel * panel + row) / R.max(1));
                if g.a_width == panel {
                    some_terms(s, operand, samples, (a, panel), (b, width), &mut acc);
                } else {
                    some_terms(s, operand, samples, (a, v), (b, width), &mut acc);
                }
            } else if g.a_width == panel {
                chain::<T, S, O, R, N, B>(s, operand, a, 1, panel, b, width, samples, &mut acc, &mut sums);
            } else {
                chain::<T, S, O, R, N, B>(s, operand, a, 1, v, b, width, samples, &mut acc, &mut sums);
            }
        }
        fold(s, &acc, earlier, c);
        fold(s, &sums, earlier, c.add(R * width));
    }
    R
}

/// The chain's terms of these k alone; a and b come with what one k is from the next.
#[inline(always)]
unsafe fn some_terms<T: Math, S: Simd<T>, O: Operand<T, S>, const R: usize, const N: usize>(
    s: S,
    operand: O,
    some: &[u16],
    (a, a_k): (*const T, usize),
    (b, b_k): (*const T, usize),
    acc: &mut [[S::V; N]; R],
) {
    for &k in some {
        let k = usize::from(k);
        // SAFETY: the caller vouches for N vectors at each of these k of b and for R numbers at each of a.
        unsafe { term(s, operand, a.add(k * a_k), 1, b.add(k * b_k), acc, &mut []) };
    }
}

/// Stores a finished segment, on top of the earlier ones' sum where there are any.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn fold<T: Math, S: Simd<T>, const R: usize, const N: usize>(
    s: S,
    acc: &[[S::V; N]; R],
    earlier: bool,
    c: *mut T,
) {
    for r in 0..R {
        for n in 0..N {
            // SAFETY: the caller vouches for R rows of N vectors at c.
            unsafe {
                let at = c.add((r * N + n) * S::LANES);
                s.store(at, if earlier { s.add(s.load(at), acc[r][n]) } else { acc[r][n] });
            }
        }
    }
}

/// The gradient of a narrow layer's biases in one panel: `c (+)= sum over samples of a[sample]`, by the same segments.
pub struct BiasGradient<'a, T> {
    /// The slices; only `a`, which holds dZ, is read.
    pub pairs: &'a [Pair<'a, T>],
    /// The panel of dZ.
    pub panel: usize,
    /// Whether `c` holds the sum of earlier segments.
    pub goes_on: bool,
    /// `[width]`
    pub c: &'a mut [T],
}

/// [`BiasGradient`] as an operation for one instruction set.
pub struct BiasGradientOp<'p, 'a, T, O>(pub &'p mut BiasGradient<'a, T>, pub O);

impl<T: Math, S: Simd<T>, O: Operand<T, S>> Operation<T, S> for BiasGradientOp<'_, '_, T, O> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let g = self.0;
        let width = g.c.len();
        for n in 0..width / S::LANES {
            let mut sum = s.splat(T::ZERO);
            let mut earlier = g.goes_on;
            let c = g.c[n * S::LANES..][..S::LANES].as_mut_ptr();
            for (i, pair) in g.pairs.iter().enumerate() {
                // SAFETY: c is one vector of the slice above.
                unsafe {
                    if pair.opens && i > 0 {
                        let total = if earlier { s.add(s.load(c), sum) } else { sum };
                        s.store(c, total);
                        sum = s.splat(T::ZERO);
                        earlier = true;
                    }
                }
                let dz = pair.a;
                assert_eq!(dz.geometry().width(dz.lanes(), g.panel), width);
                for row in dz.panel(g.panel).chunks_exact(width) {
                    // SAFETY: a row has `width` numbers and n * LANES + LANES <= width.
                    sum = self.1.add(s, unsafe { s.load(row.as_ptr().add(n * S::LANES)) }, sum);
                }
            }
            // SAFETY: c is one vector of the slice above.
            unsafe {
                let total = if earlier { s.add(s.load(c), sum) } else { sum };
                s.store(c, total);
            }
        }
    }
}
