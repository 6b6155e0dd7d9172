//! Forward: `A[l] = f(A[l-1] W[l]^T + b[l])`, layer after layer, for one slice.

use super::weights::Weights;
use super::{PanelBlock, Slice, blocks, dress, panel_of, product};
use crate::activation::Activation;
use crate::kernels::{Dots, Finish, Function, Number, Product, Sparse, Start, StepKernels};
use crate::network::{Form, Layer, Network};
use crate::panel::{Panels, PanelsRef};

/// All layers, from the gathered input to the logits in the last of `deltas`: a prediction.
pub fn forward<T: Number>(network: &Network<T>, from: Weights<'_, T>, slice: &mut Slice<T>) {
    for l in 0..network.layers.len() {
        layer(network, from, slice, l, true);
    }
}

/// One layer: Z[l + 1], and where `activates` (and it is not the last) A[l + 1] in its place; but Z stays where training takes
/// statistics of it over the batch.
pub fn layer<T: Number>(net: &Network<T>, from: Weights<'_, T>, slice: &mut Slice<T>, l: usize, activates: bool) {
    let spec = &net.layers[l];
    let activates = activates && l + 1 < net.layers.len();
    let plain = activates && slice.kept.get(l).is_some_and(|kept| kept.is_none());
    let apply = if plain { spec.activation } else { Activation::Identity };
    let dresses = activates && !plain;
    let at_once = dresses && spec.norm.is_none();
    let later = if spec.dots {
        dots(net, from, slice, l, apply);
        if !dresses {
            round(net, slice, l);
        }
        dresses
    } else if l == 0 && sparse(net, spec, from.weights, slice, apply) {
        dresses
    } else {
        products(net, from, slice, l, apply, at_once);
        dresses && !at_once
    };
    if later && !(spec.couples() && slice.training.is_some()) {
        finish(net, from, slice, l);
    }
}

/// Z of layer `l` (from 0), not a plain one, becomes A.
pub fn finish<T: Number>(net: &Network<T>, from: Weights<'_, T>, slice: &mut Slice<T>, l: usize) {
    dress::normalize(net, from, slice, l);
    let Slice { input, activations, kept, training, rounded_units, .. } = slice;
    let (before, rest) = activations.split_at_mut(l);
    let c = &mut rest[0];
    for p in 0..c.panels() {
        dress::panel(net, l, p, c, before.last().unwrap_or(input), &mut kept[l], *training);
        if let (Some(kernels), Some(rounded)) = (net.pair_kernels, rounded_units.get_mut(l + 1)) {
            rounded.pack(kernels, c, p);
        }
    }
}

/// A layer whose lanes are units. In mixed precision its operands are pairs, and what the next layer reads of its result
/// is rounded while that is in the cache; so is a layer that is not plain dressed, where it `dresses`.
fn products<T: Number>(
    net: &Network<T>,
    from: Weights<'_, T>,
    slice: &mut Slice<T>,
    l: usize,
    apply: Activation,
    dresses: bool,
) {
    let walk = slice.walk(net.geometry.panels(net.layers[l].outputs));
    let Slice { input, activations, deltas, rounded_units, totals, kept, training, .. } = slice;
    let (before, rest) = activations.split_at_mut(l);
    let below = before.last().unwrap_or(input);
    let c = rest.first_mut().unwrap_or_else(|| deltas.last_mut().expect("a network has a layer"));
    let count = rounded_units.len();
    let (operands, rounded) = rounded_units.split_at_mut((l + 1).min(count));
    let a = match operands.last() {
        Some(rounded) => rounded.rows.view(),
        None => below.view(),
    };
    let panel = net.geometry.panel();
    for depth in blocks(net, a.lanes()) {
        for p in walk.clone() {
            let width = c.width(p);
            let totals = panel_of(totals, a.rows(), p * panel, width);
            let block = PanelBlock { p, a, depth: depth.clone(), totals, c: c.panel_mut(p) };
            panel_block(net, from, l, block, apply);
            if dresses && depth.end == a.lanes() {
                dress::panel(net, l, p, c, below, &mut kept[l], *training);
            }
            if let (Some(kernels), Some(rounded), true) =
                (net.pair_kernels, rounded.first_mut(), depth.end == a.lanes())
            {
                rounded.pack(kernels, c, p);
            }
        }
    }
}

/// A block of layer `l`'s product, one whose lanes are units; the last block ends with the activation.
#[inline(always)] // by two callers, of which one is every plain step's
fn panel_block<T: Number>(
    net: &Network<T>,
    from: Weights<'_, T>,
    l: usize,
    block: PanelBlock<'_, T>,
    apply: Activation,
) {
    let PanelBlock { p, a, depth, totals, c } = block;
    let (layer, panel) = (&net.layers[l], net.geometry.panel());
    let width = net.geometry.width(layer.outputs, p);
    let bias = if layer.form == Form::Wide { layer.row(p, layer.inputs) } else { layer.weights };
    let b = match layer.form {
        _ if net.pair_kernels.is_some() => &from.pairs[layer.pair_row(p, 0)..],
        Form::Wide => &from.weights[layer.row(p, 0)..],
        Form::Narrow => &from.mirror[layer.mirror..],
    };
    product(
        net,
        from.kernels,
        &mut Product {
            a,
            b: &b[..a.lanes() * width],
            b_stride: a.geometry().panel() * width,
            depth,
            start: Start::Lanes(&from.weights[bias..bias + width]),
            finish: Finish::Apply(apply),
            totals,
            c,
            width,
            lanes: width.min(layer.outputs - p * panel),
        },
    );
}

/// Panel `p` of layer `l`, a plain one or the last whose lanes are units, into `c`; `totals` has room for as many numbers where
/// the sum has several segments.
pub fn panel<T: Number>(
    net: &Network<T>,
    from: Weights<'_, T>,
    slice: &Slice<T>,
    l: usize,
    p: usize,
    totals: &mut [T],
    c: &mut [T],
) {
    let a = l.checked_sub(1).map_or(&slice.input, |below| slice.result(below)).view();
    let apply = if l + 1 < net.layers.len() { net.layers[l].activation } else { Activation::Identity };
    for depth in blocks(net, a.lanes()) {
        panel_block(net, from, l, PanelBlock { p, a, depth, totals, c }, apply);
    }
}

/// A layer whose lanes are inputs, or in mixed precision pairs of them.
fn dots<T: Number>(net: &Network<T>, from: Weights<'_, T>, slice: &mut Slice<T>, l: usize, apply: Activation) {
    let Slice { input, activations, deltas, partials, rounded_units, .. } = slice;
    let (layer, (before, rest)) = (&net.layers[l], activations.split_at_mut(l));
    let c = rest.first_mut().unwrap_or_else(|| deltas.last_mut().expect("a network has a layer"));
    let bias = &from.weights[layer.weights..layer.weights + layer.outputs];
    match net.pair_kernels {
        None => {
            let (a, b) = (before.last().unwrap_or(input).view(), &from.weights[layer.row(0, 0)..layer.affine().start]);
            let b = PanelsRef::new(b, layer.outputs, layer.inputs, net.geometry);
            from.kernels.dots(&mut Dots { a, b, bias, scratch: partials, c: c.view_mut() });
        }
        Some(kernels) => {
            let (a, b) = (rounded_units[l].rows.view(), &from.pairs[layer.all_pairs()]);
            let b = PanelsRef::new(b, layer.outputs, a.lanes(), a.geometry());
            kernels.dots(&mut Dots { a, b, bias, scratch: partials, c: c.view_mut() });
        }
    }
    activate(from.kernels, apply, c);
}

/// In mixed precision rounds what layer `l` left, where another layer reads it.
fn round<T: Number>(net: &Network<T>, slice: &mut Slice<T>, l: usize) {
    if let (Some(kernels), Some(rounded)) = (net.pair_kernels, slice.rounded_units.get_mut(l + 1)) {
        (0..slice.activations[l].panels()).for_each(|p| rounded.pack(kernels, &slice.activations[l], p));
    }
}

/// The first layer, where its input is zero in many places; returns whether it is.
fn sparse<T: Number>(net: &Network<T>, layer: &Layer, weights: &[T], slice: &mut Slice<T>, apply: Activation) -> bool {
    let Slice { input, activations, deltas, totals, sparsity, .. } = slice;
    let Some(nonzeros) = sparsity.as_ref().and_then(|sparsity| sparsity.forward()) else { return false };
    let c = activations.first_mut().unwrap_or_else(|| &mut deltas[0]);
    let b = &weights[layer.row(0, 0)..layer.affine().start];
    let b = PanelsRef::new(b, layer.inputs + 1, layer.outputs, net.geometry);
    net.kernels.sparse(&mut Sparse { a: input.view(), nonzeros, b, totals, c });
    activate(net.kernels, apply, c);
    true
}

/// Applies an activation to a whole matrix.
pub fn activate<T: Number>(kernels: &dyn StepKernels<T>, activation: Activation, panels: &mut Panels<T>) {
    if activation == Activation::Identity {
        return;
    }
    kernels.map(Function::Activate(activation), panels.data_mut());
    if activation.stains_padding() {
        panels.clear_padding();
    }
}

/// The logits become what the output layer returns.
pub fn output<T: Number>(network: &Network<T>, slice: &mut Slice<T>) {
    let last = network.layers.len() - 1;
    match network.layers[last].activation {
        Activation::Softmax => network.kernels.softmax(&mut slice.deltas[last], &mut slice.scratch),
        activation => activate(network.kernels, activation, &mut slice.deltas[last]),
    }
}
