//! Plain Rust on arrays of `N` lanes: compilers turn four lanes into the baseline vectors of aarch64
//! and others; one lane is the scalar oracle.

use super::{Float, Operation, Simd};
use std::array::from_fn;

/// `N` lanes of anything, on any CPU.
#[derive(Clone, Copy)]
pub struct Portable<const N: usize>;

impl<T: Float, const N: usize> Simd<T> for Portable<N> {
    type V = [T; N];
    const LANES: usize = N;
    // 6 x 2 accumulators of four f32 lanes are 12 of aarch64's 32 registers, of f64 lanes 24. Larger tiles of the oracle would be
    // code for nothing.
    const ROWS: usize = if N == 1 { 2 } else { 6 };
    // Divides the panel width 2N for N = 1 and N = 4.
    const GRADIENT_ROWS: usize = if N == 1 { 2 } else { 4 };
    // More would be code for little.
    const PANELS: usize = 2;
    // aarch64's multiply-add is an instruction.
    const APART: bool = N == 1 || !cfg!(any(target_arch = "aarch64", target_feature = "fma"));

    #[inline(always)]
    fn vectorize<O: Operation<T, Self>>(self, op: O) -> O::Output {
        op.run(self)
    }
    #[inline(always)]
    fn splat(self, x: T) -> [T; N] {
        [x; N]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const T) -> [T; N] {
        // SAFETY: the caller vouches for N readable numbers; an array has the alignment of its element.
        unsafe { p.cast::<[T; N]>().read() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut T, v: [T; N]) {
        // SAFETY: the caller vouches for N writable numbers; an array has the alignment of its element.
        unsafe { p.cast::<[T; N]>().write(v) }
    }
    #[inline(always)]
    fn add(self, a: [T; N], b: [T; N]) -> [T; N] {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: [T; N], b: [T; N]) -> [T; N] {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: [T; N], b: [T; N]) -> [T; N] {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: [T; N], b: [T; N]) -> [T; N] {
        from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn sqrt(self, a: [T; N]) -> [T; N] {
        a.map(T::sqrt)
    }
    #[inline(always)]
    fn mul_add(self, a: [T; N], b: [T; N], c: [T; N]) -> [T; N] {
        from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn abs(self, a: [T; N]) -> [T; N] {
        a.map(T::abs)
    }
    #[inline(always)]
    fn select_lt(self, a: [T; N], b: [T; N], yes: [T; N], no: [T; N]) -> [T; N] {
        from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn nonzero(self, a: [T; N]) -> u32 {
        (0..N).map(|i| u32::from(a[i] != T::ZERO) << i).sum()
    }
    #[inline(always)]
    unsafe fn pack(self, p: *mut T, a: [T; N], bits: u32) {
        let mut n = 0;
        for (i, x) in a.into_iter().enumerate() {
            // SAFETY: n counts the set bits below i, which is below N; the caller vouches for N writable numbers.
            unsafe { *p.add(n) = x };
            n += (bits >> i & 1) as usize;
        }
    }
    #[inline(always)]
    fn pow2(self, n: [T; N]) -> [T; N] {
        n.map(T::pow2)
    }
    #[inline(always)]
    fn exponent(self, a: [T; N]) -> [T; N] {
        a.map(T::exponent)
    }
    #[inline(always)]
    fn significand(self, a: [T; N]) -> [T; N] {
        a.map(T::significand)
    }
    #[inline(always)]
    unsafe fn transpose(self, source: *const T, source_stride: usize, target: *mut T, target_stride: usize) {
        for r in 0..N {
            for c in 0..N {
                // SAFETY: r and c are below N; the caller vouches for N rows of N numbers on both sides.
                unsafe { *target.add(c * target_stride + r) = *source.add(r * source_stride + c) };
            }
        }
    }
}
