//! Tile products against loops over plain matrices with the oracle's `dot`: on AMX, and in plain Rust everywhere.

use super::super::bf16::tests::{matrix, number, packed_as, reflected};
use super::*;
use crate::isa::Portable;
use crate::isa::bf16::pair;
use crate::isa::tiles::{PlainTiles, dot};
use crate::panel::{Geometry, Panels};

const JUNK: f32 = 77.0;
const GEOMETRY: Geometry = Geometry { lanes: TILE };

fn each(mut test: impl FnMut(&dyn PairKernels<f32>)) {
    test(&Tiled { vectors: Portable::<TILE>, tiles: PlainTiles });
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if crate::isa::tiles::Amx::is_available() {
        let tiles = crate::isa::tiles::Amx::request().unwrap();
        return test(&Tiled { vectors: tiles.vectors(), tiles });
    }
    println!("AMX: not on this machine, skipped");
}

/// A sum as the kernels promise it: `start`, and products of up to 16 pairs added to it in order; `ends` says after which k one
/// is closed early.
fn chain(start: f32, depth: usize, ends: &[usize], term: impl Fn(usize) -> (f32, f32)) -> f32 {
    let (mut sum, mut k) = (start, 0);
    for &end in ends.iter().chain([&depth]) {
        while k < end {
            let next = (k + TILE).min(end);
            sum = dot((k..next).map(&term), sum);
            k = next;
        }
    }
    sum
}

fn leaky(x: f32) -> f32 {
    if x < 0.0 { 0.5 * x } else { x }
}

fn check_products(m: usize, inputs: usize, outputs: usize, block: usize) {
    each(|kernels| {
        let weights = matrix(inputs, outputs, 2, GEOMETRY);
        let (forwards, mirrors, stride) = reflected(kernels, &weights);
        let bias: Vec<f32> = (0..GEOMETRY.padded(outputs)).map(|j| number(j, 0, 5)).collect();
        let at = |i: usize, j: usize| if i < inputs && j < outputs { number(i, j, 2) } else { 0.0 };
        let run = |a: &Panels<f32>, c: &mut Panels<f32>, p: usize, (b, b_stride): (&[f32], usize), forward: bool| {
            let width = c.width(p);
            let factors: Vec<f32> = (0..m * width).map(|i| number(i, p, 6)).collect();
            let mut totals = vec![0.0; if a.lanes() > super::super::INPUT_SEGMENT / 2 { m * width } else { 0 }];
            for begin in (0..a.lanes()).step_by(block) {
                kernels.product(&mut Product {
                    a: a.view(),
                    b,
                    b_stride,
                    depth: begin..(begin + block).min(a.lanes()),
                    start: if forward { Start::Lanes(&bias[p * PANEL..]) } else { Start::Zero },
                    finish: match forward {
                        true => Finish::Apply(Activation::LeakyRelu { slope: 0.5 }),
                        false => Finish::By(&factors),
                    },
                    totals: &mut totals,
                    c: c.panel_mut(p),
                    width,
                    lanes: width,
                });
            }
            factors
        };
        let [a, _] = packed_as(kernels, &matrix(m, inputs, 1, GEOMETRY), true);
        let mut z = Panels::zeroed(m, outputs, GEOMETRY, "test").unwrap();
        z.data_mut().fill(JUNK);
        for (p, forward) in forwards.iter().enumerate() {
            run(&a, &mut z, p, (forward, TILE * weights.width(p)), true);
        }
        for (r, j) in (0..m).flat_map(|r| (0..outputs).map(move |j| (r, j))) {
            let term = |k: usize| (a.get(r, k), pair(at(2 * k, j), at(2 * k + 1, j)));
            assert_eq!(z.get(r, j), leaky(chain(bias[j], a.lanes(), &[], term)), "{m} {inputs} {outputs} ({r}, {j})");
        }
        let [d, _] = packed_as(kernels, &matrix(m, outputs, 3, GEOMETRY), false);
        let mut back = Panels::zeroed(m, inputs, GEOMETRY, "test").unwrap();
        back.data_mut().fill(JUNK);
        for p in 0..back.panels() {
            let factors = run(&d, &mut back, p, (&mirrors[p * PANEL * TILE..], stride), false);
            let width = back.width(p);
            for (r, i) in (0..m).flat_map(|r| (0..width.min(inputs - p * PANEL)).map(move |i| (r, i))) {
                let input = p * PANEL + i;
                let term = |k: usize| (d.get(r, k), pair(at(input, 2 * k), at(input, 2 * k + 1)));
                let wanted = chain(0.0, d.lanes(), &[], term) * factors[r * width + i];
                assert_eq!(back.get(r, input), wanted, "{m} {inputs} {outputs} ({r}, {input})");
            }
        }
    });
}

#[test]
fn products_equal_the_oracle() {
    for m in [1, 3, 15, 16, 17, 32, 45, 52] {
        for (inputs, outputs) in [(1, 1), (2, 3), (15, 16), (17, 33), (31, 5), (40, 49), (65, 32), (96, 17)] {
            check_products(m, inputs, outputs, TILE);
            check_products(m, inputs, outputs, 65536);
        }
    }
}

#[test]
fn long_sums_do_not_depend_on_their_blocks() {
    check_products(3, 4096 + 35, 2, 256);
    check_products(3, 4096 + 35, 2, 2048);
}

#[test]
fn turned_pairs_are_the_pairs_of_each_lane_beside_each_other() {
    each(|kernels| {
        for (m, n) in [(1, 1), (2, 17), (5, 7), (32, 33), (33, 49), (64, 16), (95, 20), (97, 64)] {
            let source = matrix(m, n, 1, GEOMETRY);
            let [_, pairs] = packed_as(kernels, &source, false);
            let [_, turned] = packed_as(kernels, &source, true);
            for (k, lane) in (0..pairs.rows()).flat_map(|k| (0..n).map(move |lane| (k, lane))) {
                let (p, width) = (lane / PANEL, source.width(lane / PANEL));
                let (block, here) = (k / TILE * TILE, (pairs.rows() - k / TILE * TILE).min(TILE));
                let found = turned.panel(p)[block * width + lane % PANEL * here + k % TILE];
                assert_eq!(found.to_bits(), pairs.get(k, lane).to_bits(), "{m}x{n} ({k}, {lane})");
            }
        }
    });
}

/// A gradient `(units + 1) x lanes` of slices of these sizes, on top of `earlier` where there is something.
fn check_gradient(kernels: &dyn PairKernels<f32>, slices: &[usize], units: usize, lanes: usize, goes_on: bool) {
    let all = |lanes: usize, salt: usize, turned: bool| -> Vec<Panels<f32>> {
        let of = |(i, &m): (usize, &usize)| {
            let [_, pairs] = packed_as(kernels, &matrix(m, lanes, salt + i, GEOMETRY), turned);
            pairs
        };
        slices.iter().enumerate().map(of).collect()
    };
    let (a, b, plain) = (all(units, 10, true), all(lanes, 50, false), all(units, 10, false));
    let pairs: Vec<Pair<'_, f32>> = (0..slices.len())
        .map(|i| Pair { a: a[i].view(), b: b[i].view(), opens: i % 2 == 0, nonzeros: None, turned: true })
        .collect();
    let of_rows: Vec<usize> = b.iter().map(|b| b.rows()).collect();
    let ends: Vec<usize> =
        of_rows.iter().scan(0, |end, rows| Some(std::mem::replace(end, *end + rows) + rows)).collect();
    let find = |k: usize| {
        let slice = ends.iter().position(|&end| k < end).unwrap();
        (slice, k - (ends[slice] - of_rows[slice]))
    };
    let of_all = 0..GEOMETRY.panels(lanes);
    for lane_panels in of_all.clone().map(|p| p..p + 1).chain(std::iter::once(of_all)) {
        let begin = lane_panels.start * PANEL;
        let width_of_all = GEOMETRY.padded(lanes).min(lane_panels.end * PANEL) - begin;
        let mut c = vec![JUNK; (units + 1) * width_of_all];
        kernels.gradient(&mut Gradient {
            pairs: &pairs,
            row_panels: 0..GEOMETRY.panels(units),
            lane_panels: lane_panels.clone(),
            goes_on,
            bias: true,
            c: &mut c,
        });
        let earlier = if goes_on { JUNK } else { 0.0 };
        for p in lane_panels.clone() {
            let (width, strip) = (GEOMETRY.width(lanes, p), &c[(p - lane_panels.start) * PANEL * (units + 1)..]);
            for (r, j) in (0..=units).flat_map(|r| (0..width.min(lanes - p * PANEL)).map(move |j| (r, j))) {
                let of_b = |k: usize| {
                    let (slice, k) = find(k);
                    b[slice].get(k, p * PANEL + j)
                };
                let wanted = if r < units {
                    let term = |k: usize| {
                        let (slice, row) = find(k);
                        (plain[slice].get(row, r), of_b(k))
                    };
                    chain(earlier, ends[ends.len() - 1], &ends, term)
                } else {
                    // Of two slices each.
                    let one = f32::from_bits(0x3f80_3f80);
                    let add = |sum, k: usize| crate::isa::bf16::dot(one, of_b(k), sum);
                    let segments = ends
                        .chunks(2)
                        .map(|of| of[of.len() - 1])
                        .scan(0, |begin, end| Some((std::mem::replace(begin, end)..end).fold(0.0, add)));
                    segments.fold(earlier, |total, sum| total + sum)
                };
                assert_eq!(strip[r * width + j], wanted, "{slices:?} {units}x{lanes} ({r}, {j}) {goes_on}");
            }
        }
    }
}

#[test]
fn gradients_equal_the_oracle() {
    each(|kernels| {
        for slices in [&[1][..], &[32], &[64, 3], &[32, 32, 17], &[64, 32, 32, 5], &[100]] {
            for (units, lanes) in [(1, 1), (5, 3), (17, 16), (33, 20), (48, 40), (20, 70)] {
                check_gradient(kernels, slices, units, lanes, false);
                check_gradient(kernels, slices, units, lanes, true);
            }
        }
    });
}

#[test]
fn slices_that_begin_within_a_tile_are_refused() {
    let kernels = Tiled { vectors: Portable::<TILE>, tiles: PlainTiles };
    let refused = std::panic::catch_unwind(|| check_gradient(&kernels, &[5, 32], 4, 4, false));
    assert!(refused.is_err());
}
