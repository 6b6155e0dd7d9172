//! Backward: `dZ[l-1] = (dZ[l] W[l]) f'(A[l-1])` for one slice; then, over all slices, `dW[l] = dZ[l]^T A[l-1]` and the
//! optimizer's rule, job by job.

use super::amend::{Amend, Block};
use super::forward::{Weights, panel_of};
use super::{PanelBlock, Slice, blocks, dress, product};
use crate::activation::Activation;
use crate::kernels::{
    BiasGradient, Finish, Gradient, Mirror, Number, Pair, PairMirror, Product, Rule, Shrink, Start, Update,
};
use crate::network::{BUFFERS, Form, Job, Layer, Network, Part};
use crate::panel::{ArenaWriting, Geometry, Reading};
use crate::plan::MAX_SLICES;
use arrayvec::ArrayVec;
use std::ops::Range;

/// dZ of all layers but the last, from the last one's, in a network without batch normalisation.
pub fn backward<T: Number>(network: &Network<T>, from: Weights<'_, T>, slice: &mut Slice<T>) {
    let top = network.layers.len() - 1;
    enter(network, from, slice, top);
    for l in (1..=top).rev() {
        data(network, from, slice, l);
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
    let Slice { activations, deltas, rounded_deltas, totals, kept, stream, .. } = slice;
    let (targets, sources) = deltas.split_at_mut(l);
    let count = rounded_deltas.len();
    let (rounded, operands) = rounded_deltas.split_at_mut(l.min(count));
    let c = &mut targets[l - 1];
    let a = operands.first().map_or_else(|| sources[0].view(), |rounded| rounded.rows.view());
    let streams = dress::streams(net, l - 1);
    for depth in blocks(a.lanes) {
        let ends = depth.end == a.lanes;
        for p in 0..c.panels() {
            let finish = match streams {
                true => Finish::Apply(Activation::Identity),
                false => dress::slopes(net, kept, activations, l - 1, p),
            };
            let totals = panel_of(totals, a.rows, p * panel, c.width(p));
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
    // A narrow layer's outputs are rows one after the other.
    let (b, b_stride) = match layer.form {
        Form::Wide => (&from.mirror[layer.mirror_block(0, p * panel)..], layer.mirror_stride()),
        Form::Narrow => (&from.weights[layer.row(p, 0)..], panel * width),
    };
    let lanes = width.min(layer.inputs - p * panel);
    product(net, &mut Product { a, b, b_stride, depth, start: Start::Zero, finish, totals, c, width, lanes });
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
    for depth in blocks(a.lanes) {
        let finish = dress::slopes(net, &slice.kept, &slice.activations, l - 1, p);
        panel_block(net, from, l, PanelBlock { p, a, depth, totals, c }, finish);
    }
}

/// What becomes of a part's gradient.
#[derive(Clone, Copy)]
pub struct Finishing<'f, T> {
    /// Whether the arena's gradient holds the sum of earlier groups.
    pub goes_on: bool,
    /// The rule that makes new weights of it, once all groups are in; without one it stays in the arena.
    pub rule: Option<Rule<T>>,
    /// What is done to the weights' gradient first, and to the weights besides.
    pub shrink: Shrink<T>,
    /// The same for the biases.
    pub shrink_biases: Shrink<T>,
    /// What is done besides; nothing in a plain step.
    pub amend: Option<&'f Amend<'f, T>>,
}

/// The slices of a group, as the weight gradient reads them.
pub struct Group<'g, T> {
    /// All slices.
    pub slices: &'g Reading<'g, Slice<T>>,
    /// How many of them are in use.
    pub used: usize,
    /// Slices of a segment.
    pub per_segment: usize,
}

/// A strip's weights, in bytes: gradient, rule and mirror take turns at them, so that they and the optimizer's state stay in the
/// first cache. Fewer would be more calls for as much work, where panels are narrow.
const STRIP: usize = 4096;

/// Rows of a strip: whole panels (all of these are powers of two).
fn strip_rows<T: Number>(geometry: Geometry) -> usize {
    geometry.index(STRIP / size_of::<T>()).max(geometry.panel())
}

/// Numbers of scratch that [`job`] needs: a strip and the biases behind it.
pub fn scratch<T: Number>(geometry: Geometry) -> usize {
    (strip_rows::<T>(geometry) + 1) * geometry.panel()
}

/// Gradient, update and mirror of one job. `scratch` has room for [`scratch`] numbers.
pub fn job<T: Number>(net: &Network<T>, index: usize, group: &Group<'_, T>, how: Finishing<'_, T>, scratch: &mut [T]) {
    let job = &net.jobs[index];
    let mut writing = net.arena.write(index);
    let mut run = Run::new(net, job, &mut writing, how, scratch);
    // Filled in place: it is too large to be handed about.
    let mut pairs = ArrayVec::<Pair<'_, T>, MAX_SLICES>::new();
    let mut filled = None;
    for part in &net.parts[job.parts.clone()] {
        if part.affine {
            run.affine(part, Some(group));
            continue;
        }
        if filled != Some(part.layer) {
            fill(&mut pairs, part.layer, &net.layers[part.layer], group);
            filled = Some(part.layer);
        }
        run.part(part, &pairs);
    }
}

/// What is done to the numbers of one job once the whole gradient is in memory.
#[inline(never)]
pub fn amend<T: Number>(net: &Network<T>, index: usize, how: Finishing<'_, T>) {
    let job = &net.jobs[index];
    let mut writing = net.arena.write(index);
    let mut run = Run::new(net, job, &mut writing, how, &mut []);
    for part in &net.parts[job.parts.clone()] {
        if part.affine {
            run.affine(part, None);
        } else {
            run.part(part, &[]);
        }
    }
}

/// The operands of a layer's weight gradient in every slice.
fn fill<'g, T: Number>(pairs: &mut ArrayVec<Pair<'g, T>, MAX_SLICES>, l: usize, layer: &Layer, group: &Group<'g, T>) {
    pairs.clear();
    for i in 0..group.used {
        let slice = group.slices.get(i);
        let (units, deltas) = match slice.rounded_units.get(l) {
            Some(rounded) => (rounded.pairs.view(), slice.rounded_deltas[l].pairs.view()),
            None if l == 0 => (slice.input.view(), slice.deltas[l].view()),
            None => (slice.activations[l - 1].view(), slice.deltas[l].view()),
        };
        let (a, b) = if layer.form == Form::Wide { (units, deltas) } else { (deltas, units) };
        let sparsity = slice.sparsity.as_ref().filter(|_| l == 0 && layer.form == Form::Wide);
        let nonzeros = sparsity.and_then(|sparsity| sparsity.gradient());
        pairs.push(Pair { a, b, opens: i.is_multiple_of(group.per_segment), nonzeros });
    }
}

/// One job on its way through gradient, rule and mirror; `at` is how far in its buffers it is.
pub(super) struct Run<'r, T: Number> {
    pub(super) net: &'r Network<T>,
    job: &'r Job,
    pub(super) how: Finishing<'r, T>,
    pub(super) weights: &'r mut [T],
    mirror: &'r mut [T],
    rounded: &'r mut [T],
    pub(super) gradient: &'r mut [T],
    pub(super) first: &'r mut [T],
    second: &'r mut [T],
    third: &'r mut [T],
    pub(super) average: &'r mut [T],
    scratch: &'r mut [T],
    pub(super) at: usize,
}

/// A part with its layer and the operands of its gradient; without operands that is in memory already.
#[derive(Clone, Copy)]
struct Task<'r, T> {
    part: &'r Part,
    layer: &'r Layer,
    pairs: &'r [Pair<'r, T>],
}

impl<'r, T: Number> Run<'r, T> {
    #[inline(always)]
    fn new(
        net: &'r Network<T>,
        job: &'r Job,
        writing: &'r mut ArenaWriting<'_, T>,
        how: Finishing<'r, T>,
        scratch: &'r mut [T],
    ) -> Self {
        let [weights, mirror, gradient, first, second, rounded, third, average] = writing.slices::<BUFFERS>();
        Run { net, job, how, weights, mirror, rounded, gradient, first, second, third, average, scratch, at: 0 }
    }
}

impl<T: Number> Run<'_, T> {
    // Inlined in the plain step too, which has one caller and `amend` another.
    #[inline(always)]
    fn part(&mut self, part: &Part, pairs: &[Pair<'_, T>]) {
        let task = Task { part, layer: &self.net.layers[part.layer], pairs };
        if task.layer.form == Form::Narrow && part.bias {
            self.narrow_bias(task);
        }
        for p in part.panels.clone() {
            self.panel(task, p);
        }
    }

    /// One panel of the part, strip by strip.
    fn panel(&mut self, task: Task<'_, T>, p: usize) {
        let (width, rows, most) = (task.layer.width(p), task.part.rows.clone(), strip_rows::<T>(self.net.geometry));
        let mut row = rows.start;
        while row < rows.end {
            let count = most.min(rows.end - row);
            let bias = task.layer.form == Form::Wide && task.part.bias && row + count == rows.end;
            self.strip(task, p, row, count, width, bias);
            row += count;
        }
    }

    /// `count` rows from `row` on in panel `p`, and the bias behind them.
    fn strip(&mut self, task: Task<'_, T>, p: usize, row: usize, count: usize, width: usize, bias: bool) {
        let (net, geometry) = (self.net, self.net.geometry);
        let (numbers, all) = (count * width, (count + usize::from(bias)) * width);
        let (pairs, goes_on, at) = (task.pairs, self.how.goes_on, self.at);
        if !pairs.is_empty() {
            let in_memory = !self.gradient.is_empty();
            let c = if in_memory { &mut self.gradient[at..at + all] } else { &mut self.scratch[..all] };
            let row_panels = geometry.index(row)..geometry.panels(row + count);
            let mut gradient = Gradient { pairs, row_panels, lane_panel: p, goes_on, bias, c };
            match net.pair_kernels {
                None => net.kernels.gradient(&mut gradient),
                Some(kernels) => kernels.gradient(&mut gradient),
            }
        }
        if bias && !task.layer.bias && !pairs.is_empty() {
            let in_memory = !self.gradient.is_empty();
            let c = if in_memory { &mut self.gradient[at..at + all] } else { &mut self.scratch[..all] };
            c[numbers..].fill(T::ZERO);
        }
        let used = if task.layer.bias { all } else { numbers };
        let writes = match self.how.amend {
            None => self.update(0..numbers, numbers..used),
            Some(amend) => {
                let start = task.layer.row(p, row) - task.layer.weights;
                let layer = task.part.layer;
                amend.block(self, Block { layer, start, panel: p, row, width, weights: numbers, all: used })
            }
        };
        if writes && (task.layer.has_mirror || net.pair_kernels.is_some()) {
            self.reflect(task.layer, p, row..row + count, width);
        }
        self.at += all;
    }

    /// A normalised layer's gamma and beta: their gradients are the chunks' sums, added up in order; without a group they are
    /// in memory already.
    fn affine(&mut self, part: &Part, group: Option<&Group<'_, T>>) {
        let layer = &self.net.layers[part.layer];
        let half = layer.padded_outputs();
        for (row, begin) in [(1, 0), (0, half)] {
            for p in 0..self.net.geometry.panels(layer.outputs) {
                let first = begin + p * self.net.geometry.panel();
                let width = self.net.geometry.width(layer.outputs, p);
                debug_assert_eq!(self.at, first);
                if let Some(group) = group {
                    self.affine_gradient(part.layer, group, row, p, first..first + width);
                }
                self.biases(part.layer, width);
                self.at += width;
            }
        }
    }

    /// The gradient of one panel of gamma (row 1 of the chunks' sums) or beta (row 0).
    fn affine_gradient(&mut self, layer: usize, group: &Group<'_, T>, row: usize, p: usize, here: Range<usize>) {
        let width = here.len();
        let c = if self.gradient.is_empty() { &mut self.scratch[..width] } else { &mut self.gradient[here] };
        if !self.how.goes_on {
            c.fill(T::ZERO);
        }
        for slice in (0..group.used).map(|i| group.slices.get(i)) {
            let sums = slice.chunk_sums(layer);
            for chunk in sums.panel(p).chunks_exact(2 * width) {
                let chunk = &chunk[row * width..][..width];
                c.iter_mut().zip(chunk).for_each(|(c, &x)| *c += x);
            }
        }
    }

    /// The update of `width` numbers that are treated as biases.
    fn biases(&mut self, layer: usize, width: usize) {
        match self.how.amend {
            None => self.update(0..0, 0..width),
            Some(amend) => amend.block(self, Block::bias(layer, width)),
        };
    }

    /// The bias of a narrow layer, which stands before its panels.
    fn narrow_bias(&mut self, task: Task<'_, T>) {
        let (pairs, goes_on) = (task.pairs, self.how.goes_on);
        let geometry = self.net.geometry;
        for q in 0..geometry.panels(task.layer.outputs) {
            let (width, at) = (geometry.width(task.layer.outputs, q), self.at);
            if !pairs.is_empty() {
                let in_memory = !self.gradient.is_empty();
                let c = if in_memory { &mut self.gradient[at..at + width] } else { &mut self.scratch[..width] };
                if task.layer.bias {
                    self.net.kernels.bias_gradient(&mut BiasGradient { pairs, panel: q, goes_on, c });
                } else {
                    c.fill(T::ZERO);
                }
            }
            if task.layer.bias {
                self.biases(task.part.layer, width);
            }
            self.at += width;
        }
    }

    /// Applies the rule to weights and the biases behind them, counted from `at`; returns whether there is one.
    pub(super) fn update(&mut self, weights: Range<usize>, biases: Range<usize>) -> bool {
        let Some(rule) = self.how.rule else { return false };
        let (shrink, of_biases) = (self.how.shrink, self.how.shrink_biases);
        let split = if shrink == of_biases { biases.end } else { weights.end };
        for (range, shrink) in [(weights.start..split, shrink), (split..biases.end, of_biases)] {
            if range.is_empty() {
                continue;
            }
            let here = self.at + range.start..self.at + range.end;
            let gradient = if self.gradient.is_empty() { &self.scratch[range] } else { &self.gradient[here.clone()] };
            let state = |needs: usize| if rule.states() >= needs { here.clone() } else { 0..0 };
            self.net.kernels.update(&mut Update {
                rule,
                shrink,
                weights: &mut self.weights[here.clone()],
                gradient,
                first: &mut self.first[state(1)],
                second: &mut self.second[state(2)],
                third: &mut self.third[state(3)],
            });
        }
        true
    }

    /// Writes the updated strip into the forms that the next step's products read, a panel of inputs after the other.
    fn reflect(&mut self, layer: &Layer, p: usize, strip: Range<usize>, width: usize) {
        let (panel, mut at) = (self.net.geometry.panel(), self.at);
        let mut row = strip.start;
        while row < strip.end {
            let rows = panel.min(strip.end - row);
            self.reflect_block(layer, p, row, rows, at);
            (row, at) = (row + rows, at + rows * width);
        }
    }

    /// The same of `rows` rows, of one panel of inputs.
    fn reflect_block(&mut self, layer: &Layer, p: usize, row: usize, rows: usize, at: usize) {
        let width = layer.width(p);
        let weights = &self.weights[at..at + rows * width];
        let mirror_width = layer.mirror_width(row);
        let lanes = if self.net.pair_kernels.is_some() { width / 2 } else { width };
        let (begin, len) = match layer.has_mirror {
            true => (layer.mirror_block(p, row) - self.job.mirror, lanes * mirror_width),
            false => (0, 0),
        };
        let mirror = &mut self.mirror[begin..begin + len];
        if let Some(kernels) = self.net.pair_kernels {
            let begin = layer.pair_row(p, row) - self.job.pairs;
            let forward = &mut self.rounded[begin..begin + rows.div_ceil(2) * width];
            kernels.reflect(&mut PairMirror { weights, rows, width, forward, mirror, mirror_width });
        } else if layer.has_mirror {
            self.net.kernels.mirror(&mut Mirror { weights, rows, width, mirror, mirror_width });
        }
    }
}
