//! What happens to a finished sum before it is stored: activations and their derivatives.
//!
//! Piecewise linear functions and all derivatives are applied to the accumulators in registers. The smooth
//! activations (tanh, sigmoid) run over the panel right after its last tile, while it is in the first
//! cache: inlined into every tile shape they would cost code, and their own arithmetic hides the reload.

use super::activate::{leaky_relu, relu, value};
use super::lanes::{read, write};
use super::math::{self, Math};
use crate::activation::Activation;
use crate::isa::{Operation, Simd};

/// The last thing done to a sum.
#[derive(Clone, Copy)]
pub enum Finish<'a, T> {
    /// Apply the activation, one that is told by its result.
    Apply(Activation),
    /// Multiply by the derivative of the activation, given its result, shaped as the sums.
    Times(Activation, &'a [T]),
    /// Multiply by numbers shaped as the sums: a derivative that forward kept.
    By(&'a [T]),
}

/// The part that is done in registers, for the tile whose rows begin at `offset` of the result.
///
/// Which function it is is decided once a tile: with the decision inside the loops over a tile's vectors, the
/// compiler keeps the accumulators in memory.
///
/// # Safety
/// For [`Finish::Times`] and [`Finish::By`] the factor has R rows of N vectors at `offset`.
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
        Finish::By(factors) => {
            // SAFETY: the caller vouches for R x N vectors at `offset`.
            let factors = unsafe { factors.as_ptr().add(offset) };
            each_of(
                acc,
                #[inline(always)]
                // SAFETY: as above, and `each_of` counts no further.
                |x, i| s.mul(x, unsafe { s.load(factors.add(i * S::LANES)) }),
            )
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
        // Of the others forward kept the derivative.
        _ => {}
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
    let clear = |c: &mut [T]| c.chunks_exact_mut(width).for_each(|row| row[lanes..].fill(T::ZERO));
    match finish {
        Finish::Apply(Activation::Exponential) => {
            each_vector(
                s,
                c,
                #[inline(always)]
                |x| value(s, Activation::Exponential, x),
            );
            if lanes < width {
                clear(c);
            }
        }
        Finish::Apply(Activation::Tanh) => each_vector(
            s,
            c,
            #[inline(always)]
            |x| value(s, Activation::Tanh, x),
        ),
        Finish::Apply(Activation::Sigmoid) => {
            each_vector(
                s,
                c,
                #[inline(always)]
                |x| value(s, Activation::Sigmoid, x),
            );
            if lanes < width {
                clear(c);
            }
        }
        _ => {}
    }
}

/// An activation of every number, one loop for each function.
#[inline(always)]
pub fn map_activation<T: Math, S: Simd<T>>(s: S, activation: Activation, x: &mut [T]) {
    macro_rules! each {
        ($($activation:pat => $f:expr),+ $(,)?) => {
            match activation {
                $($activation => each_vector(
                    s,
                    x,
                    #[inline(always)]
                    |v| value(s, $f, v),
                ),)+
                Activation::Identity | Activation::Softmax => {}
            }
        };
    }
    use Activation as A;
    each!(
        A::Relu => A::Relu,
        A::LeakyRelu { slope } => A::LeakyRelu { slope },
        A::Tanh => A::Tanh,
        A::Sigmoid => A::Sigmoid,
            A::Exponential => A::Exponential,
        A::Elu { alpha, scale } => A::Elu { alpha, scale },
        A::Gelu => A::Gelu,
        A::GeluTanh => A::GeluTanh,
        A::Silu => A::Silu,
        A::Mish => A::Mish,
        A::Softplus => A::Softplus,
        A::Softsign => A::Softsign,
        A::HardTanh => A::HardTanh,
        A::HardSigmoid => A::HardSigmoid,
        A::HardSwish => A::HardSwish,
        A::Relu6 => A::Relu6,
    );
}

/// `x * f'(z)`, where `a = f(z)`.
#[inline(always)]
fn times_derivative<T: Math, S: Simd<T>>(s: S, activation: Activation, a: S::V, x: S::V) -> S::V {
    let (zero, one) = (s.splat(T::ZERO), s.splat(T::ONE));
    match activation {
        Activation::Relu => s.keep_lt(zero, a, x),
        Activation::LeakyRelu { slope } => s.select_lt(zero, a, x, s.mul(x, s.splat(T::from_f64(slope)))),
        // tanh' = 1 - tanh^2
        Activation::Tanh => s.mul(x, s.sub(one, s.mul(a, a))),
        // sigmoid' = sigmoid (1 - sigmoid)
        Activation::Sigmoid => s.mul(x, s.mul(a, s.sub(one, a))),
        Activation::Exponential => s.mul(x, a),
        _ => x,
    }
}

/// Multiplies a panel by what `finish` says; [`Finish::Apply`] leaves it alone.
#[inline(always)]
pub fn times<T: Math, S: Simd<T>>(s: S, finish: Finish<'_, T>, x: &mut [T]) {
    let of = match finish {
        Finish::Apply(_) => return,
        Finish::Times(_, of) | Finish::By(of) => of,
    };
    assert_eq!(of.len(), x.len());
    for (x, of) in x.chunks_exact_mut(S::LANES).zip(of.chunks_exact(S::LANES)) {
        // SAFETY: both chunks have LANES numbers.
        unsafe {
            let (value, of) = (s.load(x.as_ptr()), s.load(of.as_ptr()));
            let product = match finish {
                Finish::Times(activation, _) => times_derivative(s, activation, of, value),
                _ => s.mul(value, of),
            };
            s.store(x.as_mut_ptr(), product);
        }
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
            Function::Activate(activation) => map_activation(s, activation, x),
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

/// `f` over all vectors of a slice; a last, short one is padded with zeros.
#[inline(always)]
pub fn each_vector<T: Math, S: Simd<T>>(s: S, x: &mut [T], f: impl Fn(S::V) -> S::V) {
    let mut vectors = x.chunks_exact_mut(S::LANES);
    for chunk in &mut vectors {
        // SAFETY: the chunk has LANES numbers.
        unsafe { s.store(chunk.as_mut_ptr(), f(s.load(chunk.as_ptr()))) };
    }
    let rest = vectors.into_remainder();
    if !rest.is_empty() {
        write(s, f(read(s, rest)), rest);
    }
}
