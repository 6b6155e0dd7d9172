//! The optimizers' rules, on the packed weights as they lie.
//!
//! A rule is elementwise, so one flat loop serves every layout. Constants that change from step to step
//! (bias corrections, the scheduled rate) are computed once a step by `train/optimizer.rs` and arrive
//! here as plain numbers. Moments that became subnormal are set to zero, so that nothing crawls.

use super::math::Math;
use crate::isa::{Operation, Simd, prefetch};
use crate::panel::{Geometry, PanelsRef};
use std::ops::Range;

/// An optimizer's rule with this step's constants; `g` is the gradient, `w` the weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule<T> {
    /// `w -= rate g`
    Descent {
        /// The learning rate.
        rate: T,
    },
    /// `u = momentum u + g; w -= rate u` (PyTorch's form: the rate outside the velocity), or with Nesterov's
    /// look-ahead `w -= rate (g + momentum u)`.
    Momentum {
        /// The learning rate.
        rate: T,
        /// What is kept of the velocity.
        momentum: T,
        /// Whether to look ahead.
        nesterov: bool,
    },
    /// `m += (1 - beta1) (g - m); v = beta2 v + (1 - beta2) g^2; w -= step m / (sqrt(v) scale + epsilon)`
    /// (Kingma and Ba 2015, algorithm 1), with `step = rate / (1 - beta1^t)` and `scale = 1 / sqrt(1 - beta2^t)`.
    Adam {
        /// The rate over the first moment's bias correction.
        step: T,
        /// One over the root of the second moment's bias correction.
        scale: T,
        /// `1 - beta1`
        beta1_rest: T,
        /// `beta2`
        beta2: T,
        /// `1 - beta2`
        beta2_rest: T,
        /// Keeps the quotient finite.
        epsilon: T,
    },
}

impl<T> Rule<T> {
    /// How many numbers of state a weight has.
    pub fn states(&self) -> usize {
        match self {
            Rule::Descent { .. } => 0,
            Rule::Momentum { .. } => 1,
            Rule::Adam { .. } => 2,
        }
    }
}

/// One update of a run of weights. All slices have the same length, a multiple of `V`, but for unused state.
pub struct Update<'a, T> {
    /// What to do.
    pub rule: Rule<T>,
    /// `l2 w` is added to the gradient (0 for biases).
    pub l2: T,
    /// The weights.
    pub weights: &'a mut [T],
    /// Their gradient.
    pub gradient: &'a [T],
    /// The first state: velocity or first moment.
    pub first: &'a mut [T],
    /// The second state: second moment.
    pub second: &'a mut [T],
}

/// [`Update`] as an operation for one instruction set.
pub struct UpdateOp<'p, 'a, T>(pub &'p mut Update<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for UpdateOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let u = self.0;
        let len = u.weights.len();
        assert!(len.is_multiple_of(S::LANES) && u.gradient.len() == len);
        assert!(u.rule.states() < 1 || u.first.len() == len);
        assert!(u.rule.states() < 2 || u.second.len() == len);
        match u.rule {
            Rule::Descent { rate } => {
                let rate = s.splat(-rate);
                each(
                    s,
                    u,
                    #[inline(always)]
                    |_, w, g, _, _| s.mul_add(rate, g, w),
                );
            }
            Rule::Momentum { rate, momentum, nesterov } => {
                let (rate, momentum) = (s.splat(-rate), s.splat(momentum));
                each(
                    s,
                    u,
                    #[inline(always)]
                    |at, w, g, first, _| {
                        // SAFETY: `each` passes offsets of whole vectors.
                        let velocity = flush(s, s.mul_add(momentum, unsafe { s.load(first.add(at)) }, g));
                        // SAFETY: as above.
                        unsafe { s.store(first.add(at), velocity) };
                        let direction = if nesterov { s.mul_add(momentum, velocity, g) } else { velocity };
                        s.mul_add(rate, direction, w)
                    },
                );
            }
            Rule::Adam { step, scale, beta1_rest, beta2, beta2_rest, epsilon } => {
                let (step, scale, epsilon) = (s.splat(-step), s.splat(scale), s.splat(epsilon));
                let (beta1_rest, beta2, beta2_rest) = (s.splat(beta1_rest), s.splat(beta2), s.splat(beta2_rest));
                each(
                    s,
                    u,
                    #[inline(always)]
                    |at, w, g, first, second| {
                        // SAFETY: `each` passes offsets of whole vectors.
                        let (m, v) = unsafe { (s.load(first.add(at)), s.load(second.add(at))) };
                        let m = flush(s, s.mul_add(beta1_rest, s.sub(g, m), m));
                        let v = flush(s, s.mul_add(s.mul(beta2_rest, g), g, s.mul(beta2, v)));
                        // SAFETY: as above.
                        unsafe {
                            s.store(first.add(at), m);
                            s.store(second.add(at), v);
                        }
                        s.mul_add(step, s.div(m, s.mul_add(s.sqrt(v), scale, epsilon)), w)
                    },
                );
            }
        }
    }
}

/// The loop that all rules share: loads weight and gradient, adds the l2 term, stores the new weight.
#[inline(always)]
fn each<T: Math, S: Simd<T>>(s: S, u: &mut Update<'_, T>, rule: impl Fn(usize, S::V, S::V, *mut T, *mut T) -> S::V) {
    let (first, second) = (u.first.as_mut_ptr(), u.second.as_mut_ptr());
    let (decays, l2) = (u.l2 != T::ZERO, s.splat(u.l2));
    for at in (0..u.weights.len()).step_by(S::LANES) {
        // SAFETY: `run` checked that the length is a multiple of LANES and the same for both slices.
        unsafe {
            let w = s.load(u.weights.as_ptr().add(at));
            let g = s.load(u.gradient.as_ptr().add(at));
            let g = if decays { s.mul_add(l2, w, g) } else { g };
            s.store(u.weights.as_mut_ptr().add(at), rule(at, w, g, first, second));
        }
    }
}

/// Subnormal numbers become zero.
#[inline(always)]
fn flush<T: Math, S: Simd<T>>(s: S, x: S::V) -> S::V {
    s.select_lt(s.abs(x), s.splat(T::MIN_POSITIVE), s.splat(T::ZERO), x)
}

/// Writes a block of weights `[rows][width]` transposed into the mirror `[width][row width]`.
pub struct Mirror<'a, T> {
    /// `[rows][width]`
    pub weights: &'a [T],
    /// Rows of the block, at most `P`.
    pub rows: usize,
    /// Lanes of the block with padding.
    pub width: usize,
    /// `[P or fewer lanes][mirror_width]`: only the first `width` rows are written, and of them `rows` numbers.
    pub mirror: &'a mut [T],
    /// Lanes of the mirror's panel with padding.
    pub mirror_width: usize,
    /// The panels' width.
    pub geometry: Geometry,
}

/// [`Mirror`] as an operation for one instruction set.
pub struct MirrorOp<'p, 'a, T>(pub &'p mut Mirror<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for MirrorOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let m = self.0;
        let (v, whole) = (S::LANES, m.rows - m.rows % S::LANES);
        assert!(m.weights.len() == m.rows * m.width && m.width.is_multiple_of(v));
        assert!(m.rows <= m.mirror_width && m.mirror.len() >= m.width * m.mirror_width);
        for row in (0..whole).step_by(v) {
            for lane in (0..m.width).step_by(v) {
                let source = m.weights[row * m.width + lane..].as_ptr();
                let target = m.mirror[lane * m.mirror_width + row..].as_mut_ptr();
                // SAFETY: row + V <= rows, lane + V <= width, and both slices hold rows x width numbers at these strides.
                unsafe { s.transpose(source, m.width, target, m.mirror_width) };
            }
        }
        // The last rows of a layer whose inputs are not a multiple of V: the padding beside them stays zero.
        for row in whole..m.rows {
            for lane in 0..m.width {
                m.mirror[lane * m.mirror_width + row] = m.weights[row * m.width + lane];
            }
        }
    }
}

/// Writes the transpose of some rows and lanes of a matrix in panels: lane `lanes.start + i` becomes row i of
/// `target`, whose lanes are the rows from `row` on; zeros where there are no more rows.
pub struct Turn<'a, T> {
    /// The matrix.
    pub source: PanelsRef<'a, T>,
    /// Its lanes, from a multiple of `P` on.
    pub lanes: Range<usize>,
    /// Its first row.
    pub row: usize,
    /// `[lanes][width]`
    pub target: &'a mut [T],
    /// Lanes of the target: a multiple of `V`.
    pub width: usize,
}

/// [`Turn`] as an operation for one instruction set.
pub struct TurnOp<'p, 'a, T>(pub &'p mut Turn<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for TurnOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let (t, v, panel) = (self.0, S::LANES, 2 * S::LANES);
        assert!(t.source.geometry.lanes == v && t.width.is_multiple_of(v) && t.lanes.start.is_multiple_of(panel));
        assert!(t.lanes.end <= t.source.lanes && t.target.len() == t.lanes.len() * t.width);
        for lane in t.lanes.clone().step_by(v) {
            let (from, p) = (t.source.panel(lane / panel), lane / panel);
            let stride = t.source.geometry.width(t.source.lanes, p);
            let into = &mut t.target[(lane - t.lanes.start) * t.width..];
            let count = v.min(t.lanes.end - lane);
            if lane.is_multiple_of(panel) && lane + panel < t.lanes.end {
                // The next panel's rows lie too far from this one's for the processor to see them coming.
                let (next, stride) = (t.source.panel(p + 1), t.source.geometry.width(t.source.lanes, p + 1));
                let rows = t.row..(t.row + t.width).min(t.source.rows);
                rows.for_each(|row| prefetch(&next[row * stride..][..stride]));
            }
            for column in (0..t.width).step_by(v) {
                let row = t.row + column;
                let rows = v.min(t.source.rows.saturating_sub(row));
                let at = row * stride + lane % panel;
                if rows == v && count == v {
                    // SAFETY: rows row..row + V of the source's panel and V rows of the target exist: rows and count say so; the
                    // lanes of both are multiples of V.
                    unsafe { s.transpose(from[at..].as_ptr(), stride, into[column..].as_mut_ptr(), t.width) };
                    continue;
                }
                for i in 0..count {
                    for j in 0..v {
                        into[i * t.width + column + j] = if j < rows { from[at + j * stride + i] } else { T::ZERO };
                    }
                }
            }
        }
    }
}
