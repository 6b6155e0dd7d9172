//! AVX2 and FMA: 8 lanes of f32, 4 of f64, 16 registers.

use super::{Operation, SET_BITS, Simd};
use std::arch::x86_64::*;

/// The proof that this CPU has AVX2, FMA and POPCNT.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// The token, on a CPU that has the instructions.
    pub fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("popcnt"))
            .then_some(Avx2(()))
    }
}

/// The halves of the numbers whose bits are set.
static SET_HALVES: [[u16; 8]; 16] = {
    let mut halves = [[0; 8]; 16];
    let mut bits = 0;
    while bits < halves.len() {
        let mut n = 0;
        while n < 4 {
            let place = SET_BITS[bits][n];
            (halves[bits][2 * n], halves[bits][2 * n + 1]) = (2 * place, 2 * place + 1);
            n += 1;
        }
        bits += 1;
    }
    halves
};

#[target_feature(enable = "avx2,fma,popcnt")]
fn enter<T, O: Operation<T, Avx2>>(simd: Avx2, op: O) -> O::Output {
    op.run(simd)
}

/// What f32 and f64 share, by the suffix of the intrinsics.
macro_rules! common {
    ($t:ident, $v:ident, $set1:ident, $loadu:ident, $storeu:ident, $add:ident, $sub:ident, $mul:ident, $div:ident,
     $sqrt:ident, $fmadd:ident, $and:ident, $andnot:ident, $cmp:ident, $blendv:ident, $movemask:ident) => {
        type V = $v;
        const LANES: usize = 32 / size_of::<$t>();
        // 6 x 2 accumulators + 2 vectors + 1 broadcast = 15 of 16 registers.
        const ROWS: usize = 6;
        // A panel of 16 f32 is 6 + 6 + 4 rows, one of 8 f64 4 + 4: 4 x 2 accumulators just cover the latency of two FMA
        // units, and 2 x 2, what 6 would leave of 8, do not.
        const GRADIENT_ROWS: usize = if size_of::<$t>() == 4 { 6 } else { 4 };
        // 7 x 2 accumulators + 1 broadcast = 15 of 16 registers.
        const PANELS: usize = 7;
        const UNROLL: usize = 4;

        #[inline(always)]
        fn vectorize<O: Operation<$t, Self>>(self, op: O) -> O::Output {
            // SAFETY: the token exists only where the CPU has these features.
            unsafe { enter(self, op) }
        }
        #[inline(always)]
        fn splat(self, x: $t) -> $v {
            // SAFETY: the token proves AVX2.
            unsafe { $set1(x) }
        }
        #[inline(always)]
        unsafe fn load(self, p: *const $t) -> $v {
            // SAFETY: the token proves AVX2; the caller vouches for `p`.
            unsafe { $loadu(p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut $t, v: $v) {
            // SAFETY: the token proves AVX2; the caller vouches for `p`.
            unsafe { $storeu(p, v) }
        }
        #[inline(always)]
        fn add(self, a: $v, b: $v) -> $v {
            // SAFETY: the token proves AVX2.
            unsafe { $add(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: $v, b: $v) -> $v {
            // SAFETY: the token proves AVX2.
            unsafe { $sub(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: $v, b: $v) -> $v {
            // SAFETY: the token proves AVX2.
            unsafe { $mul(a, b) }
        }
        #[inline(always)]
        fn div(self, a: $v, b: $v) -> $v {
            // SAFETY: the token proves AVX2.
            unsafe { $div(a, b) }
        }
        #[inline(always)]
        fn sqrt(self, a: $v) -> $v {
            // SAFETY: the token proves AVX2.
            unsafe { $sqrt(a) }
        }
        #[inline(always)]
        fn mul_add(self, a: $v, b: $v, c: $v) -> $v {
            // SAFETY: the token proves AVX2 and FMA.
            unsafe { $fmadd(a, b, c) }
        }
        #[inline(always)]
        fn abs(self, a: $v) -> $v {
            // SAFETY: the token proves AVX2.
            unsafe { $andnot($set1(-0.0), a) }
        }
        #[inline(always)]
        fn select_lt(self, a: $v, b: $v, yes: $v, no: $v) -> $v {
            // SAFETY: the token proves AVX2.
            unsafe { $blendv(no, yes, $cmp::<_CMP_LT_OQ>(a, b)) }
        }
        // Of a selection with a zero the compiler makes three instructions, since it does not know that a mask is all bits or none.
        #[inline(always)]
        fn keep_lt(self, a: $v, b: $v, x: $v) -> $v {
            // SAFETY: the token proves AVX2.
            unsafe { $and($cmp::<_CMP_LT_OQ>(a, b), x) }
        }
        #[inline(always)]
        fn clear_lt(self, a: $v, b: $v, x: $v) -> $v {
            // SAFETY: the token proves AVX2.
            unsafe { $andnot($cmp::<_CMP_LT_OQ>(a, b), x) }
        }
        #[inline(always)]
        fn nonzero(self, a: $v) -> u32 {
            // SAFETY: the token proves AVX2.
            unsafe { $movemask($cmp::<_CMP_NEQ_UQ>(a, $set1(0.0))) as u32 }
        }
    };
}

impl Simd<f32> for Avx2 {
    common!(
        f32,
        __m256,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_div_ps,
        _mm256_sqrt_ps,
        _mm256_fmadd_ps,
        _mm256_and_ps,
        _mm256_andnot_ps,
        _mm256_cmp_ps,
        _mm256_blendv_ps,
        _mm256_movemask_ps
    );

    #[inline(always)]
    unsafe fn pack(self, p: *mut f32, a: __m256, bits: u32) {
        // SAFETY: the token proves AVX2; a row of the table is sixteen bytes, and the caller vouches for `p`.
        unsafe {
            let set = _mm_loadu_si128(SET_BITS[bits as usize & 0xff].as_ptr().cast());
            _mm256_storeu_ps(p, _mm256_permutevar8x32_ps(a, _mm256_cvtepu16_epi32(set)));
        }
    }
    #[inline(always)]
    fn pow2(self, n: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    fn exponent(self, a: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe {
            let biased = _mm256_srli_epi32::<23>(_mm256_castps_si256(a));
            _mm256_cvtepi32_ps(_mm256_sub_epi32(biased, _mm256_set1_epi32(127)))
        }
    }
    #[inline(always)]
    fn significand(self, a: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe {
            let low = _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x007f_ffff));
            _mm256_castsi256_ps(_mm256_or_si256(low, _mm256_set1_epi32(0x3f80_0000)))
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize) {
        // Rows r and r+4 stand in the two 128-bit lanes; two rounds of in-lane shuffles finish four columns.
        // SAFETY: the token proves AVX2; the caller vouches for 8 rows of 8 numbers on both sides.
        unsafe {
            for group in 0..2 {
                let half = |r: usize| {
                    let at = |q: usize| _mm_loadu_ps(source.add((r + 4 * q) * source_stride + 4 * group));
                    _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(at(0)), at(1))
                };
                let (r0, r1, r2, r3) = (half(0), half(1), half(2), half(3));
                let low01 = _mm256_castps_pd(_mm256_unpacklo_ps(r0, r1));
                let low23 = _mm256_castps_pd(_mm256_unpacklo_ps(r2, r3));
                let high01 = _mm256_castps_pd(_mm256_unpackhi_ps(r0, r1));
                let high23 = _mm256_castps_pd(_mm256_unpackhi_ps(r2, r3));
                let columns = [
                    _mm256_unpacklo_pd(low01, low23),
                    _mm256_unpackhi_pd(low01, low23),
                    _mm256_unpacklo_pd(high01, high23),
                    _mm256_unpackhi_pd(high01, high23),
                ];
                for (c, column) in columns.into_iter().enumerate() {
                    _mm256_storeu_ps(target.add((4 * group + c) * target_stride), _mm256_castpd_ps(column));
                }
            }
        }
    }
}

impl Simd<f64> for Avx2 {
    common!(
        f64,
        __m256d,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_add_pd,
        _mm256_sub_pd,
        _mm256_mul_pd,
        _mm256_div_pd,
        _mm256_sqrt_pd,
        _mm256_fmadd_pd,
        _mm256_and_pd,
        _mm256_andnot_pd,
        _mm256_cmp_pd,
        _mm256_blendv_pd,
        _mm256_movemask_pd
    );

    #[inline(always)]
    unsafe fn pack(self, p: *mut f64, a: __m256d, bits: u32) {
        // A number is two of the lanes that the permutation knows.
        // SAFETY: the token proves AVX2; a row of the table is sixteen bytes, and the caller vouches for `p`.
        unsafe {
            let set = _mm_loadu_si128(SET_HALVES[bits as usize & 0xf].as_ptr().cast());
            let halves = _mm256_permutevar8x32_ps(_mm256_castpd_ps(a), _mm256_cvtepu16_epi32(set));
            _mm256_storeu_pd(p, _mm256_castps_pd(halves));
        }
    }
    #[inline(always)]
    fn pow2(self, n: __m256d) -> __m256d {
        // SAFETY: the token proves AVX2.
        unsafe {
            let whole = _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(n));
            let biased = _mm256_add_epi64(whole, _mm256_set1_epi64x(1023));
            _mm256_castsi256_pd(_mm256_slli_epi64::<52>(biased))
        }
    }
    #[inline(always)]
    fn exponent(self, a: __m256d) -> __m256d {
        // AVX2 has no conversion from 64-bit integers: the biased exponent is set into the low bits of
        // 2^52, whose subtraction is exact.
        // SAFETY: the token proves AVX2.
        unsafe {
            let magic = _mm256_set1_pd(4_503_599_627_370_496.0);
            let biased = _mm256_srli_epi64::<52>(_mm256_castpd_si256(a));
            let shifted = _mm256_castsi256_pd(_mm256_or_si256(biased, _mm256_castpd_si256(magic)));
            _mm256_sub_pd(_mm256_sub_pd(shifted, magic), _mm256_set1_pd(1023.0))
        }
    }
    #[inline(always)]
    fn significand(self, a: __m256d) -> __m256d {
        // SAFETY: the token proves AVX2.
        unsafe {
            let low = _mm256_and_si256(_mm256_castpd_si256(a), _mm256_set1_epi64x(0x000f_ffff_ffff_ffff));
            _mm256_castsi256_pd(_mm256_or_si256(low, _mm256_set1_epi64x(0x3ff0_0000_0000_0000)))
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, source: *const f64, source_stride: usize, target: *mut f64, target_stride: usize) {
        // SAFETY: the token proves AVX2; the caller vouches for 4 rows of 4 numbers on both sides.
        unsafe {
            for group in 0..2 {
                let half = |r: usize| {
                    let at = |q: usize| _mm_loadu_pd(source.add((r + 2 * q) * source_stride + 2 * group));
                    _mm256_insertf128_pd::<1>(_mm256_castpd128_pd256(at(0)), at(1))
                };
                let (r0, r1) = (half(0), half(1));
                _mm256_storeu_pd(target.add(2 * group * target_stride), _mm256_unpacklo_pd(r0, r1));
                _mm256_storeu_pd(target.add((2 * group + 1) * target_stride), _mm256_unpackhi_pd(r0, r1));
            }
        }
    }
}
