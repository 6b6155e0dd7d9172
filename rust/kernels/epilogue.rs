//! What happens to a finished sum before it is stored: activations and their derivatives.
//!
//! Piecewise linear functions and all derivatives are applied to the accumulators in registers. The smooth
//! activations (tanh, sigmoid) run over the panel right after its last tile, while it is in the first
//! cache: inlined into every tile shape they would cost code, and their own arithmetic hides the reload.

use super::math::{self, Math};
use crate::activation::Activation;
use crate::isa::{Operation, Simd};

/// The last thing done to a sum.
#[derive(Clone, Copy)]
pub enum Finish<'a, T> {
    /// Apply the activation.
    Apply(Activation),
    /// Multiply by the derivative of the activation, given its result, shaped as the sums.
    Times(Activation, &'a [T]),
}

/// The part that is done in registers, for the tile whose rows begin at `offset` of the result.
///
/// Which function it is is decided once a tile: with the decision inside the loops over a tile's vectors, the
/// compiler keeps the accumulators in memory.
///
/// # Safety
/// For [`Finish::Times`] the factor has R rows of N vectors at `offset`.
#[inline(always)]
pub unsafe fn finish_tile<T: Math, S: Simd<T>, const R: usize, const N: usize>(
    s: S,
    finish: Finish<'_, T>,
    acc: &mut [[S::V; N]; R],
    offset: usize,
) {
    match finish {
        Finish::Apply(Activation::Relu) => each_of(
            acc,
            #[inline(always)]
            |x, _| relu(s, x),
        ),
        Finish::Apply(Activation::LeakyRelu { slope }) => each_of(
            acc,
            #[inline(always)]
            |x, _| leaky_relu(s, x, slope),
        ),
        Finish::Apply(_) => {}
        Finish::Times(activation, of) => {
            // SAFETY: the caller vouches for R x N vectors at `offset`.
            unsafe { times_derivatives(s, activation, of.as_ptr().add(offset), acc) }
        }
    }
}

/// [`times_derivative`] on a tile, one loop for each function.
///
/// # Safety
/// `of` has R rows of N vectors.
#[inline(always)]
unsafe fn times_derivatives<T: Math, S: Simd<T>, const R: usize, const N: usize>(
    s: S,
    activation: Activation,
    of: *const T,
    acc: &mut [[S::V; N]; R],
) {
    macro_rules! each {
        ($activation:expr) => {
            each_of(
                acc,
                #[inline(always)]
                // SAFETY: the caller vouches for R x N vectors, and `each_of` counts no further.
                |x, i| times_derivative(s, $activation, unsafe { s.load(of.add(i * S::LANES)) }, x),
            )
        };
    }
    match activation {
        Activation::Relu => each!(Activation::Relu),
        Activation::LeakyRelu { slope } => each!(Activation::LeakyRelu { slope }),
        Activation::Tanh => each!(Activation::Tanh),
        Activation::Sigmoid => each!(Activation::Sigmoid),
        Activation::Exponential => each!(Activation::Exponential),
        Activation::Identity | Activation::Softmax => {}
    }
}

/// `f` of every vector of a tile and its number.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn each_of<V: Copy, const R: usize, const N: usize>(acc: &mut [[V; N]; R], f: impl Fn(V, usize) -> V) {
    for r in 0..R {
        for n in 0..N {
            acc[r][n] = f(acc[r][n], r * N + n);
        }
    }
}

/// The part that is done on the whole panel `[rows][width]` once it is finished.
#[inline(always)]
pub fn finish_rows<T: Math, S: Simd<T>>(s: S, finish: Finish<'_, T>, c: &mut [T], width: usize, lanes: usize) {
    if let Finish::Apply(activation @ (Activation::Tanh | Activation::Sigmoid | Activation::Exponential)) = finish {
        each_vector(
            s,
            c,
            #[inline(always)]
            |x| smooth(s, activation, x),
        );
        if activation.stains_padding() && lanes < width {
            c.chunks_exact_mut(width).for_each(|row| row[lanes..].fill(T::ZERO));
        }
    }
}

/// `z < 0 ? 0 : z`: NaN passes on.
#[inline(always)]
fn relu<T: Math, S: Simd<T>>(s: S, x: S::V) -> S::V {
    let zero = s.splat(T::ZERO);
    s.select_lt(x, zero, zero, x)
}

#[inline(always)]
fn leaky_relu<T: Math, S: Simd<T>>(s: S, x: S::V, slope: f64) -> S::V {
    s.select_lt(x, s.splat(T::ZERO), s.mul(x, s.splat(T::from_f64(slope))), x)
}

#[inline(always)]
fn smooth<T: Math, S: Simd<T>>(s: S, activation: Activation, x: S::V) -> S::V {
    match activation {
        Activation::Tanh => math::tanh(s, x),
        Activation::Exponential => math::exp(s, x),
        _ => math::sigmoid(s, x),
    }
}

/// `x * f'(z)`, where `a = f(z)`.
#[inline(always)]
fn times_derivative<T: Math, S: Simd<T>>(s: S, activation: Activation, a: S::V, x: S::V) -> S::V {
    let (zero, one) = (s.splat(T::ZERO), s.splat(T::ONE));
    match activation {
        Activation::Relu => s.select_lt(zero, a, x, zero),
        Activation::LeakyRelu { slope } => s.select_lt(zero, a, x, s.mul(x, s.splat(T::from_f64(slope)))),
        // tanh' = 1 - tanh^2
        Activation::Tanh => s.mul(x, s.sub(one, s.mul(a, a))),
        // sigmoid' = sigmoid (1 - sigmoid)
        Activation::Sigmoid => s.mul(x, s.mul(a, s.sub(one, a))),
        Activation::Exponential => s.mul(x, a),
        Activation::Identity | Activation::Softmax => x,
    }
}

/// An elementwise function of plain arrays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    /// An activation; softmax is not elementwise and does nothing here.
    Activate(Activation),
    /// The exponential.
    Exp,
    /// The natural logarithm.
    Log,
}

/// Applies a function to every number of a slice of any length.
pub struct MapOp<'a, T>(pub Function, pub &'a mut [T]);

impl<T: Math, S: Simd<T>> Operation<T, S> for MapOp<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let MapOp(function, x) = self;
        match function {
            Function::Activate(Activation::Identity | Activation::Softmax) => {}
            Function::Activate(Activation::Relu) => each_vector(
                s,
                x,
                #[inline(always)]
                |v| relu(s, v),
            ),
            Function::Activate(Activation::LeakyRelu { slope }) => each_vector(
                s,
                x,
                #[inline(always)]
                |v| leaky_relu(s, v, slope),
            ),
            Function::Activate(activation) => each_vector(
                s,
                x,
                #[inline(always)]
                |v| smooth(s, activation, v),
            ),
            Function::Exp => each_vector(
                s,
                x,
                #[inline(always)]
                |v| math::exp(s, v),
            ),
            Function::Log => each_vector(
                s,
                x,
                #[inline(always)]
                |v| math::log(s, v),
            ),
        }
    }
}

/// `f` over all vectors of a slice; a last, short one goes through a padded copy.
#[inline(always)]
pub fn each_vector<T: Math, S: Simd<T>>(s: S, x: &mut [T], f: impl Fn(S::V) -> S::V) {
    let mut vectors = x.chunks_exact_mut(S::LANES);
    for chunk in &mut vectors {
        // SAFETY: the chunk has LANES numbers.
        unsafe { s.store(chunk.as_mut_ptr(), f(s.load(chunk.as_ptr()))) };
    }
    let rest = vectors.into_remainder();
    if !rest.is_empty() {
        let mut copy = [T::ZERO; 16];
        copy[..rest.len()].copy_from_slice(rest);
        // SAFETY: no instruction set has more than 16 lanes.
        unsafe { s.store(copy.as_mut_ptr(), f(s.load(copy.as_ptr()))) };
        rest.copy_from_slice(&copy[..rest.len()]);
    }
}
