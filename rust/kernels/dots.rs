//! Forward through a layer of few units: sums whose lanes are inputs.
//!
//! Units as lanes would leave most of a vector idle. Here samples and weights are both read along the inputs, as the gradient
//! and backward data of such a layer read them, so that one form of either serves all three products and no lane is padding
//! but in the last vector.
//!
//! Promise: an element is made of [`partials`] strided sums (input mod that number), each a chain of fused multiply-adds in
//! index order inside blocks of [`block`] inputs whose sums are added in index order; then halves are added to halves until one
//! number is left, and the bias to it. Neither tiles nor vector widths change a bit.

use super::lanes::{self, MOST_LANES, write_apart};
use super::math::Math;
use crate::isa::{Operation, Simd, prefetch};
use crate::panel::{Panels, PanelsRef};

/// Inputs of one chain's block: those of a tile of samples (2 KiB each) stay in the first cache while all units pass over them.
/// A constant of the format: changing it changes bits.
pub const fn block<T: Math>() -> usize {
    if T::IS_SINGLE { 512 } else { 256 }
}
/// Samples whose sums are made together: a bound of the scratch.
const ROWS_AT_ONCE: usize = 120;

/// How many strided sums an element is made of: one of the widest vectors. A constant of the format.
pub const fn partials<T: Math>() -> usize {
    if T::IS_SINGLE { 16 } else { 8 }
}

/// Numbers of scratch that [`Dots`] needs for so many rows and units.
pub fn scratch<T: Math>(rows: usize, units: usize) -> usize {
    rows.min(ROWS_AT_ONCE).saturating_mul(units).saturating_mul(partials::<T>())
}

/// `c[r, j] = bias[j] + sum over k of a[r, k] b[j, k]`.
pub struct Dots<'a, T> {
    /// Samples, `rows x depth`; padding is zero.
    pub a: PanelsRef<'a, T>,
    /// Weights, `units x depth`; padding is zero.
    pub b: PanelsRef<'a, T>,
    /// `[units]`
    pub bias: &'a [T],
    /// Room for [`scratch`] numbers.
    pub scratch: &'a mut [T],
    /// `rows x units`
    pub c: &'a mut Panels<T>,
}

/// [`Dots`] as an operation for one instruction set.
pub struct DotsOp<'p, 'a, T>(pub &'p mut Dots<'a, T>);

/// Vectors of both operands over the blocks of the inputs.
#[derive(Clone, Copy)]
struct Raw<T> {
    a: *const T,
    a_rows: usize,
    b: *const T,
    b_rows: usize,
    depth: usize,
    /// The samples that are looked at: from and to.
    first: usize,
    last: usize,
    /// Vectors of this block: from and to.
    begin: usize,
    end: usize,
    sums: *mut T,
}

impl<T: Math, S: Simd<T>> Operation<T, S> for DotsOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let d = self.0;
        let (rows, units, depth) = (d.a.rows, d.b.rows, d.a.lanes);
        assert!([d.a.geometry, d.b.geometry, d.c.geometry()].iter().all(|geometry| geometry.lanes == S::LANES));
        assert_eq!((d.b.lanes, d.c.rows(), d.c.lanes()), (depth, rows, units));
        assert!(d.bias.len() >= units);
        d.c.data_mut().fill(T::ZERO);
        for first in (0..rows).step_by(ROWS_AT_ONCE) {
            let last = (first + ROWS_AT_ONCE).min(rows);
            let sums = &mut d.scratch[..(last - first) * units * partials::<T>()];
            for begin in (0..depth).step_by(block::<T>()) {
                let end = (begin + block::<T>()).min(depth).div_ceil(S::LANES);
                let raw = Raw {
                    a: d.a.data().as_ptr(),
                    a_rows: rows,
                    b: d.b.data().as_ptr(),
                    b_rows: units,
                    depth,
                    first,
                    last,
                    begin: begin / S::LANES,
                    end,
                    sums: sums.as_mut_ptr(),
                };
                // SAFETY: a and b are full matrices of panels (`PanelsRef`) whose vectors `begin..end` exist, `last` is at most
                // a's rows, and there are partial sums for each pair of rows `first..last` of a and all of b.
                unsafe {
                    // A constant, here and below: what is never called is not compiled then.
                    match const { partials::<T>() / S::LANES } {
                        1 => sweep::<T, S, 1>(s, &raw),
                        2 => sweep::<T, S, 2>(s, &raw),
                        4 => sweep::<T, S, 4>(s, &raw),
                        8 => sweep::<T, S, 8>(s, &raw),
                        _ => sweep::<T, S, 16>(s, &raw),
                    }
                }
            }
            fold(s, sums, first, d.bias, d.c);
        }
    }
}

/// All pairs of rows over one block, in the largest tiles that the registers hold.
#[inline(always)]
unsafe fn sweep<T: Math, S: Simd<T>, const W: usize>(s: S, raw: &Raw<T>) {
    assert_eq!(W * S::LANES, partials::<T>());
    let mut row = raw.first;
    while row < raw.last {
        let left = raw.last - row;
        // SAFETY: row + the tile's rows <= last; the rest is the caller's promise.
        row += unsafe {
            match left {
                6.. if const { W == 1 } || const { W == 2 } && raw.b_rows == 1 => across::<T, S, 6, W>(s, raw, row),
                3.. if const { W == 2 } => across::<T, S, 3, W>(s, raw, row),
                2.. if const { W == 1 || W == 4 } => across::<T, S, 2, W>(s, raw, row),
                _ => across::<T, S, 1, W>(s, raw, row),
            }
        };
    }
}

/// R rows of a against all rows of b; returns R.
#[inline(always)]
unsafe fn across<T: Math, S: Simd<T>, const R: usize, const W: usize>(s: S, raw: &Raw<T>, row: usize) -> usize {
    let follows = row + 2 * R <= raw.a_rows;
    let mut column = 0;
    while column < raw.b_rows {
        let left = raw.b_rows - column;
        let asks = follows && column == 0;
        // SAFETY: column + the tile's columns <= b_rows, and where it asks, R rows follow; the rest is the caller's promise.
        column += unsafe {
            match left {
                4.. if const { W == 1 } && asks => tile::<T, S, R, 4, W, true>(s, raw, row, column),
                4.. if const { W == 1 } => tile::<T, S, R, 4, W, false>(s, raw, row, column),
                2.. if const { W <= 4 && R * W <= 8 } && asks => tile::<T, S, R, 2, W, true>(s, raw, row, column),
                2.. if const { W <= 4 && R * W <= 8 } => tile::<T, S, R, 2, W, false>(s, raw, row, column),
                _ if asks => tile::<T, S, R, 1, W, true>(s, raw, row, column),
                _ => tile::<T, S, R, 1, W, false>(s, raw, row, column),
            }
        };
    }
    R
}

/// R x C sums of W vectors over one block; returns C. A tile that ASKS has the next R rows of a fetched meanwhile: a constant,
/// since looking in the loop costs a tenth of it where vectors are short.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn tile<T: Math, S: Simd<T>, const R: usize, const C: usize, const W: usize, const ASKS: bool>(
    s: S,
    raw: &Raw<T>,
    row: usize,
    column: usize,
) -> usize {
    let mut acc = [[[s.splat(T::ZERO); W]; C]; R];
    // SAFETY: the caller vouches for rows `row..row + R` of a (`row..row + 2 R` where it ASKS), `column..column + C` of b and
    // vectors `begin..end` of both; a panel holds two vectors of each row, the last one perhaps one.
    unsafe {
        let mut at = raw.begin;
        // Whole rounds of the W partials, panel by panel: two rounds where W is 1 (a panel), and where it is 2 (two panels, for
        // fewer turns of the loop).
        let round = if W <= 2 { 2 * W } else { W };
        while at + round <= raw.end {
            for half in 0..round / 2 {
                let first = at + 2 * half;
                let a = raw.a.add(first * S::LANES * raw.a_rows + row * 2 * S::LANES);
                let b = raw.b.add(first * S::LANES * raw.b_rows + column * 2 * S::LANES);
                if ASKS {
                    prefetch(std::slice::from_raw_parts(a.add(R * 2 * S::LANES), R * 2 * S::LANES));
                }
                for v in 0..2 {
                    step(s, a.add(v * S::LANES), b.add(v * S::LANES), 2 * S::LANES, (2 * half + v) % W, &mut acc);
                }
            }
            at += round;
        }
        // What makes no whole round; a block that ends within a panel ends with the depth, where half a panel is its own width.
        for half in 0..round / 2 {
            let first = at + 2 * half;
            let a = raw.a.wrapping_add(first * S::LANES * raw.a_rows);
            let b = raw.b.wrapping_add(first * S::LANES * raw.b_rows);
            if first + 1 < raw.end {
                let (a, b) = (a.add(row * 2 * S::LANES), b.add(column * 2 * S::LANES));
                step(s, a, b, 2 * S::LANES, (2 * half) % W, &mut acc);
                step(s, a.add(S::LANES), b.add(S::LANES), 2 * S::LANES, (2 * half + 1) % W, &mut acc);
            } else if first < raw.end {
                step(s, a.add(row * S::LANES), b.add(column * S::LANES), S::LANES, (2 * half) % W, &mut acc);
            }
        }
        let ends = raw.end == raw.depth.div_ceil(S::LANES);
        for r in 0..R {
            for c in 0..C {
                let sums = raw.sums.add(((row - raw.first + r) * raw.b_rows + column + c) * W * S::LANES);
                if raw.begin > 0 {
                    for w in 0..W {
                        acc[r][c][w] = s.add(s.load(sums.add(w * S::LANES)), acc[r][c][w]);
                    }
                }
                if ends {
                    halve(s, &mut acc[r][c]);
                    s.store(sums, acc[r][c][0]);
                } else {
                    for w in 0..W {
                        s.store(sums.add(w * S::LANES), acc[r][c][w]);
                    }
                }
            }
        }
    }
    C
}

/// One vector of each row: `acc[r][c][w] += a[r] * b[c]`.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn step<T: Math, S: Simd<T>, const R: usize, const C: usize, const W: usize>(
    s: S,
    a: *const T,
    b: *const T,
    width: usize,
    w: usize,
    acc: &mut [[[S::V; W]; C]; R],
) {
    // SAFETY: the caller vouches for a vector of R rows of a and of C rows of b, `width` apart.
    unsafe {
        let mut of_b = [s.splat(T::ZERO); C];
        for c in 0..C {
            of_b[c] = s.load(b.add(c * width));
        }
        for r in 0..R {
            let of_a = s.load(a.add(r * width));
            for c in 0..C {
                acc[r][c][w] = s.mul_add(of_a, of_b[c], acc[r][c][w]);
            }
        }
    }
}

/// Adds halves to halves until the first vector holds the sum of all.
#[inline(always)]
fn halve<T: Math, S: Simd<T>, const W: usize>(s: S, vectors: &mut [S::V; W]) {
    let mut half = W / 2;
    while half > 0 {
        for w in 0..half {
            vectors[w] = s.add(vectors[w], vectors[w + half]);
        }
        half /= 2;
    }
}

/// Each element's vector of sums, which stands where its partial sums begin, becomes one number, from row `first` on: V elements at
/// a time, turned so that they are lanes.
#[inline(always)]
fn fold<T: Math, S: Simd<T>>(s: S, sums: &[T], first: usize, bias: &[T], c: &mut Panels<T>) {
    let (v, q) = (S::LANES, partials::<T>());
    let mut turned = [T::ZERO; MOST_LANES * MOST_LANES];
    let (rows, units, geometry) = (c.rows(), c.lanes(), c.geometry());
    let (panel, padded) = (geometry.panel(), geometry.padded(units));
    // Where an element stands: panel p begins at p P rows, and the last one is narrower.
    let place = |row: usize, unit: usize| {
        let first = unit & !(panel - 1);
        first * rows + row * panel.min(padded - first) + (unit - first)
    };
    let (mut row, mut unit, mut at) = (first, 0, place(first, 0));
    let into = c.data_mut();
    for block in sums.chunks(v * q) {
        let count = block.len() / q;
        if count == v {
            // SAFETY: the block has V rows of Q numbers, of which V are read, and `turned` V rows of V.
            unsafe { s.transpose(block.as_ptr(), q, turned.as_mut_ptr(), v) };
        } else {
            for (i, sums) in block.chunks_exact(q).enumerate() {
                (0..v).for_each(|k| turned[k * v + i] = sums[k]);
            }
        }
        let mut half = v / 2;
        while half > 0 {
            for k in 0..half {
                let at = turned[k * v..].as_mut_ptr();
                // SAFETY: rows k and k + half of `turned` are below V, V numbers each.
                unsafe { s.store(at, s.add(s.load(at), s.load(at.add(half * v)))) };
            }
            half /= 2;
        }
        if units == 1 {
            // A row is one vector then: following each element's place would cost more than its sum.
            let sums = s.add(lanes::at(s, &turned, 0), s.splat(bias[0]));
            write_apart(s, sums, &mut into[row * v..], v, count);
            row += count;
            continue;
        }
        for &sum in &turned[..count] {
            into[at] = sum + bias[unit];
            (at, unit) = (at + 1, unit + 1);
            if unit == units {
                (row, unit) = (row + 1, 0);
                at = place(row, unit);
            } else if unit.is_multiple_of(panel) {
                at = place(row, unit);
            }
        }
    }
}
