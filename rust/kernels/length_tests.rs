//! The kernels of `length.rs` against loops over plain matrices, with equal bits on every instruction set.

use super::tests::{each_isa, number};
use super::*;

/// 32 strided partials and a tree, term by term.
fn naive_sum<T: Number>(of: Of, terms: impl Iterator<Item = T>) -> T {
    let mut partial = [T::ZERO; 32];
    let with = |x: T, sum: T| if of == Of::Squares { x.mul_add(x, sum) } else { sum + x.abs() };
    terms.enumerate().for_each(|(i, x)| partial[i % 32] = with(x, partial[i % 32]));
    for half in [16, 8, 4, 2, 1] {
        (0..half).for_each(|i| partial[i] += partial[i + half]);
    }
    partial[0]
}

fn check_sums<T: Number>(of: Of, inputs: usize, outputs: usize) {
    each_isa::<T>(|kernels, isa| {
        let geometry = kernels.geometry();
        let (mut wide, mut narrow) = (
            Panels::<T>::zeroed(inputs, outputs, geometry, "test").unwrap(),
            Panels::<T>::zeroed(outputs, inputs, geometry, "test").unwrap(),
        );
        for (j, i) in (0..outputs).flat_map(|j| (0..inputs).map(move |i| (j, i))) {
            wide.set(i, j, number(i, j, 1));
            narrow.set(j, i, number(i, j, 1));
        }
        for j in 0..outputs {
            let wanted = naive_sum(of, (0..inputs).map(|i| number::<T>(i, j, 1)));
            let (p, lane) = (j / geometry.panel(), j % geometry.panel());
            let mut sums = vec![T::ONE; wide.width(p)];
            kernels.lane_sums(&mut LaneSums { of, rows: wide.panel(p), sums: &mut sums });
            assert_eq!(sums[lane], wanted, "{isa:?} {of:?} {inputs} -> {outputs}, wide, output {j}");
            let sum = kernels.row_sum(&RowSum { of, panels: narrow.view().data(), rows: outputs, row: j });
            assert_eq!(sum, wanted, "{isa:?} {of:?} {inputs} -> {outputs}, narrow, output {j}");
        }
    });
}

#[test]
fn sums_are_the_same_in_both_forms_and_everywhere() {
    for inputs in [1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 257] {
        for (outputs, of) in [1, 3, 17].into_iter().flat_map(|outputs| [(outputs, Of::Squares), (outputs, Of::Sizes)]) {
            check_sums::<f32>(of, inputs, outputs);
            check_sums::<f64>(of, inputs, outputs);
        }
    }
}

#[test]
fn blocks_are_scaled_by_lanes_or_rows() {
    each_isa::<f32>(|kernels, isa| {
        let panel = kernels.geometry().panel();
        for (rows, width) in [(1, panel / 2), (5, panel)] {
            let block: Vec<f32> = (0..rows * width).map(|i| number(i, 0, 2)).collect();
            let of_lanes: Vec<f32> = (0..width).map(|i| number(i, 1, 3)).collect();
            let of_rows: Vec<f32> = (0..rows).map(|i| number(i, 2, 3)).collect();
            for factors in [Factors::Lanes(&of_lanes), Factors::Rows(&of_rows)] {
                let mut scaled = block.clone();
                kernels.scale(&mut Scale { block: &mut scaled, width, factors });
                for (i, x) in scaled.iter().enumerate() {
                    let factor =
                        if matches!(factors, Factors::Lanes(_)) { of_lanes[i % width] } else { of_rows[i / width] };
                    assert_eq!(*x, block[i] * factor, "{isa:?}");
                }
            }
        }
    });
}

#[test]
fn blends_are_rounded_twice_and_never_subnormal() {
    each_isa::<f64>(|kernels, isa| {
        let len = 3 * kernels.geometry().lanes;
        let (x, y): (Vec<f64>, Vec<f64>) = ((0..len).map(|i| number(i, 0, 4)).collect(), vec![0.3; len]);
        let mut blended = x.clone();
        kernels.blend(&mut Blend { x: &mut blended, keep: 0.7, y: &y, share: 0.1 });
        (0..len).for_each(|i| assert_eq!(blended[i], 0.1f64.mul_add(y[i], 0.7 * x[i]), "{isa:?}"));
        let mut kept = x.clone();
        kernels.blend(&mut Blend { x: &mut kept, keep: 0.7, y: &[], share: 9.0 });
        (0..len).for_each(|i| assert_eq!(kept[i], 0.7 * x[i], "{isa:?}"));
        kept.fill(f64::MIN_POSITIVE);
        kernels.blend(&mut Blend { x: &mut kept, keep: 0.5, y: &[], share: 0.0 });
        assert!(kept.iter().all(|&x| x == 0.0), "{isa:?}");
    });
}

#[test]
fn averages_approach_and_stay() {
    each_isa::<f32>(|kernels, isa| {
        let len = 3 * kernels.geometry().lanes;
        let (x, y): (Vec<f32>, Vec<f32>) = (0..len).map(|i| (number::<f32>(i, 0, 7), number::<f32>(i, 1, 7))).unzip();
        let mut average = x.clone();
        kernels.approach(&mut Approach { x: &mut average, y: &y, share: 0.01 });
        (0..len).for_each(|i| assert_eq!(average[i], 0.01f32.mul_add(y[i] - x[i], x[i]), "{isa:?}"));
        average.copy_from_slice(&y);
        kernels.approach(&mut Approach { x: &mut average, y: &y, share: 0.1 });
        assert_eq!(average, y, "{isa:?}");
    });
}

#[test]
fn penalties_and_clipping_reach_a_gradient_in_memory() {
    each_isa::<f64>(|kernels, isa| {
        let len = 2 * kernels.geometry().lanes;
        let weights: Vec<f64> = (0..len).map(|i| number(i, 0, 5)).collect();
        let gradient: Vec<f64> = (0..len).map(|i| number(i, 1, 6)).collect();
        let shrink = Shrink { l1: 0.25, l2: 0.5, clip: 0.4, keep: 0.1 };
        let mut penalised = gradient.clone();
        kernels.penalise(&mut Penalise { shrink, weights: &weights, gradient: &mut penalised });
        for i in 0..len {
            let sign = f64::from(weights[i] > 0.0) - f64::from(weights[i] < 0.0);
            let wanted = 0.25f64.mul_add(sign, 0.5f64.mul_add(weights[i], gradient[i])).clamp(-0.4, 0.4);
            assert_eq!(penalised[i], wanted, "{isa:?}");
        }
    });
}
