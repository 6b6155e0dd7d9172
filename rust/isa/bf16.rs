//! Pairs of bfloat16 numbers: AVX-512 BF16, and the same operations in plain Rust as their oracle.
//!
//! A pair lies in the bits of one f32, the even number in the low half, so that pairs are moved, stored and
//! transposed as f32 are. [`PairSimd`] adds what computes with them.

use super::{Operation, Portable, Simd};
use std::array::from_fn;

/// Vectors of V pairs beside vectors of V f32.
pub trait PairSimd: Simd<f32> {
    /// `acc + x.odd y.odd`, then that `+ x.even y.even`, each rounded once; subnormal numbers are zero on their way in and out.
    fn dot(self, x: Self::V, y: Self::V, acc: Self::V) -> Self::V;
    /// In each lane the pair of the bfloat16 numbers nearest to `even` and `odd`; subnormal numbers become zero.
    fn pair(self, even: Self::V, odd: Self::V) -> Self::V;
    /// The lanes of `low` and then of `high` as V pairs of neighbours, rounded as by `pair`.
    fn neighbours(self, low: Self::V, high: Self::V) -> Self::V;
}

/// The bits of a bfloat16 number nearest to `x`, ties to even; a subnormal number becomes zero, a NaN stays one.
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() {
        return bits >> 16 | 0x40;
    }
    let bits = if x.is_subnormal() { bits & 0x8000_0000 } else { bits };
    (bits + 0x7fff + (bits >> 16 & 1)) >> 16
}

pub(super) fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// The two numbers of a pair, the even one first.
pub fn parts(pair: f32) -> [f32; 2] {
    let bits = pair.to_bits();
    [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)]
}

/// The pair of the numbers nearest to `even` and `odd`.
pub fn pair(even: f32, odd: f32) -> f32 {
    f32::from_bits(round(even) | round(odd) << 16)
}

/// What [`PairSimd::dot`] does in one lane.
pub fn dot(x: f32, y: f32, acc: f32) -> f32 {
    let ([x_even, x_odd], [y_even, y_odd]) = (parts(x).map(flush), parts(y).map(flush));
    let sum = flush(x_odd.mul_add(y_odd, flush(acc)));
    flush(x_even.mul_add(y_even, sum))
}

impl<const N: usize> PairSimd for Portable<N> {
    #[inline(always)]
    fn dot(self, x: [f32; N], y: [f32; N], acc: [f32; N]) -> [f32; N] {
        from_fn(|i| dot(x[i], y[i], acc[i]))
    }
    #[inline(always)]
    fn pair(self, even: [f32; N], odd: [f32; N]) -> [f32; N] {
        from_fn(|i| pair(even[i], odd[i]))
    }
    #[inline(always)]
    fn neighbours(self, low: [f32; N], high: [f32; N]) -> [f32; N] {
        let at = |i: usize| if i < N { low[i] } else { high[i - N] };
        from_fn(|i| pair(at(2 * i), at(2 * i + 1)))
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::Avx512Bf16;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::Avx512;
    use super::{Operation, PairSimd, Simd};
    use std::arch::x86_64::*;
    use std::mem::transmute;

    /// The proof that this CPU has AVX-512 with BF16.
    #[derive(Clone, Copy)]
    pub struct Avx512Bf16(Avx512);

    impl Avx512Bf16 {
        /// The token, on a CPU that has the instructions.
        pub fn new() -> Option<Self> {
            Avx512::new().filter(|_| is_x86_feature_detected!("avx512bf16")).map(Avx512Bf16)
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,popcnt")]
    fn enter<O: Operation<f32, Avx512Bf16>>(simd: Avx512Bf16, op: O) -> O::Output {
        op.run(simd)
    }

    /// Methods that are those of [`Avx512`].
    macro_rules! as_avx512 {
        ($($name:ident($($x:ident: $t:ty),*) -> $r:ty;)*) => {$(
            #[inline(always)]
            fn $name(self, $($x: $t),*) -> $r {
                Simd::<f32>::$name(self.0, $($x),*)
            }
        )*};
    }

    impl Simd<f32> for Avx512Bf16 {
        type V = __m512;
        const LANES: usize = <Avx512 as Simd<f32>>::LANES;
        const ROWS: usize = <Avx512 as Simd<f32>>::ROWS;
        const GRADIENT_ROWS: usize = <Avx512 as Simd<f32>>::GRADIENT_ROWS;
        const PANELS: usize = <Avx512 as Simd<f32>>::PANELS;

        #[inline(always)]
        fn vectorize<O: Operation<f32, Self>>(self, op: O) -> O::Output {
            // SAFETY: the token exists only where the CPU has these features.
            unsafe { enter(self, op) }
        }
        as_avx512! {
            splat(x: f32) -> __m512;
            add(a: __m512, b: __m512) -> __m512;
            sub(a: __m512, b: __m512) -> __m512;
            mul(a: __m512, b: __m512) -> __m512;
            div(a: __m512, b: __m512) -> __m512;
            sqrt(a: __m512) -> __m512;
            mul_add(a: __m512, b: __m512, c: __m512) -> __m512;
            abs(a: __m512) -> __m512;
            select_lt(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512;
            nonzero(a: __m512) -> u32;
            pow2(n: __m512) -> __m512;
            exponent(a: __m512) -> __m512;
            significand(a: __m512) -> __m512;
        }
        #[inline(always)]
        unsafe fn load(self, p: *const f32) -> __m512 {
            // SAFETY: the caller's promise is the same.
            unsafe { self.0.load(p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32, v: __m512) {
            // SAFETY: the caller's promise is the same.
            unsafe { self.0.store(p, v) }
        }
        #[inline(always)]
        unsafe fn pack(self, p: *mut f32, a: __m512, bits: u32) {
            // SAFETY: the caller's promise is the same.
            unsafe { Simd::<f32>::pack(self.0, p, a, bits) }
        }
        #[inline(always)]
        unsafe fn transpose(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize) {
            // SAFETY: the caller's promise is the same.
            unsafe { self.0.transpose(source, source_stride, target, target_stride) }
        }
    }

    impl PairSimd for Avx512Bf16 {
        #[inline(always)]
        fn dot(self, x: __m512, y: __m512, acc: __m512) -> __m512 {
            // SAFETY: the token proves AVX-512 BF16; the vectors are 64 bytes of anything.
            unsafe { _mm512_dpbf16_ps(acc, transmute::<__m512, __m512bh>(x), transmute::<__m512, __m512bh>(y)) }
        }
        #[inline(always)]
        fn pair(self, even: __m512, odd: __m512) -> __m512 {
            // SAFETY: the token proves AVX-512 BF16; the vectors are 32 bytes of anything.
            unsafe {
                let wide = |x: __m512| _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)));
                _mm512_castsi512_ps(_mm512_or_si512(wide(even), _mm512_slli_epi32::<16>(wide(odd))))
            }
        }
        #[inline(always)]
        fn neighbours(self, low: __m512, high: __m512) -> __m512 {
            // SAFETY: the token proves AVX-512 BF16; the vectors are 64 bytes of anything.
            unsafe { transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low)) }
        }
    }
}
