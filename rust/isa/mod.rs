//! Instruction sets as values.
//!
//! A zero-sized token ([`Avx512`], [`Avx2`], [`Portable`]) proves that this CPU can run its
//! instructions: `new` looks, once, and returns an `Option`. Algorithms are written once, generic over
//! [`Simd`]; the files beside this one hold intrinsics and tile constants and nothing else.
//!
//! Promise: every operation here is correctly rounded or exact, so an algorithm built from them gives
//! the same bits with every token; tile products (`tiles.rs`) alone add up in an order of their own. There are no reciprocal estimates and no min/max of their own.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod bf16;
mod environment;
mod portable;
pub mod tiles;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use environment::DefaultEnvironment;
pub use portable::Portable;

/// Work that is to be compiled for one instruction set.
///
/// `run` and everything it calls must be `#[inline(always)]`: only what is inlined into the token's
/// `#[target_feature]` function becomes its instructions. Tokens that are [`Simd::APART`] have no such function.
pub trait Operation<T, S> {
    /// What the work returns.
    type Output;
    /// Does the work with the token `simd`.
    fn run(self, simd: S) -> Self::Output;
}

/// Vectors of `T`, and the proof that the CPU has them.
pub trait Simd<T: Float>: Copy + Send + Sync + 'static {
    /// One vector of `LANES` numbers.
    type V: Copy;
    /// Lanes of one vector (`V` in the alphabet).
    const LANES: usize;
    /// Rows of a product's register tile: `ROWS x 2` accumulators, two vectors of the other operand
    /// and one broadcast must fit the register file.
    const ROWS: usize;
    /// Rows of a weight gradient's register tile: 2, 4, 6 or 8. Tiles begin anew with each panel of the broadcast operand,
    /// so that none crosses one; what is left of a panel takes smaller tiles.
    const GRADIENT_ROWS: usize;
    /// The most panels, 7 or fewer, that a row alone is multiplied by at once: `2 x PANELS` accumulators and one broadcast must
    /// fit the register file.
    const PANELS: usize;
    /// Terms of a chain that one turn of the loop takes in tiles of four rows or more; above 1, whole panels are walked by
    /// pointers that only grow. Where vectors are short, the loop's own instructions are a good part of what the processor
    /// issues, above all where a neighbour on the same core issues too.
    const UNROLL: usize = 1;
    /// For tokens without a `#[target_feature]` function: whether exponentials and their like are functions of their own rather
    /// than inlined. Without the CPU's fused multiply-add each is much code, which would be compiled again wherever it is inlined:
    /// an eighth of the package, a fifth of its build.
    const APART: bool = false;

    /// Runs `op` compiled for this instruction set.
    fn vectorize<O: Operation<T, Self>>(self, op: O) -> O::Output;

    /// All lanes `x`.
    fn splat(self, x: T) -> Self::V;
    /// # Safety
    /// `p` is valid for reading `LANES` numbers.
    unsafe fn load(self, p: *const T) -> Self::V;
    /// # Safety
    /// `p` is valid for writing `LANES` numbers.
    unsafe fn store(self, p: *mut T, v: Self::V);
    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// The square root.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The absolute value: clears the sign bit, of a NaN too.
    fn abs(self, a: Self::V) -> Self::V;
    /// `yes` in the lanes where `a < b`, `no` elsewhere and where either is NaN.
    fn select_lt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// `x` in the lanes where `a < b`, 0 elsewhere and where either is NaN.
    #[inline(always)]
    fn keep_lt(self, a: Self::V, b: Self::V, x: Self::V) -> Self::V {
        self.select_lt(a, b, x, self.splat(T::default()))
    }
    /// 0 in the lanes where `a < b`, `x` elsewhere and where either is NaN.
    #[inline(always)]
    fn clear_lt(self, a: Self::V, b: Self::V, x: Self::V) -> Self::V {
        self.select_lt(a, b, self.splat(T::default()), x)
    }
    /// Bit i: whether lane i is not 0. A NaN is not.
    fn nonzero(self, a: Self::V) -> u32;
    /// Writes the lanes whose bits are set one after the other, and anything behind them: `LANES` numbers in all.
    ///
    /// # Safety
    /// `p` is valid for writing `LANES` numbers; only the `LANES` lowest bits may be set.
    unsafe fn pack(self, p: *mut T, a: Self::V, bits: u32);
    /// `2^n` for a whole `n` between the least and the greatest exponent of a normal number. Anything
    /// for other `n`.
    fn pow2(self, n: Self::V) -> Self::V;
    /// The exponent of a positive normal number: `floor(log2(a))`. Anything for other `a`.
    fn exponent(self, a: Self::V) -> Self::V;
    /// The significand of a positive normal number, in `[1, 2)`. Anything for other `a`.
    fn significand(self, a: Self::V) -> Self::V;
    /// Writes the transpose of the `LANES x LANES` block at `source` to `target`.
    ///
    /// # Safety
    /// `LANES` rows of `LANES` numbers are readable at `source`, `source_stride` apart, and writable at
    /// `target`, `target_stride` apart; the two do not overlap.
    unsafe fn transpose(self, source: *const T, source_stride: usize, target: *mut T, target_stride: usize);
}

/// Work in plain Rust that compilers vectorise, to be compiled for each instruction set: see [`Isa::run`].
///
/// `run` and everything it calls must be `#[inline(always)]`, as for an [`Operation`].
pub trait Compilable {
    /// What the work returns.
    type Output;
    /// Does the work, with `lanes` of f32 and of f64 in a vector: constants for the compiler where vectors are instructions.
    fn run(self, lanes: Lanes) -> Self::Output;
}

/// The lanes of a vector.
#[derive(Clone, Copy)]
pub struct Lanes {
    single: usize,
    double: usize,
}

impl Lanes {
    /// Lanes of a vector of T.
    #[inline(always)]
    pub fn of<T: Float>(self) -> usize {
        if T::IS_SINGLE { self.single } else { self.double }
    }
}

/// A [`Compilable`] as an operation.
struct Compiled<C>(C);

impl<C: Compilable, S: Simd<f32> + Simd<f64>> Operation<f32, S> for Compiled<C> {
    type Output = C::Output;
    #[inline(always)]
    fn run(self, _simd: S) -> C::Output {
        self.0.run(Lanes { single: <S as Simd<f32>>::LANES, double: <S as Simd<f64>>::LANES })
    }
}

/// The places of the set bits of every byte, and zeros behind them.
pub static SET_BITS: [[u16; 8]; 256] = {
    let mut set = [[0; 8]; 256];
    let mut bits = 0;
    while bits < set.len() {
        let (mut place, mut n) = (0, 0);
        while place < 8 {
            if bits >> place & 1 == 1 {
                set[bits][n] = place as u16;
                n += 1;
            }
            place += 1;
        }
        bits += 1;
    }
    set
};

/// Asks for the cache lines of `data`, which will be read soon.
#[inline(always)]
pub fn prefetch<T>(data: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in data.chunks(64 / size_of::<T>()) {
        // SAFETY: a prefetch changes nothing that a program can see.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}

/// Numbers of either type.
pub enum Either<'a> {
    /// f32
    Single(&'a mut [f32]),
    /// f64
    Double(&'a mut [f64]),
}

/// `f32` or `f64`: what the kernels compute in.
pub trait Float:
    Copy
    + Default
    + PartialEq
    + PartialOrd
    + std::fmt::Debug
    + std::fmt::Display
    + Send
    + Sync
    + 'static
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// The least positive normal number.
    const MIN_POSITIVE: Self;
    /// "float32" or "float64", as NumPy says it.
    const NAME: &'static str;
    /// Whether this is f32.
    const IS_SINGLE: bool;
    /// The same numbers, told apart by their type at run time.
    fn either(numbers: &mut [Self]) -> Either<'_>;
    /// The nearest number.
    fn from_f64(x: f64) -> Self;
    /// The same number, exactly.
    fn from_f32(x: f32) -> Self;
    /// The same number, exactly.
    fn to_f64(self) -> f64;
    /// Neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// `self * b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// The absolute value.
    fn abs(self) -> Self;
    /// `2^n` for an exponent of a normal number.
    fn pow2(n: Self) -> Self;
    /// `floor(log2(self))` of a positive normal number.
    fn exponent(self) -> Self;
    /// The significand of a positive normal number, in `[1, 2)`.
    fn significand(self) -> Self;
}

macro_rules! float {
    ($t:ident, $bits:ident, $int:ident, $mantissa:expr, $bias:expr, $name:expr, $either:path) => {
        impl Float for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const MIN_POSITIVE: Self = $t::MIN_POSITIVE;
            const NAME: &'static str = $name;
            const IS_SINGLE: bool = size_of::<$t>() == 4;
            #[inline(always)]
            fn either(numbers: &mut [Self]) -> Either<'_> {
                $either(numbers)
            }
            #[inline(always)]
            fn from_f32(x: f32) -> Self {
                x as $t
            }
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                $t::is_finite(self)
            }
            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                $t::mul_add(self, b, c)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $t::abs(self)
            }
            #[inline(always)]
            fn pow2(n: Self) -> Self {
                $t::from_bits((((n as $int) + $bias) << $mantissa) as $bits)
            }
            #[inline(always)]
            fn exponent(self) -> Self {
                (((self.to_bits() >> $mantissa) as $int) - $bias) as $t
            }
            #[inline(always)]
            fn significand(self) -> Self {
                const LOW: $bits = (1 << $mantissa) - 1;
                $t::from_bits((self.to_bits() & LOW) | (1.0 as $t).to_bits())
            }
        }
    };
}
float!(f32, u32, i32, 23, 127, "float32", Either::Single);
float!(f64, u64, i64, 52, 1023, "float64", Either::Double);

/// The instruction sets by name, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// The same as [`Isa::Avx512`], with the tiles of AMX in mixed precision.
    Amx,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// Plain Rust on short arrays, which compilers turn into the target's baseline vectors.
    Portable,
    /// One lane: the oracle.
    Scalar,
}

impl Isa {
    /// Every name that `LAMELLA_ISA` knows, best first.
    pub const ALL: [Isa; 5] = [Isa::Amx, Isa::Avx512, Isa::Avx2, Isa::Portable, Isa::Scalar];

    /// The lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Amx => "amx",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
            Isa::Scalar => "scalar",
        }
    }

    /// Whether this CPU can run it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Isa::Amx => tiles::Amx::is_available(),
            #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
            Isa::Amx => false,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512::new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::new().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx512 | Isa::Avx2 => false,
            Isa::Portable | Isa::Scalar => true,
        }
    }

    /// Does the work compiled for this instruction set.
    ///
    /// # Panics
    /// Where this CPU cannot run it.
    pub fn run<C: Compilable>(self, work: C) -> C::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512 => {
                Simd::<f32>::vectorize(Avx512::new().expect("the CPU has AVX-512"), Compiled(work))
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Simd::<f32>::vectorize(Avx2::new().expect("the CPU has AVX2"), Compiled(work)),
            // Compiled once for both: to the compiler their lanes are no constants.
            Isa::Portable | Isa::Scalar => {
                let lanes = if self == Isa::Portable { 4 } else { 1 };
                work.run(Lanes { single: lanes, double: lanes })
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Amx | Isa::Avx512 | Isa::Avx2 => panic!("an instruction set of x86-64"),
        }
    }

    /// The one that `LAMELLA_ISA` names, or else the best that the CPU has.
    ///
    /// # Errors
    /// [`Error::Value`](crate::error::Error::Value) for a name that is unknown, or unknown to this CPU.
    pub fn choose() -> Result<Isa, crate::error::Error> {
        let available = || Isa::ALL.into_iter().filter(|isa| isa.is_available());
        let names = || available().map(Isa::name).collect::<Vec<_>>().join(", ");
        match std::env::var("LAMELLA_ISA") {
            Err(_) => Ok(available().next().expect("portable kernels run everywhere")),
            Ok(wanted) => available().find(|isa| isa.name() == wanted).ok_or_else(|| {
                crate::error::Error::value(format!(
                    "LAMELLA_ISA: expected one of {} (what this CPU can run), got {wanted:?}",
                    names()
                ))
            }),
        }
    }
}
