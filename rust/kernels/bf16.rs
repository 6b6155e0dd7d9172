//! Mixed precision: bfloat16 operands, f32 sums.
//!
//! Master weights, optimizer state, activations and their gradients stay f32; the products read copies of their
//! operands, rounded to bfloat16, two terms of a sum in one number ([`crate::isa::bf16`]). Each operand is kept in the
//! form in which a product reads it:
//!
//! | operand | of | pairs of neighbouring | form |
//! |---|---|---|---|
//! | A, dZ in forward, backward data | rows form | units | `[panel][m][P/2]` |
//! | A, dZ in the weight gradient | pairs form | samples | `[panel][ceil(m/2)][P]` |
//! | W in forward | forward form | inputs | `[panel of outputs][ceil(n[l-1]/2)][P]` |
//! | W in backward data | mirror | outputs | `[panel of outputs][panel of inputs][P/2][P]` |
//! | W of few units in forward (`dots.rs`) | rows form | inputs | `[panel of inputs][n[l]][P/2]` |
//! | W of few units in backward data | pairs form | outputs | `[panel of inputs][ceil(n[l]/2)][P]` |
//!
//! Rows and pairs of f32 panels that have no partner are paired with zero. Where there are tiles, the pairs form of the weight
//! gradient's broadcast operand is turned (`tiles.rs`).

use super::On;
use super::dots::{Dots, DotsOp};
use super::gemm::{Product, ProductOp};
use super::gradient::{BiasGradient, BiasGradientOp, Gradient, GradientOp};
use super::operand::Operand;
use super::peak::MultiplyAddOp;
use super::tiles::turned_pairs;
use crate::isa::Operation;
use crate::isa::bf16::PairSimd;

/// Operands of pairs of bfloat16.
#[derive(Clone, Copy)]
pub struct Pairs;

impl<S: PairSimd> Operand<f32, S> for Pairs {
    const TERMS: usize = 2;
    #[inline(always)]
    fn mul_add(self, s: S, x: S::V, y: S::V, acc: S::V) -> S::V {
        s.dot(x, y, acc)
    }
    #[inline(always)]
    fn add(self, s: S, y: S::V, acc: S::V) -> S::V {
        // One, twice.
        s.dot(s.splat(f32::from_bits(0x3f80_3f80)), y, acc)
    }
}

/// The kernels of mixed precision: they exist for f32 on CPUs that have the instructions.
pub trait PairKernels<T>: Send + Sync {
    /// [`Kernels::product`](super::Kernels::product) of pairs: k counts pairs, and a's panels are half as wide.
    fn product(&self, product: &mut Product<'_, T>);
    /// [`Kernels::gradient`](super::Kernels::gradient) of pairs of samples.
    fn gradient(&self, gradient: &mut Gradient<'_, T>);
    /// [`Kernels::bias_gradient`](super::Kernels::bias_gradient) of pairs of samples.
    fn bias_gradient(&self, gradient: &mut BiasGradient<'_, T>);
    /// [`Kernels::dots`](super::Kernels::dots) of pairs of inputs.
    fn dots(&self, dots: &mut Dots<'_, T>);
    /// Rounds a panel of activations, gradients, or weights whose lanes are inputs, into its two forms.
    fn pack(&self, pack: &mut Pack<'_, T>);
    /// Rounds a block of weights into its two forms.
    fn reflect(&self, block: &mut PairMirror<'_, T>);
    /// [`Kernels::multiply_add`](super::Kernels::multiply_add) of pairs.
    fn multiply_add(&self, rounds: usize) -> usize;
    /// Whether products are made of tiles (`tiles.rs`): slices then begin at multiples of
    /// [`TILE_SAMPLES`](super::TILE_SAMPLES), and gradients take turned pairs.
    fn has_tiles(&self) -> bool {
        false
    }
}

impl<S: PairSimd> PairKernels<f32> for On<S> {
    fn product(&self, product: &mut Product<'_, f32>) {
        self.0.vectorize(ProductOp(product, Pairs));
    }
    fn gradient(&self, gradient: &mut Gradient<'_, f32>) {
        self.0.vectorize(GradientOp(gradient, Pairs));
    }
    fn bias_gradient(&self, gradient: &mut BiasGradient<'_, f32>) {
        self.0.vectorize(BiasGradientOp(gradient, Pairs));
    }
    fn dots(&self, dots: &mut Dots<'_, f32>) {
        self.0.vectorize(DotsOp(dots, Pairs));
    }
    fn pack(&self, pack: &mut Pack<'_, f32>) {
        self.0.vectorize(PackOp(pack));
    }
    fn reflect(&self, block: &mut PairMirror<'_, f32>) {
        self.0.vectorize(PairMirrorOp(block));
    }
    fn multiply_add(&self, rounds: usize) -> usize {
        self.0.vectorize(MultiplyAddOp { rounds, operand: Pairs })
    }
}

/// A panel `[rows][width]` and its two rounded forms.
pub struct Pack<'a, T> {
    /// `[rows][width]`, V or 2V wide.
    pub source: &'a [T],
    /// Lanes with padding.
    pub width: usize,
    /// Lanes without padding: what stands beyond, perhaps not a number, would enter the sums of a pair that it belongs to.
    pub lanes: usize,
    /// The rows form, `[rows][width / 2]`.
    pub rows: &'a mut [T],
    /// The pairs form, `[ceil(rows / 2)][width]`; empty where it is not wanted.
    pub pairs: &'a mut [T],
    /// Whether that is turned (`tiles.rs`): for vectors of 16 lanes.
    pub turned: bool,
}

/// [`Pack`] as an operation for one instruction set.
pub struct PackOp<'p, 'a, T>(pub &'p mut Pack<'a, T>);

impl<S: PairSimd> Operation<f32, S> for PackOp<'_, '_, f32> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let p = self.0;
        let (v, rows) = (S::LANES, p.source.len() / p.width);
        assert!((p.width == v || p.width == 2 * v) && p.source.len() == rows * p.width);
        assert_eq!(p.rows.len(), rows * p.width / 2);
        assert!(p.lanes <= p.width && p.width <= 32);
        let mut padded = [0.0; 32];
        for (row, into) in p.source.chunks_exact(p.width).zip(p.rows.chunks_exact_mut(p.width / 2)) {
            if p.lanes == p.width {
                neighbours(s, row, into);
            } else {
                padded[..p.lanes].copy_from_slice(&row[..p.lanes]);
                neighbours(s, &padded[..p.width], into);
            }
        }
        match (p.pairs.is_empty(), p.turned) {
            (true, _) => {}
            (false, false) => row_pairs(s, p.source, p.width, p.pairs),
            (false, true) => turned_pairs(s, p.source, p.width, p.pairs),
        }
    }
}

/// A row of V or 2V numbers as pairs of neighbours.
#[inline(always)]
fn neighbours<S: PairSimd>(s: S, row: &[f32], into: &mut [f32]) {
    let v = S::LANES;
    assert!(into.len() * 2 == row.len() && (row.len() == v || row.len() == 2 * v));
    // SAFETY: the row has one vector or two, and `into` half as many numbers; V is at most 16.
    unsafe {
        let low = s.load(row.as_ptr());
        if row.len() == 2 * v {
            s.store(into.as_mut_ptr(), s.neighbours(low, s.load(row.as_ptr().add(v))));
        } else {
            let mut whole = [0.0; 16];
            s.store(whole.as_mut_ptr(), s.neighbours(low, s.splat(0.0)));
            into.copy_from_slice(&whole[..v / 2]);
        }
    }
}

/// Rows 2i and 2i + 1 of `[rows][width]` as row i of pairs; a last row alone with zero.
#[inline(always)]
fn row_pairs<S: PairSimd>(s: S, source: &[f32], width: usize, pairs: &mut [f32]) {
    assert_eq!(pairs.len(), (source.len() / width).div_ceil(2) * width);
    for (rows, into) in source.chunks(2 * width).zip(pairs.chunks_exact_mut(width)) {
        for lane in (0..width).step_by(S::LANES) {
            // SAFETY: width is a multiple of V, rows are one or two of that width, and `into` is one.
            unsafe {
                let even = s.load(rows.as_ptr().add(lane));
                let odd = if rows.len() > width { s.load(rows.as_ptr().add(width + lane)) } else { s.splat(0.0) };
                s.store(into.as_mut_ptr().add(lane), s.pair(even, odd));
            }
        }
    }
}

/// A block of weights `[rows][width]`, rows of inputs from an even one on, and its two rounded forms.
pub struct PairMirror<'a, T> {
    /// `[rows][width]`
    pub weights: &'a [T],
    /// Inputs of the block, at most P.
    pub rows: usize,
    /// Outputs of the block with padding: V or 2V.
    pub width: usize,
    /// `[ceil(rows / 2)][width]`; empty where it is not wanted.
    pub forward: &'a mut [T],
    /// `[width / 2][mirror_width]`, of whose rows the first `rows` numbers are written; empty where it is not wanted.
    pub mirror: &'a mut [T],
    /// Lanes of the mirror's block with padding.
    pub mirror_width: usize,
}

/// [`PairMirror`] as an operation for one instruction set.
pub struct PairMirrorOp<'p, 'a, T>(pub &'p mut PairMirror<'a, T>);

impl<S: PairSimd> Operation<f32, S> for PairMirrorOp<'_, '_, f32> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let m = self.0;
        let (v, pairs) = (S::LANES, m.width / 2);
        assert!((m.width == v || m.width == 2 * v) && m.weights.len() == m.rows * m.width && m.rows <= 2 * v);
        if !m.forward.is_empty() {
            row_pairs(s, m.weights, m.width, m.forward);
        }
        if m.mirror.is_empty() {
            return;
        }
        assert!(m.rows <= m.mirror_width && m.mirror.len() >= pairs * m.mirror_width);
        let mut square = [0.0; 16 * 16];
        let mut turned = [0.0; 16 * 16];
        for first in (0..m.rows).step_by(v) {
            let rows = v.min(m.rows - first);
            for row in 0..rows {
                let source = &m.weights[(first + row) * m.width..][..m.width];
                neighbours(s, source, &mut square[row * v..][..pairs]);
            }
            // SAFETY: V is at most 16, and both squares hold V rows of V numbers.
            unsafe { s.transpose(square.as_ptr(), v, turned.as_mut_ptr(), v) };
            for (pair, row) in turned.chunks_exact(v).take(pairs).enumerate() {
                m.mirror[pair * m.mirror_width + first..][..rows].copy_from_slice(&row[..rows]);
            }
        }
    }
}

#[cfg(test)]
#[path = "bf16_tests.rs"]
pub(super) mod tests;
