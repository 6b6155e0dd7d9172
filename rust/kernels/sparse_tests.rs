//! Kernels that skip zeros against those that do not: equal bits on every instruction set.

use super::nonzeros::{Find, LEAST_BLOCK, Nonzeros, group_lanes};
use super::tests::{JUNK, each_isa, matrix, number, padding_is_zero};
use super::*;
use crate::activation::Activation;
use std::ops::Range;

/// A matrix with about so many of its numbers, and some rows and lanes without any.
fn thin<T: Number>(rows: usize, lanes: usize, share: f64, geometry: Geometry) -> Panels<T> {
    let mut panels = matrix::<T>(rows, lanes, 5, geometry);
    for (r, c) in (0..rows).flat_map(|r| (0..lanes).map(move |c| (r, c))) {
        let stays = number::<T>(r, c, 6).to_f64() < 2.0 * share - 1.0;
        if !stays || r % 5 == 3 || c % 11 == 7 {
            panels.set(r, c, if r % 2 == 0 { T::ZERO } else { -T::ZERO });
        }
    }
    panels
}

/// Whether two lists of numbers have the same bits, signs of zeros among them.
fn same_bits<T: Number>(a: &[T], b: &[T]) -> bool {
    let bits = |x: &[T]| x.iter().map(|x| x.to_f64().to_bits()).collect::<Vec<_>>();
    bits(a) == bits(b)
}

fn find<T: Number>(kernels: &dyn Kernels<T>, a: &Panels<T>, block: usize, capacity: usize) -> Nonzeros<T> {
    let mut into = Nonzeros::new(capacity, a.lanes(), a.rows() * a.lanes(), a.geometry()).unwrap();
    kernels.find(&mut Find { a: a.view(), block, into: &mut into });
    into
}

fn check_find<T: Number>(rows: usize, lanes: usize, share: f64, block: usize) {
    each_isa::<T>(|kernels, isa| {
        let a = thin::<T>(rows, lanes, share, kernels.geometry());
        let found = find(kernels, &a, block, rows + 3);
        let mut count = 0;
        for (index, block) in found.blocks().enumerate() {
            for row in 0..rows {
                let wanted: Vec<usize> = block.clone().filter(|&lane| a.get(row, lane) != T::ZERO).collect();
                let (places, values) = found.row(index, row);
                let places: Vec<usize> = places.iter().map(|&place| block.start + usize::from(place)).collect();
                assert_eq!(places, wanted, "{isa:?} {rows}x{lanes}, row {row}");
                assert!(values.iter().zip(&wanted).all(|(&value, &lane)| value == a.get(row, lane)));
                count += wanted.len();
            }
        }
        assert_eq!(found.count(), count);
        let width = group_lanes(kernels.geometry());
        let mut members = 0;
        for group in 0..lanes.div_ceil(width) {
            let of_group = group * width..((group + 1) * width).min(lanes);
            let has = |row: &usize| of_group.clone().any(|lane| a.get(*row, lane) != T::ZERO);
            let wanted: Vec<usize> = (0..rows).filter(has).collect();
            let rows_of: Vec<usize> = found.group(group).iter().map(|&row| usize::from(row)).collect();
            assert_eq!(rows_of, wanted, "{isa:?} {rows}x{lanes}, group {group}");
            members += wanted.len();
        }
        assert_eq!((found.members(), found.groups()), (members, kernels.geometry().padded(lanes).div_ceil(width)));
    });
}

#[test]
fn what_is_not_zero_is_found() {
    for lanes in [1, 3, 4, 7, 8, 16, 31, 33, 63, 64, 65, 130] {
        for share in [0.0, 0.1, 0.5, 1.0] {
            check_find::<f32>(13, lanes, share, LEAST_BLOCK);
            check_find::<f64>(7, lanes, share, 2 * LEAST_BLOCK);
        }
    }
}

#[test]
fn a_nan_is_not_zero_and_stained_padding_is() {
    each_isa::<f64>(|kernels, _| {
        let mut a = Panels::<f64>::zeroed(2, 3, kernels.geometry(), "test").unwrap();
        a.set(1, 2, f64::NAN);
        let found = find(kernels, &a, LEAST_BLOCK, 2);
        assert_eq!((found.row(0, 0).0, found.row(0, 1).0), (&[][..], &[2][..]));
        a.data_mut().fill(JUNK);
        assert_eq!(find(kernels, &a, LEAST_BLOCK, 2).count(), 6, "lanes that the matrix has, no others");
    });
}

#[test]
fn more_than_there_is_room_for_is_not_found() {
    each_isa::<f32>(|kernels, _| {
        let a = thin::<f32>(9, 70, 0.5, kernels.geometry());
        for (most, whole) in [(0, false), (69, false), (9 * 70, true)] {
            let mut into = Nonzeros::new(9, 70, most, a.geometry()).unwrap();
            kernels.find(&mut Find { a: a.view(), block: LEAST_BLOCK, into: &mut into });
            assert_eq!((into.is_whole(), into.fits(a.view())), (whole, whole), "{most}");
        }
        assert!(Nonzeros::<f32>::new(70_000, 3, 0, a.geometry()).is_err(), "rows are 16 bits");
    });
}

#[test]
fn lists_are_used_again() {
    each_isa::<f64>(|kernels, isa| {
        let geometry = kernels.geometry();
        let (large, small) = (thin::<f64>(9, 70, 0.4, geometry), thin::<f64>(5, 70, 0.2, geometry));
        let full = matrix::<f64>(9, 70, 1, geometry);
        let mut into = Nonzeros::new(9, 70, 9 * 70 / 2 + 70, geometry).unwrap();
        for (a, fits) in [(&large, true), (&small, true), (&full, false), (&small, true), (&large, true)] {
            kernels.find(&mut Find { a: a.view(), block: LEAST_BLOCK, into: &mut into });
            assert_eq!(into.fits(a.view()), fits, "{isa:?}");
            if fits {
                let anew = find(kernels, a, LEAST_BLOCK, a.rows());
                assert_eq!((into.count(), into.members()), (anew.count(), anew.members()), "{isa:?}");
                (0..a.rows()).for_each(|row| assert_eq!(into.row(1, row), anew.row(1, row), "{isa:?}"));
                (0..into.groups()).for_each(|group| assert_eq!(into.group(group), anew.group(group), "{isa:?}"));
            }
        }
    });
}

fn check_sparse<T: Number>(rows: usize, depth: usize, units: usize, share: f64, block: usize) {
    each_isa::<T>(|kernels, isa| {
        let geometry = kernels.geometry();
        let a = thin::<T>(rows, depth, share, geometry);
        let mut b = matrix::<T>(depth + 1, units, 2, geometry);
        (0..units).step_by(3).for_each(|unit| b.set(depth, unit, -T::ZERO));
        let panels = || {
            let mut c = Panels::<T>::zeroed(rows, units, geometry, "test").unwrap();
            c.data_mut().fill(T::from_f64(JUNK));
            c
        };
        let (mut c, mut wanted) = (panels(), panels());
        let mut totals = vec![T::from_f64(JUNK); rows * geometry.padded(units)];
        let nonzeros = find(kernels, &a, block, rows);
        kernels.sparse(&mut Sparse { a: a.view(), nonzeros: &nonzeros, b: b.view(), totals: &mut totals, c: &mut c });
        for p in 0..wanted.panels() {
            let width = wanted.width(p);
            let panel = b.panel(p);
            for begin in (0..depth).step_by(INPUT_SEGMENT) {
                kernels.product(&mut Product {
                    a: a.view(),
                    b: &panel[..depth * width],
                    b_stride: geometry.panel() * width,
                    depth: begin..(begin + INPUT_SEGMENT).min(depth),
                    start: Start::Lanes(&panel[depth * width..]),
                    finish: Finish::Apply(Activation::Identity),
                    totals: &mut totals[..rows * width],
                    c: wanted.panel_mut(p),
                    width,
                    lanes: width.min(units - p * geometry.panel()),
                });
            }
        }
        assert!(same_bits(c.view().data(), wanted.view().data()), "{isa:?} {rows}x{depth}x{units} by {block}");
        padding_is_zero(&c);
    });
}

#[test]
fn products_without_zeros_have_the_bits_of_whole_ones() {
    for units in [1, 7, 8, 9, 16, 17, 33, 100, 129, 250] {
        check_sparse::<f32>(6, 150, units, 0.4, LEAST_BLOCK);
        check_sparse::<f64>(5, 70, units, 0.2, LEAST_BLOCK);
    }
    for depth in [1, 2, 63, 64, 65, 127, INPUT_SEGMENT, INPUT_SEGMENT + 1, 2 * INPUT_SEGMENT + 37] {
        for block in [LEAST_BLOCK, 512, INPUT_SEGMENT] {
            check_sparse::<f32>(4, depth, 20, 0.1, block);
            check_sparse::<f64>(3, depth, 37, 0.1, block);
        }
    }
    check_sparse::<f64>(3, 70, 37, 0.0, LEAST_BLOCK);
}

#[test]
fn what_is_skipped_is_not_read() {
    each_isa::<f32>(|kernels, isa| {
        let geometry = kernels.geometry();
        let mut a = Panels::<f32>::zeroed(6, 40, geometry, "test").unwrap();
        (0..6).for_each(|row| a.set(row, 9, 1.0 + row as f32));
        let nonzeros = find(kernels, &a, LEAST_BLOCK, 6);
        let mut b = Panels::<f32>::zeroed(41, 20, geometry, "test").unwrap();
        (0..41 * 20).filter(|i| ![9, 40].contains(&(i / 20))).for_each(|i| b.set(i / 20, i % 20, f32::NAN));
        (0..20).for_each(|unit| b.set(9, unit, 2.0));
        let mut c = Panels::<f32>::zeroed(6, 20, geometry, "test").unwrap();
        kernels.sparse(&mut Sparse { a: a.view(), nonzeros: &nonzeros, b: b.view(), totals: &mut [], c: &mut c });
        (0..6 * 20).for_each(|i| assert_eq!(c.get(i / 20, i % 20), 2.0 * (1 + i / 20) as f32, "{isa:?}"));

        // Samples whose group is zero, in a panel that has others.
        let mut a = Panels::<f32>::zeroed(6, 40, geometry, "test").unwrap();
        a.set(2, 0, 3.0);
        let nonzeros = find(kernels, &a, LEAST_BLOCK, 6);
        let mut deltas = Panels::<f32>::zeroed(6, 20, geometry, "test").unwrap();
        (0..6 * 20).for_each(|i| deltas.set(i / 20, i % 20, if i / 20 == 2 { 5.0 } else { f32::NAN }));
        let pairs = [Pair { a: a.view(), b: deltas.view(), opens: true, nonzeros: Some(&nonzeros), turned: false }];
        let rows = geometry.panel().min(40);
        let mut c = vec![JUNK as f32; rows * deltas.width(0)];
        let place =
            Gradient { pairs: &pairs, row_panels: 0..1, lane_panels: 0..1, goes_on: false, bias: false, c: &mut c };
        kernels.gradient(&mut { place });
        let lanes = deltas.width(0).min(20);
        for (row, of_row) in c.chunks_exact(deltas.width(0)).enumerate() {
            let wanted = if row == 0 { 15.0 } else { 0.0 };
            assert!(of_row[..lanes].iter().all(|&x| x == wanted), "{isa:?} {row}");
        }
    });
}

/// Some strips of panels: each alone, and all at once.
fn strips(panels: usize) -> impl Iterator<Item = Range<usize>> {
    (0..panels).map(|p| p..p + 1).chain(std::iter::once(0..panels))
}

fn check_gradient<T: Number>(slices: &[usize], depth: usize, units: usize, share: f64, bias: bool) {
    each_isa::<T>(|kernels, isa| {
        let geometry = kernels.geometry();
        let a: Vec<Panels<T>> = slices.iter().map(|&rows| thin(rows, depth, share, geometry)).collect();
        let b: Vec<Panels<T>> = slices.iter().map(|&rows| matrix(rows, units, 2, geometry)).collect();
        let found: Vec<Nonzeros<T>> = a.iter().map(|a| find(kernels, a, LEAST_BLOCK, a.rows())).collect();
        for (row_panels, lane_panel) in
            strips(a[0].panels()).flat_map(|p| (0..b[0].panels()).map(move |q| (p.clone(), q)))
        {
            let rows = depth.min(row_panels.end * geometry.panel()) - row_panels.start * geometry.panel();
            let len = (rows + usize::from(bias)) * b[0].width(lane_panel);
            // Of the second slice nothing is known.
            let sum = |skips: bool| {
                let known = |i: usize| (skips && i != 1).then(|| &found[i]);
                let pair = |i: usize| Pair {
                    a: a[i].view(),
                    b: b[i].view(),
                    opens: i.is_multiple_of(2),
                    nonzeros: known(i),
                    turned: false,
                };
                let pairs: Vec<Pair<'_, T>> = (0..slices.len()).map(pair).collect();
                let mut c = vec![T::from_f64(JUNK); len];
                for goes_on in [false, true] {
                    let (pairs, row_panels) = (&pairs[..], row_panels.clone());
                    let lane_panels = lane_panel..lane_panel + 1;
                    kernels.gradient(&mut Gradient { pairs, row_panels, lane_panels, goes_on, bias, c: &mut c });
                }
                c
            };
            assert!(
                same_bits(&sum(true), &sum(false)),
                "{isa:?} {slices:?} {depth}x{units} at {row_panels:?}, {lane_panel}"
            );
        }
    });
}

#[test]
fn gradients_without_zeros_have_the_bits_of_whole_ones() {
    for depth in [1, 3, 4, 6, 8, 13, 16, 30, 32, 66] {
        for bias in [false, true] {
            check_gradient::<f32>(&[9, 4, 7], depth, 40, 0.2, bias);
            check_gradient::<f64>(&[12], depth, 21, 0.4, bias);
        }
    }
    check_gradient::<f64>(&[3, 4], 20, 9, 0.0, true);
}
