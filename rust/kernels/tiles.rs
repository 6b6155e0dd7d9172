//! Mixed precision tile by tile (`isa/tiles.rs`): the forms of `bf16.rs`, read by instructions that multiply 16 rows at once.
//!
//! | product | rows of the tile's a | rows of its b |
//! |---|---|---|
//! | forward, backward data | rows form: a sample's 16 pairs of units | forward form or mirror: 16 outputs' pairs |
//! | weight gradient | turned pairs: a unit's 16 pairs of samples | pairs form: 16 units' pairs |
//!
//! Turned pairs are the pairs form `[ceil(m/2)][P]` turned block by block: of each [`TILE`] rows of pairs `[P][16]`, of the r that
//! are left `[P][r]`, in the same places.
//!
//! Promise: every tile product adds up the terms of one panel of units, or of [`TILE_SAMPLES`] samples from a multiple of that on
//! ([`tiles::dot`](crate::isa::tiles::dot)), and these follow each other in index order. So neither how many rows are
//! multiplied at once nor where blocks of units end changes a bit; slices of samples begin at multiples of [`TILE_SAMPLES`].
//! In weights' sums segments are not told apart: their long chains have a thirty-second of the roundings.

use super::bf16::{Pack, PackOp, PairKernels, PairMirror, PairMirrorOp, Pairs};
use super::dots::{Dots, DotsOp};
use super::epilogue::{Finish, finish_rows, finish_tile};
use super::gemm::{Product, Start};
use super::gradient::{BiasGradient, BiasGradientOp, Gradient, GradientOp, MAX_SLICES, Pair};
use crate::activation::Activation;
use crate::isa::Operation;
use crate::isa::bf16::PairSimd;
use crate::isa::tiles::{Run, Square, TILE, Tiles};
use arrayvec::ArrayVec;
use std::mem::MaybeUninit;

/// Samples whose products one tile adds up.
pub const TILE_SAMPLES: usize = 2 * TILE;

/// Rows of a panel, and of a square of tiles.
const PANEL: usize = 2 * TILE;
/// Bytes of a row of a tile.
const ROW: usize = TILE * size_of::<f32>();
/// What tiles begin with where they begin with nothing.
static ZEROS: [f32; TILE] = [0.0; TILE];
/// Numbers of a place for tiles that nobody wants.
const SPARE: usize = TILE * PANEL;

/// The kernels of vectors `S` and tiles `M`.
pub struct Tiled<S, M> {
    /// For what is not a product of tiles.
    pub vectors: S,
    /// For what is.
    pub tiles: M,
}

impl<S: PairSimd, M: Tiles> PairKernels<f32> for Tiled<S, M> {
    fn product(&self, product: &mut Product<'_, f32>) {
        self.vectors.vectorize(TileProductOp { product, tiles: self.tiles });
    }
    fn gradient(&self, gradient: &mut Gradient<'_, f32>) {
        if gradient.pairs[0].turned {
            self.vectors.vectorize(TileGradientOp { gradient, tiles: self.tiles });
        } else {
            self.vectors.vectorize(GradientOp(gradient, Pairs));
        }
    }
    fn bias_gradient(&self, gradient: &mut BiasGradient<'_, f32>) {
        self.vectors.vectorize(BiasGradientOp(gradient, Pairs));
    }
    fn dots(&self, dots: &mut Dots<'_, f32>) {
        self.vectors.vectorize(DotsOp(dots, Pairs));
    }
    fn pack(&self, pack: &mut Pack<'_, f32>) {
        self.vectors.vectorize(PackOp(pack));
    }
    fn reflect(&self, block: &mut PairMirror<'_, f32>) {
        self.vectors.vectorize(PairMirrorOp(block));
    }
    fn multiply_add(&self, rounds: usize) -> usize {
        self.tiles.multiply_add(rounds)
    }
    fn has_tiles(&self) -> bool {
        true
    }
}

/// A square of tiles that is a block of a result, rows of one vector or two.
struct Target {
    c: *mut f32,
    width: usize,
    /// Rows of the block, at most [`PANEL`].
    rows: usize,
}

impl Target {
    /// The four tiles at `p`, in a matrix of this width; what it has not is the first of its column, or the left one of its row.
    fn tiles(&self, p: *const f32, stride: usize) -> [*const f32; 4] {
        let right = if self.width == PANEL { TILE } else { 0 };
        let lower = if self.rows > TILE { TILE * stride } else { 0 };
        [0, right, lower, lower + right].map(|at| p.wrapping_add(at))
    }

    /// Where the tiles are written: those that it has not, to `spare`, of [`SPARE`] numbers.
    fn places(&self, spare: *mut f32) -> [*mut f32; 4] {
        let (has_right, has_lower) = (self.width == PANEL, self.rows > TILE);
        let tiles = self.tiles(self.c, self.width).map(|p| p.cast_mut());
        let place = |i: usize, has: bool| if has { tiles[i] } else { spare };
        [tiles[0], place(1, has_right), place(2, has_lower), place(3, has_right && has_lower)]
    }

    fn stride(&self) -> usize {
        self.width * size_of::<f32>()
    }
}

/// [`Product`] of pairs as an operation.
struct TileProductOp<'p, 'a, M> {
    product: &'p mut Product<'a, f32>,
    tiles: M,
}

impl<S: PairSimd, M: Tiles> Operation<f32, S> for TileProductOp<'_, '_, M> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let p = self.product;
        assert_eq!(S::LANES, TILE, "a row of a tile is a vector");
        let (rows, depth) = (p.a.rows(), p.check::<Pairs, S>());
        let mut row = 0;
        while row < rows {
            let count = match rows - row {
                left @ PANEL.. => left.min(PANEL),
                left => left.min(TILE),
            };
            // SAFETY: the product was checked, and row + count <= rows.
            unsafe { square(self.tiles, p, row, count) };
            if p.depth.end == depth && !is_left_to_rows(p.finish) {
                let c = &mut p.c[row * p.width..(row + count) * p.width];
                // SAFETY: the factor, if there is one, has the shape of c, which was checked.
                unsafe {
                    if p.width == PANEL {
                        finish_square::<S, 2>(s, p.finish, c, row);
                    } else {
                        finish_square::<S, 1>(s, p.finish, c, row);
                    }
                }
            }
            row += count;
        }
        if p.depth.end == depth {
            finish_rows(s, p.finish, p.c, p.width, p.lanes);
        }
    }
}

/// Rows `row..row + count` of a product's block: 32, or at most 16.
///
/// # Safety
/// The product was checked, and has these rows.
#[inline(always)]
unsafe fn square<M: Tiles>(tiles: M, p: &mut Product<'_, f32>, row: usize, count: usize) {
    let (rows, depth, first) = (p.a.rows(), p.a.lanes(), p.depth.start);
    let (steps, tail) = ((p.depth.end - first) / TILE, (p.depth.end - first) % TILE);
    // Panels of a are 16 numbers wide, but the last may have 8.
    let tail_width = if depth % TILE > TILE / 2 { TILE } else { TILE / 2 };
    let last = (first / TILE + steps) * TILE;
    let (a, b) = (p.a.data().as_ptr(), p.b.as_ptr());
    let target = Target { c: p.c.as_mut_ptr().wrapping_add(row * p.width), width: p.width, rows: count };
    let mut spare = MaybeUninit::<[f32; SPARE]>::uninit();
    let (init, init_stride) = match p.start {
        _ if first > 0 => (target.tiles(target.c, p.width), target.stride()),
        Start::Zero => ([ZEROS.as_ptr(); 4], 0),
        Start::Lanes(bias) => (target.tiles(bias.as_ptr(), 0), 0),
    };
    let run = Run { a: a.wrapping_add(first * rows + row * TILE), b: b.wrapping_add(first / TILE * p.b_stride), steps };
    let is_low = count > TILE;
    let square = Square {
        init,
        init_stride,
        c: target.places(spare.as_mut_ptr().cast()),
        c_stride: target.stride(),
        runs: &raw const run,
        n_runs: 1,
        a_step: rows * ROW,
        a_lower: if is_low { TILE * ROW } else { 0 },
        b_stride: target.stride(),
        b_step: p.b_stride * size_of::<f32>(),
        b_right: if p.width == PANEL { ROW } else { 0 },
        tail,
        tail_a: a.wrapping_add(last * rows + row * tail_width),
        tail_a_stride: tail_width * size_of::<f32>(),
        tail_a_lower: if is_low { TILE * tail_width * size_of::<f32>() } else { 0 },
        tail_b: b.wrapping_add(last / TILE * p.b_stride),
    };
    // SAFETY: a is a full matrix of panels, b reaches its last k, and c and the start value have the result's shape
    // (`Product::check`); tiles that the block has not are read where others are, and written to `spare`.
    unsafe { tiles.sum(count.min(TILE), &square) };
}

/// Whether nothing is done to a square, only to whole rows or nothing at all.
#[inline(always)]
fn is_left_to_rows(finish: Finish<'_, f32>) -> bool {
    matches!(finish, Finish::Apply(activation) if !matches!(activation, Activation::Relu | Activation::LeakyRelu { .. }))
}

/// [`finish_tile`] of all rows of `c`, the first of which is `row` of the result.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn finish_square<S: PairSimd, const N: usize>(s: S, finish: Finish<'_, f32>, c: &mut [f32], row: usize) {
    const R: usize = 4;
    let width = N * TILE;
    let mut blocks = c.chunks_exact_mut(R * width);
    let mut at = row * width;
    for block in &mut blocks {
        // SAFETY: the block has R rows; the rest is the caller's promise.
        unsafe { finish_some::<S, R, N>(s, finish, block, at) };
        at += R * width;
    }
    for block in blocks.into_remainder().chunks_exact_mut(width) {
        // SAFETY: the block has one row; the rest is the caller's promise.
        unsafe { finish_some::<S, 1, N>(s, finish, block, at) };
        at += width;
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // as in `gemm.rs`
unsafe fn finish_some<S: PairSimd, const R: usize, const N: usize>(
    s: S,
    finish: Finish<'_, f32>,
    block: &mut [f32],
    at: usize,
) {
    debug_assert_eq!(block.len(), R * N * TILE);
    let c = block.as_mut_ptr();
    // SAFETY: the block has R rows of N vectors, and the caller vouches for the factor.
    unsafe {
        let mut acc = [[s.splat(0.0); N]; R];
        for r in 0..R {
            for n in 0..N {
                acc[r][n] = s.load(c.add((r * N + n) * TILE));
            }
        }
        finish_tile(s, finish, &mut acc, at);
        for r in 0..R {
            for n in 0..N {
                s.store(c.add((r * N + n) * TILE), acc[r][n]);
            }
        }
    }
}

/// [`Gradient`] of turned pairs as an operation.
struct TileGradientOp<'p, 'a, M> {
    gradient: &'p mut Gradient<'a, f32>,
    tiles: M,
}

impl<S: PairSimd, M: Tiles> Operation<f32, S> for TileGradientOp<'_, '_, M> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let g = self.gradient;
        let strips = g.check::<S>();
        assert_eq!(S::LANES, TILE, "a row of a tile is a vector");
        let (last, before) = g.pairs.split_last().expect("checked");
        assert!(
            before.iter().all(|pair| pair.a.rows().is_multiple_of(TILE)),
            "only the last slice may end within a tile"
        );
        assert!(before.iter().chain([last]).all(|pair| pair.turned));
        let (a, b) = (g.pairs[0].a, g.pairs[0].b);
        for lane_panel in g.lane_panels.clone() {
            let width = b.geometry().width(b.lanes(), lane_panel);
            let strip = &mut g.c[(lane_panel - g.lane_panels.start) * strips.rows * PANEL..][..strips.rows * width];
            for row_panel in g.row_panels.clone() {
                let row = row_panel * PANEL;
                let rows = PANEL.min(a.lanes() - row);
                let c = &mut strip[(row - strips.first) * width..][..rows * width];
                // SAFETY: the panels exist in every slice, which was checked, and c has these rows of the strip.
                unsafe { block(self.tiles, g.pairs, (row_panel, lane_panel), g.goes_on, width, c) };
            }
            if g.bias {
                let c = &mut strip[(strips.rows - 1) * width..];
                lane_sums(s, g.pairs, lane_panel, g.goes_on, c);
            }
        }
    }
}

/// A panel's rows of a strip.
///
/// # Safety
/// Every slice has these panels; `c` has rows of `width`, that of b's panel, one for each lane of a's.
#[inline(always)]
unsafe fn block<M: Tiles>(
    tiles: M,
    pairs: &[Pair<'_, f32>],
    (row_panel, lane_panel): (usize, usize),
    goes_on: bool,
    width: usize,
    c: &mut [f32],
) {
    let (a, last) = (pairs[0].a, &pairs[pairs.len() - 1]);
    let a_width = a.geometry().width(a.lanes(), row_panel);
    let mut runs = ArrayVec::<Run, MAX_SLICES>::new();
    for pair in pairs {
        let a = pair.a.panel(row_panel).as_ptr();
        runs.push(Run { a, b: pair.b.panel(lane_panel).as_ptr(), steps: pair.a.rows() / TILE });
    }
    let (whole, tail) = (last.a.rows() / TILE * TILE, last.a.rows() % TILE);
    let rows = c.len() / width;
    // Tiles are whole; where the block's last one is not, all is made in a place of its own.
    let mut room = MaybeUninit::<[f32; PANEL * PANEL]>::uninit();
    let mut spare = MaybeUninit::<[f32; SPARE]>::uninit();
    let is_whole = rows.is_multiple_of(TILE);
    if !is_whole {
        room.write([0.0; PANEL * PANEL])[..c.len()].copy_from_slice(c);
    }
    let to = if is_whole { c.as_mut_ptr() } else { room.as_mut_ptr().cast() };
    debug_assert_eq!(a_width, rows.next_multiple_of(TILE));
    let target = Target { c: to, width, rows: a_width };
    let init = if goes_on { target.tiles(target.c, width) } else { [ZEROS.as_ptr(); 4] };
    let is_low = target.rows > TILE;
    let square = Square {
        init,
        init_stride: if goes_on { target.stride() } else { 0 },
        c: target.places(spare.as_mut_ptr().cast()),
        c_stride: target.stride(),
        runs: runs.as_ptr(),
        n_runs: runs.len(),
        a_step: a_width * ROW,
        a_lower: if is_low { TILE * ROW } else { 0 },
        b_stride: target.stride(),
        b_step: TILE * target.stride(),
        b_right: if width == PANEL { ROW } else { 0 },
        tail,
        tail_a: last.a.panel(row_panel).as_ptr().wrapping_add(whole * a_width),
        tail_a_stride: tail * size_of::<f32>(),
        tail_a_lower: if is_low { TILE * tail * size_of::<f32>() } else { 0 },
        tail_b: last.b.panel(lane_panel).as_ptr().wrapping_add(whole * width),
    };
    // SAFETY: panels of a hold `a_width` turned rows of pairs, 16 or 32, of which the tiles read all; those of b as many rows of
    // `width`; the tiles are written to c or `room`, which holds a square, and those that are not there to `spare`.
    unsafe { tiles.sum(TILE, &square) };
    if !is_whole {
        // SAFETY: it was written above.
        c.copy_from_slice(&unsafe { room.assume_init_ref() }[..c.len()]);
    }
}

/// The gradient of the biases in one panel: `c (+)= sum over samples of b[sample]`, by the same segments as with vectors.
#[inline(always)]
fn lane_sums<S: PairSimd>(s: S, pairs: &[Pair<'_, f32>], lane_panel: usize, goes_on: bool, c: &mut [f32]) {
    let width = c.len();
    let ones = s.splat(f32::from_bits(0x3f80_3f80));
    for lane in (0..width).step_by(TILE) {
        let c = c[lane..][..TILE].as_mut_ptr();
        // SAFETY: c is one vector of the slice above.
        let mut total = if goes_on { Some(unsafe { s.load(c) }) } else { None };
        for segment in pairs.chunk_by(|_, next| !next.opens) {
            let mut sum = s.splat(0.0);
            for row in segment.iter().flat_map(|pair| pair.b.panel(lane_panel).chunks_exact(width)) {
                // SAFETY: the row has `width` numbers, a multiple of a vector's.
                sum = s.dot(ones, unsafe { s.load(row.as_ptr().add(lane)) }, sum);
            }
            total = Some(match total {
                Some(total) => s.add(total, sum),
                None => sum,
            });
        }
        // SAFETY: c is one vector of the slice above.
        unsafe { s.store(c, total.unwrap_or(s.splat(0.0))) };
    }
}

/// Rows 2i and 2i + 1 of `[rows][width]` as pairs, turned block by block.
#[inline(always)]
pub(super) fn turned_pairs<S: PairSimd>(s: S, source: &[f32], width: usize, pairs: &mut [f32]) {
    let rows = source.len() / width;
    assert!(S::LANES == TILE && width.is_multiple_of(TILE), "a row of a tile is a vector");
    assert_eq!(pairs.len(), rows.div_ceil(2) * width);
    for (rows, into) in source.chunks(TILE_SAMPLES * width).zip(pairs.chunks_mut(TILE * width)) {
        let (rows_of, count) = (rows.len() / width, into.len() / width);
        for lane in (0..width).step_by(TILE) {
            let mut block = [0.0f32; TILE * TILE];
            for (pair, row) in block.chunks_exact_mut(TILE).enumerate().take(count) {
                // SAFETY: the block has a vector in each row, and the source in each row from `lane` on.
                unsafe {
                    let even = s.load(rows.as_ptr().add(2 * pair * width + lane));
                    let odd = match 2 * pair + 1 < rows_of {
                        true => s.load(rows.as_ptr().add((2 * pair + 1) * width + lane)),
                        false => s.splat(0.0),
                    };
                    s.store(row.as_mut_ptr(), s.pair(even, odd));
                }
            }
            let to = &mut into[lane * count..][..TILE * count];
            if count == TILE {
                // SAFETY: both are 16 x 16.
                unsafe { s.transpose(block.as_ptr(), TILE, to.as_mut_ptr(), TILE) };
                continue;
            }
            let mut turned = [0.0f32; TILE * TILE];
            // SAFETY: both are 16 x 16.
            unsafe { s.transpose(block.as_ptr(), TILE, turned.as_mut_ptr(), TILE) };
            for (unit, to) in turned.chunks_exact(TILE).zip(to.chunks_exact_mut(count)) {
                to.copy_from_slice(&unit[..count]);
            }
        }
    }
}

#[cfg(test)]
#[path = "tiles_tests.rs"]
mod tests;
