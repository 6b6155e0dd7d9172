//! The way of a small batch's only slice where threads share its products, panel by panel.
//!
//! A batch of a few samples is not worth cutting into slices: each would read all weights. Here each product that is large enough
//! is a stage of its own, with a barrier behind it; threads claim panels of its result, and so each reads its part of
//! the weights alone. What lies between such products is one thread's.
//!
//! For plain layers, not in mixed precision: `plan.rs` decides.

use super::forward::{self, Weights};
use super::{Slice, backward};
use crate::kernels::Number;
use crate::network::Network;
use crate::panel::{Loan, Panels};
use crate::plan;
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
    Loss,
    /// The product that makes dZ of the layer before this one.
    Backward(usize),
}

fn item(layers: usize, index: usize) -> Item {
    match index {
        0 => Item::Gather,
        _ if index <= layers => Item::Forward(index - 1),
        _ if index == layers + 1 => Item::Loss,
        _ => Item::Backward(2 * layers + 1 - index),
    }
}

/// The stages of a step on `rows` rows; the first is one thread's.
pub fn stages<T: Number>(network: &Network<T>, rows: usize) -> Vec<Stage> {
    let layers = network.layers.len();
    let mut stages: Vec<Stage> = Vec::with_capacity(2 * layers + 1);
    for index in 0..=2 * layers {
        let shared = match item(layers, index) {
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
    loss: impl FnOnce(&mut Slice<T>),
) {
    let mut loss = Some(loss);
    for index in items {
        match item(network.layers.len(), index) {
            Item::Gather => {}
            Item::Forward(l) => forward::layer(network, from, slice, l, true),
            Item::Loss => {
                if let Some(loss) = loss.take() {
                    loss(slice);
                }
            }
            Item::Backward(l) => backward::data(network, from, slice, l),
        }
    }
}

/// Panel `p` of a shared item's result, into what [`lend`] lent.
pub fn panel<T: Number>(
    network: &Network<T>,
    from: Weights<'_, T>,
    slice: &Slice<T>,
    index: usize,
    p: usize,
    loan: &Loan<T>,
    totals: &mut [T],
) {
    let mut writing = loan.write(p);
    let c = writing.numbers();
    let totals = if totals.is_empty() { totals } else { &mut totals[..c.len()] };
    match item(network.layers.len(), index) {
        Item::Forward(l) => forward::panel(network, from, slice, l, p, totals, c),
        Item::Backward(l) => backward::panel(network, from, slice, l, p, totals, c),
        Item::Gather | Item::Loss => {}
    }
}

/// How many panels a shared item's result has.
pub fn panels<T: Number>(network: &Network<T>, index: usize) -> usize {
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

/// Lends the matrix that a shared item writes to those who write it.
pub fn lend<T: Number>(slice: &mut Slice<T>, index: usize, loan: &Loan<T>) {
    if let Some(result) = result_of(slice, index) {
        loan.lend(result.take());
    }
}

/// Puts it back.
pub fn take_back<T: Number>(slice: &mut Slice<T>, index: usize, loan: &Loan<T>) {
    if let Some(result) = result_of(slice, index) {
        *result = loan.take_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_lead_forward_to_the_loss_and_back_to_the_first_layer() {
        let way: Vec<Item> = (0..7).map(|index| item(3, index)).collect();
        let forward = [Item::Gather, Item::Forward(0), Item::Forward(1), Item::Forward(2)];
        assert_eq!(way[..4], forward);
        assert_eq!(way[4..], [Item::Loss, Item::Backward(2), Item::Backward(1)]);
        assert_eq!(item(1, 2), Item::Loss);
    }
}
