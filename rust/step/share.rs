//! The way of a small batch's only slice where threads share its products, panel by panel.
//!
//! A batch of a few samples is not worth cutting into slices: each would read all weights. Here each product that is large enough
//! is a stage of its own, with a barrier behind it; threads claim panels of its result, and so each reads its part of
//! the weights alone. What lies between such products is one thread's.
//!
//! For plain layers, not in mixed precision: `plan.rs` decides.

use super::weights::Weights;
use super::{Slice, backward, forward};
use crate::kernels::{INPUT_SEGMENT, Number};
use crate::network::{Layer, Network};
use crate::panel::{Loan, Panels};
use crate::plan;
use crate::threads::{Claims, Team};
use std::ops::Range;

/// What is done between two barriers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// One thread does these items.
    Alone(Range<usize>),
    /// Threads claim the panels of this item's product.
    Shared(usize),
}

/// One of the items that a step's way through the samples is made of, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    /// What comes before all products.
    Gather,
    /// The product of this layer (from 0).
    Forward(usize),
    /// From the logits to dZ of the last layer.
    Loss,
    /// The product that makes dZ of the layer before this one.
    Backward(usize),
}

/// The item at `index` of a network of so many layers.
fn item(layers: usize, index: usize) -> Item {
    match index {
        0 => Item::Gather,
        _ if index <= layers => Item::Forward(index - 1),
        _ if index == layers + 1 => Item::Loss,
        _ => Item::Backward(2 * layers + 1 - index),
    }
}

/// The stages of a way, and the matrix that the threads of a stage write.
pub struct Sharing<T> {
    /// In order.
    pub stages: Vec<Stage>,
    /// Of the stage that goes on.
    loan: Loan<T>,
    /// Its panels.
    claims: Claims,
}

impl<T: Number> Sharing<T> {
    /// A step of training on `rows` rows; its first stage is one thread's and begins with the gathering of the rows.
    pub fn training(network: &Network<T>, rows: usize, threads: usize) -> Self {
        Sharing::new(network, rows, threads, 0..2 * network.layers.len() + 1)
    }

    /// A pass forward through rows that were gathered.
    pub fn forward(network: &Network<T>, rows: usize, threads: usize) -> Self {
        Sharing::new(network, rows, threads, 1..network.layers.len() + 1)
    }

    fn new(network: &Network<T>, rows: usize, threads: usize, items: Range<usize>) -> Self {
        let panels = |layer: &Layer| network.geometry.panels(layer.inputs.max(layer.outputs));
        let most = network.layers.iter().map(panels).max().unwrap_or(0);
        Sharing { stages: stages(network, rows, items), loan: Loan::new(most), claims: Claims::new(threads) }
    }

    /// Before a stage: lends what its threads write.
    pub fn enter(&self, slice: &mut Slice<T>, stage: usize) {
        if let Stage::Shared(index) = self.stages[stage]
            && let Some(result) = result_of(slice, index)
        {
            self.loan.lend(result.take());
        }
    }

    /// A worker's part of a shared stage: claims panels of item `index`'s result. `totals` has room for one, where sums have
    /// several segments ([`has_totals`]).
    pub fn work(
        &self,
        network: &Network<T>,
        from: Weights<'_, T>,
        slice: &Slice<T>,
        index: usize,
        (team, worker): (&Team, usize),
        totals: &mut [T],
    ) {
        let (panels, has_totals) = (panels(network, index), has_totals(network));
        let share = |w: usize| w * panels / team.size();
        while let Some(p) = self.claims.next(worker, team.size(), share) {
            let mut writing = self.loan.write(p);
            let c = writing.numbers();
            let totals = if has_totals { &mut totals[..c.len()] } else { &mut [] };
            match item(network.layers.len(), index) {
                Item::Forward(l) => forward::panel(network, from, slice, l, p, totals, c),
                Item::Backward(l) => backward::panel(network, from, slice, l, p, totals, c),
                Item::Gather | Item::Loss => {}
            }
        }
    }

    /// After a stage, when all have left it: puts it back.
    pub fn leave(&self, slice: &mut Slice<T>, stage: usize) {
        self.claims.reset();
        if let Stage::Shared(index) = self.stages[stage]
            && let Some(result) = result_of(slice, index)
        {
            *result = self.loan.take_back();
        }
    }
}

fn stages<T: Number>(network: &Network<T>, rows: usize, items: Range<usize>) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::with_capacity(items.len());
    for index in items {
        let shared = match item(network.layers.len(), index) {
            Item::Gather | Item::Loss => false,
            Item::Forward(l) => plan::shares_forward(network, rows, l),
            Item::Backward(l) => plan::shares_backward(network, rows, l),
        };
        match stages.last_mut() {
            _ if shared => stages.push(Stage::Shared(index)),
            Some(Stage::Alone(items)) => items.end = index + 1,
            _ => stages.push(Stage::Alone(index..index + 1)),
        }
    }
    stages
}

/// Does items alone, with the rows gathered already; `loss` turns the logits into dZ[L].
pub fn alone<T: Number>(
    network: &Network<T>,
    from: Weights<'_, T>,
    slice: &mut Slice<T>,
    items: Range<usize>,
    mut loss: impl FnMut(&mut Slice<T>),
) {
    for index in items {
        match item(network.layers.len(), index) {
            Item::Gather => {}
            Item::Forward(l) => forward::layer(network, from, slice, l, true),
            Item::Loss => loss(slice),
            Item::Backward(l) => backward::data(network, from, slice, l),
        }
    }
}

/// Whether a sum has several segments, and needs room for totals.
pub fn has_totals<T: Number>(network: &Network<T>) -> bool {
    network.layers.iter().any(|layer| layer.inputs.max(layer.outputs) > INPUT_SEGMENT)
}

/// How many panels a shared item's result has.
fn panels<T: Number>(network: &Network<T>, index: usize) -> usize {
    let lanes = match item(network.layers.len(), index) {
        Item::Forward(l) => network.layers[l].outputs,
        Item::Backward(l) => network.layers[l].inputs,
        Item::Gather | Item::Loss => 0,
    };
    network.geometry.panels(lanes)
}

/// The matrix that a shared item writes.
fn result_of<T>(slice: &mut Slice<T>, index: usize) -> Option<&mut Panels<T>> {
    let layers = slice.deltas.len();
    match item(layers, index) {
        Item::Forward(l) if l + 1 < layers => slice.activations.get_mut(l),
        Item::Forward(l) => slice.deltas.get_mut(l),
        Item::Backward(l) => slice.deltas.get_mut(l - 1),
        Item::Gather | Item::Loss => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::isa::Isa;
    use crate::kernels::Loss;
    use crate::network::LayerSpec;
    use crate::step::Role;

    /// 40-1200-5: the first layer is worth sharing, the last one's units are not, but what it hands back is.
    fn network() -> Network<f64> {
        let specs = [1200, 5].map(|units| LayerSpec::plain(units, Activation::Identity));
        Network::new(40, &specs, Loss::SquaredError, Isa::Scalar).unwrap()
    }

    #[test]
    fn large_products_are_stages_of_their_own() {
        let (network, rows) = (network(), 40);
        let shared = [plan::shares_forward(&network, rows, 0), plan::shares_forward(&network, rows, 1)];
        assert_eq!((shared, plan::shares_backward(&network, rows, 1)), ([true, false], true));
        let stages = Sharing::training(&network, rows, 2).stages;
        assert_eq!(stages, [Stage::Alone(0..1), Stage::Shared(1), Stage::Alone(2..4), Stage::Shared(4)]);
        assert_eq!(Sharing::forward(&network, rows, 2).stages, [Stage::Shared(1), Stage::Alone(2..3)]);
    }

    #[test]
    fn a_stage_takes_its_result_and_leaves_it_written() {
        let network = network();
        let sharing = Sharing::forward(&network, 40, 2);
        let mut slice = Slice::new(&network, 40, Role::Answers).unwrap();
        sharing.enter(&mut slice, 0);
        assert_eq!(slice.activations[0].rows(), 0);
        (0..panels(&network, 1)).for_each(|p| sharing.loan.write(p).numbers().fill(3.0));
        sharing.leave(&mut slice, 0);
        assert_eq!(slice.activations[0].view().data(), [3.0; 40 * 1200]);
        sharing.enter(&mut slice, 1);
        sharing.leave(&mut slice, 1);
        assert_eq!(slice.deltas[1].rows(), 40);
    }

    #[test]
    fn items_lead_forward_to_the_loss_and_back_to_the_first_layer() {
        let way: Vec<Item> = (0..7).map(|index| item(3, index)).collect();
        let forward = [Item::Gather, Item::Forward(0), Item::Forward(1), Item::Forward(2)];
        assert_eq!(way[..4], forward);
        assert_eq!(way[4..], [Item::Loss, Item::Backward(2), Item::Backward(1)]);
        assert_eq!(item(1, 2), Item::Loss);
    }
}
