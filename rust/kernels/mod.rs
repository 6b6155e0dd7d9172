//! The kernels, behind one table a number type.
//!
//! Bodies are written once, generic over [`Simd`](crate::isa::Simd); [`Kernels`] is what the rest of the crate
//! sees: which instruction set serves it was decided once, by [`Number::kernels`]. Kernels neither allocate nor
//! spawn, and check the shapes they are given before they touch memory.

pub mod activate;
pub mod bf16;
mod canonical;
pub mod dots;
pub mod dress;
pub mod epilogue;
pub mod gemm;
mod gradient;
mod lanes;
pub mod length;
pub mod loss;
pub mod loss_rows;
mod losses;
pub mod math;
pub mod nonzeros;
pub mod norm;
mod operand;
pub mod peak;
mod scikit;
pub mod script;
pub mod sparse;
mod tiles;
pub mod update;

#[cfg(test)]
mod dots_tests;
#[cfg(test)]
mod length_tests;
#[cfg(test)]
mod loss_rows_tests;
#[cfg(test)]
mod script_tests;
#[cfg(test)]
mod sparse_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod update_tests;

pub use bf16::{Pack, PairKernels, PairMirror};
pub use dots::Dots;
pub use dress::{Dress, Mask, Undress};
pub use epilogue::{Finish, Function};
pub use gemm::{INPUT_SEGMENT, Product, Start};
pub use gradient::{BiasGradient, Gradient, MAX_SLICES, Pair, SAMPLE_SEGMENT};
pub use length::{Approach, Blend, Factors, LaneSums, Of, Penalise, RowSum, Scale};
pub use loss::Loss;
pub use loss_rows::{GradientScale, LossRows, Targets};
pub use nonzeros::{Find, Nonzeros};
pub use norm::{CHUNK, Norm, Normalize};
pub use script::{Calls, Memory, Recorder, Script};
pub use sparse::Sparse;
pub use tiles::TILE_SAMPLES;
pub use update::{Mirror, Rule, Shrink, Turn, Update};

use crate::isa::{Isa, Simd};
use crate::panel::{Geometry, Panels};
pub use math::Math;

/// What a plain step calls.
pub trait StepKernels<T>: Send + Sync {
    /// Forward and backward-data products.
    fn product(&self, product: &mut Product<'_, T>);
    /// A strip of a weight gradient, or several.
    fn gradient(&self, gradient: &mut Gradient<'_, T>);
    /// The biases' gradient in one panel.
    fn bias_gradient(&self, gradient: &mut BiasGradient<'_, T>);
    /// Forward through a layer of few units.
    fn dots(&self, dots: &mut Dots<'_, T>);
    /// An optimizer's rule.
    fn update(&self, update: &mut Update<'_, T>);
    /// A block of weights into the mirror.
    fn mirror(&self, mirror: &mut Mirror<'_, T>);
    /// Losses and their gradients.
    fn loss(&self, loss: &mut LossRows<'_, T>);
    /// An elementwise function.
    fn map(&self, function: Function, x: &mut [T]);
}

/// Every kernel entry, for one number type on one instruction set.
pub trait Kernels<T>: StepKernels<T> {
    /// The panels' width.
    fn geometry(&self) -> Geometry;
    /// Where a matrix is not zero.
    fn find(&self, find: &mut Find<'_, T>);
    /// Forward through a layer whose input is zero in many places.
    fn sparse(&self, sparse: &mut Sparse<'_, T>);
    /// Part of a matrix into its transpose.
    fn turn(&self, turn: &mut Turn<'_, T>);
    /// Softmax over each row; `scratch` has room for [`loss_rows::scratch`] numbers.
    fn softmax(&self, logits: &mut Panels<T>, scratch: &mut [T]);
    /// What a layer does to a panel besides a plain activation.
    fn dress(&self, dress: &mut Dress<'_, T>);
    /// The way back.
    fn undress(&self, undress: &mut Undress<'_, T>);
    /// A step of normalisation.
    fn normalize(&self, normalize: &mut Normalize<'_, T>);
    /// Sums of a panel's lanes.
    fn lane_sums(&self, sums: &mut LaneSums<'_, T>);
    /// The sum of a row across panels.
    fn row_sum(&self, sum: &RowSum<'_, T>) -> T;
    /// A block of numbers times factors.
    fn scale(&self, scale: &mut Scale<'_, T>);
    /// A linear combination.
    fn blend(&self, blend: &mut Blend<'_, T>);
    /// A step of a moving average.
    fn approach(&self, approach: &mut Approach<'_, T>);
    /// Penalties on a gradient in memory.
    fn penalise(&self, penalise: &mut Penalise<'_, T>);
    /// Multiply-adds in registers alone, as fast as they go; returns the floating-point operations done.
    fn multiply_add(&self, rounds: usize) -> usize;
    /// Reads all numbers, as fast as they come; returns their sum.
    fn read(&self, x: &[T]) -> T;
}

/// The kernels of one instruction set.
struct On<S>(S);

impl<T: Math, S: Simd<T>> StepKernels<T> for On<S> {
    fn product(&self, product: &mut Product<'_, T>) {
        self.0.vectorize(gemm::ProductOp(product, operand::Plain));
    }
    fn gradient(&self, gradient: &mut Gradient<'_, T>) {
        self.0.vectorize(gradient::GradientOp(gradient, operand::Plain));
    }
    fn bias_gradient(&self, gradient: &mut BiasGradient<'_, T>) {
        self.0.vectorize(gradient::BiasGradientOp(gradient, operand::Plain));
    }
    fn dots(&self, dots: &mut Dots<'_, T>) {
        self.0.vectorize(dots::DotsOp(dots, operand::Plain));
    }
    fn update(&self, update: &mut Update<'_, T>) {
        self.0.vectorize(update::UpdateOp(update));
    }
    fn mirror(&self, mirror: &mut Mirror<'_, T>) {
        self.0.vectorize(update::MirrorOp(mirror));
    }
    fn loss(&self, loss: &mut LossRows<'_, T>) {
        self.0.vectorize(loss_rows::LossOp(loss));
    }
    fn map(&self, function: Function, x: &mut [T]) {
        self.0.vectorize(epilogue::MapOp(function, x));
    }
}

impl<T: Math, S: Simd<T>> Kernels<T> for On<S> {
    fn geometry(&self) -> Geometry {
        Geometry { lanes: S::LANES }
    }
    fn find(&self, find: &mut Find<'_, T>) {
        self.0.vectorize(nonzeros::FindOp(find));
    }
    fn sparse(&self, sparse: &mut Sparse<'_, T>) {
        self.0.vectorize(sparse::SparseOp(sparse));
    }
    fn turn(&self, turn: &mut Turn<'_, T>) {
        self.0.vectorize(update::TurnOp(turn));
    }
    fn softmax(&self, logits: &mut Panels<T>, scratch: &mut [T]) {
        self.0.vectorize(loss_rows::SoftmaxOp { logits, scratch });
    }
    fn dress(&self, dress: &mut Dress<'_, T>) {
        self.0.vectorize(dress::DressOp(dress));
    }
    fn undress(&self, undress: &mut Undress<'_, T>) {
        self.0.vectorize(dress::UndressOp(undress));
    }
    fn normalize(&self, normalize: &mut Normalize<'_, T>) {
        self.0.vectorize(norm::NormalizeOp(normalize));
    }
    fn lane_sums(&self, sums: &mut LaneSums<'_, T>) {
        self.0.vectorize(length::LaneSumsOp(sums));
    }
    fn row_sum(&self, sum: &RowSum<'_, T>) -> T {
        self.0.vectorize(length::RowSumOp(sum))
    }
    fn scale(&self, scale: &mut Scale<'_, T>) {
        self.0.vectorize(length::ScaleOp(scale));
    }
    fn blend(&self, blend: &mut Blend<'_, T>) {
        self.0.vectorize(length::BlendOp(blend));
    }
    fn approach(&self, approach: &mut Approach<'_, T>) {
        self.0.vectorize(length::ApproachOp(approach));
    }
    fn penalise(&self, penalise: &mut Penalise<'_, T>) {
        self.0.vectorize(length::PenaliseOp(penalise));
    }
    fn multiply_add(&self, rounds: usize) -> usize {
        self.0.vectorize(peak::MultiplyAddOp { rounds, operand: operand::Plain })
    }
    fn read(&self, x: &[T]) -> T {
        self.0.vectorize(peak::ReadOp(x))
    }
}

/// A number type that has kernels: f32 and f64.
pub trait Number: Math {
    /// The kernels of `isa`.
    ///
    /// # Panics
    /// Where this CPU cannot run it: [`Isa::is_available`] says so beforehand.
    fn kernels(isa: Isa) -> &'static dyn Kernels<Self>;
    /// The kernels of mixed precision, where the type has them and the CPU the instructions.
    ///
    /// # Errors
    /// Why there are none: [`NoPairs`].
    fn pair_kernels(isa: Isa) -> Result<&'static dyn PairKernels<Self>, NoPairs>;
}

/// Why there are no kernels of mixed precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPairs {
    /// These kernels, or the number type, have none.
    Unknown,
    /// The CPU lacks AVX-512 BF16.
    Missing,
    /// The kernel refused the tiles of AMX, with this error.
    Refused(i32),
}

fn f32_pair_kernels(isa: Isa) -> Result<&'static dyn PairKernels<f32>, NoPairs> {
    // Tokens have no size, so nothing is allocated or leaked.
    match isa {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Isa::Amx => {
            let tiles = crate::isa::tiles::Amx::request().map_err(NoPairs::Refused)?;
            Ok(Box::leak(Box::new(tiles::Tiled { vectors: tiles.vectors(), tiles })))
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => {
            let token = crate::isa::bf16::Avx512Bf16::new().ok_or(NoPairs::Missing)?;
            Ok(Box::leak(Box::new(On(token))))
        }
        _ => Err(NoPairs::Unknown),
    }
}

/// The kernels of mixed precision in plain Rust, for tests on CPUs without the instructions.
#[cfg(test)]
pub(crate) static PORTABLE_PAIRS: &dyn PairKernels<f32> = &On(crate::isa::Portable::<4>);
/// The same with tiles.
#[cfg(test)]
pub(crate) static PLAIN_TILES: &dyn PairKernels<f32> =
    &tiles::Tiled { vectors: crate::isa::Portable::<16>, tiles: crate::isa::tiles::PlainTiles };

macro_rules! number {
    ($t:ident, $pair_kernels:expr) => {
        impl Number for $t {
            fn kernels(isa: Isa) -> &'static dyn Kernels<$t> {
                // The tokens have no size, so nothing is allocated or leaked.
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Amx | Isa::Avx512 => {
                        Box::leak(Box::new(On(crate::isa::Avx512::new().expect("the CPU has AVX-512"))))
                    }
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => Box::leak(Box::new(On(crate::isa::Avx2::new().expect("the CPU has AVX2")))),
                    Isa::Portable => Box::leak(Box::new(On(crate::isa::Portable::<4>))),
                    Isa::Scalar => Box::leak(Box::new(On(crate::isa::Portable::<1>))),
                    #[cfg(not(target_arch = "x86_64"))]
                    Isa::Amx | Isa::Avx512 | Isa::Avx2 => panic!("an instruction set of x86-64"),
                }
            }
            fn pair_kernels(isa: Isa) -> Result<&'static dyn PairKernels<$t>, NoPairs> {
                $pair_kernels(isa)
            }
        }
    };
}
number!(f32, f32_pair_kernels);
number!(f64, |_| Err(NoPairs::Unknown));
