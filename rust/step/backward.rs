//! Backward: `dZ[l-1] = (dZ[l] W[l]) f'(A[l-1])` for one slice; then, over all slices, `dW[l] = dZ[l]^T A[l-1]` and the
//! optimizer's rule, part by part.

use super::forward::panel_of;
use super::{Slice, blocks};
use crate::kernels::{BiasGradient, Finish, Gradient, Mirror, Number, Pair, Product, Rule, Start, Update};
use crate::network::{BUFFERS, Form, Layer, Network, Part};
use crate::panel::{Panels, Reading};
use crate::plan::MAX_SLICES;
use arrayvec::ArrayVec;

/// dZ of all layers but the last, from the last one's. `mirror` is the arena's buffer of mirrors.
pub fn backward<T: Number>(network: &Network<T>, mirror: &[T], slice: &mut Slice<T>) {
    for l in (1..network.layers.len()).rev() {
        data(network, mirror, slice, l);
    }
}

/// dZ of layer `l - 1` (from 0) from that of layer `l`.
fn data<T: Number>(net: &Network<T>, mirror: &[T], slice: &mut Slice<T>, l: usize) {
    let (layer, below) = (&net.layers[l], &net.layers[l - 1]);
    let geometry = net.kernels.geometry();
    let (targets, sources) = slice.deltas.split_at_mut(l);
    let (a, c) = (sources[0].view(), &mut targets[l - 1]);
    for depth in blocks(layer.outputs) {
        for p in 0..c.panels() {
            let (width, panel) = (c.width(p), geometry.panel());
            let totals = panel_of(&mut slice.totals, a.rows, p * panel, width);
            net.kernels.product(&mut Product {
                a,
                b: &mirror[layer.mirror_block(0, p)..],
                b_first: 0,
                b_stride: layer.mirror_stride(),
                depth: depth.clone(),
                start: Start::Zero,
                finish: Finish::Times(below.activation, slice.activations[l - 1].panel(p)),
                totals,
                c: c.panel_mut(p),
                width,
                lanes: width.min(layer.inputs - p * panel),
            });
        }
    }
}

/// What becomes of a part's gradient.
#[derive(Clone, Copy)]
pub struct Finishing<T> {
    /// Whether the arena's gradient holds the sum of earlier groups.
    pub goes_on: bool,
    /// The rule that makes new weights of it, once all groups are in; without one it stays in the arena.
    pub rule: Option<Rule<T>>,
    /// `l2 w` is added to the weights' gradient.
    pub l2: T,
}

/// The slices of a group, as the weight gradient reads them: slice and whether it opens a segment.
pub struct Group<'g, T> {
    /// All slices.
    pub slices: &'g Reading<'g, Slice<T>>,
    /// How many of them are in use.
    pub used: usize,
    /// Slices of a segment.
    pub per_segment: usize,
}

/// Gradient, update and mirror of one part. `scratch` has room for `(P + 1) P` numbers.
pub fn part<T: Number>(net: &Network<T>, index: usize, group: &Group<'_, T>, how: Finishing<T>, scratch: &mut [T]) {
    let part = &net.parts[index];
    let layer = &net.layers[part.layer];
    let pairs = pairs(part.layer, layer, group);
    let mut writing = net.arena.write(index);
    let [weights, mirror, gradient, first, second] = writing.slices::<BUFFERS>();
    let mut run =
        Run { net, part, layer, pairs: &pairs, how, weights, mirror, gradient, first, second, scratch, at: 0 };
    if layer.form == Form::Narrow && part.bias {
        run.narrow_bias();
    }
    for p in part.panels.clone() {
        run.panel(p);
    }
}

/// The operands of a layer's weight gradient in every slice.
fn pairs<'g, T: Number>(l: usize, layer: &Layer, group: &Group<'g, T>) -> ArrayVec<Pair<'g, T>, MAX_SLICES> {
    let of_slice = |i: usize| {
        let slice = group.slices.get(i);
        let below = if l == 0 { &slice.input } else { &slice.activations[l - 1] };
        let (units, deltas): (&Panels<T>, &Panels<T>) = (below, &slice.deltas[l]);
        let opens = i.is_multiple_of(group.per_segment);
        match layer.form {
            Form::Wide => Pair { a: units.view(), b: deltas.view(), opens },
            Form::Narrow => Pair { a: deltas.view(), b: units.view(), opens },
        }
    };
    (0..group.used).map(of_slice).collect()
}

/// One part on its way through gradient, rule and mirror; `at` is how far in its buffers it is.
struct Run<'r, T: Number> {
    net: &'r Network<T>,
    part: &'r Part,
    layer: &'r Layer,
    pairs: &'r [Pair<'r, T>],
    how: Finishing<T>,
    weights: &'r mut [T],
    mirror: &'r mut [T],
    gradient: &'r mut [T],
    first: &'r mut [T],
    second: &'r mut [T],
    scratch: &'r mut [T],
    at: usize,
}

impl<T: Number> Run<'_, T> {
    /// One panel of the part, block by block of P rows.
    fn panel(&mut self, p: usize) {
        let (width, panel) = (self.layer.width(p), self.net.kernels.geometry().panel());
        let rows = self.part.rows.clone();
        for row in rows.clone().step_by(panel) {
            let count = panel.min(rows.end - row);
            let bias = self.layer.form == Form::Wide && self.part.bias && row + count == rows.end;
            self.block(p, row, count, width, bias);
        }
    }

    /// `count` rows from `row` on in panel `p`, and the bias behind them.
    fn block(&mut self, p: usize, row: usize, count: usize, width: usize, bias: bool) {
        let (net, panel) = (self.net, self.net.kernels.geometry().panel());
        let (numbers, all) = (count * width, (count + usize::from(bias)) * width);
        let goes_on = self.how.goes_on;
        let at = self.at;
        let in_memory = !self.gradient.is_empty();
        let g = if in_memory { &mut self.gradient[at..at + all] } else { &mut self.scratch[..all] };
        let (weights, biases) = g.split_at_mut(numbers);
        let pairs = self.pairs;
        net.kernels.gradient(&mut Gradient { pairs, row_panel: row / panel, lane_panel: p, goes_on, c: weights });
        if bias {
            net.kernels.bias_gradient(&mut BiasGradient { pairs, swapped: false, panel: p, goes_on, c: biases });
        }
        self.update(numbers, all);
        if self.how.rule.is_some() && self.part.layer > 0 {
            self.reflect(p, row, count, width);
        }
        self.at += all;
    }

    /// The bias of a narrow layer, which stands before its panels.
    fn narrow_bias(&mut self) {
        let (pairs, goes_on) = (self.pairs, self.how.goes_on);
        let geometry = self.net.kernels.geometry();
        for q in 0..geometry.panels(self.layer.outputs) {
            let (width, at) = (geometry.width(self.layer.outputs, q), self.at);
            let in_memory = !self.gradient.is_empty();
            let c = if in_memory { &mut self.gradient[at..at + width] } else { &mut self.scratch[..width] };
            self.net.kernels.bias_gradient(&mut BiasGradient { pairs, swapped: true, panel: q, goes_on, c });
            self.update(0, width);
            self.at += width;
        }
    }

    /// Applies the rule to the `all` numbers at `at`, of which the first `decaying` feel l2.
    fn update(&mut self, decaying: usize, all: usize) {
        let Some(rule) = self.how.rule else { return };
        let split = if self.how.l2 == T::ZERO { all } else { decaying };
        for (range, l2) in [(0..split, self.how.l2), (split..all, T::ZERO)] {
            if range.is_empty() {
                continue;
            }
            let here = self.at + range.start..self.at + range.end;
            let gradient = if self.gradient.is_empty() { &self.scratch[range] } else { &self.gradient[here.clone()] };
            let state = |buffer: bool| if buffer { here.clone() } else { 0..0 };
            let (has_first, has_second) = (rule.states() > 0, rule.states() > 1);
            self.net.kernels.update(&mut Update {
                rule,
                l2,
                weights: &mut self.weights[here.clone()],
                gradient,
                first: &mut self.first[state(has_first)],
                second: &mut self.second[state(has_second)],
            });
        }
    }

    /// Writes the updated block into the mirror.
    fn reflect(&mut self, p: usize, row: usize, count: usize, width: usize) {
        let geometry = self.net.kernels.geometry();
        let part_begins = self.layer.mirror_block(self.part.panels.start, self.part.rows.start / geometry.panel());
        let begin = self.layer.mirror_block(p, row / geometry.panel()) - part_begins;
        let mirror_width = geometry.width(self.layer.inputs, row / geometry.panel());
        self.net.kernels.mirror(&mut Mirror {
            weights: &self.weights[self.at..self.at + count * width],
            rows: count,
            width,
            mirror: &mut self.mirror[begin..begin + width * mirror_width],
            mirror_width,
            geometry,
        });
    }
}
