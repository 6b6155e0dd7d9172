//! Backward: `dZ[l-1] = (dZ[l] W[l]) f'(A[l-1])`, layer after layer, for one slice.

use super::weights::Weights;
use super::{PanelBlock, Slice, blocks, dress, panel_of, product};
use crate::activation::Activation;
use crate::error::Error;
use crate::kernels::{Finish, INPUT_SEGMENT, Mirror, Number, Product, Start};
use crate::network::{Form, Network};
use crate::panel::{Buffer, Panels};

/// dZ of all layers but the last, from the last one's, in a network without batch normalisation.
pub fn backward<T: Number>(network: &Network<T>, from: Weights<'_, T>, slice: &mut Slice<T>) {
    let top = network.layers.len() - 1;
    enter(network, from, slice, top);
    for l in (1..=top).rev() {
        data(network, from, slice, l);
    }
}

/// What an error calls the numbers of input gradients.
const INPUTS: &str = "input gradients";

/// The first layer's mirror, which training does not read and the arena does not have; empty where its form needs none.
///
/// # Errors
/// [`Error::Memory`] where it does not fit.
pub fn first_mirror<T: Number>(net: &Network<T>, from: Weights<'_, T>) -> Result<Buffer<T>, Error> {
    let (layer, panel) = (&net.layers[0], net.geometry.panel());
    if layer.form == Form::Narrow {
        return Buffer::zeroed(0, INPUTS);
    }
    let mut mirror = Buffer::zeroed(layer.mirror_stride().saturating_mul(layer.panels()), INPUTS)?;
    for (p, row) in (0..layer.panels()).flat_map(|p| (0..layer.inputs).step_by(panel).map(move |row| (p, row))) {
        let (rows, width, mirror_width) = (panel.min(layer.inputs - row), layer.width(p), layer.mirror_width(row));
        let weights = &from.weights[layer.row(p, row)..][..rows * width];
        let begin = layer.mirror_block(p, row) - layer.mirror;
        let mirror = &mut mirror[begin..begin + width * mirror_width];
        from.kernels.mirror(&mut Mirror { weights, rows, width, mirror, mirror_width });
    }
    Ok(mirror)
}

/// A slice's dX, the gradient of its inputs.
pub struct InputGradient<T> {
    /// `(m, n[0])`
    pub result: Panels<T>,
    /// A panel's earlier segments of sums, where there are several.
    totals: Buffer<T>,
}

impl<T: Number> InputGradient<T> {
    /// For at most `capacity` rows.
    ///
    /// # Errors
    /// [`Error::Memory`] where it does not fit.
    pub fn new(net: &Network<T>, capacity: usize) -> Result<Self, Error> {
        let several = net.layers[0].outputs > INPUT_SEGMENT;
        let totals = if several { capacity.saturating_mul(net.geometry.panel()) } else { 0 };
        let result = Panels::zeroed(capacity, net.features(), net.geometry, INPUTS)?;
        Ok(InputGradient { result, totals: Buffer::zeroed(totals, INPUTS)? })
    }
}

/// dX of a pass forward that was a prediction, from the last layer's dZ; `mirror` is the first layer's. Not in mixed precision.
pub fn inputs<T: Number>(
    net: &Network<T>,
    from: Weights<'_, T>,
    mirror: &[T],
    slice: &mut Slice<T>,
    into: &mut InputGradient<T>,
) {
    debug_assert!(net.pair_kernels.is_none() && slice.training.is_none());
    let top = net.layers.len() - 1;
    enter(net, from, slice, top);
    for l in (1..=top).rev() {
        data(net, from, slice, l);
        if net.layers[l - 1].couples() {
            // Here nothing has to be summed over the batch first.
            enter(net, from, slice, l - 1);
        }
    }
    let InputGradient { result, totals } = into;
    result.reshape(slice.rows(), net.features());
    let (from, a) = (Weights { mirror, ..from }, slice.deltas[0].view());
    for p in 0..result.panels() {
        let totals = panel_of(totals, a.rows(), 0, result.width(p));
        for depth in blocks(net, a.lanes()) {
            let block = PanelBlock { p, a, depth, totals, c: result.panel_mut(p) };
            panel_block(net, from, 0, block, Finish::Apply(Activation::Identity));
        }
    }
    if net.layers[0].residual {
        // dA of the first layer went past its weights as well.
        let passed = slice.stream.data_mut();
        result.data_mut().iter_mut().zip(passed).for_each(|(dx, &mut da)| *dx += da);
    }
}

/// Readies dY of layer `l`, the last or one whose sums over the batch are known by now, for the product below it: it becomes
/// dZ, and in mixed precision is rounded.
pub fn enter<T: Number>(network: &Network<T>, from: Weights<'_, T>, slice: &mut Slice<T>, l: usize) {
    if l + 1 < network.layers.len() {
        dress::denormalize(network, from, slice, l);
    }
    if let Some(kernels) = network.pair_kernels {
        let deltas = &slice.deltas[l];
        (0..deltas.panels()).for_each(|p| slice.rounded_deltas[l].pack(kernels, deltas, p));
    }
}

/// dZ of layer `l - 1` (from 0) from that of layer `l`; in mixed precision it is rounded while it is in the cache. Where layer
/// `l - 1` is normalised over the batch, dY and its sums.
pub fn data<T: Number>(net: &Network<T>, from: Weights<'_, T>, slice: &mut Slice<T>, l: usize) {
    product_of(net, from, slice, l);
    let below = &net.layers[l - 1];
    if below.norm.is_some() {
        dress::sums(net, slice, l - 1);
    }
    if below.norm.is_some() && !below.couples() {
        enter(net, from, slice, l - 1);
    }
}

/// `dY[l-1] = (dZ[l] W[l] + dA[l]) f'`, where dA is added past a residual.
fn product_of<T: Number>(net: &Network<T>, from: Weights<'_, T>, slice: &mut Slice<T>, l: usize) {
    let (below, panel) = (&net.layers[l - 1], net.geometry.panel());
    let walk = slice.walk(net.geometry.panels(below.outputs));
    let Slice { activations, deltas, rounded_deltas, totals, kept, stream, .. } = slice;
    let (targets, sources) = deltas.split_at_mut(l);
    let count = rounded_deltas.len();
    let (rounded, operands) = rounded_deltas.split_at_mut(l.min(count));
    let c = &mut targets[l - 1];
    let a = operands.first().map_or_else(|| sources[0].view(), |rounded| rounded.rows.view());
    let streams = dress::streams(net, l - 1);
    for depth in blocks(net, a.lanes()) {
        let ends = depth.end == a.lanes();
        for p in walk.clone() {
            let finish = match streams {
                true => Finish::Apply(Activation::Identity),
                false => dress::slopes(net, kept, activations, l - 1, p),
            };
            let totals = panel_of(totals, a.rows(), p * panel, c.width(p));
            let block = PanelBlock { p, a, depth: depth.clone(), totals, c: c.panel_mut(p) };
            panel_block(net, from, l, block, finish);
            if streams && ends {
                dress::undress(net, l - 1, p, c, activations, kept, stream);
            }
            if let (Some(kernels), Some(rounded), true) =
                (net.pair_kernels, rounded.last_mut(), ends && below.norm.is_none())
            {
                rounded.pack(kernels, c, p);
            }
        }
    }
}

/// A block of the product `dZ[l] W[l]`; the last block ends with `finish`.
#[inline(always)] // by two callers, of which one is every plain step's
fn panel_block<T: Number>(
    net: &Network<T>,
    from: Weights<'_, T>,
    l: usize,
    block: PanelBlock<'_, T>,
    finish: Finish<'_, T>,
) {
    let PanelBlock { p, a, depth, totals, c } = block;
    let (layer, panel) = (&net.layers[l], net.geometry.panel());
    let width = net.geometry.width(layer.inputs, p);
    // A narrow layer's outputs, or pairs of them, are rows one after the other.
    let (b, b_stride) = match layer.form {
        Form::Wide => (&from.mirror[layer.mirror_block(0, p * panel)..], layer.mirror_stride()),
        Form::Narrow if net.pair_kernels.is_some() => (&from.mirror[layer.mirror_block(p, 0)..], panel / 2 * width),
        Form::Narrow => (&from.weights[layer.row(p, 0)..], panel * width),
    };
    let lanes = width.min(layer.inputs - p * panel);
    product(
        net,
        from.kernels,
        &mut Product { a, b, b_stride, depth, start: Start::Zero, finish, totals, c, width, lanes },
    );
}

/// Panel `p` of dZ of layer `l - 1`, a plain one, into `c`; `totals` has room for as many numbers where the sum has several
/// segments.
pub fn panel<T: Number>(
    net: &Network<T>,
    from: Weights<'_, T>,
    slice: &Slice<T>,
    l: usize,
    p: usize,
    totals: &mut [T],
    c: &mut [T],
) {
    let a = slice.deltas[l].view();
    for depth in blocks(net, a.lanes()) {
        let finish = dress::slopes(net, &slice.kept, &slice.activations, l - 1, p);
        panel_block(net, from, l, PanelBlock { p, a, depth, totals, c }, finish);
    }
}
