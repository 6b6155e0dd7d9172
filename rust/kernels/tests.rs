//! Naive oracles for every kernel, on every instruction set that this CPU has, at sizes around the tile edges.
//!
//! The oracles are loops over plain matrices with `mul_add`, in the order that the crate promises: results must have
//! the same bits. Buffers begin filled with a number that no kernel may leave in a padding lane.

use super::*;
use crate::activation::Activation;
use crate::panel::{Panels, PanelsRef};
use proptest::prelude::*;
use std::ops::Range;

pub(super) const JUNK: f64 = 77.0;

pub(super) fn each_isa<T: Number>(mut test: impl FnMut(&'static dyn Kernels<T>, Isa)) {
    for isa in Isa::ALL {
        if isa.is_available() {
            test(T::kernels(isa), isa);
        } else {
            println!("{}: not on this CPU, skipped", isa.name());
        }
    }
}

/// Numbers without structure, some of them zero or negative, the same for every instruction set.
pub(super) fn number<T: Number>(i: usize, j: usize, salt: usize) -> T {
    let mixed = (i * 7919 + j * 104_729 + salt * 1_299_709).wrapping_mul(2_654_435_761) >> 7;
    T::from_f64((mixed % 2001) as f64 / 1000.0 - 1.0)
}

pub(super) fn matrix<T: Number>(rows: usize, lanes: usize, salt: usize, geometry: Geometry) -> Panels<T> {
    let mut panels = Panels::zeroed(rows, lanes, geometry, "test").unwrap();
    for (r, c) in (0..rows).flat_map(|r| (0..lanes).map(move |c| (r, c))) {
        panels.set(r, c, number(r, c, salt));
    }
    panels
}

/// `start + sum over k of a(k) b(k)`: chains inside segments, their sums in order.
fn chain<T: Number>(start: T, depth: usize, segment: usize, term: impl Fn(usize) -> (T, T)) -> T {
    let mut total = T::ZERO;
    for first in (0..depth).step_by(segment) {
        let mut sum = if first == 0 { start } else { T::ZERO };
        for k in first..(first + segment).min(depth) {
            let (a, b) = term(k);
            sum = a.mul_add(b, sum);
        }
        total = if first == 0 { sum } else { total + sum };
    }
    total
}

/// The product kernel over all panels and the given blocks of k, in panels of its own.
fn product<T: Number>(
    kernels: &dyn Kernels<T>,
    a: PanelsRef<'_, T>,
    b: &Panels<T>,
    bias: &[T],
    finish: impl Fn(usize) -> Finish<'static, T>,
    block: usize,
) -> Panels<T> {
    let geometry = kernels.geometry();
    let mut c = Panels::zeroed(a.rows(), b.lanes(), geometry, "test").unwrap();
    c.data_mut().fill(T::from_f64(JUNK));
    let mut totals = vec![T::ZERO; a.rows() * geometry.panel()];
    for p in 0..c.panels() {
        let width = c.width(p);
        for begin in (0..a.lanes()).step_by(block) {
            kernels.product(&mut Product {
                a,
                b: b.panel(p),
                b_stride: geometry.panel() * width,
                depth: begin..(begin + block).min(a.lanes()),
                start: Start::Lanes(&bias[p * geometry.panel()..]),
                finish: finish(p),
                totals: &mut totals[..a.rows() * width],
                c: c.panel_mut(p),
                width,
                lanes: width.min(b.lanes() - p * geometry.panel()),
            });
        }
    }
    c
}

fn check_product<T: Number>(rows: usize, depth: usize, lanes: usize, block_panels: usize) {
    each_isa::<T>(|kernels, isa| {
        let geometry = kernels.geometry();
        let (a, b) = (matrix::<T>(rows, depth, 1, geometry), matrix::<T>(depth, lanes, 2, geometry));
        let mut bias = vec![T::ZERO; geometry.padded(lanes)];
        (0..lanes).for_each(|j| bias[j] = number(j, 0, 3));
        let block = block_panels * geometry.panel();
        let c = product(kernels, a.view(), &b, &bias, |_| Finish::Apply(Activation::Identity), block);
        for (r, j) in (0..rows).flat_map(|r| (0..lanes).map(move |j| (r, j))) {
            let wanted = chain(bias[j], depth, INPUT_SEGMENT, |k| (a.get(r, k), b.get(k, j)));
            assert_eq!(c.get(r, j), wanted, "{isa:?} {rows}x{depth}x{lanes} at ({r}, {j})");
        }
        padding_is_zero(&c);
    });
}

pub(super) fn padding_is_zero<T: Number>(c: &Panels<T>) {
    let mut cleared = Panels::zeroed(c.rows(), c.lanes(), c.geometry(), "test").unwrap();
    cleared.data_mut().copy_from_slice(c.view().data());
    cleared.clear_padding();
    assert!(cleared.view().data() == c.view().data(), "padding lanes stay zero");
}

#[test]
fn products_equal_the_naive_loop_around_every_tile_edge() {
    for rows in [1, 2, 3, 5, 6, 7, 11, 12, 13, 20, 25] {
        for lanes in [1, 7, 8, 15, 16, 17, 31, 33] {
            check_product::<f32>(rows, 19, lanes, 1);
            check_product::<f64>(rows, 37, lanes, 2);
        }
    }
    for depth in [1, 2, 8, 15, 16, 17, 31, 32, 33, 64, 65] {
        check_product::<f32>(13, depth, 18, 1);
        check_product::<f64>(13, depth, 18, 100);
    }
}

#[test]
fn sums_longer_than_a_segment_add_their_segments_in_order() {
    for depth in [INPUT_SEGMENT, INPUT_SEGMENT + 1, 2 * INPUT_SEGMENT + 37] {
        check_product::<f32>(5, depth, 3, 16);
        check_product::<f64>(14, depth, 17, 64);
    }
}

#[test]
fn a_product_may_begin_at_zero() {
    each_isa::<f32>(|kernels, _| {
        let geometry = kernels.geometry();
        let (a, b) = (matrix::<f32>(7, 5, 1, geometry), matrix::<f32>(5, 4, 2, geometry));
        let mut c = Panels::<f32>::zeroed(7, 4, geometry, "test").unwrap();
        for p in 0..c.panels() {
            let width = c.width(p);
            kernels.product(&mut Product {
                a: a.view(),
                b: b.panel(p),
                b_stride: geometry.panel() * width,
                depth: 0..5,
                start: Start::Zero,
                finish: Finish::Apply(Activation::Identity),
                totals: &mut [],
                c: c.panel_mut(p),
                width,
                lanes: width,
            });
        }
        for (r, j) in (0..7).flat_map(|r| (0..4).map(move |j| (r, j))) {
            assert_eq!(c.get(r, j), chain(0.0, 5, INPUT_SEGMENT, |k| (a.get(r, k), b.get(k, j))));
        }
    });
}

/// The activations as the textbook has them, for f64.
fn naive(activation: Activation, z: f64) -> f64 {
    #[allow(clippy::disallowed_methods)]
    match activation {
        Activation::Relu => z.max(0.0),
        Activation::LeakyRelu { slope } => {
            if z < 0.0 {
                slope * z
            } else {
                z
            }
        }
        Activation::Tanh => z.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-z).exp()),
        Activation::Exponential => z.exp(),
        _ => z,
    }
}

/// The derivative, by the activation's result.
fn naive_derivative(activation: Activation, a: f64) -> f64 {
    match activation {
        Activation::Relu => f64::from(a > 0.0),
        Activation::LeakyRelu { slope } => {
            if a > 0.0 {
                1.0
            } else {
                slope
            }
        }
        Activation::Tanh => 1.0 - a * a,
        Activation::Sigmoid => a * (1.0 - a),
        Activation::Exponential => a,
        _ => 1.0,
    }
}

const ACTIVATIONS: [Activation; 6] = [
    Activation::Identity,
    Activation::Relu,
    Activation::LeakyRelu { slope: 0.125 },
    Activation::Tanh,
    Activation::Sigmoid,
    Activation::Exponential,
];

#[test]
fn epilogues_apply_activations_and_derivatives_and_keep_padding_zero() {
    each_isa::<f64>(|kernels, isa| {
        let geometry = kernels.geometry();
        let (a, b) = (matrix::<f64>(9, 6, 1, geometry), matrix::<f64>(6, 11, 2, geometry));
        let bias = vec![0.0; geometry.padded(11)];
        let plain = product(kernels, a.view(), &b, &bias, |_| Finish::Apply(Activation::Identity), 64);
        let factor: &'static Panels<f64> = Box::leak(Box::new(matrix::<f64>(9, 11, 5, geometry)));
        for activation in ACTIVATIONS {
            let applied = product(kernels, a.view(), &b, &bias, |_| Finish::Apply(activation), 64);
            let times = product(kernels, a.view(), &b, &bias, |p| Finish::Times(activation, factor.panel(p)), 64);
            for (r, j) in (0..9).flat_map(|r| (0..11).map(move |j| (r, j))) {
                let z = plain.get(r, j);
                let error = (applied.get(r, j) - naive(activation, z)).abs();
                assert!(error <= 1e-15, "{isa:?} {activation:?}({z}): off by {error}");
                let wanted = z * naive_derivative(activation, factor.get(r, j));
                assert!((times.get(r, j) - wanted).abs() <= 1e-15, "{isa:?} {activation:?}'");
            }
            padding_is_zero(&applied);
        }
    });
}

#[test]
fn relu_passes_nan_on() {
    each_isa::<f32>(|kernels, _| {
        let mut x = [f32::NAN, -1.0, 2.0];
        kernels.map(Function::Activate(Activation::Relu), &mut x);
        assert!(x[0].is_nan() && x[1] == 0.0 && x[2] == 2.0);
    });
}

#[test]
fn maps_of_any_length_have_the_same_bits_everywhere() {
    for function in [Function::Exp, Function::Log, Function::Activate(Activation::Tanh)] {
        for len in [0, 1, 3, 8, 15, 16, 17, 40] {
            let mut first: Option<Vec<f32>> = None;
            each_isa::<f32>(|kernels, isa| {
                let mut x: Vec<f32> = (0..len).map(|i| number::<f32>(i, 0, 9).abs() + 0.5).collect();
                kernels.map(function, &mut x);
                assert_eq!(first.get_or_insert_with(|| x.clone()), &x, "{isa:?} {function:?} {len}");
            });
        }
    }
}

fn check_gradient<T: Number>(slices: &[usize], units: usize, lanes: usize, opens: &dyn Fn(usize) -> bool) {
    each_isa::<T>(|kernels, isa| {
        let geometry = kernels.geometry();
        let all = |lanes, salt| -> Vec<Panels<T>> {
            slices.iter().enumerate().map(|(i, &rows)| matrix(rows, lanes, salt + i, geometry)).collect()
        };
        let (a, b) = (all(units, 10), all(lanes, 50));
        let pair = |i: usize| Pair { a: a[i].view(), b: b[i].view(), opens: opens(i), nonzeros: None, turned: false };
        let pairs: Vec<Pair<'_, T>> = (0..slices.len()).map(pair).collect();
        for strip in [1, 2] {
            let mut c = Panels::zeroed(units, lanes, geometry, "test").unwrap();
            let mut bias = vec![T::ZERO; geometry.padded(lanes)];
            for goes_on in [false, true] {
                // The second round adds the same gradient to the first.
                for p in 0..c.panels() {
                    let (width, panel) = (c.width(p), geometry.panel());
                    for (q, block) in c.panel_mut(p).chunks_mut(strip * panel * width).enumerate() {
                        let row_panels = q * strip..((q + 1) * strip).min(geometry.panels(units));
                        let (pairs, lane_panels) = (&pairs[..], p..p + 1);
                        let (begin, rows) = (p * panel, block.len());
                        // The biases come with the last strip, which they stand behind.
                        let with_bias = row_panels.end == geometry.panels(units);
                        let mut c = block.to_vec();
                        if with_bias {
                            c.extend_from_slice(&bias[begin..begin + width]);
                        }
                        kernels.gradient(&mut Gradient {
                            pairs,
                            row_panels,
                            lane_panels,
                            goes_on,
                            bias: with_bias,
                            c: &mut c,
                        });
                        block.copy_from_slice(&c[..rows]);
                        if with_bias {
                            bias[begin..begin + width].copy_from_slice(&c[rows..]);
                            // A narrow layer's biases are sums over the other operand.
                            let mut narrow: Vec<T> = c[rows..].to_vec();
                            let swapped: Vec<Pair<'_, T>> = pairs
                                .iter()
                                .map(|pair| Pair {
                                    a: pair.b,
                                    b: pair.a,
                                    opens: pair.opens,
                                    nonzeros: None,
                                    turned: false,
                                })
                                .collect();
                            if !goes_on {
                                kernels.bias_gradient(&mut BiasGradient {
                                    pairs: &swapped,
                                    panel: p,
                                    goes_on,
                                    c: &mut narrow,
                                });
                                assert_eq!(narrow, c[rows..], "{isa:?}");
                            }
                        }
                    }
                }
                for (i, j) in (0..units).flat_map(|i| (0..lanes).map(move |j| (i, j))) {
                    let wanted = naive_gradient(slices, opens, |s, k| (a[s].get(k, i), b[s].get(k, j)));
                    let wanted = if goes_on {
                        naive_twice(slices, opens, |s, k| (a[s].get(k, i), b[s].get(k, j)))
                    } else {
                        wanted
                    };
                    assert_eq!(c.get(i, j), wanted, "{isa:?} {slices:?} {units}x{lanes} at ({i}, {j}) {goes_on}");
                }
                let sum = |s: usize, k: usize, j: usize| (T::ONE, b[s].get(k, j));
                for (j, &bias) in bias.iter().enumerate().take(lanes) {
                    let wanted = naive_gradient(slices, opens, |s, k| sum(s, k, j));
                    let wanted = if goes_on { naive_twice(slices, opens, |s, k| sum(s, k, j)) } else { wanted };
                    assert_eq!(bias, wanted, "{isa:?} bias {j}");
                }
            }
            padding_is_zero(&c);
        }
        strips_beside_each_other(kernels, &pairs, units, lanes);
    });
}

/// Several panels of lanes in one call get the numbers that each gets in its own.
fn strips_beside_each_other<T: Number>(kernels: &dyn Kernels<T>, pairs: &[Pair<'_, T>], units: usize, lanes: usize) {
    let geometry = kernels.geometry();
    let run = |lane_panels: Range<usize>, bias: bool| {
        let width: usize = lane_panels.clone().map(|p| geometry.width(lanes, p)).sum();
        let mut c = vec![T::from_f64(JUNK); (units + usize::from(bias)) * width];
        let row_panels = 0..geometry.panels(units);
        kernels.gradient(&mut Gradient { pairs, row_panels, lane_panels, goes_on: false, bias, c: &mut c });
        c
    };
    let panels = geometry.panels(lanes);
    for (first, bias) in (0..panels).flat_map(|first| [(first, false), (first, true)]) {
        let each: Vec<T> = (first..panels).flat_map(|p| run(p..p + 1, bias)).collect();
        assert_eq!(run(first..panels, bias), each, "{units}x{lanes} from panel {first}");
    }
}

/// The segments' sums.
fn segment_sums<T: Number>(
    slices: &[usize],
    opens: &dyn Fn(usize) -> bool,
    term: impl Fn(usize, usize) -> (T, T),
) -> Vec<T> {
    let mut sums = Vec::new();
    for (s, &rows) in slices.iter().enumerate() {
        if opens(s) {
            sums.push(T::ZERO);
        }
        for k in 0..rows {
            let (a, b) = term(s, k);
            let sum = sums.last_mut().unwrap();
            *sum = a.mul_add(b, *sum);
        }
    }
    sums
}

fn naive_gradient<T: Number>(
    slices: &[usize],
    opens: &dyn Fn(usize) -> bool,
    term: impl Fn(usize, usize) -> (T, T),
) -> T {
    segment_sums(slices, opens, term).into_iter().reduce(|total, sum| total + sum).unwrap()
}

fn naive_twice<T: Number>(slices: &[usize], opens: &dyn Fn(usize) -> bool, term: impl Fn(usize, usize) -> (T, T)) -> T {
    let sums = segment_sums(slices, opens, term);
    sums.iter().chain(&sums).copied().reduce(|total, sum| total + sum).unwrap()
}

#[test]
fn weight_gradients_equal_the_naive_loop_around_every_tile_edge() {
    for units in [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 16, 28, 31, 33] {
        for lanes in [1, 8, 9, 16, 17, 33] {
            check_gradient::<f32>(&[5, 3], units, lanes, &|i| i == 0);
        }
        check_gradient::<f64>(&[1, 2, 3], units, 11, &|i| i != 1);
        check_gradient::<f64>(&[4], units, 3, &|_| true);
    }
}

#[test]
fn mirrors_and_turns_are_transposes_and_leave_other_lanes_alone() {
    each_isa::<f32>(|kernels, isa| {
        let geometry = kernels.geometry();
        let panel = geometry.panel();
        for rows in [1, 2, geometry.lanes, panel - 1, panel].into_iter().filter(|&rows| rows > 0) {
            for width in [geometry.lanes, panel] {
                let mirror_width = geometry.width(rows, 0);
                let weights: Vec<f32> = (0..rows * width).map(|i| i as f32 + 1.0).collect();
                let mut mirror = vec![0.0; width * mirror_width];
                let target = &mut mirror[..];
                kernels.mirror(&mut Mirror { weights: &weights, rows, width, mirror: target, mirror_width });
                for (lane, row) in (0..width).flat_map(|lane| (0..mirror_width).map(move |row| (lane, row))) {
                    let wanted = if row < rows { weights[row * width + lane] } else { 0.0 };
                    assert_eq!(mirror[lane * mirror_width + row], wanted, "{isa:?} {rows}x{width}");
                }
            }
        }
        for (rows, lanes) in [(1, 1), (5, 3), (panel + 3, 2 * panel + 1), (2 * panel, panel)] {
            let source = matrix::<f32>(rows, lanes, 1, geometry);
            let mut target = Panels::<f32>::zeroed(lanes, rows, geometry, "test").unwrap();
            target.data_mut().fill(JUNK as f32);
            for p in 0..target.panels() {
                let (width, row) = (target.width(p), p * panel);
                let target = target.panel_mut(p);
                kernels.turn(&mut Turn { source: source.view(), lanes: 0..lanes, row, target, width });
            }
            for (r, c) in (0..rows).flat_map(|r| (0..lanes).map(move |c| (r, c))) {
                assert_eq!(target.get(c, r), source.get(r, c), "{isa:?} {rows}x{lanes}");
            }
            padding_is_zero(&target);
        }
    });
}

fn check_relu<T: Number>(specials: &[T], bits: fn(T) -> u64) {
    each_isa::<T>(|kernels, isa| {
        let mut answers = specials.to_vec();
        kernels.map(Function::Activate(Activation::Relu), &mut answers);
        for (&z, &a) in specials.iter().zip(&answers) {
            assert_eq!(bits(a), bits(if z < T::ZERO { T::ZERO } else { z }), "{isa:?} relu({z})");
        }
        for &a in specials {
            let (of, mut deltas) = ([a; 16], [T::ZERO; 16]);
            deltas[..specials.len()].copy_from_slice(specials);
            let by = Finish::Times(Activation::Relu, &of);
            kernels.undress(&mut Undress { deltas: &mut deltas, stream: &mut [], adds: false, keeps: false, by });
            for (&x, &dz) in specials.iter().zip(&deltas) {
                assert_eq!(bits(dz), bits(if T::ZERO < a { x } else { T::ZERO }), "{isa:?} {x} relu'({a})");
            }
        }
    });
}

#[test]
fn relu_and_its_derivative_pass_special_numbers_on() {
    let numbers = [0.0, -0.0, 1.5, -1.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, -1e-40];
    check_relu::<f32>(&numbers, |x| u64::from(x.to_bits()));
    let numbers = [0.0, -0.0, 1.5, -1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e-310, -1e-310];
    check_relu::<f64>(&numbers, f64::to_bits);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn products_of_any_shape(rows in 1usize..40, depth in 1usize..100, lanes in 1usize..70, block in 1usize..5) {
        check_product::<f32>(rows, depth, lanes, block);
    }

    #[test]
    fn gradients_of_any_shape(slices in prop::collection::vec(1usize..20, 1..5), units in 1usize..70, lanes in 1usize..70, opens in 1usize..4) {
        check_gradient::<f32>(&slices, units, lanes, &|i| i % opens == 0);
    }
}

#[test]
fn reading_reads_every_number_and_multiply_adds_are_counted() {
    fn check<T: Number>() {
        each_isa::<T>(|kernels, _| {
            let lanes = kernels.geometry().lanes;
            for len in [0, 1, 7, 8 * lanes - 1, 8 * lanes, 24 * lanes + 5] {
                let numbers: Vec<T> = (1..=len).map(|i| T::from_f64(i as f64)).collect();
                assert_eq!(kernels.read(&numbers).to_f64(), (len * (len + 1) / 2) as f64);
            }
            // Two operations in each lane of 12 or 24 accumulators.
            let operations = kernels.multiply_add(3);
            assert!([3 * 2 * 12 * lanes, 3 * 2 * 24 * lanes].contains(&operations));
        });
    }
    check::<f32>();
    check::<f64>();
}
