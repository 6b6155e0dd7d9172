//! Forward: `A[l] = f(A[l-1] W[l]^T + b[l])`, layer after layer, for one slice.

use super::{Slice, blocks};
use crate::activation::Activation;
use crate::kernels::{Finish, Function, Number, Product, Start};
use crate::network::{Form, Layer, Network};
use crate::panel::{Panels, PanelsRef};

/// All layers, from the gathered input to the logits in the last of `deltas`.
///
/// `weights` is the arena's buffer of weights.
pub fn forward<T: Number>(network: &Network<T>, weights: &[T], slice: &mut Slice<T>) {
    for l in 0..network.layers.len() {
        layer(network, weights, slice, l, true);
    }
}

/// One layer: Z[l + 1], and where `activates` (and it is not the last) A[l + 1] in its place.
pub fn layer<T: Number>(network: &Network<T>, weights: &[T], slice: &mut Slice<T>, l: usize, activates: bool) {
    let spec = &network.layers[l];
    let hidden = l + 1 < network.layers.len();
    let activation = if hidden && activates { spec.activation } else { Activation::Identity };
    match spec.form {
        Form::Wide => wide(network, spec, weights, slice, l, activation),
        Form::Narrow => narrow(network, spec, weights, slice, activation),
    }
}

fn wide<T: Number>(net: &Network<T>, layer: &Layer, weights: &[T], slice: &mut Slice<T>, l: usize, apply: Activation) {
    let (before, rest) = slice.activations.split_at_mut(l);
    let a = before.last().unwrap_or(&slice.input).view();
    let c = rest.first_mut().unwrap_or_else(|| slice.deltas.last_mut().expect("a network has a layer"));
    for depth in blocks(layer.inputs) {
        for p in 0..layer.panels() {
            let (width, panel) = (layer.width(p), net.kernels.geometry().panel());
            let first = layer.row(p, 0);
            let bias = layer.row(p, layer.inputs);
            let totals = panel_of(&mut slice.totals, a.rows, p * panel, width);
            net.kernels.product(&mut Product {
                a,
                b: &weights[first..bias],
                b_stride: panel * width,
                depth: depth.clone(),
                start: Start::Lanes(&weights[bias..bias + width]),
                finish: Finish::Apply(apply),
                totals,
                c: c.panel_mut(p),
                width,
                lanes: width.min(layer.outputs - p * panel),
            });
        }
    }
}

/// The first layer with lanes as samples: `Z^T = W X^T`, turned into panels of units afterwards.
fn narrow<T: Number>(net: &Network<T>, layer: &Layer, weights: &[T], slice: &mut Slice<T>, apply: Activation) {
    let panel = net.kernels.geometry().panel();
    let (x, z) = (slice.input_lanes.as_ref(), slice.narrow.as_mut());
    let (x, z) = (x.expect("a narrow layer's input"), z.expect("a narrow layer's result"));
    let begin = layer.row(0, 0);
    let end = layer.weights + layer.numbers();
    let w = PanelsRef::new(&weights[begin..end], layer.outputs, layer.inputs, net.kernels.geometry());
    for depth in blocks(layer.inputs) {
        for p in 0..x.panels() {
            let width = x.width(p);
            let totals = panel_of(&mut slice.totals, layer.outputs, p * panel, width);
            net.kernels.product(&mut Product {
                a: w,
                b: x.panel(p),
                b_stride: panel * width,
                depth: depth.clone(),
                start: Start::Rows(&weights[layer.weights..layer.weights + layer.outputs]),
                finish: Finish::Apply(Activation::Identity),
                totals,
                c: z.panel_mut(p),
                width,
                lanes: width,
            });
        }
    }
    let units =
        slice.activations.first_mut().unwrap_or_else(|| slice.deltas.last_mut().expect("a network has a layer"));
    net.kernels.transpose(z.view(), units);
    activate(net, apply, units);
}

/// Applies an activation to a whole matrix.
pub fn activate<T: Number>(network: &Network<T>, activation: Activation, panels: &mut Panels<T>) {
    network.kernels.map(Function::Activate(activation), panels.data_mut());
    if activation.stains_padding() {
        panels.clear_padding();
    }
}

/// The logits become what the output layer returns.
pub fn output<T: Number>(network: &Network<T>, slice: &mut Slice<T>) {
    let last = network.layers.len() - 1;
    match network.layers[last].activation {
        Activation::Softmax => network.kernels.softmax(&mut slice.deltas[last], &mut slice.scratch),
        activation => activate(network, activation, &mut slice.deltas[last]),
    }
}

/// The totals of the panel that begins at lane `first` (empty where no sum has several segments).
pub(super) fn panel_of<T>(totals: &mut [T], rows: usize, first: usize, width: usize) -> &mut [T] {
    if totals.is_empty() { totals } else { &mut totals[first * rows..(first + width) * rows] }
}
