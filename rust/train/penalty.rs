//! L1 and L2: what they add to a loss, and to a gradient that lies in memory. (A rule that updates weights at once adds
//! their gradient itself: `kernels/update.rs`.)
//!
//! A sum over weights runs over each output's inputs first (`kernels/length.rs`), then over the outputs of all layers: the same
//! bits for every panel width and form. Nothing is allocated for it, as it is part of every step.

use super::sums::StridedSum;
use crate::error::Error;
use crate::kernels::{Number, Of};
use crate::network::{GRADIENT, Layer, Network, WEIGHTS};
use crate::step::measure::{Measures, sums_of};
use crate::threads::{Claims, Team};

/// What is added to the loss: `l1 sum |w| + l2 / 2 sum w^2`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Penalty {
    /// See above.
    pub l1: f64,
    /// See above.
    pub l2: f64,
    /// Whether over biases too; decoupled decay follows.
    pub biases: bool,
}

impl Penalty {
    /// Whether there is any.
    pub fn is_none(self) -> bool {
        self.l1 == 0.0 && self.l2 == 0.0
    }

    /// The penalty where sizes and squares sum up to these.
    fn of(self, sizes: f64, squares: f64) -> f64 {
        let of = |factor: f64, sum: f64| if factor == 0.0 { 0.0 } else { factor * sum };
        of(self.l1, sizes) + of(0.5 * self.l2, squares)
    }
}

/// What the penalty adds to the loss.
pub fn penalty<T: Number>(network: &Network<T>, penalty: Penalty) -> f64 {
    let total = |factor: f64, of: Of| if factor == 0.0 { 0.0 } else { total(network, of, penalty.biases) };
    penalty.of(total(penalty.l1, Of::Sizes), total(penalty.l2, Of::Squares))
}

/// The sum over all weights, and biases where they count.
fn total<T: Number>(network: &Network<T>, of: Of, biases: bool) -> f64 {
    let reading = network.arena.read();
    let weights = reading.buffer(WEIGHTS);
    sum_up(network, of, biases, weights, |l, sum| of_outputs(network, of, &network.layers[l], weights, sum))
}

/// The sum of what `of_layer` adds for each layer, and of biases where they count.
fn sum_up<T: Number>(
    network: &Network<T>,
    of: Of,
    biases: bool,
    weights: &[T],
    of_layer: impl Fn(usize, &mut StridedSum),
) -> f64 {
    let mut sum = StridedSum::new();
    for (l, layer) in network.layers.iter().enumerate() {
        of_layer(l, &mut sum);
        if biases {
            beside(layer).for_each(|at| {
                let x = weights[at].to_f64();
                sum.add(if of == Of::Squares { x * x } else { x.abs() });
            });
        }
    }
    sum.total()
}

/// A step's penalty as work that its workers share: measured while they are at the samples, added up at the barrier.
pub struct Shared<T> {
    penalty: Penalty,
    claims: Claims,
    /// The sums over each output's weights that the penalty asks for.
    sizes: Option<Measures<T>>,
    squares: Option<Measures<T>>,
}

impl<T: Number> Shared<T> {
    /// For at most so many workers; nothing measured.
    ///
    /// # Errors
    /// [`Error::Memory`] where the sums do not fit.
    pub fn new(network: &Network<T>, penalty: Penalty, workers: usize) -> Result<Self, Error> {
        let measures = |factor: f64| (factor != 0.0).then(|| Measures::new(network)).transpose();
        let (sizes, squares) = (measures(penalty.l1)?, measures(penalty.l2)?);
        Ok(Shared { penalty, claims: Claims::new(workers), sizes, squares })
    }

    /// What worker `worker` measures of `weights`.
    pub fn measure(&self, network: &Network<T>, weights: &[T], team: &Team, worker: usize) {
        let both = [(Of::Sizes, &self.sizes), (Of::Squares, &self.squares)];
        let units = both.iter().filter_map(|(_, measures)| measures.as_ref()).map(Measures::units).max().unwrap_or(0);
        let share = |w: usize| w * units / team.size();
        while let Some(unit) = self.claims.next(worker, team.size(), share) {
            for (of, measures) in both {
                if let Some(measures) = measures {
                    measures.measure(network, unit, of, weights, |_, sum| sum);
                }
            }
        }
    }

    /// The penalty, once all is measured; the bits of [`penalty`]. The next measuring begins anew.
    pub fn settle(&self, network: &Network<T>) -> f64 {
        self.claims.reset();
        let reading = network.arena.read();
        let total = |of: Of, measures: &Option<Measures<T>>| {
            let Some(measures) = measures else { return 0.0 };
            let measured = measures.read();
            sum_up(network, of, self.penalty.biases, reading.buffer(WEIGHTS), |l, sum| {
                sum.extend(&measured.layer(l)[..network.layers[l].outputs]);
            })
        };
        self.penalty.of(total(Of::Sizes, &self.sizes), total(Of::Squares, &self.squares))
    }
}

/// The most lanes of a panel.
const AT_ONCE: usize = 32;

/// A layer's weights, output by output.
fn of_outputs<T: Number>(network: &Network<T>, of: Of, layer: &Layer, weights: &[T], sum: &mut StridedSum) {
    let step = network.geometry.panel();
    for first in (0..layer.outputs).step_by(step) {
        let mut sums = [T::ZERO; AT_ONCE];
        let outputs = first..(first + step).min(layer.outputs);
        let lanes = network.geometry.padded(outputs.end) - first;
        sums_of(network, of, layer, weights, outputs.clone(), &mut sums[..lanes]);
        sum.extend(&sums[..outputs.len()]);
    }
}

/// Where a layer has its biases, and gamma and beta.
fn beside(layer: &Layer) -> impl Iterator<Item = usize> {
    let (outputs, affine) = (layer.outputs, layer.affine());
    let half = affine.len() / 2;
    let used = outputs.min(half);
    let layer = *layer;
    (0..outputs).map(move |j| layer.bias(j)).chain((0..used).chain(half..half + used).map(move |i| affine.start + i))
}

/// Adds the penalty's gradient to the one in the arena.
pub fn add_gradient<T: Number>(network: &mut Network<T>, penalty: Penalty) {
    if penalty.is_none() {
        return;
    }
    let Penalty { l1, l2, biases } = penalty;
    let (l1, l2) = (T::from_f64(l1), T::from_f64(l2));
    let weights = network.arena.buffer(WEIGHTS).to_vec();
    let layers = network.layers.clone();
    let gradient = network.arena.buffer(GRADIENT);
    let sign = |w: T| {
        if w > T::ZERO {
            T::ONE
        } else if w < T::ZERO {
            -T::ONE
        } else {
            T::ZERO
        }
    };
    // As the rules do it.
    let mut add = |at: usize| gradient[at] = l1.mul_add(sign(weights[at]), l2.mul_add(weights[at], gradient[at]));
    for layer in &layers {
        for j in 0..layer.outputs {
            (0..layer.inputs).for_each(|i| add(layer.weight(j, i)));
        }
        if biases {
            beside(layer).for_each(&mut add);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::isa::Isa;
    use crate::kernels::Loss;
    use crate::network::LayerSpec;
    use crate::threads;

    #[test]
    fn sums_over_weights_have_the_same_bits_on_every_instruction_set() {
        for dims in [&[3, 5, 1][..], &[300, 20, 7, 1], &[64, 100, 10], &[70, 33, 65, 3]] {
            let mut expected = None;
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                let specs = |&units: &usize| LayerSpec::plain(units, Activation::Identity);
                let specs: Vec<LayerSpec> = dims[1..].iter().map(specs).collect();
                let mut net = Network::<f64>::new(dims[0], &specs, Loss::SquaredError, isa).unwrap();
                let weight = |l: usize, j: usize, i: usize| {
                    (if (i + j).is_multiple_of(2) { 1.0 } else { -1.0 }) / (1 + l + 3 * j + 7 * i) as f64
                };
                let (mut squares, mut sizes) = (0.0, 0.0);
                for l in 0..net.layers.len() {
                    net.set_layer(l, |j, i| weight(l, j, i), |_| -2.0);
                    for j in 0..net.layers[l].outputs {
                        let row = (0..net.layers[l].inputs).map(|i| weight(l, j, i));
                        squares += row.clone().map(|w| w * w).sum::<f64>();
                        sizes += row.map(f64::abs).sum::<f64>();
                    }
                }
                let biases: usize = dims[1..].iter().sum();
                let wanted = [squares, squares + 4.0 * biases as f64, sizes, sizes + 2.0 * biases as f64];
                let sums = [(Of::Squares, false), (Of::Squares, true), (Of::Sizes, false), (Of::Sizes, true)]
                    .map(|(of, biases)| total(&net, of, biases));
                for (sum, wanted) in sums.into_iter().zip(wanted) {
                    assert!((sum - wanted).abs() < 1e-12 * wanted, "{isa:?} {dims:?}: {sum} for {wanted}");
                }
                assert_eq!(*expected.get_or_insert(sums), sums, "{isa:?} {dims:?}");
                let both = Penalty { l1: 0.5, l2: 3.0, biases: true };
                assert_eq!(penalty(&net, both), 0.5 * sums[3] + 1.5 * sums[1]);
                assert_eq!(penalty(&net, Penalty::default()), 0.0);
                let shared = Shared::new(&net, both, 2).unwrap();
                for _ in 0..2 {
                    let work = |team: &Team, worker| {
                        shared.measure(&net, net.arena.read().buffer(WEIGHTS), team, worker);
                        let check = || assert_eq!(shared.settle(&net), penalty(&net, both), "{isa:?} {dims:?}");
                        assert!(team.barrier(check));
                    };
                    threads::run(2, work).unwrap();
                }
            }
        }
    }
}
