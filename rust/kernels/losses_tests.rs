//! The losses against textbook formulas, their gradients against central differences, on every instruction set.

use super::super::{GradientScale, Kernels, LossRows, Number, Targets, loss_rows};
use super::*;
use crate::isa::Isa;
use crate::panel::Panels;

fn each_isa(mut test: impl FnMut(&'static dyn Kernels<f64>, Isa)) {
    Isa::ALL.into_iter().filter(|isa| isa.is_available()).for_each(|isa| test(f64::kernels(isa), isa));
}

/// A sample's loss from its logits and targets, in the plainest form.
#[allow(clippy::disallowed_methods)]
fn naive(loss: &Loss, z: &[f64], y: &[f64]) -> f64 {
    let (n, pairs) = (z.len() as f64, || z.iter().zip(y));
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let sum: f64 = z.iter().map(|z| z.exp()).sum();
    let class = y.iter().position(|&y| y == 1.0).unwrap_or(0);
    let power = |x: f64, squared: bool| if squared { x * x } else { x };
    match loss {
        Loss::WeighedBinaryCrossEntropy { smoothing, positive } => {
            let term = |((z, y), w): ((&f64, &f64), &f64)| {
                let t = y * (1.0 - smoothing) + smoothing / 2.0;
                -w * t * sigmoid(*z).ln() - (1.0 - t) * sigmoid(-z).ln()
            };
            pairs().zip(positive).map(term).sum()
        }
        Loss::SmoothedCrossEntropy { smoothing } => {
            pairs().map(|(z, y)| -(y * (1.0 - smoothing) + smoothing / n) * (z.exp() / sum).ln()).sum()
        }
        Loss::BinaryFocal { gamma, positive, negative } => {
            let term = |(z, y): (&f64, &f64)| {
                let (p, a) = if *y == 1.0 { (sigmoid(*z), positive) } else { (sigmoid(-z), negative) };
                -a * (1.0 - p).powf(*gamma) * p.ln()
            };
            pairs().map(term).sum()
        }
        Loss::Focal { gamma, alpha } => {
            let p = z[class].exp() / sum;
            -alpha[class] * (1.0 - p).powf(*gamma) * p.ln()
        }
        Loss::Hinge { squared } => pairs().map(|(z, y)| power((1.0 - (2.0 * y - 1.0) * z).max(0.0), *squared)).sum(),
        Loss::MultiMargin { squared } => {
            let others = z.iter().enumerate().filter(|&(j, _)| j != class);
            others.map(|(_, x)| power((1.0 - z[class] + x).max(0.0), *squared)).sum()
        }
        Loss::AbsoluteError => pairs().map(|(z, y)| (z - y).abs()).sum(),
        Loss::Huber { delta } => {
            let term = |d: f64| if d <= *delta { d * d / 2.0 } else { delta * (d - delta / 2.0) };
            pairs().map(|(z, y)| term((z - y).abs())).sum()
        }
        Loss::Poisson => pairs().map(|(z, y)| z.exp() - y * z).sum(),
        Loss::Quantile { quantiles } => {
            let term = |(j, z): (usize, &f64)| {
                let (q, d) = (quantiles[j % quantiles.len()], y[j / quantiles.len()] - z);
                (q * d).max((q - 1.0) * d)
            };
            z.iter().enumerate().map(term).sum()
        }
        _ => unreachable!("tested beside the kernels"),
    }
}

fn every_loss(outputs: usize) -> Vec<Loss> {
    let numbers = |from: f64| (0..outputs).map(|j| from + 0.1 * j as f64).collect::<Vec<_>>();
    let mut losses = vec![
        Loss::WeighedBinaryCrossEntropy { smoothing: 0.1, positive: numbers(0.5) },
        Loss::SmoothedCrossEntropy { smoothing: 0.2 },
        Loss::BinaryFocal { gamma: 2.0, positive: 0.25, negative: 0.75 },
        Loss::BinaryFocal { gamma: 0.0, positive: 1.0, negative: 1.0 },
        Loss::Focal { gamma: 2.0, alpha: numbers(0.25) },
        Loss::Focal { gamma: 0.5, alpha: numbers(1.0) },
        Loss::Focal { gamma: 0.0, alpha: numbers(1.0) },
        Loss::Hinge { squared: false },
        Loss::Hinge { squared: true },
        Loss::MultiMargin { squared: false },
        Loss::MultiMargin { squared: true },
        Loss::AbsoluteError,
        Loss::Huber { delta: 0.7 },
        Loss::Poisson,
    ];
    if outputs.is_multiple_of(3) {
        losses.push(Loss::Quantile { quantiles: vec![0.1, 0.5, 0.9] });
    }
    losses
}

/// Losses and gradients of rows whose logits are `z(row, output)`.
fn run(
    kernels: &dyn Kernels<f64>,
    loss: &Loss,
    (rows, outputs): (usize, usize),
    targets: Targets<'_, f64>,
    scales: &[f64],
    z: impl Fn(usize, usize) -> f64,
) -> (Vec<f64>, Vec<f64>) {
    let mut logits = Panels::zeroed(rows, outputs, kernels.geometry(), "test").unwrap();
    let places = || (0..rows).flat_map(|r| (0..outputs).map(move |j| (r, j)));
    places().for_each(|(r, j)| logits.set(r, j, z(r, j)));
    let (mut losses, mut scratch) = (vec![0.0; rows], vec![77.0; loss_rows::scratch(kernels.geometry(), outputs)]);
    kernels.loss(&mut LossRows {
        loss,
        logits: logits.view_mut(),
        targets,
        scale: 2.0,
        gradient_scale: GradientScale::Rows(scales),
        losses: &mut losses,
        scratch: &mut scratch,
    });
    let gradient: Vec<f64> = places().map(|(r, j)| logits.get(r, j)).collect();
    let all: f64 = logits.view().data().iter().map(|x| x.abs()).sum();
    let ours: f64 = gradient.iter().map(|x| x.abs()).sum();
    assert!((all - ours).abs() <= 1e-9 * all.max(1.0), "padding is zero");
    (losses, gradient)
}

#[test]
fn losses_equal_the_textbook_and_gradients_their_differences_with_the_same_bits_everywhere() {
    for (rows, outputs) in [(1, 1), (3, 12), (17, 5), (20, 33), (9, 69)] {
        for loss in every_loss(outputs) {
            let z = |r: usize, j: usize| ((r * 37 + j * 101) % 199) as f64 / 33.7 - 2.9;
            let class = |r: usize| (r * 7) % outputs;
            let columns = outputs / loss.outputs_per_target();
            let target = |r: usize, j: usize| {
                if loss.takes_classes() {
                    f64::from(class(r) == j)
                } else if loss.takes_bits() {
                    f64::from((r + j).is_multiple_of(3))
                } else {
                    ((r * 13 + j * 29) % 7) as f64 / 3.0
                }
            };
            let y: Vec<f64> =
                (0..rows).flat_map(|r| (0..columns).map(move |j| (r, j))).map(|(r, j)| target(r, j)).collect();
            let classes: Vec<u32> = (0..rows).map(|r| class(r) as u32).collect();
            let scales: Vec<f64> = (0..rows).map(|r| 0.25 + r as f64).collect();
            let mut first: Option<(Vec<f64>, Vec<f64>)> = None;
            each_isa(|kernels, isa| {
                let ours = run(kernels, &loss, (rows, outputs), Targets::Dense(&y), &scales, z);
                if loss.takes_classes() {
                    let same = run(kernels, &loss, (rows, outputs), Targets::Classes(&classes), &scales, z);
                    assert_eq!(ours, same, "{isa:?} {loss:?}");
                }
                assert_eq!(first.get_or_insert_with(|| ours.clone()), &ours, "{isa:?} {loss:?}");
            });
            let (losses, gradient) = first.unwrap();
            for r in 0..rows {
                let row: Vec<f64> = (0..outputs).map(|j| z(r, j)).collect();
                let targets = &y[r * columns..(r + 1) * columns];
                let wanted = 2.0 * naive(&loss, &row, targets);
                assert!((losses[r] - wanted).abs() <= 1e-13 * wanted.abs().max(1.0), "{loss:?} row {r}");
                for j in 0..outputs {
                    let at = |x: f64| {
                        let mut row = row.clone();
                        row[j] += x;
                        naive(&loss, &row, targets)
                    };
                    let difference = scales[r] * (at(1e-6) - at(-1e-6)) / 2e-6;
                    let off = (gradient[r * outputs + j] - difference).abs();
                    // What a difference of losses so large can tell.
                    assert!(off <= 1e-8 * scales[r] * (10.0 + wanted.abs()), "{loss:?} ({r}, {j}): {off}");
                }
            }
        }
    }
}

#[test]
fn huge_logits_overflow_nothing() {
    each_isa(|kernels, isa| {
        for loss in every_loss(2).into_iter().filter(|loss| *loss != Loss::Poisson) {
            for size in [40.0, 800.0, 1e9, 1e100] {
                let squares = matches!(loss, Loss::Hinge { squared: true } | Loss::MultiMargin { squared: true });
                for (y, sign) in [([1.0, 0.0], 1.0), ([1.0, 0.0], -1.0)] {
                    let z = |_, j| if j == 0 { sign * size } else { -sign * size };
                    let (losses, gradient) = run(kernels, &loss, (1, 2), Targets::Dense(&y), &[1.0], z);
                    assert!(losses[0].is_finite() && losses[0] >= 0.0, "{isa:?} {loss:?} {size}: {losses:?}");
                    assert!(gradient.iter().all(|d| d.is_finite()), "{isa:?} {loss:?} {size}: {gradient:?}");
                    assert!(squares || gradient.iter().all(|d| d.abs() <= 3.0), "{isa:?} {loss:?} {size}");
                }
            }
        }
    });
}

#[test]
fn a_loss_is_parsed_with_its_parameters_and_checked() {
    let parse = |name: &str, parameters: &[f64]| Loss::parse(name, parameters).map_err(|e| e.to_string());
    assert_eq!(parse("huber", &[2.5]), Ok(Loss::Huber { delta: 2.5 }));
    assert_eq!(parse("focal", &[2.0, 1.0, 0.5]), Ok(Loss::Focal { gamma: 2.0, alpha: vec![1.0, 0.5] }));
    for (name, parameters) in [
        ("huber", &[][..]),
        ("huber", &[0.0]),
        ("huber", &[f64::NAN]),
        ("quantile", &[]),
        ("quantile", &[0.5, 1.0]),
        ("smoothed_cross_entropy", &[1.5]),
        ("binary_focal", &[-1.0, 1.0, 1.0]),
        ("logistic", &[]),
    ] {
        assert!(parse(name, parameters).unwrap_err().starts_with("loss: "), "{name} {parameters:?}");
    }
    let quantiles = Loss::Quantile { quantiles: vec![0.1, 0.9] };
    assert!(quantiles.check(crate::activation::Activation::Identity, 4).is_ok());
    assert!(quantiles.check(crate::activation::Activation::Identity, 3).is_err());
    assert!(quantiles.check(crate::activation::Activation::Softmax, 4).is_err());
}
