//! The optimizers' rules, on the packed weights as they lie.
//!
//! A rule is elementwise, so one flat loop serves every layout. Constants that change from step to step
//! (bias corrections, the scheduled rate) are computed once a step by `train/optimizer.rs` and arrive
//! here as plain numbers. Moments that became subnormal are set to zero, so that nothing crawls.

use super::math::Math;
use crate::isa::{Operation, Simd, prefetch};
use crate::panel::PanelsRef;
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
    /// `u = momentum u - rate g; w += u`, or with Nesterov's look-ahead `w += momentum u - rate g`: the rate inside the velocity
    /// (Sutskever, Martens, Dahl and Hinton 2013, and scikit-learn), which differs where the rate changes.
    Velocity {
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
        /// Whether v is replaced by the greatest v so far (AMSGrad: Reddi, Kale and Kumar 2018).
        greatest: bool,
    },
    /// Adam with Nesterov's look-ahead (Dozat 2016, with its momentum schedule):
    /// `w -= (gradient_step g + moment_step m) / (sqrt(v) scale + epsilon)`, m and v as in Adam.
    Nadam {
        /// `rate (1 - mu_t) / (1 - product of mu)`
        gradient_step: T,
        /// `rate mu_(t+1) / (1 - product of mu up to t + 1)`
        moment_step: T,
        /// As in Adam.
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
    /// `v = alpha v + (1 - alpha) g^2; u = momentum u + g / (sqrt(v) + epsilon); w -= rate u` (Tieleman and Hinton 2012), where
    /// the centred form takes the square of the running mean of g off v.
    RmsProp {
        /// The learning rate.
        rate: T,
        /// What is kept of v.
        alpha: T,
        /// `1 - alpha`
        alpha_rest: T,
        /// Keeps the quotient finite.
        epsilon: T,
        /// What is kept of u.
        momentum: T,
        /// Whether that is not zero.
        velocity: bool,
        /// Whether v is centred.
        centered: bool,
    },
    /// `v += g^2; w -= rate g / (sqrt(v) + epsilon)` (Duchi, Hazan and Singer 2011).
    Adagrad {
        /// The learning rate.
        rate: T,
        /// Keeps the quotient finite.
        epsilon: T,
    },
    /// `w -= rate sign(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g` (Chen et al. 2023).
    Lion {
        /// The learning rate.
        rate: T,
        /// `beta1`
        beta1: T,
        /// `1 - beta1`
        beta1_rest: T,
        /// `beta2`
        beta2: T,
        /// `1 - beta2`
        beta2_rest: T,
    },
}

impl<T> Rule<T> {
    /// How many numbers of state a weight has.
    pub fn states(&self) -> usize {
        match self {
            Rule::Descent { .. } => 0,
            Rule::Momentum { .. } | Rule::Velocity { .. } | Rule::Adagrad { .. } | Rule::Lion { .. } => 1,
            Rule::Adam { greatest: false, .. } | Rule::Nadam { .. } => 2,
            Rule::Adam { greatest: true, .. } | Rule::RmsProp { centered: true, .. } => 3,
            Rule::RmsProp { velocity, .. } => 1 + usize::from(*velocity),
        }
    }
}

/// One update of a run of weights. All slices have the same length, a multiple of `V`, but for unused state.
pub struct Update<'a, T> {
    /// What to do.
    pub rule: Rule<T>,
    /// What is done to the gradient first, and to the weight besides.
    pub shrink: Shrink<T>,
    /// The weights.
    pub weights: &'a mut [T],
    /// Their gradient.
    pub gradient: &'a [T],
    /// The first state: velocity or first moment.
    pub first: &'a mut [T],
    /// The second state: second moment.
    pub second: &'a mut [T],
    /// The third state: greatest second moment, or velocity.
    pub third: &'a mut [T],
}

/// Penalties, decay and clipping by value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shrink<T> {
    /// `l1 sign(w)` is added to the gradient.
    pub l1: T,
    /// `l2 w` is added to the gradient.
    pub l2: T,
    /// The gradient is then held between minus and plus this; infinity for no limit.
    pub clip: T,
    /// The weight is multiplied by this before the rule: one minus rate times decoupled decay.
    pub keep: T,
}

impl<T: Math> Shrink<T> {
    /// Nothing is done.
    pub const NONE: Self = Shrink { l1: T::ZERO, l2: T::ZERO, clip: T::INFINITY, keep: T::ONE };
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
        assert!(u.rule.states() < 3 || u.third.len() == len);
        match u.rule {
            Rule::Descent { rate } => {
                let rate = s.splat(-rate);
                each(
                    s,
                    u,
                    #[inline(always)]
                    |w, g, _| s.mul_add(rate, g, w),
                );
            }
            Rule::Momentum { rate, momentum, nesterov } => {
                let (rate, momentum) = (s.splat(-rate), s.splat(momentum));
                each(
                    s,
                    u,
                    #[inline(always)]
                    |w, g, [first, _, _]| {
                        let velocity = flush(s, s.mul_add(momentum, first.get(s), g));
                        first.set(s, velocity);
                        let direction = if nesterov { s.mul_add(momentum, velocity, g) } else { velocity };
                        s.mul_add(rate, direction, w)
                    },
                );
            }
            Rule::Velocity { rate, momentum, nesterov } => {
                let (rate, momentum) = (s.splat(-rate), s.splat(momentum));
                each(
                    s,
                    u,
                    #[inline(always)]
                    |w, g, [first, _, _]| {
                        let push = s.mul(rate, g);
                        let velocity = flush(s, s.mul_add(momentum, first.get(s), push));
                        first.set(s, velocity);
                        s.add(w, if nesterov { s.mul_add(momentum, velocity, push) } else { velocity })
                    },
                );
            }
            Rule::Adam { step, scale, beta1_rest, beta2, beta2_rest, epsilon, greatest } => {
                let (step, scale, epsilon) = (s.splat(-step), s.splat(scale), s.splat(epsilon));
                let betas = Betas { beta1_rest, beta2, beta2_rest };
                if greatest {
                    each(
                        s,
                        u,
                        #[inline(always)]
                        |w, g, [first, second, third]| {
                            let (m, v) = moments(s, betas, g, first, second);
                            let most = third.get(s);
                            let most = s.select_lt(most, v, v, most);
                            third.set(s, most);
                            s.mul_add(step, s.div(m, s.mul_add(s.sqrt(most), scale, epsilon)), w)
                        },
                    );
                } else {
                    each(
                        s,
                        u,
                        #[inline(always)]
                        |w, g, [first, second, _]| {
                            let (m, v) = moments(s, betas, g, first, second);
                            s.mul_add(step, s.div(m, s.mul_add(s.sqrt(v), scale, epsilon)), w)
                        },
                    );
                }
            }
            Rule::Nadam { gradient_step, moment_step, scale, beta1_rest, beta2, beta2_rest, epsilon } => {
                let (scale, epsilon) = (s.splat(scale), s.splat(epsilon));
                let (of_gradient, of_moment) = (s.splat(-gradient_step), s.splat(-moment_step));
                let betas = Betas { beta1_rest, beta2, beta2_rest };
                each(
                    s,
                    u,
                    #[inline(always)]
                    |w, g, [first, second, _]| {
                        let (m, v) = moments(s, betas, g, first, second);
                        let direction = s.mul_add(of_gradient, g, s.mul(of_moment, m));
                        s.add(w, s.div(direction, s.mul_add(s.sqrt(v), scale, epsilon)))
                    },
                );
            }
            Rule::RmsProp { rate, alpha, alpha_rest, epsilon, momentum, velocity, centered } => {
                let (rate, epsilon, momentum) = (s.splat(-rate), s.splat(epsilon), s.splat(momentum));
                let (alpha, rest, zero) = (s.splat(alpha), s.splat(alpha_rest), s.splat(T::ZERO));
                each(
                    s,
                    u,
                    #[inline(always)]
                    |w, g, [first, second, third]| {
                        let v = flush(s, s.mul_add(s.mul(rest, g), g, s.mul(alpha, first.get(s))));
                        first.set(s, v);
                        let mut variance = v;
                        if centered {
                            let mean = third.get(s);
                            let mean = flush(s, s.mul_add(rest, s.sub(g, mean), mean));
                            third.set(s, mean);
                            variance = s.mul_add(s.sub(zero, mean), mean, v);
                        }
                        let mut direction = s.div(g, s.add(s.sqrt(variance), epsilon));
                        if velocity {
                            direction = flush(s, s.mul_add(momentum, second.get(s), direction));
                            second.set(s, direction);
                        }
                        s.mul_add(rate, direction, w)
                    },
                );
            }
            Rule::Adagrad { rate, epsilon } => {
                let (rate, epsilon) = (s.splat(-rate), s.splat(epsilon));
                each(
                    s,
                    u,
                    #[inline(always)]
                    |w, g, [first, _, _]| {
                        let sum = s.mul_add(g, g, first.get(s));
                        first.set(s, sum);
                        s.mul_add(rate, s.div(g, s.add(s.sqrt(sum), epsilon)), w)
                    },
                );
            }
            Rule::Lion { rate, beta1, beta1_rest, beta2, beta2_rest } => {
                let (rate, beta1, beta1_rest) = (s.splat(-rate), s.splat(beta1), s.splat(beta1_rest));
                let (beta2, beta2_rest) = (s.splat(beta2), s.splat(beta2_rest));
                each(
                    s,
                    u,
                    #[inline(always)]
                    |w, g, [first, _, _]| {
                        let m = first.get(s);
                        first.set(s, flush(s, s.mul_add(beta2, m, s.mul(beta2_rest, g))));
                        s.mul_add(rate, sign(s, s.mul_add(beta1, m, s.mul(beta1_rest, g))), w)
                    },
                );
            }
        }
    }
}

/// Where a vector of state stands.
#[derive(Clone, Copy)]
struct Slot<T>(*mut T);

impl<T: Math> Slot<T> {
    #[inline(always)]
    fn get<S: Simd<T>>(self, s: S) -> S::V {
        // SAFETY: `each` makes slots of whole vectors, and rules touch those of the states they have.
        unsafe { s.load(self.0) }
    }
    #[inline(always)]
    fn set<S: Simd<T>>(self, s: S, v: S::V) {
        // SAFETY: as for `get`.
        unsafe { s.store(self.0, v) }
    }
}

/// The constants of Adam's moments.
#[derive(Clone, Copy)]
struct Betas<T> {
    beta1_rest: T,
    beta2: T,
    beta2_rest: T,
}

/// Adam's moments, brought up to date: `m += (1 - beta1) (g - m)`, `v = beta2 v + (1 - beta2) g^2`.
#[inline(always)]
fn moments<T: Math, S: Simd<T>>(s: S, b: Betas<T>, g: S::V, first: Slot<T>, second: Slot<T>) -> (S::V, S::V) {
    let m = first.get(s);
    let m = flush(s, s.mul_add(s.splat(b.beta1_rest), s.sub(g, m), m));
    let v = s.mul_add(s.mul(s.splat(b.beta2_rest), g), g, s.mul(s.splat(b.beta2), second.get(s)));
    let v = flush(s, v);
    first.set(s, m);
    second.set(s, v);
    (m, v)
}

/// -1, 0 or 1; NaN gives 0.
#[inline(always)]
fn sign<T: Math, S: Simd<T>>(s: S, x: S::V) -> S::V {
    let zero = s.splat(T::ZERO);
    s.select_lt(zero, x, s.splat(T::ONE), s.select_lt(x, zero, s.splat(-T::ONE), zero))
}

/// The loop that all rules share: loads weight and gradient, shrinks them, stores the new weight.
#[inline(always)]
fn each<T: Math, S: Simd<T>>(s: S, u: &mut Update<'_, T>, rule: impl Fn(S::V, S::V, [Slot<T>; 3]) -> S::V) {
    let state = [u.first.as_mut_ptr(), u.second.as_mut_ptr(), u.third.as_mut_ptr()];
    let (shrinks, shrink) = (u.shrink != Shrink::NONE, u.shrink);
    for at in (0..u.weights.len()).step_by(S::LANES) {
        // SAFETY: `run` checked that the length is a multiple of LANES and the same for both slices and for the states that
        // the rule has; the others' slots are never read or written.
        unsafe {
            let slots = state.map(|state| Slot(state.wrapping_add(at)));
            let w = s.load(u.weights.as_ptr().add(at));
            let g = s.load(u.gradient.as_ptr().add(at));
            let (w, g) = if shrinks { shrunk(s, shrink, w, g) } else { (w, g) };
            s.store(u.weights.as_mut_ptr().add(at), rule(w, g, slots));
        }
    }
}

/// Weight and gradient after penalties, clipping and decay.
#[inline(always)]
pub(super) fn shrunk<T: Math, S: Simd<T>>(s: S, shrink: Shrink<T>, w: S::V, g: S::V) -> (S::V, S::V) {
    let g = s.mul_add(s.splat(shrink.l2), w, g);
    let g = s.mul_add(s.splat(shrink.l1), sign(s, w), g);
    let (most, least) = (s.splat(shrink.clip), s.splat(-shrink.clip));
    let g = s.select_lt(most, g, most, s.select_lt(g, least, least, g));
    (s.mul(w, s.splat(shrink.keep)), g)
}

/// Subnormal numbers become zero.
#[inline(always)]
pub(super) fn flush<T: Math, S: Simd<T>>(s: S, x: S::V) -> S::V {
    s.clear_lt(s.abs(x), s.splat(T::MIN_POSITIVE), x)
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
        assert!(t.source.geometry().lanes == v && t.width.is_multiple_of(v) && t.lanes.start.is_multiple_of(panel));
        assert!(t.lanes.end <= t.source.lanes() && t.target.len() == t.lanes.len() * t.width);
        for lane in t.lanes.clone().step_by(v) {
            let (from, p) = (t.source.panel(lane / panel), lane / panel);
            let stride = t.source.geometry().width(t.source.lanes(), p);
            let into = &mut t.target[(lane - t.lanes.start) * t.width..];
            let count = v.min(t.lanes.end - lane);
            if lane.is_multiple_of(panel) && lane + panel < t.lanes.end {
                // The next panel's rows lie too far from this one's for the processor to see them coming.
                let (next, stride) = (t.source.panel(p + 1), t.source.geometry().width(t.source.lanes(), p + 1));
                let rows = t.row..(t.row + t.width).min(t.source.rows());
                rows.for_each(|row| prefetch(&next[row * stride..][..stride]));
            }
            for column in (0..t.width).step_by(v) {
                let row = t.row + column;
                let rows = v.min(t.source.rows().saturating_sub(row));
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
