//! The L-layer functions' passes: every layer's Z and A kept, and a backward pass from given caches.
//!
//! They use the same kernels as training, on one thread, and hold the whole batch, since that is
//! what their callers get to see.

use super::infer::unpack;
use crate::data::{Matrix, Selection};
use crate::error::Error;
use crate::kernels::{Number, SAMPLE_SEGMENT, Shrink};
use crate::network::{GRADIENT, Network, WEIGHTS};
use crate::panel::{Panels, Parts};
use crate::step::gradient::{self, Group};
use crate::step::run::Finishing;
use crate::step::weights::Weights;
use crate::step::{Role, Slice, backward, forward};

/// Z and A of a layer, each plain `(m, n[l])`.
pub type Cached<T> = (Vec<T>, Vec<T>);

/// Every layer's Z and A; A of the last layer is the output.
///
/// # Errors
/// [`Error::Memory`] where they do not fit.
pub fn trace<T: Number>(network: &Network<T>, x: &Matrix<'_>) -> Result<Vec<Cached<T>>, Error> {
    debug_assert!(network.pair_kernels.is_none(), "here nothing rounds what it changes");
    let rows = x.rows();
    let mut slice = Slice::new(network, rows, Role::Answers)?;
    slice.gather(network, x, Selection::From(0), rows);
    let reading = network.arena.read();
    let mut traced = Vec::with_capacity(network.layers.len());
    for (l, layer) in network.layers.iter().enumerate() {
        forward::layer(network, Weights::of(&reading, network.kernels), &mut slice, l, false);
        let z = plain(slice.result(l));
        match slice.activations.get_mut(l) {
            Some(units) => forward::activate(network.kernels, layer.activation, units),
            None => forward::output(network, &mut slice),
        }
        traced.push((z, plain(slice.result(l))));
    }
    Ok(traced)
}

fn plain<T: Number>(panels: &Panels<T>) -> Vec<T> {
    let mut rows = vec![T::ZERO; panels.rows() * panels.lanes()];
    unpack(panels, &mut rows);
    rows
}

/// What a backward pass reads: each layer's input A[l-1] and Z[l], and dZ[L]; all samples x units.
pub struct Caches<'a> {
    /// A[0] ... A[L-1]
    pub inputs: Vec<Matrix<'a>>,
    /// Z[1] ... Z[L-1]
    pub hidden: Vec<Matrix<'a>>,
    /// dZ[L]
    pub delta: Matrix<'a>,
}

/// Leaves the gradient of all weights in the arena's [`GRADIENT`].
///
/// # Errors
/// [`Error::Memory`] where it does not fit.
pub fn gradient<T: Number>(network: &mut Network<T>, caches: &Caches<'_>) -> Result<(), Error> {
    network.arena.materialise(GRADIENT, WEIGHTS, "network: its gradient")?;
    let network = &*network;
    let rows = caches.delta.rows();
    // One segment of samples after the other, each one slice: their sums are added in order.
    let slices = Parts::new(vec![Slice::new(network, rows.min(SAMPLE_SEGMENT), Role::Learns)?]);
    for first in (0..rows).step_by(SAMPLE_SEGMENT) {
        let count = SAMPLE_SEGMENT.min(rows - first);
        deltas(network, caches, &mut slices.write(0), first, count);
        let reading = slices.read();
        let group = Group { kernels: network.kernels, slices: &reading, used: 1, per_segment: usize::MAX };
        let none = Shrink::NONE;
        let how = Finishing { goes_on: first > 0, rule: None, shrink: none, shrink_biases: none };
        (0..network.jobs.len()).for_each(|job| gradient::job(network, job, &group, how, None, &mut []));
    }
    Ok(())
}

/// Fills a slice with the caches' rows and computes every dZ.
fn deltas<T: Number>(network: &Network<T>, caches: &Caches<'_>, slice: &mut Slice<T>, first: usize, count: usize) {
    let from = Selection::From(first);
    slice.gather(network, &caches.inputs[0], from, count);
    for (l, z) in caches.hidden.iter().enumerate() {
        z.gather(network.isa, from, &mut slice.activations[l]);
        if network.layers[l].is_plain() {
            forward::activate(network.kernels, network.layers[l].activation, &mut slice.activations[l]);
        } else {
            forward::finish(network, Weights::of(&network.arena.read(), network.kernels), slice, l);
        }
    }
    caches.delta.gather(network.isa, from, slice.deltas.last_mut().expect("a network has a layer"));
    {
        let reading = network.arena.read();
        backward::backward(network, Weights::of(&reading, network.kernels), slice);
    }
    // The derivative came from Z; the weights' gradient reads the inputs that the caller cached.
    for (l, a) in caches.inputs.iter().enumerate().skip(1) {
        a.gather(network.isa, from, &mut slice.activations[l - 1]);
    }
}
