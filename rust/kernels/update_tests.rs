//! The optimizers' rules against their formulas, with equal bits on every instruction set.

use super::tests::{each_isa, number};
use super::*;

fn rules<T: Number>() -> Vec<Rule<T>> {
    let t = T::from_f64;
    vec![
        Rule::Descent { rate: t(0.1) },
        Rule::Momentum { rate: t(0.1), momentum: t(0.9), nesterov: false },
        Rule::Momentum { rate: t(0.1), momentum: t(0.9), nesterov: true },
        Rule::Velocity { rate: t(0.1), momentum: t(0.9), nesterov: false },
        Rule::Velocity { rate: t(0.1), momentum: t(0.9), nesterov: true },
        adam(false),
        adam(true),
        Rule::Nadam {
            gradient_step: t(0.003),
            moment_step: t(0.01),
            scale: t(3.0),
            beta1_rest: t(0.1),
            beta2: t(0.99),
            beta2_rest: t(0.01),
            epsilon: t(1e-8),
        },
        rms_prop(0.0, false),
        rms_prop(0.9, false),
        rms_prop(0.9, true),
        Rule::Adagrad { rate: t(0.1), epsilon: t(1e-10) },
        Rule::Lion { rate: t(0.01), beta1: t(0.9), beta1_rest: t(0.1), beta2: t(0.99), beta2_rest: t(0.01) },
    ]
}

fn adam<T: Number>(greatest: bool) -> Rule<T> {
    let t = T::from_f64;
    let (step, scale, epsilon) = (t(0.01), t(3.0), t(1e-8));
    Rule::Adam { step, scale, beta1_rest: t(0.1), beta2: t(0.99), beta2_rest: t(0.01), epsilon, greatest }
}

fn rms_prop<T: Number>(momentum: f64, centered: bool) -> Rule<T> {
    let t = T::from_f64;
    let (rate, alpha, alpha_rest, epsilon, velocity) = (t(0.1), t(0.99), t(0.01), t(1e-8), momentum != 0.0);
    Rule::RmsProp { rate, alpha, alpha_rest, epsilon, momentum: t(momentum), velocity, centered }
}

/// One weight by the rule, in exact operations: new (w, first, second, third).
fn naive_rule(rule: Rule<f64>, shrink: Shrink<f64>, [w, g, first, second, third]: [f64; 5]) -> [f64; 4] {
    let sign = |x: f64| if x == 0.0 { 0.0 } else { x.signum() };
    let g = (g + shrink.l2 * w + shrink.l1 * sign(w)).clamp(-shrink.clip, shrink.clip);
    let w = w * shrink.keep;
    match rule {
        Rule::Descent { rate } => [w - rate * g, first, second, third],
        Rule::Momentum { rate, momentum, nesterov } => {
            let velocity = momentum * first + g;
            [w - rate * if nesterov { g + momentum * velocity } else { velocity }, velocity, second, third]
        }
        Rule::Velocity { rate, momentum, nesterov } => {
            let u = momentum * first - rate * g;
            [w + if nesterov { momentum * u - rate * g } else { u }, u, second, third]
        }
        Rule::Adam { step, scale, beta1_rest, beta2, beta2_rest, epsilon, greatest } => {
            let (m, v) = (first + beta1_rest * (g - first), beta2 * second + beta2_rest * g * g);
            let most = if greatest { third.max(v) } else { third };
            let root = if greatest { most } else { v }.sqrt();
            [w - step * m / (root * scale + epsilon), m, v, most]
        }
        Rule::Nadam { gradient_step, moment_step, scale, beta1_rest, beta2, beta2_rest, epsilon } => {
            let (m, v) = (first + beta1_rest * (g - first), beta2 * second + beta2_rest * g * g);
            [w - (gradient_step * g + moment_step * m) / (v.sqrt() * scale + epsilon), m, v, third]
        }
        Rule::RmsProp { rate, alpha, alpha_rest, epsilon, momentum, velocity, centered } => {
            let v = alpha * first + alpha_rest * g * g;
            let mean = if centered { third + alpha_rest * (g - third) } else { third };
            let root = if centered { v - mean * mean } else { v }.sqrt();
            let direction = g / (root + epsilon);
            let direction = if velocity { momentum * second + direction } else { direction };
            [w - rate * direction, v, if velocity { direction } else { second }, mean]
        }
        Rule::Adagrad { rate, epsilon } => {
            let sum = first + g * g;
            [w - rate * g / (sum.sqrt() + epsilon), sum, second, third]
        }
        Rule::Lion { rate, beta1, beta1_rest, beta2, beta2_rest } => {
            [w - rate * sign(beta1 * first + beta1_rest * g), beta2 * first + beta2_rest * g, second, third]
        }
    }
}

#[test]
fn updates_follow_their_rules_and_have_the_same_bits_everywhere() {
    let len = 64;
    let column = |salt: usize| (0..len).map(|i| number::<f64>(i, 1, salt)).collect::<Vec<_>>();
    let positive = |salt: usize| column(salt).iter().map(|x| x.abs() + 1.0).collect::<Vec<_>>();
    let shrinks = [Shrink::NONE, Shrink { l1: 0.125, l2: 0.25, clip: 0.5, keep: 0.875 }];
    for (rule, shrink) in rules::<f64>().into_iter().flat_map(|rule| shrinks.map(|shrink| (rule, shrink))) {
        let mut first_bits: Option<Vec<f64>> = None;
        each_isa::<f64>(|kernels, isa| {
            let squares_first = matches!(rule, Rule::RmsProp { .. } | Rule::Adagrad { .. });
            let before = [column(1), if squares_first { positive(3) } else { column(3) }, positive(4), column(5)];
            let [mut weights, mut first, mut second, mut third] = before.clone();
            let gradient = column(2);
            kernels.update(&mut Update {
                rule,
                shrink,
                weights: &mut weights,
                gradient: &gradient,
                first: &mut first,
                second: &mut second,
                third: &mut third,
            });
            for i in 0..len {
                let of = [before[0][i], gradient[i], before[1][i], before[2][i], before[3][i]];
                let wanted = naive_rule(rule, shrink, of);
                for (got, wanted) in [weights[i], first[i], second[i], third[i]].into_iter().zip(wanted) {
                    assert!((got - wanted).abs() <= 4e-15 * wanted.abs().max(1.0), "{isa:?} {rule:?}: {got} {wanted}");
                }
            }
            assert_eq!(first_bits.get_or_insert_with(|| weights.clone()), &weights, "{isa:?} {rule:?}");
        });
    }
}

#[test]
fn subnormal_moments_become_zero() {
    each_isa::<f32>(|kernels, _| {
        let n = kernels.geometry().panel();
        let rule = Rule::Momentum { rate: 0.1, momentum: 0.9, nesterov: false };
        let (mut weights, gradient, mut first) = (vec![0.0f32; n], vec![0.0; n], vec![1e-38; n]);
        kernels.update(&mut Update {
            rule,
            shrink: Shrink::NONE,
            weights: &mut weights,
            gradient: &gradient,
            first: &mut first,
            second: &mut [],
            third: &mut [],
        });
        assert!(first.iter().all(|&x| x == 0.0));
    });
}
