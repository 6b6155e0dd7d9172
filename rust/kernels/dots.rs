//! Forward through a layer of few units: sums whose lanes are inputs.
//!
//! Units as lanes would leave most of a vector idle. Here samples and weights are both read along the inputs, as the gradient
//! and backward data of such a layer read them, so that no lane is padding but in the last vector and, in full precision, one
//! form of either serves all three products.
//!
//! Promise: an element is made of [`partials`] strided sums (input mod that number), each a chain of fused multiply-adds in
//! index order inside blocks of [`block`] inputs whose sums are added in index order; then halves are added to halves until one
//! number is left, and the bias to it. Neither tiles nor vector widths change a bit. In mixed precision (`bf16.rs`) the inputs
//! counted here are pairs of them.

use super::lanes::{self, MOST_LANES, write_apart};
use super::math::Math;
use super::operand::Operand;
use crate::isa::{Operation, Simd, prefetch};
use crate::panel::{PanelsMut, PanelsRef};
use std::ops::Range;

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

/// `c[r, j] = bias[j] + sum over k of a[r, k] b[j, k]`; where k counts pairs, panels of a and b are half as wide.
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
    pub c: PanelsMut<'a, T>,
}

/// [`Dots`] as an operation for one instruction set.
pub struct DotsOp<'p, 'a, T, O>(pub &'p mut Dots<'a, T>, pub O);

/// Vectors of both operands over the blocks of the inputs.
#[derive(Clone, Copy)]
struct Raw<T> {
    a: *const T,
    a_rows: usize,
    b: *const T,
    b_rows: usize,
    /// The samples that are looked at: from and to.
    first: usize,
    last: usize,
    /// Vectors of this block: from, to where they are whole, and to; between these there may be half a vector.
    begin: usize,
    whole: usize,
    end: usize,
    /// Where the next block's whole vectors end.
    next: usize,
    /// Whether the depth ends with the block.
    ends: bool,
    sums: *mut T,
}

impl<T: Math, S: Simd<T>, O: Operand<T, S>> Operation<T, S> for DotsOp<'_, '_, T, O> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let d = self.0;
        let (rows, units, depth) = (d.a.rows(), d.b.rows(), d.a.lanes());
        assert!([d.a.geometry(), d.b.geometry()].iter().all(|geometry| geometry.lanes == S::LANES / O::TERMS));
        assert_eq!(d.c.geometry().lanes, S::LANES);
        assert_eq!((d.b.lanes(), d.c.rows(), d.c.lanes()), (depth, rows, units));
        assert!(d.bias.len() >= units);
        d.c.data_mut().fill(T::ZERO);
        // No `step_by`, which works out first how many steps there are.
        let mut first = 0;
        while first < rows {
            let last = (first + ROWS_AT_ONCE).min(rows);
            let sums = &mut d.scratch[..(last - first) * units * partials::<T>()];
            let mut begin = 0;
            while begin < depth {
                let padded = d.a.geometry().padded(depth);
                let (numbers, next) = ((begin + block::<T>()).min(padded), (begin + 2 * block::<T>()).min(padded));
                let raw = Raw {
                    a: d.a.data().as_ptr(),
                    a_rows: rows,
                    b: d.b.data().as_ptr(),
                    b_rows: units,
                    first,
                    last,
                    begin: begin / S::LANES,
                    whole: numbers / S::LANES,
                    end: numbers.div_ceil(S::LANES),
                    next: next / S::LANES,
                    ends: begin + block::<T>() >= depth,
                    sums: sums.as_mut_ptr(),
                };
                // SAFETY: a and b are full matrices of panels (`PanelsRef`) whose vectors `begin..end` exist, of the last perhaps
                // the first half alone, `last` is at most a's rows, and there are partial sums for each pair of rows `first..last`
                // of a and all of b.
                unsafe {
                    // A constant, here and below: what is never called is not compiled then.
                    match const { partials::<T>() / S::LANES } {
                        1 => sweep::<T, S, O, 1>(s, self.1, &raw),
                        2 => sweep::<T, S, O, 2>(s, self.1, &raw),
                        4 => sweep::<T, S, O, 4>(s, self.1, &raw),
                        8 => sweep::<T, S, O, 8>(s, self.1, &raw),
                        _ => sweep::<T, S, O, 16>(s, self.1, &raw),
                    }
                }
                begin += block::<T>();
            }
            fold(s, sums, first, d.bias, &mut d.c);
            first = last;
        }
    }
}

/// All rows of a, of a panel's one vector or two, against the only row of b, with the sums of tiles: what these decide, and how
/// they loop, would take longer than the sums.
#[inline(always)]
unsafe fn short<T: Math, S: Simd<T>, const W: usize>(s: S, raw: &Raw<T>) {
    let (zero, vectors) = (s.splat(T::ZERO), raw.end);
    // SAFETY: the caller vouches for so many vectors of the rows, and for as many partial sums as rows.
    unsafe {
        let second = |row: *const T| if vectors == 2 { s.load(row.add(S::LANES)) } else { zero };
        let of_b = [s.load(raw.b), second(raw.b)];
        for row in raw.first..raw.last {
            let a = raw.a.add(row * vectors * S::LANES);
            let mut acc = [zero; W];
            acc[0] = s.mul_add(s.load(a), of_b[0], zero);
            if W > 1 {
                acc[W.min(2) - 1] = s.mul_add(second(a), of_b[1], zero);
            }
            halve(s, &mut acc);
            s.store(raw.sums.add((row - raw.first) * W * S::LANES), acc[0]);
        }
    }
}

/// All pairs of rows over one block, in the largest tiles that the registers hold.
#[inline(always)]
unsafe fn sweep<T: Math, S: Simd<T>, O: Operand<T, S>, const W: usize>(s: S, operand: O, raw: &Raw<T>) {
    assert_eq!(W * S::LANES, partials::<T>());
    let whole = raw.begin == 0 && raw.ends && raw.whole == raw.end;
    if const { O::TERMS == 1 } && whole && raw.b_rows == 1 && raw.end <= W.min(2) {
        // SAFETY: the caller's promise.
        return unsafe { short::<T, S, W>(s, raw) };
    }
    let mut row = raw.first;
    while row < raw.last {
        let left = raw.last - row;
        // SAFETY: row + the tile's rows <= last; the rest is the caller's promise.
        row += unsafe {
            match left {
                6.. if const { W == 1 } || const { W == 2 } && raw.b_rows == 1 => {
                    across::<T, S, O, 6, W>(s, operand, raw, row)
                }
                3.. if const { W == 2 } => across::<T, S, O, 3, W>(s, operand, raw, row),
                2.. if const { W == 1 || W == 4 } => across::<T, S, O, 2, W>(s, operand, raw, row),
                _ => across::<T, S, O, 1, W>(s, operand, raw, row),
            }
        };
    }
}

/// Asks for what of a is read after `rows`: as many rows behind them, or the first of the next block. `columns` of b get their share
/// of the panels: with the first tile alone, as much again as it reads, it would be waited for. (That tile took three times as long
/// as the others, a quarter of a long sum's time.)
///
/// # Safety
/// These rows are among `first..last`; `vectors` of `lanes` numbers are a panel.
#[inline(never)]
unsafe fn ask<T: Math>(raw: &Raw<T>, rows: Range<usize>, columns: Range<usize>, vectors: usize, lanes: usize) {
    let (count, panel) = (rows.len(), vectors * lanes);
    let (row, begin, end) = match rows.end + count <= raw.last {
        true => (rows.end, raw.begin, raw.whole),
        false => (raw.first, raw.whole, raw.next),
    };
    let panels = (end - begin) / vectors;
    let share = panels * columns.start / raw.b_rows..panels * columns.end.min(raw.b_rows) / raw.b_rows;
    for p in share {
        // SAFETY: as many rows as `rows` from that one on end by `last`, and the panel is a whole one of either block.
        prefetch(unsafe {
            let panel_of_a = raw.a.add((begin + p * vectors) * lanes * raw.a_rows);
            std::slice::from_raw_parts(panel_of_a.add(row * panel), count * panel)
        });
    }
}

/// R rows of a against all rows of b; returns R.
#[inline(always)]
unsafe fn across<T: Math, S: Simd<T>, O: Operand<T, S>, const R: usize, const W: usize>(
    s: S,
    operand: O,
    raw: &Raw<T>,
    row: usize,
) -> usize {
    // A sum of one block reads what a layer has just written.
    let asks = raw.begin > 0 || !raw.ends;
    let columns = if W == 1 {
        4
    } else if const { W <= 4 && R * W <= 8 } {
        2
    } else {
        1
    };
    let mut column = 0;
    while column < raw.b_rows {
        let left = raw.b_rows - column;
        // SAFETY: column + the tile's columns <= b_rows, and the R rows are among `first..last`; the rest is the caller's promise.
        column += unsafe {
            if asks {
                ask(raw, row..row + R, column..column + columns, 2 / O::TERMS, S::LANES);
            }
            match left {
                4.. if const { W == 1 } => tile::<T, S, O, R, 4, W>(s, operand, raw, row, column),
                2.. if const { W <= 4 && R * W <= 8 } => tile::<T, S, O, R, 2, W>(s, operand, raw, row, column),
                _ => tile::<T, S, O, R, 1, W>(s, operand, raw, row, column),
            }
        };
    }
    R
}

/// R x C sums of W vectors over one block; returns C.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn tile<T: Math, S: Simd<T>, O: Operand<T, S>, const R: usize, const C: usize, const W: usize>(
    s: S,
    operand: O,
    raw: &Raw<T>,
    row: usize,
    column: usize,
) -> usize {
    let mut acc = [[[s.splat(T::ZERO); W]; C]; R];
    // Vectors of a panel, two or of pairs one, and numbers of its rows.
    let (vectors, panel) = (2 / O::TERMS, 2 / O::TERMS * S::LANES);
    // SAFETY: the caller vouches for rows `row..row + R` of a, `column..column + C` of b and vectors `begin..end` of both; the
    // last panel is as narrow as what is left for it.
    unsafe {
        let mut at = raw.begin;
        // Whole rounds of the W partials, panel by panel: two rounds where W is 1 (a panel), and where it is 2 (two panels, for
        // fewer turns of the loop).
        let round = if W <= 2 { 2 * W } else { W };
        while at + round <= raw.whole {
            for i in 0..round / vectors {
                let first = at + vectors * i;
                let a = raw.a.add(first * S::LANES * raw.a_rows + row * panel);
                let b = raw.b.add(first * S::LANES * raw.b_rows + column * panel);
                for v in 0..vectors {
                    let w = (vectors * i + v) % W;
                    step(s, operand, a.add(v * S::LANES), b.add(v * S::LANES), panel, w, &mut acc);
                }
            }
            at += round;
        }
        // What makes no whole round; a block that ends within a panel ends with the depth, where half a panel is its own width.
        for i in 0..round / vectors {
            let (first, w) = (at + vectors * i, (vectors * i) % W);
            let a = raw.a.wrapping_add(first * S::LANES * raw.a_rows);
            let b = raw.b.wrapping_add(first * S::LANES * raw.b_rows);
            if first + vectors <= raw.whole {
                let (a, b) = (a.add(row * panel), b.add(column * panel));
                for v in 0..vectors {
                    step(s, operand, a.add(v * S::LANES), b.add(v * S::LANES), panel, (w + v) % W, &mut acc);
                }
            } else if first < raw.end {
                let narrow = panel / 2;
                let (a, b) = (a.add(row * narrow), b.add(column * narrow));
                if vectors == 2 {
                    step(s, operand, a, b, narrow, w, &mut acc);
                } else {
                    half_step(s, operand, a, b, w, &mut acc);
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                let sums = raw.sums.add(((row - raw.first + r) * raw.b_rows + column + c) * W * S::LANES);
                if raw.begin > 0 {
                    for w in 0..W {
                        acc[r][c][w] = s.add(s.load(sums.add(w * S::LANES)), acc[r][c][w]);
                    }
                }
                if raw.ends {
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
unsafe fn step<T: Math, S: Simd<T>, O: Operand<T, S>, const R: usize, const C: usize, const W: usize>(
    s: S,
    operand: O,
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
                acc[r][c][w] = operand.mul_add(s, of_a, of_b[c], acc[r][c][w]);
            }
        }
    }
}

/// The same of rows of half a vector, whose other half counts as zero.
#[inline(always)]
unsafe fn half_step<T: Math, S: Simd<T>, O: Operand<T, S>, const R: usize, const C: usize, const W: usize>(
    s: S,
    operand: O,
    a: *const T,
    b: *const T,
    w: usize,
    acc: &mut [[[S::V; W]; C]; R],
) {
    let half = S::LANES / 2;
    let (mut of_a, mut of_b) = ([[T::ZERO; MOST_LANES]; R], [[T::ZERO; MOST_LANES]; C]);
    // SAFETY: the caller vouches for half a vector of R rows of a and of C rows of b; the copies are whole vectors.
    unsafe {
        for (r, row) in of_a.iter_mut().enumerate() {
            a.add(r * half).copy_to_nonoverlapping(row.as_mut_ptr(), half);
        }
        for (c, row) in of_b.iter_mut().enumerate() {
            b.add(c * half).copy_to_nonoverlapping(row.as_mut_ptr(), half);
        }
        step(s, operand, of_a.as_ptr().cast(), of_b.as_ptr().cast(), MOST_LANES, w, acc);
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
fn fold<T: Math, S: Simd<T>>(s: S, sums: &[T], first: usize, bias: &[T], c: &mut PanelsMut<'_, T>) {
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
            // By vectors here too: one that is read where single numbers were just written waits for all of them.
            let mut rows = [T::ZERO; MOST_LANES * MOST_LANES];
            for (i, sums) in block.chunks_exact(q).enumerate() {
                lanes::put(s, &mut rows, i, lanes::at(s, sums, 0));
            }
            // SAFETY: both have V rows of V numbers.
            unsafe { s.transpose(rows.as_ptr(), v, turned.as_mut_ptr(), v) };
        }
        // In registers: each sum of two would wait for the one before to come back from memory.
        let mut vectors = [s.splat(T::ZERO); MOST_LANES];
        for (k, vector) in vectors.iter_mut().enumerate().take(v) {
            *vector = lanes::at(s, &turned, k);
        }
        let mut half = v / 2;
        while half > 0 {
            for k in 0..half {
                vectors[k] = s.add(vectors[k], vectors[k + half]);
            }
            half /= 2;
        }
        if units == 1 {
            // A row is one vector then: following each element's place would cost more than its sum.
            let sums = s.add(vectors[0], s.splat(bias[0]));
            write_apart(s, sums, &mut into[row * v..], v, count);
            row += count;
            continue;
        }
        lanes::put(s, &mut turned, 0, vectors[0]);
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
