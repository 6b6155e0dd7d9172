//! Vectors from slices of numbers and back: one after the other, short ones, and lanes that stand apart.

use super::math::Math;
use crate::isa::Simd;

/// The most lanes of a vector.
pub(super) const MOST_LANES: usize = 16;

/// The `i`-th vector of a slice.
#[inline(always)]
pub(super) fn at<T: Math, S: Simd<T>>(s: S, x: &[T], i: usize) -> S::V {
    // SAFETY: the slice is bounds-checked and holds LANES numbers.
    unsafe { s.load(x[i * S::LANES..][..S::LANES].as_ptr()) }
}

/// Writes the `i`-th vector of a slice.
#[inline(always)]
pub(super) fn put<T: Math, S: Simd<T>>(s: S, x: &mut [T], i: usize, value: S::V) {
    // SAFETY: the slice is bounds-checked and holds LANES numbers.
    unsafe { s.store(x[i * S::LANES..][..S::LANES].as_mut_ptr(), value) }
}

/// The numbers of a slice of at most V as lanes, beyond which stand zeros.
#[inline(always)]
pub(super) fn read<T: Math, S: Simd<T>>(s: S, numbers: &[T]) -> S::V {
    read_apart(s, numbers, 1, numbers.len())
}

/// Whether the last of `count` numbers, `stride` apart, is among `len`, and a vector has at least `count` lanes.
#[inline(always)]
fn fits(count: usize, stride: usize, len: usize, lanes: usize) -> bool {
    count <= lanes && count.wrapping_sub(1).checked_mul(stride).is_some_and(|last| last < len)
}

/// So many of a slice's numbers, each `stride` behind the one before, as lanes; beyond them stand zeros.
#[inline(always)]
pub(super) fn read_apart<T: Math, S: Simd<T>>(s: S, numbers: &[T], stride: usize, count: usize) -> S::V {
    assert!(fits(count, stride, numbers.len(), S::LANES));
    // SAFETY: the last number is in the slice.
    let number = |i: usize| unsafe { *numbers.get_unchecked(i * stride) };
    const { assert!(S::LANES <= MOST_LANES) };
    let mut lanes = [T::ZERO; MOST_LANES];
    if count == S::LANES {
        // Of a constant length: the lanes then need no memory.
        let mut lanes = [T::ZERO; MOST_LANES];
        (0..S::LANES).for_each(|i| lanes[i] = number(i));
        // SAFETY: `lanes` has room for a vector.
        return unsafe { s.load(lanes.as_ptr()) };
    }
    (0..count).for_each(|i| lanes[i] = number(i));
    // SAFETY: `lanes` has room for a vector.
    unsafe { s.load(lanes.as_ptr()) }
}

/// The first lanes of a vector into a slice of at most V numbers.
#[inline(always)]
pub(super) fn write<T: Math, S: Simd<T>>(s: S, lanes: S::V, into: &mut [T]) {
    const { assert!(S::LANES <= MOST_LANES) };
    let mut numbers = [T::ZERO; MOST_LANES];
    // SAFETY: `numbers` has room for a vector, and the slice for V numbers where it is that long.
    unsafe {
        if into.len() == S::LANES {
            return s.store(into.as_mut_ptr(), lanes);
        }
        s.store(numbers.as_mut_ptr(), lanes);
    }
    into.copy_from_slice(&numbers[..into.len()]);
}

/// So many lanes into a slice, each `stride` behind the one before.
#[inline(always)]
pub(super) fn write_apart<T: Math, S: Simd<T>>(s: S, lanes: S::V, into: &mut [T], stride: usize, count: usize) {
    assert!(fits(count, stride, into.len(), S::LANES));
    const { assert!(S::LANES <= MOST_LANES) };
    let mut numbers = [T::ZERO; MOST_LANES];
    // SAFETY: `numbers` has room for a vector.
    unsafe { s.store(numbers.as_mut_ptr(), lanes) };
    // SAFETY: the last place is in the slice.
    let put = |i: usize| unsafe { *into.get_unchecked_mut(i * stride) = numbers[i] };
    if count == S::LANES { (0..S::LANES).for_each(put) } else { (0..count).for_each(put) }
}
