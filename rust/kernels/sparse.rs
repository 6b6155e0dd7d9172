//! Forward through the first layer where much of its input is zero: `c[r] = bias + sum over k of a[r, k] b[k]`, over those k
//! alone where `a[r, k]` is not.
//!
//! A row at a time against several panels of units, so that one number of a serves them all: rows have nothing in common to be
//! multiplied by. A block of the weights stays in the first cache while all rows pass over it.
//!
//! Promise: the order and the segments of `gemm.rs`, so the bits of a product that skips nothing, with the limits that
//! `nonzeros.rs` names.

use super::gemm::INPUT_SEGMENT;
use super::math::Math;
use super::nonzeros::Nonzeros;
use crate::isa::{Operation, Simd};
use crate::panel::{Panels, PanelsRef};

/// A whole product, all panels of units.
pub struct Sparse<'a, T> {
    /// Samples, `rows x depth`.
    pub a: PanelsRef<'a, T>,
    /// Where they are not zero.
    pub nonzeros: &'a Nonzeros<T>,
    /// Forward form of the weights, `(depth + 1) x units`; the last row is the bias.
    pub b: PanelsRef<'a, T>,
    /// Earlier segments' sums, shaped as `c`; empty where the depth is one segment.
    pub totals: &'a mut [T],
    /// `rows x units`
    pub c: &'a mut Panels<T>,
}

/// [`Sparse`] as an operation for one instruction set.
pub struct SparseOp<'p, 'a, T>(pub &'p mut Sparse<'a, T>);

/// What the loops see; lengths were checked by [`SparseOp::run`].
#[derive(Clone, Copy)]
struct Raw<'a, T> {
    a: PanelsRef<'a, T>,
    nonzeros: &'a Nonzeros<T>,
    b: *const T,
    totals: *mut T,
    c: *mut T,
}

impl<T: Math, S: Simd<T>> Operation<T, S> for SparseOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let p = self.0;
        let (rows, depth, units, panels) = (p.a.rows(), p.a.lanes(), p.b.lanes(), p.c.panels());
        assert_eq!((p.a.geometry().lanes, p.b.geometry(), p.c.geometry()), (S::LANES, p.a.geometry(), p.a.geometry()));
        assert_eq!((p.b.rows(), p.c.rows(), p.c.lanes()), (depth + 1, rows, units));
        assert!(p.nonzeros.fits(p.a), "the places are this matrix's");
        let totals = p.totals.len() >= rows * p.a.geometry().padded(units);
        assert!(depth <= INPUT_SEGMENT || totals, "several segments need totals");
        let raw = Raw {
            a: p.a,
            nonzeros: p.nonzeros,
            b: p.b.data().as_ptr(),
            totals: p.totals.as_mut_ptr(),
            c: p.c.data_mut().as_mut_ptr(),
        };
        let narrow = p.c.width(panels - 1) == S::LANES;
        // As even as they can be: few panels at once leave the multipliers waiting.
        let parts = panels.div_ceil(S::PANELS);
        for part in 0..parts {
            let (first, end) = (part * panels / parts, (part + 1) * panels / parts);
            let narrow = narrow && end == panels;
            macro_rules! sweep {
                ($($count:literal)*) => {
                    match (end - first, narrow) {
                        $(($count, false) if const { $count <= S::PANELS } => {
                            sweep::<T, S, $count, false>(s, &raw, first)
                        }
                        ($count, true) if const { $count <= S::PANELS } => {
                            sweep::<T, S, $count, true>(s, &raw, first)
                        })*
                        _ => unreachable!("no part has more panels"),
                    }
                };
            }
            // SAFETY: the assertions above: a, b and c are full matrices of panels, those from `first` on exist and only the last
            // may be narrow, totals is shaped as c where it is read, and places are within a.
            unsafe { sweep!(1 2 3 4 5 6 7) }
        }
    }
}

/// All rows against G panels from `first` on, block by block; where NARROW, the last is one vector wide.
#[inline(always)]
unsafe fn sweep<T: Math, S: Simd<T>, const G: usize, const NARROW: bool>(s: S, raw: &Raw<'_, T>, first: usize) {
    for (index, block) in raw.nonzeros.blocks().enumerate() {
        for row in 0..raw.a.rows() {
            // SAFETY: the row exists; the rest is the caller's promise.
            unsafe { one_row::<T, S, G, NARROW>(s, raw, first, (index, block.start, block.end), row) };
        }
    }
}

/// One row over a block of k: its number, where it begins and where it ends.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn one_row<T: Math, S: Simd<T>, const G: usize, const NARROW: bool>(
    s: S,
    raw: &Raw<'_, T>,
    first: usize,
    (index, begin, end): (usize, usize, usize),
    row: usize,
) {
    let (v, panel, rows, depth) = (S::LANES, 2 * S::LANES, raw.a.rows(), raw.a.lanes());
    let width = |g: usize| if NARROW && g == G - 1 { v } else { panel };
    // From a panel of units to the next, in the weights and in the result.
    let (of_b, of_c) = (panel * (depth + 1), panel * rows);
    let b = raw.b.wrapping_add(first * of_b);
    let at = |g: usize| (first + g) * of_c + row * width(g);
    let mut acc = [[s.splat(T::ZERO); 2]; G];
    // SAFETY: the caller vouches for G panels from `first` on, for the row, and for the places.
    unsafe {
        let from = if begin == 0 {
            Some((b.wrapping_add(depth * panel), of_b))
        } else if begin.is_multiple_of(INPUT_SEGMENT) {
            None
        } else {
            Some((raw.c.wrapping_add(first * of_c + row * panel).cast_const(), of_c))
        };
        if let Some((from, stride)) = from {
            // A narrow panel's rows lie closer: what stands before its row is half as much.
            let skipped = if begin == 0 { depth * v } else { row * v };
            for g in 0..G {
                let from = from.wrapping_add(g * stride).wrapping_sub(if width(g) == v { skipped } else { 0 });
                for n in 0..width(g) / v {
                    // A bias of -0 becomes 0, as in `gemm.rs`.
                    acc[g][n] = s.add(s.load(from.add(n * v)), s.splat(T::ZERO));
                }
            }
        }
        chain::<T, S, G, NARROW>(s, raw, b, (index, begin), row, &mut acc);
        let closes = end.is_multiple_of(INPUT_SEGMENT) || end == depth;
        for g in 0..G {
            if closes && begin >= INPUT_SEGMENT {
                for n in 0..width(g) / v {
                    acc[g][n] = s.add(s.load(raw.totals.add(at(g) + n * v)), acc[g][n]);
                }
            }
            let into = if closes && end < depth { raw.totals } else { raw.c };
            for n in 0..width(g) / v {
                s.store(into.add(at(g) + n * v), acc[g][n]);
            }
        }
    }
}

/// `acc[g] += a[row, k] * b[k]` for the k of a block where a is not zero, in order; `b` begins at the first panel.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn chain<T: Math, S: Simd<T>, const G: usize, const NARROW: bool>(
    s: S,
    raw: &Raw<'_, T>,
    b: *const T,
    (index, begin): (usize, usize),
    row: usize,
    acc: &mut [[S::V; 2]; G],
) {
    let (v, panel) = (S::LANES, 2 * S::LANES);
    let of_b = panel * (raw.a.lanes() + 1);
    // A narrow panel's rows lie half as far apart.
    let narrow = b.wrapping_add((G - 1) * of_b + begin * v);
    let b = b.wrapping_add(begin * panel);
    let (places, values) = raw.nonzeros.row(index, row);
    for (&place, &value) in places.iter().zip(values) {
        let place = usize::from(place);
        let x = s.splat(value);
        // SAFETY: the place is one of a's lanes, and so a row of b (`Nonzeros`), whose G panels the caller vouches for.
        unsafe {
            let b = b.add(place * panel);
            for g in 0..G - usize::from(NARROW) {
                for n in 0..2 {
                    acc[g][n] = s.mul_add(x, s.load(b.add(g * of_b + n * v)), acc[g][n]);
                }
            }
            if NARROW {
                acc[G - 1][0] = s.mul_add(x, s.load(narrow.add(place * v)), acc[G - 1][0]);
            }
        }
    }
}
