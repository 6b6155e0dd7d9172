//! Losses and their gradients against the textbook's formulas, and with the same bits on every instruction set.

use super::tests::{JUNK, each_isa, matrix, number, padding_is_zero};
use super::*;

/// Loss and gradient of one sample, by the textbook.
fn naive_loss(loss: &Loss, z: &[f64], y: &[f64]) -> (f64, Vec<f64>) {
    #[allow(clippy::disallowed_methods)]
    match loss {
        Loss::BinaryCrossEntropy => {
            let p: Vec<f64> = z.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect();
            let terms = p.iter().zip(y).map(|(p, y)| -(y * p.ln() + (1.0 - y) * (1.0 - p).ln()));
            (terms.sum(), p.iter().zip(y).map(|(p, y)| p - y).collect())
        }
        Loss::CrossEntropy => {
            let sum: f64 = z.iter().map(|z| z.exp()).sum();
            let p: Vec<f64> = z.iter().map(|z| z.exp() / sum).collect();
            (p.iter().zip(y).map(|(p, y)| -y * p.ln()).sum(), p.iter().zip(y).map(|(p, y)| p - y).collect())
        }
        Loss::SquaredError => {
            let d: Vec<f64> = z.iter().zip(y).map(|(z, y)| z - y).collect();
            (d.iter().map(|d| 0.5 * d * d).sum(), d)
        }
        _ => unreachable!("losses_tests.rs has the others"),
    }
}

/// Losses and gradients of some rows, by each way that targets and scales are given.
fn check_loss<T: Number>(loss: &Loss, rows: usize, outputs: usize, tolerance: f64) {
    let classes: Vec<u32> = (0..rows).map(|r| (r * 7 % outputs) as u32).collect();
    let one_hot = |r: usize, j: usize| f64::from(classes[r] == j as u32);
    // One output has targets between 0 and 1 besides. Periods of 5 and 7 differ from every vector's lanes.
    let between = |r: usize, _: usize| (r % 5) as f64 / 4.0;
    let scales: Vec<T> = (0..rows).map(|r| T::from_f64(0.25 + (r % 7) as f64 / 16.0)).collect();
    let (each, same) = (GradientScale::Rows(&scales), GradientScale::Same(T::from_f64(0.375)));
    for scale in [each, same] {
        let dense = |target: &dyn Fn(usize, usize) -> f64| -> Vec<T> {
            (0..rows).flat_map(|r| (0..outputs).map(move |j| (r, j))).map(|(r, j)| T::from_f64(target(r, j))).collect()
        };
        let (hot, some) = (dense(&one_hot), dense(&between));
        let bits = check_targets(loss, Targets::Dense(&hot), &one_hot, scale, (rows, outputs), tolerance);
        assert_eq!(bits, check_targets(loss, Targets::Classes(&classes), &one_hot, scale, (rows, outputs), tolerance));
        if outputs == 1 {
            check_targets(loss, Targets::Dense(&some), &between, scale, (rows, 1), tolerance);
        }
    }
}

/// Compares with the textbook; returns the bits of gradients and losses, which are the same on every instruction set.
fn check_targets<T: Number>(
    loss: &Loss,
    targets: Targets<'_, T>,
    target: &dyn Fn(usize, usize) -> f64,
    gradient_scale: GradientScale<'_, T>,
    (rows, outputs): (usize, usize),
    tolerance: f64,
) -> Vec<u64> {
    let scale = |r: usize| match gradient_scale {
        GradientScale::Same(scale) => scale.to_f64(),
        GradientScale::Rows(scales) => scales[r].to_f64(),
    };
    let mut first_bits: Option<Vec<u64>> = None;
    each_isa::<T>(|kernels, isa| {
        let mut logits = matrix::<T>(rows, outputs, 4, kernels.geometry());
        let before = matrix::<T>(rows, outputs, 4, kernels.geometry());
        let mut losses = vec![T::ZERO; rows];
        let mut scratch = vec![T::from_f64(JUNK); loss_rows::scratch(kernels.geometry(), outputs)];
        kernels.loss(&mut LossRows {
            loss,
            logits: logits.view_mut(),
            targets,
            scale: T::from_f64(2.0),
            gradient_scale,
            losses: &mut losses,
            scratch: &mut scratch,
        });
        let mut bits = Vec::new();
        for (r, reported) in losses.iter().enumerate() {
            let z: Vec<f64> = (0..outputs).map(|j| before.get(r, j).to_f64()).collect();
            let y: Vec<f64> = (0..outputs).map(|j| target(r, j)).collect();
            let (value, gradient) = naive_loss(loss, &z, &y);
            let difference = (reported.to_f64() - 2.0 * value).abs();
            assert!(difference <= 100.0 * tolerance * value.abs().max(1.0), "{isa:?} {loss:?} row {r}: {difference}");
            for (j, wanted) in gradient.into_iter().enumerate() {
                let difference = (logits.get(r, j).to_f64() - scale(r) * wanted).abs();
                assert!(difference <= tolerance, "{isa:?} {loss:?} ({r}, {j}): {difference}");
                bits.push(logits.get(r, j).to_f64().to_bits());
            }
            bits.push(reported.to_f64().to_bits());
        }
        padding_is_zero(&logits);
        assert_eq!(first_bits.get_or_insert_with(|| bits.clone()), &bits, "{isa:?} {loss:?}");
    });
    first_bits.expect("scalar kernels run everywhere")
}

#[test]
fn losses_and_gradients_equal_the_textbook_and_have_the_same_bits_everywhere() {
    for loss in [Loss::BinaryCrossEntropy, Loss::CrossEntropy, Loss::SquaredError] {
        for (rows, outputs) in [(1, 1), (8, 1), (37, 1), (19, 2), (3, 10), (17, 5), (20, 33), (9, 70)] {
            check_loss::<f32>(&loss, rows, outputs, 4e-7);
            check_loss::<f64>(&loss, rows, outputs, 1e-15);
        }
    }
}

#[test]
fn one_output_has_the_bits_that_it_has_among_others() {
    // What another output adds to the sum is nothing: its logit and target are 0, and so is its squared error.
    each_isa::<f32>(|kernels, isa| {
        let rows = 21;
        let specials = [-0.0, 0.0, f32::NAN, f32::INFINITY, -1e-40, 1e30];
        let logit = |r: usize| specials.get(r).copied().unwrap_or_else(|| number(r, 0, 6));
        let run = |outputs: usize| {
            let mut logits = Panels::<f32>::zeroed(rows, outputs, kernels.geometry(), "test").unwrap();
            (0..rows).for_each(|r| logits.set(r, 0, logit(r)));
            let target = |i: usize| if i.is_multiple_of(outputs) { number(i / outputs, 1, 7) } else { 0.0 };
            let targets: Vec<f32> = (0..rows * outputs).map(target).collect();
            let (mut losses, mut scratch) =
                (vec![0.0; rows], vec![0.0; loss_rows::scratch(kernels.geometry(), outputs)]);
            kernels.loss(&mut LossRows {
                loss: &Loss::SquaredError,
                logits: logits.view_mut(),
                targets: Targets::Dense(&targets),
                scale: 0.5,
                gradient_scale: GradientScale::Same(0.125),
                losses: &mut losses,
                scratch: &mut scratch,
            });
            let both = (0..rows).map(|r| [logits.get(r, 0), losses[r]].map(f32::to_bits));
            both.collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(2), "{isa:?}");
    });
}

#[test]
fn huge_logits_overflow_nothing() {
    each_isa::<f32>(|kernels, isa| {
        for (loss, wanted) in [(Loss::BinaryCrossEntropy, 2e30), (Loss::CrossEntropy, 2e30)] {
            let mut logits = Panels::<f32>::zeroed(1, 2, kernels.geometry(), "test").unwrap();
            logits.set(0, 0, 1e30);
            logits.set(0, 1, -1e30);
            let (mut losses, mut scratch) = ([0.0], vec![0.0; loss_rows::scratch(kernels.geometry(), 2)]);
            let targets = Targets::Dense(&[0.0, 1.0]);
            kernels.loss(&mut LossRows {
                loss: &loss,
                logits: logits.view_mut(),
                targets,
                scale: 1.0,
                gradient_scale: GradientScale::Same(1.0),
                losses: &mut losses,
                scratch: &mut scratch,
            });
            assert!((losses[0] / wanted - 1.0).abs() < 1e-6, "{isa:?} {loss:?}: {}", losses[0]);
            assert_eq!((logits.get(0, 0), logits.get(0, 1)), (1.0, -1.0), "{isa:?} {loss:?}");
        }
    });
}

#[test]
fn softmax_sums_to_one_and_survives_large_logits() {
    each_isa::<f64>(|kernels, isa| {
        for (rows, outputs) in [(1, 1), (9, 10), (17, 40)] {
            let mut z = matrix::<f64>(rows, outputs, 4, kernels.geometry());
            z.set(0, 0, 1000.0);
            let mut scratch = vec![0.0; loss_rows::scratch(kernels.geometry(), outputs)];
            kernels.softmax(&mut z, &mut scratch);
            for r in 0..rows {
                let sum: f64 = (0..outputs).map(|j| z.get(r, j)).sum();
                assert!((sum - 1.0).abs() < 1e-14, "{isa:?} row {r}: {sum}");
            }
            assert_eq!(z.get(0, 0), 1.0, "{isa:?}");
            padding_is_zero(&z);
        }
    });
}
