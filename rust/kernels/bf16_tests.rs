//! Mixed precision against loops over plain matrices with the oracle's `dot`, on AVX-512 BF16 and in plain Rust.

use super::super::{Finish, INPUT_SEGMENT, Pair, Start, dots};
use super::*;
use crate::activation::Activation;
use crate::isa::Portable;
use crate::isa::bf16::{dot, pair, parts};
use crate::panel::{Geometry, Panels};

const JUNK: f32 = 77.0;

fn each(mut test: impl FnMut(&dyn PairKernels<f32>, Geometry)) {
    test(&On(Portable::<4>), Geometry { lanes: 4 });
    // The tiles of AVX-512.
    test(&On(Portable::<16>), Geometry { lanes: 16 });
    #[cfg(target_arch = "x86_64")]
    match crate::isa::bf16::Avx512Bf16::new() {
        Some(token) => test(&On(token), Geometry { lanes: 16 }),
        None => println!("AVX-512 BF16: not on this CPU, skipped"),
    }
}

pub fn number(i: usize, j: usize, salt: usize) -> f32 {
    let mixed = (i * 7919 + j * 104_729 + salt * 1_299_709).wrapping_mul(2_654_435_761) >> 7;
    (mixed % 200_003) as f32 / 100_000.0 - 1.0
}

pub fn matrix(rows: usize, lanes: usize, salt: usize, geometry: Geometry) -> Panels<f32> {
    let mut panels = Panels::zeroed(rows, lanes, geometry, "test").unwrap();
    (0..rows).for_each(|r| (0..lanes).for_each(|c| panels.set(r, c, number(r, c, salt))));
    panels
}

/// The two forms of a matrix: rows, pairs.
fn packed(kernels: &dyn PairKernels<f32>, source: &Panels<f32>) -> [Panels<f32>; 2] {
    packed_as(kernels, source, false)
}

/// The same, with the pairs turned or not.
pub fn packed_as(kernels: &dyn PairKernels<f32>, source: &Panels<f32>, turned: bool) -> [Panels<f32>; 2] {
    let geometry = source.geometry();
    let half = Geometry { lanes: geometry.lanes / 2 };
    let mut rows = Panels::zeroed(source.rows(), source.lanes().div_ceil(2), half, "test").unwrap();
    let mut pairs = Panels::zeroed(source.rows().div_ceil(2), source.lanes(), geometry, "test").unwrap();
    rows.data_mut().fill(JUNK);
    pairs.data_mut().fill(JUNK);
    for p in 0..source.panels() {
        let (width, rows, pairs) = (source.width(p), rows.panel_mut(p), pairs.panel_mut(p));
        let lanes = width.min(source.lanes() - p * geometry.panel());
        kernels.pack(&mut Pack { source: source.panel(p), width, lanes, rows, pairs, turned });
    }
    [rows, pairs]
}

#[test]
fn both_forms_hold_the_nearest_numbers() {
    each(|kernels, geometry| {
        for (m, n) in [(1, 1), (2, 2), (5, 7), (4, 16), (7, 33), (3, 49)] {
            let source = matrix(m, n, 1, geometry);
            let mut stained = matrix(m, n, 1, geometry);
            stained.data_mut().fill(f32::NAN);
            (0..m).for_each(|r| (0..n).for_each(|c| stained.set(r, c, number(r, c, 1))));
            let [_, pairs] = packed(kernels, &source);
            let [rows, _] = packed(kernels, &stained);
            let at = |r: usize, c: usize| if r < m && c < n { number(r, c, 1) } else { 0.0 };
            for (r, c) in (0..m).flat_map(|r| (0..n.div_ceil(2)).map(move |c| (r, c))) {
                assert_eq!(rows.get(r, c).to_bits(), pair(at(r, 2 * c), at(r, 2 * c + 1)).to_bits(), "{m}x{n}");
            }
            for (r, c) in (0..m.div_ceil(2)).flat_map(|r| (0..n).map(move |c| (r, c))) {
                assert_eq!(pairs.get(r, c).to_bits(), pair(at(2 * r, c), at(2 * r + 1, c)).to_bits(), "{m}x{n}");
            }
        }
    });
}

#[test]
fn rounding_is_to_the_nearest_and_drops_subnormal_numbers() {
    assert_eq!(parts(pair(1.0, -2.5)), [1.0, -2.5]);
    // Ties go to the even number: 1 + 2^-8 is halfway between 1 and 1 + 2^-7.
    assert_eq!(parts(pair(1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0)), [1.0, 1.015625]);
    assert_eq!(parts(pair(f32::from_bits(3), -0.0))[0], 0.0);
    assert_eq!(parts(pair(f32::MAX, f32::NEG_INFINITY)), [f32::INFINITY, f32::NEG_INFINITY]);
    assert!(parts(pair(f32::NAN, 0.0))[0].is_nan());
    each(|kernels, geometry| {
        let special = [f32::from_bits(3), -f32::MIN_POSITIVE / 2.0, f32::MAX, f32::INFINITY, -0.0, 1.0 + 1.0 / 256.0];
        let mut source = Panels::zeroed(1, 6, geometry, "test").unwrap();
        (0..6).for_each(|c| source.set(0, c, special[c]));
        let [rows, _] = packed(kernels, &source);
        for c in 0..3 {
            assert_eq!(rows.get(0, c).to_bits(), pair(special[2 * c], special[2 * c + 1]).to_bits());
        }
    });
}

/// A chain of pairs in segments, as the kernels promise it.
fn chain(start: f32, depth: usize, segment: usize, term: impl Fn(usize) -> (f32, f32)) -> f32 {
    let mut total = 0.0;
    for first in (0..depth).step_by(segment) {
        let begin = if first == 0 { start } else { 0.0 };
        let sum = (first..(first + segment).min(depth)).fold(begin, |sum, k| {
            let (x, y) = term(k);
            dot(x, y, sum)
        });
        total = if first == 0 { sum } else { total + sum };
    }
    total
}

/// Weights `(inputs, outputs)` in the forms of forward (a buffer a panel) and of backward data (one buffer).
pub fn reflected(kernels: &dyn PairKernels<f32>, weights: &Panels<f32>) -> (Vec<Vec<f32>>, Vec<f32>, usize) {
    let (geometry, inputs) = (weights.geometry(), weights.rows());
    let (panel, stride) = (geometry.panel(), geometry.panel() / 2 * geometry.padded(inputs));
    let mut mirrors = vec![0.0; stride * weights.panels()];
    let mut forwards = Vec::new();
    for p in 0..weights.panels() {
        let width = weights.width(p);
        let mut forward = vec![JUNK; inputs.div_ceil(2) * width];
        for row in (0..inputs).step_by(panel) {
            let rows = panel.min(inputs - row);
            let mirror_width = geometry.width(inputs, row / panel);
            let begin = p * stride + row * panel / 2;
            kernels.reflect(&mut PairMirror {
                weights: &weights.panel(p)[row * width..(row + rows) * width],
                rows,
                width,
                forward: &mut forward[row / 2 * width..][..rows.div_ceil(2) * width],
                mirror: &mut mirrors[begin..begin + width / 2 * mirror_width],
                mirror_width,
            });
        }
        forwards.push(forward);
    }
    (forwards, mirrors, stride)
}

fn check_products(m: usize, inputs: usize, outputs: usize, block: usize) {
    each(|kernels, geometry| {
        let panel = geometry.panel();
        let weights = matrix(inputs, outputs, 2, geometry);
        let (forwards, mirrors, stride) = reflected(kernels, &weights);
        let run = |a: &Panels<f32>, lanes: usize, b: &dyn Fn(usize) -> (Vec<f32>, usize)| {
            let mut c = Panels::<f32>::zeroed(m, lanes, geometry, "test").unwrap();
            let mut totals = vec![0.0; if a.lanes() > INPUT_SEGMENT / 2 { m * panel } else { 0 }];
            for p in 0..c.panels() {
                let (width, (b, b_stride)) = (c.width(p), b(p));
                for begin in (0..a.lanes()).step_by(block) {
                    let totals = if totals.is_empty() { &mut [][..] } else { &mut totals[..m * width] };
                    kernels.product(&mut Product {
                        a: a.view(),
                        b: &b,
                        b_stride,
                        depth: begin..(begin + block).min(a.lanes()),
                        start: Start::Zero,
                        finish: Finish::Apply(Activation::Identity),
                        totals,
                        c: c.panel_mut(p),
                        width,
                        lanes: width,
                    });
                }
            }
            c
        };
        let at = |i: usize, j: usize| if i < inputs && j < outputs { number(i, j, 2) } else { 0.0 };
        let [a, _] = packed(kernels, &matrix(m, inputs, 1, geometry));
        let z = run(&a, outputs, &|p| (forwards[p].clone(), panel / 2 * weights.width(p)));
        for (r, j) in (0..m).flat_map(|r| (0..outputs).map(move |j| (r, j))) {
            let term = |k: usize| (a.get(r, k), pair(at(2 * k, j), at(2 * k + 1, j)));
            assert_eq!(z.get(r, j), chain(0.0, a.lanes(), INPUT_SEGMENT / 2, term), "{m} {inputs} {outputs}");
        }
        let [d, _] = packed(kernels, &matrix(m, outputs, 3, geometry));
        let back = run(&d, inputs, &|p| (mirrors[p * panel * panel / 2..].to_vec(), stride));
        for (r, i) in (0..m).flat_map(|r| (0..inputs).map(move |i| (r, i))) {
            let term = |k: usize| (d.get(r, k), pair(at(i, 2 * k), at(i, 2 * k + 1)));
            assert_eq!(back.get(r, i), chain(0.0, d.lanes(), INPUT_SEGMENT / 2, term), "{m} {inputs} {outputs}");
        }
    });
}

#[test]
fn products_equal_the_oracle() {
    for m in [1, 2, 3, 5, 11, 12, 13] {
        for (inputs, outputs) in [(1, 1), (2, 3), (15, 16), (17, 33), (31, 5), (40, 49), (65, 32)] {
            check_products(m, inputs, outputs, 16);
            check_products(m, inputs, outputs, 65536);
        }
    }
}

#[test]
fn sums_longer_than_a_segment_add_their_segments_in_order() {
    check_products(3, INPUT_SEGMENT + 3, 2, INPUT_SEGMENT / 2);
    check_products(2, 2, INPUT_SEGMENT + 40, INPUT_SEGMENT / 4);
}

#[test]
fn gradients_equal_the_oracle() {
    each(|kernels, geometry| {
        for slices in [&[1][..], &[2, 4, 1], &[6, 3], &[20]] {
            for (units, lanes) in [(1, 1), (5, 3), (17, 16), (33, 20), (9, 40)] {
                let all = |lanes: usize, salt: usize| -> Vec<Panels<f32>> {
                    let of = |(i, &m): (usize, &usize)| {
                        let [_, pairs] = packed(kernels, &matrix(m, lanes, salt + i, geometry));
                        pairs
                    };
                    slices.iter().enumerate().map(of).collect()
                };
                let (a, b) = (all(units, 10), all(lanes, 50));
                let pairs: Vec<Pair<'_, f32>> = (0..slices.len())
                    .map(|i| Pair { a: a[i].view(), b: b[i].view(), opens: i == 0, nonzeros: None, turned: false })
                    .collect();
                let panel = geometry.panel();
                for (p, q) in (0..geometry.panels(lanes)).flat_map(|p| (0..geometry.panels(units)).map(move |q| (p, q)))
                {
                    let (rows, width) = (panel.min(units - q * panel), geometry.width(lanes, p));
                    let mut c = vec![JUNK; (rows + 1) * width];
                    kernels.gradient(&mut Gradient {
                        pairs: &pairs,
                        row_panels: q..q + 1,
                        lane_panels: p..p + 1,
                        goes_on: false,
                        bias: true,
                        c: &mut c,
                    });
                    for (r, j) in (0..=rows).flat_map(|r| (0..width.min(lanes - p * panel)).map(move |j| (r, j))) {
                        let mut wanted = 0.0;
                        for (a, b) in a.iter().zip(&b) {
                            for k in 0..b.rows() {
                                let one = f32::from_bits(0x3f80_3f80);
                                let x = if r < rows { a.get(k, q * panel + r) } else { one };
                                wanted = dot(x, b.get(k, p * panel + j), wanted);
                            }
                        }
                        assert_eq!(c[r * width + j], wanted, "{slices:?} {units}x{lanes} ({r}, {j})");
                    }
                }
            }
        }
    });
}

/// An element of [`Dots`] of pairs, as the kernel promises it.
fn strided(bias: f32, depth: usize, term: impl Fn(usize) -> (f32, f32)) -> f32 {
    let (q, block) = (dots::partials::<f32>(), dots::block::<f32>());
    let mut partials = vec![0.0; q];
    for first in (0..depth).step_by(block) {
        for (i, partial) in partials.iter_mut().enumerate() {
            let pairs = (first + i..(first + block).min(depth)).step_by(q);
            let sum = pairs.map(&term).fold(0.0, |sum, (x, y)| dot(x, y, sum));
            *partial = if first == 0 { sum } else { *partial + sum };
        }
    }
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|i| partials[i] += partials[i + half]);
    }
    partials[0] + bias
}

fn check_dots(m: usize, inputs: usize, units: usize) {
    each(|kernels, geometry| {
        let [a, _] = packed(kernels, &matrix(m, inputs, 1, geometry));
        let [b, _] = packed(kernels, &matrix(units, inputs, 2, geometry));
        let bias: Vec<f32> = (0..units).map(|j| number(j, 0, 3)).collect();
        let mut c = Panels::zeroed(m, units, geometry, "test").unwrap();
        c.data_mut().fill(JUNK);
        let mut scratch = vec![JUNK; dots::scratch::<f32>(m, units)];
        kernels.dots(&mut Dots { a: a.view(), b: b.view(), bias: &bias, scratch: &mut scratch, c: c.view_mut() });
        for (r, j) in (0..m).flat_map(|r| (0..units).map(move |j| (r, j))) {
            let wanted = strided(bias[j], a.lanes(), |k| (a.get(r, k), b.get(j, k)));
            assert_eq!(c.get(r, j), wanted, "{m}x{inputs}x{units} at ({r}, {j})");
        }
        let padding =
            |p: usize| c.panel(p).chunks_exact(c.width(p)).map(move |row| &row[units - p * geometry.panel()..]);
        assert!(padding(c.panels() - 1).flatten().all(|&x| x == 0.0), "padding is zero");
    });
}

#[test]
fn sums_whose_lanes_are_pairs_of_inputs_equal_the_oracle() {
    for m in [1, 2, 3, 6, 7, 13] {
        for units in [1, 2, 3, 4, 5, 7, 17, 33] {
            check_dots(m, 139, units);
        }
    }
    let block = 2 * dots::block::<f32>();
    for inputs in [
        1,
        2,
        3,
        4,
        5,
        8,
        9,
        15,
        16,
        17,
        31,
        32,
        33,
        48,
        49,
        63,
        64,
        65,
        95,
        97,
        127,
        129,
        block - 1,
        block,
        block + 1,
        2 * block + 17,
    ] {
        check_dots(8, inputs, 5);
        check_dots(13, inputs, 1);
    }
    check_dots(121, 70, 3);
}

#[test]
fn biases_of_few_units_add_rounded_numbers_up() {
    each(|kernels, geometry| {
        for slices in [&[1][..], &[2, 5], &[6, 3]] {
            let deltas = |(i, &m): (usize, &usize)| packed(kernels, &matrix(m, 21, 10 + i, geometry));
            let all: Vec<_> = slices.iter().enumerate().map(deltas).collect();
            let views = all.iter().map(|[_, pairs]| pairs.view()).enumerate();
            let pairs: Vec<Pair<'_, f32>> =
                views.map(|(i, a)| Pair { a, b: a, opens: i == 0, nonzeros: None, turned: false }).collect();
            for (p, goes_on) in (0..geometry.panels(21)).flat_map(|p| [(p, false), (p, true)]) {
                let mut c = vec![JUNK; geometry.width(21, p)];
                kernels.bias_gradient(&mut BiasGradient { pairs: &pairs, panel: p, goes_on, c: &mut c });
                for (lane, &sum) in c.iter().enumerate().take(21 - p * geometry.panel()) {
                    let numbers = pairs
                        .iter()
                        .flat_map(|pair| (0..pair.a.rows()).map(|k| pair.a.panel(p)[k * geometry.width(21, p) + lane]));
                    let of_these = numbers.fold(0.0, |sum, x| dot(f32::from_bits(0x3f80_3f80), x, sum));
                    assert_eq!(sum, if goes_on { JUNK + of_these } else { of_these }, "{slices:?} {p} {lane}");
                }
            }
        }
    });
}
