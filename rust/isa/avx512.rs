//! AVX-512 (F, BW, DQ, VL): 16 lanes of f32, 8 of f64, 32 registers.

use super::{Operation, Simd};
use std::arch::x86_64::*;

/// The proof that this CPU has AVX-512 F, BW, DQ, VL, FMA and POPCNT.
#[derive(Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// The token, on a CPU that has the instructions.
    pub fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("popcnt");
        has.then_some(Avx512(()))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,popcnt")]
fn enter<T, O: Operation<T, Avx512>>(simd: Avx512, op: O) -> O::Output {
    op.run(simd)
}

/// What f32 and f64 share, by the suffix of the intrinsics.
macro_rules! common {
    ($t:ident, $v:ident, $set1:ident, $loadu:ident, $storeu:ident, $add:ident, $sub:ident, $mul:ident, $div:ident,
     $sqrt:ident, $fmadd:ident, $abs:ident, $cmp:ident, $blend:ident,
     $compress:ident, $mask:ident) => {
        type V = $v;
        const LANES: usize = 64 / size_of::<$t>();
        // 12 x 2 accumulators + 2 vectors + 1 broadcast = 27 of 32 registers.
        const ROWS: usize = 12;
        // 8 x 2 accumulators; 8 divides both panel widths (32 and 16).
        const GRADIENT_ROWS: usize = 8;
        // 7 x 2 accumulators hide the latency of the multipliers; more would not be faster.
        const PANELS: usize = 7;

        #[inline(always)]
        fn vectorize<O: Operation<$t, Self>>(self, op: O) -> O::Output {
            // SAFETY: the token exists only where the CPU has these features.
            unsafe { enter(self, op) }
        }
        #[inline(always)]
        fn splat(self, x: $t) -> $v {
            // SAFETY: the token proves AVX-512.
            unsafe { $set1(x) }
        }
        #[inline(always)]
        unsafe fn load(self, p: *const $t) -> $v {
            // SAFETY: the token proves AVX-512; the caller vouches for `p`.
            unsafe { $loadu(p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut $t, v: $v) {
            // SAFETY: the token proves AVX-512; the caller vouches for `p`.
            unsafe { $storeu(p, v) }
        }
        #[inline(always)]
        fn add(self, a: $v, b: $v) -> $v {
            // SAFETY: the token proves AVX-512.
            unsafe { $add(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: $v, b: $v) -> $v {
            // SAFETY: the token proves AVX-512.
            unsafe { $sub(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: $v, b: $v) -> $v {
            // SAFETY: the token proves AVX-512.
            unsafe { $mul(a, b) }
        }
        #[inline(always)]
        fn div(self, a: $v, b: $v) -> $v {
            // SAFETY: the token proves AVX-512.
            unsafe { $div(a, b) }
        }
        #[inline(always)]
        fn sqrt(self, a: $v) -> $v {
            // SAFETY: the token proves AVX-512.
            unsafe { $sqrt(a) }
        }
        #[inline(always)]
        fn mul_add(self, a: $v, b: $v, c: $v) -> $v {
            // SAFETY: the token proves AVX-512.
            unsafe { $fmadd(a, b, c) }
        }
        #[inline(always)]
        fn abs(self, a: $v) -> $v {
            // SAFETY: the token proves AVX-512.
            unsafe { $abs(a) }
        }
        #[inline(always)]
        fn select_lt(self, a: $v, b: $v, yes: $v, no: $v) -> $v {
            // SAFETY: the token proves AVX-512.
            unsafe { $blend($cmp::<_CMP_LT_OQ>(a, b), no, yes) }
        }
        #[inline(always)]
        fn nonzero(self, a: $v) -> u32 {
            // SAFETY: the token proves AVX-512.
            unsafe { u32::from($cmp::<_CMP_NEQ_UQ>(a, $set1(0.0))) }
        }
        #[inline(always)]
        unsafe fn pack(self, p: *mut $t, a: $v, bits: u32) {
            // Packed in a register: some CPUs take a hundred cycles to do it on the way to memory.
            // SAFETY: the token proves AVX-512; the caller vouches for `p`.
            unsafe { $storeu(p, $compress(bits as $mask, a)) }
        }
    };
}

impl Simd<f32> for Avx512 {
    common!(
        f32,
        __m512,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        _mm512_div_ps,
        _mm512_sqrt_ps,
        _mm512_fmadd_ps,
        _mm512_abs_ps,
        _mm512_cmp_ps_mask,
        _mm512_mask_blend_ps,
        _mm512_maskz_compress_ps,
        __mmask16
    );

    #[inline(always)]
    fn pow2(self, n: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    fn exponent(self, a: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let biased = _mm512_srli_epi32::<23>(_mm512_castps_si512(a));
            _mm512_cvtepi32_ps(_mm512_sub_epi32(biased, _mm512_set1_epi32(127)))
        }
    }
    #[inline(always)]
    fn significand(self, a: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let low = _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x007f_ffff));
            _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_set1_epi32(0x3f80_0000)))
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize) {
        // Quarter rows are loaded so that each register already holds one column group of four rows
        // (r, r+4, r+8, r+12 stand in its four 128-bit lanes); two rounds of in-lane shuffles finish it.
        // SAFETY: the token proves AVX-512; the caller vouches for 16 rows of 16 numbers on both sides.
        unsafe {
            for group in 0..4 {
                let quarter = |r: usize| {
                    let at = |q: usize| _mm_loadu_ps(source.add((r + 4 * q) * source_stride + 4 * group));
                    let v = _mm512_castps128_ps512(at(0));
                    let v = _mm512_insertf32x4::<1>(v, at(1));
                    let v = _mm512_insertf32x4::<2>(v, at(2));
                    _mm512_insertf32x4::<3>(v, at(3))
                };
                let (r0, r1, r2, r3) = (quarter(0), quarter(1), quarter(2), quarter(3));
                let low01 = _mm512_castps_pd(_mm512_unpacklo_ps(r0, r1));
                let low23 = _mm512_castps_pd(_mm512_unpacklo_ps(r2, r3));
                let high01 = _mm512_castps_pd(_mm512_unpackhi_ps(r0, r1));
                let high23 = _mm512_castps_pd(_mm512_unpackhi_ps(r2, r3));
                let columns = [
                    _mm512_unpacklo_pd(low01, low23),
                    _mm512_unpackhi_pd(low01, low23),
                    _mm512_unpacklo_pd(high01, high23),
                    _mm512_unpackhi_pd(high01, high23),
                ];
                for (c, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_ps(target.add((4 * group + c) * target_stride), _mm512_castpd_ps(column));
                }
            }
        }
    }
}

impl Simd<f64> for Avx512 {
    common!(
        f64,
        __m512d,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_add_pd,
        _mm512_sub_pd,
        _mm512_mul_pd,
        _mm512_div_pd,
        _mm512_sqrt_pd,
        _mm512_fmadd_pd,
        _mm512_abs_pd,
        _mm512_cmp_pd_mask,
        _mm512_mask_blend_pd,
        _mm512_maskz_compress_pd,
        __mmask8
    );

    #[inline(always)]
    fn pow2(self, n: __m512d) -> __m512d {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let biased = _mm512_add_epi64(_mm512_cvtpd_epi64(n), _mm512_set1_epi64(1023));
            _mm512_castsi512_pd(_mm512_slli_epi64::<52>(biased))
        }
    }
    #[inline(always)]
    fn exponent(self, a: __m512d) -> __m512d {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let biased = _mm512_srli_epi64::<52>(_mm512_castpd_si512(a));
            _mm512_cvtepi64_pd(_mm512_sub_epi64(biased, _mm512_set1_epi64(1023)))
        }
    }
    #[inline(always)]
    fn significand(self, a: __m512d) -> __m512d {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let low = _mm512_and_si512(_mm512_castpd_si512(a), _mm512_set1_epi64(0x000f_ffff_ffff_ffff));
            _mm512_castsi512_pd(_mm512_or_si512(low, _mm512_set1_epi64(0x3ff0_0000_0000_0000)))
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, source: *const f64, source_stride: usize, target: *mut f64, target_stride: usize) {
        // As for f32: pairs of columns, rows r, r+2, r+4, r+6 in the four lanes.
        // SAFETY: the token proves AVX-512; the caller vouches for 8 rows of 8 numbers on both sides.
        unsafe {
            for group in 0..4 {
                let quarter = |r: usize| {
                    let at = |q: usize| _mm_loadu_pd(source.add((r + 2 * q) * source_stride + 2 * group));
                    let v = _mm512_castpd128_pd512(at(0));
                    let v = _mm512_insertf64x2::<1>(v, at(1));
                    let v = _mm512_insertf64x2::<2>(v, at(2));
                    _mm512_insertf64x2::<3>(v, at(3))
                };
                let (r0, r1) = (quarter(0), quarter(1));
                _mm512_storeu_pd(target.add(2 * group * target_stride), _mm512_unpacklo_pd(r0, r1));
                _mm512_storeu_pd(target.add((2 * group + 1) * target_stride), _mm512_unpackhi_pd(r0, r1));
            }
        }
    }
}
