//! The one tile body, and two of the three products made of it; the weight gradient stands in `gradient.rs`.
//!
//! `acc[r][v] += broadcast(a[r, k]) * b[k][v]` for R rows and N vectors, with strides as parameters:
//!
//! | product | broadcast operand a | vector operand b | result c |
//! |---|---|---|---|
//! | forward `Z = A W^T` | samples of A | forward form of W | panel of Z |
//! | backward data `dA = dZ W` | samples of dZ | mirror of W | panel of dA |
//! | weight gradient `dZ^T A` | units of A | panel of dZ | block of dW |
//!
//! Promise: every element is a chain of fused multiply-adds in index order inside fixed segments of the summed
//! index; segment sums are added in index order; the start value begins the first. Tiles, blocks and
//! vector widths therefore do not change a bit. Terms of zero may be left out (`nonzeros.rs`).
//!
//! Accumulators are indexed by plain loops: iterators and closures over them kept the compiler from holding them in
//! registers.

use super::epilogue::{Finish, finish_rows, finish_tile};
use super::math::Math;
use super::operand::Operand;
use crate::isa::{Operation, Simd};
use crate::panel::PanelsRef;
use std::ops::Range;

/// Terms of one chain in forward and backward data: inputs or units. A constant of the format: changing it changes bits.
pub const INPUT_SEGMENT: usize = 4096;

/// What a chain begins with.
#[derive(Clone, Copy)]
pub enum Start<'a, T> {
    /// 0
    Zero,
    /// One number a lane of the result: `[width]`.
    Lanes(&'a [T]),
}

// Operands may hold several terms of a sum in one number ([`Operand::TERMS`]): k counts such numbers then, panels of a are
// narrower and segments shorter by that factor.

/// One panel of a product: `c[r] = finish(start + sum over k of a[r, k] * b[k])`, over a block of k.
///
/// Blocks of k come in order. The first of a segment begins a chain, the others go on with what
/// stands in `c`; the last block finishes.
pub struct Product<'a, T> {
    /// The broadcast operand, `rows x depth` in panels.
    pub a: PanelsRef<'a, T>,
    /// The vector operand: rows k of `width` numbers, `b_stride` from one panel of k (`P` rows) to the next.
    pub b: &'a [T],
    /// See `b`.
    pub b_stride: usize,
    /// The k of this block: begins at a multiple of `P` and ends at one or at the end; stays within one segment.
    pub depth: Range<usize>,
    /// What the first chain begins with.
    pub start: Start<'a, T>,
    /// What is done with a finished sum.
    pub finish: Finish<'a, T>,
    /// Earlier segments' sums, shaped as `c`; empty where the depth is one segment. Tiles do without (`tiles.rs`).
    pub totals: &'a mut [T],
    /// The result: `[rows][width]`.
    pub c: &'a mut [T],
    /// Lanes of `c` with padding: one vector or two.
    pub width: usize,
    /// Lanes of `c` without padding.
    pub lanes: usize,
}

impl<T: Math> Product<'_, T> {
    /// Checks all lengths, for operands `O` and vectors `S`; returns how many k there are.
    #[inline(always)]
    pub(super) fn check<O: Operand<T, S>, S: Simd<T>>(&self) -> usize {
        let (rows, depth, panel) = (self.a.rows(), self.a.lanes(), 2 * S::LANES / O::TERMS);
        let segment = INPUT_SEGMENT / O::TERMS;
        assert_eq!(self.a.geometry().lanes, S::LANES / O::TERMS);
        assert!(self.width == S::LANES || self.width == 2 * S::LANES, "a panel is one vector wide or two");
        assert!(self.depth.start.is_multiple_of(panel) && self.depth.start < self.depth.end && self.depth.end <= depth);
        assert!(self.depth.end.is_multiple_of(panel) || self.depth.end == depth);
        assert!(self.depth.start / segment == (self.depth.end - 1) / segment, "a block stays within one segment");
        let last = (self.depth.end - 1) / panel;
        let rest = self.depth.end - last * panel;
        assert!(self.b.len() >= last * self.b_stride + rest * self.width, "b holds every k of the block");
        assert!(last == 0 || self.b_stride >= panel * self.width, "panels of b do not overlap");
        assert_eq!(self.c.len(), rows * self.width);
        assert!(depth <= segment || self.totals.len() == self.c.len(), "several segments need totals");
        match self.start {
            Start::Zero => {}
            Start::Lanes(bias) => assert!(bias.len() >= self.width),
        }
        if let Finish::Times(_, of) | Finish::By(of) = self.finish {
            assert_eq!(of.len(), self.c.len());
        }
        depth
    }
}

/// The raw form of a product inside the tile loops; lengths were checked by [`Product::check`].
#[derive(Clone, Copy)]
struct Raw<'a, T> {
    a: *const T,
    a_rows: usize,
    a_lanes: usize,
    b: *const T,
    b_stride: usize,
    begin: usize,
    end: usize,
    start: Start<'a, T>,
    finish: Finish<'a, T>,
    totals: *mut T,
    c: *mut T,
}

/// [`Product`] as an operation for one instruction set.
pub struct ProductOp<'p, 'a, T, O>(pub &'p mut Product<'a, T>, pub O);

impl<T: Math, S: Simd<T>, O: Operand<T, S>> Operation<T, S> for ProductOp<'_, '_, T, O> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let p = self.0;
        let (rows, depth) = (p.a.rows(), p.check::<O, S>());
        let raw = Raw {
            a: p.a.data().as_ptr(),
            a_rows: rows,
            a_lanes: depth,
            b: p.b.as_ptr(),
            b_stride: p.b_stride,
            begin: p.depth.start,
            end: p.depth.end,
            start: p.start,
            finish: p.finish,
            totals: p.totals.as_mut_ptr(),
            c: p.c.as_mut_ptr(),
        };
        // SAFETY: what was checked is what the tiles rely on: a is a full matrix of panels (`PanelsRef::new`), b
        // reaches its last k, and c, totals, start and the factor have the result's shape.
        unsafe {
            if p.width == 2 * S::LANES {
                sweep::<T, S, O, 2>(s, self.1, &raw, rows)
            } else {
                sweep::<T, S, O, 1>(s, self.1, &raw, rows)
            }
        }
        if p.depth.end == depth {
            finish_rows(s, p.finish, p.c, p.width, p.lanes);
        }
    }
}

/// All rows, in the largest tiles that fit.
#[inline(always)]
unsafe fn sweep<T: Math, S: Simd<T>, O: Operand<T, S>, const N: usize>(
    s: S,
    operand: O,
    raw: &Raw<'_, T>,
    rows: usize,
) {
    let mut row = 0;
    while row < rows {
        // Sizes above S::ROWS are never taken; that their conditions are constants keeps them from being compiled at all.
        let left = (rows - row).min(S::ROWS);
        // SAFETY: row + the tile's rows <= rows; the rest is the caller's promise.
        row += unsafe {
            match left {
                12.. if const { S::ROWS >= 12 } => tile::<T, S, O, 12, N>(s, operand, raw, row),
                8.. if const { S::ROWS >= 8 } => tile::<T, S, O, 8, N>(s, operand, raw, row),
                // Eight are better done as four and four: two rows alone wait for their own sums.
                6.. if const { S::ROWS == 6 } && rows - row != 8 => tile::<T, S, O, 6, N>(s, operand, raw, row),
                4.. if const { S::ROWS >= 4 } => tile::<T, S, O, 4, N>(s, operand, raw, row),
                2.. => tile::<T, S, O, 2, N>(s, operand, raw, row),
                _ => tile::<T, S, O, 1, N>(s, operand, raw, row),
            }
        };
    }
}

/// R rows of N vectors; returns R.
#[inline(always)]
unsafe fn tile<T: Math, S: Simd<T>, O: Operand<T, S>, const R: usize, const N: usize>(
    s: S,
    operand: O,
    raw: &Raw<'_, T>,
    row: usize,
) -> usize {
    let (v, panel, width) = (S::LANES / O::TERMS, 2 * S::LANES / O::TERMS, N * S::LANES);
    let segment = INPUT_SEGMENT / O::TERMS;
    let offset = row * width;
    // SAFETY: the caller vouches for rows `row..row + R` of c and totals, and for k in `begin..end` of a and b.
    unsafe {
        let mut acc = begin::<T, S, R, N>(s, raw, row, segment);
        let mut k = raw.begin;
        if const { S::UNROLL > 1 } {
            // Whole panels by pointers that only grow: working out where each begins would show between short chains.
            let mut a = raw.a.wrapping_add(k * raw.a_rows + row * panel);
            let mut b = raw.b.wrapping_add(k / panel * raw.b_stride);
            while k + panel <= raw.end {
                chain::<T, S, O, R, N, 0>(s, operand, a, panel, 1, b, width, panel, &mut acc, &mut []);
                (a, b) = (a.wrapping_add(panel * raw.a_rows), b.wrapping_add(raw.b_stride));
                k += panel;
            }
        }
        while k < raw.end {
            let (q, len) = (k / panel, panel.min(raw.end - k));
            let a = raw.a.add(q * panel * raw.a_rows);
            let b = raw.b.add(q * raw.b_stride);
            // Strides as constants: the rows' addresses then need no registers of their own.
            if raw.a_lanes - k > v {
                chain::<T, S, O, R, N, 0>(s, operand, a.add(row * panel), panel, 1, b, width, len, &mut acc, &mut []);
            } else {
                chain::<T, S, O, R, N, 0>(s, operand, a.add(row * v), v, 1, b, width, len, &mut acc, &mut []);
            }
            k += len;
        }
        let closes = raw.end.is_multiple_of(segment) || raw.end == raw.a_lanes;
        if closes && raw.begin >= segment {
            add_rows(s, &mut acc, raw.totals.add(offset));
        }
        if raw.end == raw.a_lanes {
            finish_tile(s, raw.finish, &mut acc, offset);
            store_rows(s, &acc, raw.c.add(offset));
        } else {
            store_rows(s, &acc, if closes { raw.totals } else { raw.c }.add(offset));
        }
    }
    R
}

/// What a tile's chains begin with: the start value in a first block, 0 in another segment's first, else what stands in c.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn begin<T: Math, S: Simd<T>, const R: usize, const N: usize>(
    s: S,
    raw: &Raw<'_, T>,
    row: usize,
    segment: usize,
) -> [[S::V; N]; R] {
    let mut acc = [[s.splat(T::ZERO); N]; R];
    // SAFETY: the caller vouches for the rows of c and of the start value.
    unsafe {
        if !raw.begin.is_multiple_of(segment) {
            let c = raw.c.add(row * N * S::LANES);
            for r in 0..R {
                for n in 0..N {
                    acc[r][n] = s.load(c.add((r * N + n) * S::LANES));
                }
            }
        } else if raw.begin == 0 {
            match raw.start {
                Start::Zero => {}
                Start::Lanes(bias) => {
                    for n in 0..N {
                        // A bias of -0 becomes 0, as any zero term may make it: terms that are zero may be skipped then.
                        let bias = s.add(s.load(bias.as_ptr().add(n * S::LANES)), s.splat(T::ZERO));
                        for r in 0..R {
                            acc[r][n] = bias;
                        }
                    }
                }
            }
        }
    }
    acc
}

/// `acc += c`, the sum of earlier segments.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn add_rows<T: Math, S: Simd<T>, const R: usize, const N: usize>(s: S, acc: &mut [[S::V; N]; R], c: *const T) {
    for r in 0..R {
        for n in 0..N {
            // SAFETY: the caller vouches for R rows of N vectors at c.
            acc[r][n] = s.add(unsafe { s.load(c.add((r * N + n) * S::LANES)) }, acc[r][n]);
        }
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn store_rows<T: Math, S: Simd<T>, const R: usize, const N: usize>(s: S, acc: &[[S::V; N]; R], c: *mut T) {
    for r in 0..R {
        for n in 0..N {
            // SAFETY: the caller vouches for R rows of N vectors at c.
            unsafe { s.store(c.add((r * N + n) * S::LANES), acc[r][n]) };
        }
    }
}

/// The tile body: `acc[r] += a[r * a_row + k * a_k] * b[k * b_k ..]` and `sums[i] += b[k * b_k ..]` for `len` k in order.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn chain<T: Math, S: Simd<T>, O: Operand<T, S>, const R: usize, const N: usize, const B: usize>(
    s: S,
    operand: O,
    a: *const T,
    a_row: usize,
    a_k: usize,
    b: *const T,
    b_k: usize,
    len: usize,
    acc: &mut [[S::V; N]; R],
    sums: &mut [[S::V; N]; B],
) {
    let mut k = 0;
    // SAFETY: the caller vouches for N vectors at each k of b and for R numbers at each k of a.
    unsafe {
        // Tiles of few rows are rare, and not worth the code.
        while S::UNROLL > 1 && R >= 4 && k + S::UNROLL <= len {
            for u in 0..S::UNROLL {
                term(s, operand, a.add((k + u) * a_k), a_row, b.add((k + u) * b_k), acc, sums);
            }
            k += S::UNROLL;
        }
        while k < len {
            term(s, operand, a.add(k * a_k), a_row, b.add(k * b_k), acc, sums);
            k += 1;
        }
    }
}

/// One k of a chain.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
pub(super) unsafe fn term<T: Math, S: Simd<T>, O: Operand<T, S>, const R: usize, const N: usize, const B: usize>(
    s: S,
    operand: O,
    a: *const T,
    a_row: usize,
    b: *const T,
    acc: &mut [[S::V; N]; R],
    sums: &mut [[S::V; N]; B],
) {
    // SAFETY: the caller vouches for N vectors at b and for R numbers at a.
    unsafe {
        let mut vectors = [s.splat(T::ZERO); N];
        for n in 0..N {
            vectors[n] = s.load(b.add(n * S::LANES));
        }
        for r in 0..R {
            let x = s.splat(*a.add(r * a_row));
            for n in 0..N {
                acc[r][n] = operand.mul_add(s, x, vectors[n], acc[r][n]);
            }
        }
        for i in 0..B {
            for n in 0..N {
                sums[i][n] = operand.add(s, vectors[n], sums[i][n]);
            }
        }
    }
}
