//! The kernel of `dots.rs` against the naive loop in the promised order, with equal bits on every instruction set.

use super::tests::{JUNK, each_isa, matrix, number, padding_is_zero};
use super::*;

/// Partial sums block by block, halves added to halves, and the bias.
fn strided<T: Number>(bias: T, depth: usize, term: impl Fn(usize) -> (T, T)) -> T {
    let q = dots::partials::<T>();
    let mut partials = vec![T::ZERO; q];
    let block = dots::block::<T>();
    for first in (0..depth).step_by(block) {
        for (i, partial) in partials.iter_mut().enumerate() {
            let inputs = (first + i..(first + block).min(depth)).step_by(q);
            let sum = inputs.map(&term).fold(T::ZERO, |sum, (a, b)| a.mul_add(b, sum));
            *partial = if first == 0 { sum } else { *partial + sum };
        }
    }
    for half in [8, 4, 2, 1].into_iter().filter(|half| 2 * half <= q) {
        (0..half).for_each(|i| partials[i] = partials[i] + partials[i + half]);
    }
    partials[0] + bias
}

fn check_dots<T: Number>(rows: usize, depth: usize, units: usize) {
    each_isa::<T>(|kernels, isa| {
        let geometry = kernels.geometry();
        let (a, b) = (matrix::<T>(rows, depth, 1, geometry), matrix::<T>(units, depth, 2, geometry));
        let bias: Vec<T> = (0..units).map(|j| number(j, 0, 3)).collect();
        let mut c = Panels::zeroed(rows, units, geometry, "test").unwrap();
        c.data_mut().fill(T::from_f64(JUNK));
        let mut scratch = vec![T::from_f64(JUNK); dots::scratch::<T>(rows, units)];
        kernels.dots(&mut Dots { a: a.view(), b: b.view(), bias: &bias, scratch: &mut scratch, c: c.view_mut() });
        for (r, j) in (0..rows).flat_map(|r| (0..units).map(move |j| (r, j))) {
            let wanted = strided(bias[j], depth, |k| (a.get(r, k), b.get(j, k)));
            assert_eq!(c.get(r, j), wanted, "{isa:?} {rows}x{depth}x{units} at ({r}, {j})");
        }
        padding_is_zero(&c);
    });
}

#[test]
fn dots_equal_the_naive_loop_around_every_tile_edge() {
    for rows in [1, 2, 3, 5, 6, 7, 12, 13] {
        for units in [1, 2, 3, 4, 5, 7, 8, 17, 33] {
            check_dots::<f32>(rows, 70, units);
            check_dots::<f64>(rows, 41, units);
        }
    }
    for depth in [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65] {
        for (rows, units) in [(7, 5), (1, 1), (13, 1), (25, 1)] {
            check_dots::<f32>(rows, depth, units);
            check_dots::<f64>(rows, depth, units);
        }
    }
    check_blocks::<f32>();
    check_blocks::<f64>();
}

fn check_blocks<T: Number>() {
    let block = dots::block::<T>();
    for rows in [119, 120, 121, 247] {
        check_dots::<T>(rows, block + 3, 3);
        check_dots::<T>(rows, 41, 18);
        check_dots::<T>(rows, 41, 1);
    }
    for depth in [block - 1, block, block + 1, 2 * block + 20, 3 * block] {
        check_dots::<T>(8, depth, 3);
        check_dots::<T>(13, depth, 1);
    }
}
