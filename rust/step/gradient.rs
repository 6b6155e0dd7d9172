//! The weight gradient over all slices, `dW[l] = dZ[l]^T A[l-1]`, and the optimizer's rule, job by job.

use super::Slice;
use super::amend::{Amend, Block};
use super::run::{Finishing, Run};
use crate::kernels::{BiasGradient, Gradient, MAX_SLICES, Number, Pair, StepKernels};
use crate::network::{Form, Layer, Network, Part};
use crate::panel::Reading;
use arrayvec::ArrayVec;

/// The slices of a group, as the weight gradient reads them.
pub struct Group<'g, T> {
    /// The network's, or what stands before them.
    pub kernels: &'g dyn StepKernels<T>,
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
/// The same where there are tiles: after half a microsecond without work the processor switches their unit off, and it takes as
/// long to come back.
const TILE_STRIP: usize = 8 * STRIP;

/// Rows of a strip: whole panels (all of these are powers of two).
fn strip_rows<T: Number>(net: &Network<T>) -> usize {
    let strip = if net.has_tiles() { TILE_STRIP } else { STRIP };
    net.geometry.index(strip / size_of::<T>()).max(net.geometry.panel())
}

/// Numbers of scratch that [`job`] needs: a strip and the biases behind it, or all blocks of a small job.
pub fn scratch<T: Number>(net: &Network<T>) -> usize {
    (strip_rows(net) + 1) * net.geometry.panel()
}

/// Gradient, update and mirror of one job, and what is done besides: nothing in a plain step. `scratch` has room for [`scratch`]
/// numbers; where the gradient is in memory, nothing is written there.
pub fn job<T: Number>(
    net: &Network<T>,
    index: usize,
    group: &Group<'_, T>,
    how: Finishing<T>,
    besides: Option<&Amend<'_, T>>,
    scratch: &mut [T],
) {
    let job = &net.jobs[index];
    let mut writing = net.arena.write(index);
    let mut run = Run::new(net, group.kernels, job, &mut writing, how, scratch);
    // Filled in place: it is too large to be handed about.
    let mut pairs = ArrayVec::<Pair<'_, T>, MAX_SLICES>::new();
    let mut filled = None;
    run.together = besides.is_none() && run.fits_together(self::scratch(net));
    let parts = &net.parts[job.parts.clone()];
    for part in parts {
        if part.affine {
            run.affine(part, Some(group), besides);
            continue;
        }
        if filled != Some(part.layer) {
            fill(&mut pairs, part.layer, &net.layers[part.layer], group);
            filled = Some(part.layer);
        }
        match run.together {
            true => run.gradient_of(part, &pairs),
            false => run.part(part, &pairs, besides),
        }
    }
    if run.together {
        let all = run.at;
        run.at = 0;
        run.update(0..all, all..all);
        if run.has_copies() {
            parts.iter().for_each(|part| run.mirror_of(part));
        }
    }
}

/// What is done to the numbers of one job once the whole gradient is in memory.
#[inline(never)]
pub fn amend<T: Number>(net: &Network<T>, index: usize, how: Finishing<T>, besides: &Amend<'_, T>) {
    let job = &net.jobs[index];
    let mut writing = net.arena.write(index);
    let mut run = Run::new(net, net.kernels, job, &mut writing, how, &mut []);
    for part in &net.parts[job.parts.clone()] {
        if part.affine {
            run.affine(part, None, Some(besides));
        } else {
            run.part(part, &[], Some(besides));
        }
    }
}

/// A weight gradient; in mixed precision, of pairs.
fn gradient<T: Number>(net: &Network<T>, plain: &dyn StepKernels<T>, gradient: &mut Gradient<'_, T>) {
    match net.pair_kernels {
        None => plain.gradient(gradient),
        Some(kernels) => kernels.gradient(gradient),
    }
}

/// The gradient of a narrow layer's biases; in mixed precision, of pairs.
fn bias_gradient<T: Number>(net: &Network<T>, plain: &dyn StepKernels<T>, gradient: &mut BiasGradient<'_, T>) {
    match net.pair_kernels {
        None => plain.bias_gradient(gradient),
        Some(kernels) => kernels.bias_gradient(gradient),
    }
}

/// The operands of a layer's weight gradient in every slice.
fn fill<'g, T: Number>(pairs: &mut ArrayVec<Pair<'g, T>, MAX_SLICES>, l: usize, layer: &Layer, group: &Group<'g, T>) {
    pairs.clear();
    for i in 0..group.used {
        let slice = group.slices.get(i);
        let (units, deltas, turned) = match slice.rounded_units.get(l) {
            Some(rounded) => (rounded.pairs.view(), slice.rounded_deltas[l].pairs.view(), rounded.turned),
            None if l == 0 => (slice.input.view(), slice.deltas[l].view(), false),
            None => (slice.activations[l - 1].view(), slice.deltas[l].view(), false),
        };
        let (a, b) = if layer.form == Form::Wide { (units, deltas) } else { (deltas, units) };
        let sparsity = slice.sparsity.as_ref().filter(|_| l == 0 && layer.form == Form::Wide);
        let nonzeros = sparsity.and_then(|sparsity| sparsity.gradient());
        pairs.push(Pair { a, b, opens: i.is_multiple_of(group.per_segment), nonzeros, turned });
    }
}

/// A part with its layer, the operands of its gradient (none where that is in memory already) and what is done besides.
#[derive(Clone, Copy)]
struct Task<'r, T> {
    part: &'r Part,
    layer: &'r Layer,
    pairs: &'r [Pair<'r, T>],
    besides: Option<&'r Amend<'r, T>>,
}

impl<T: Number> Run<'_, T> {
    // Inlined in the plain step too, which has one caller and `amend` another.
    #[inline(always)]
    fn part(&mut self, part: &Part, pairs: &[Pair<'_, T>], besides: Option<&Amend<'_, T>>) {
        let task = Task { part, layer: &self.net.layers[part.layer], pairs, besides };
        if task.layer.form == Form::Narrow && part.bias {
            self.narrow_bias(task);
        }
        for p in part.panels.clone() {
            self.panel(task, p);
        }
    }

    /// One panel of the part, strip by strip.
    fn panel(&mut self, task: Task<'_, T>, p: usize) {
        let (width, rows, most) = (task.layer.width(p), task.part.rows.clone(), strip_rows(self.net));
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
        let (kernels, pairs, goes_on) = (self.kernels, task.pairs, self.how.goes_on);
        if !pairs.is_empty() {
            let c = self.room(all);
            let row_panels = geometry.index(row)..geometry.panels(row + count);
            gradient(net, kernels, &mut Gradient { pairs, row_panels, lane_panels: p..p + 1, goes_on, bias, c });
        }
        if bias && !task.layer.bias && !pairs.is_empty() {
            self.room(all)[numbers..].fill(T::ZERO);
        }
        let used = if task.layer.bias { all } else { numbers };
        let writes = match task.besides {
            None => self.update(0..numbers, numbers..used),
            Some(amend) => {
                let start = task.layer.row(p, row) - task.layer.weights;
                let layer = task.part.layer;
                amend.block(self, Block { layer, start, panel: p, row, width, weights: numbers, all: used })
            }
        };
        if writes {
            self.reflect(task.layer, p, row..row + count);
        }
        self.at += all;
    }

    /// The gradient of a whole part of a layer with biases.
    fn gradient_of(&mut self, part: &Part, pairs: &[Pair<'_, T>]) {
        let (net, kernels, goes_on) = (self.net, self.kernels, self.how.goes_on);
        let layer = &net.layers[part.layer];
        if layer.form == Form::Narrow && part.bias {
            for panel in 0..net.geometry.panels(layer.outputs) {
                let width = net.geometry.width(layer.outputs, panel);
                bias_gradient(net, kernels, &mut BiasGradient { pairs, panel, goes_on, c: self.room(width) });
                self.at += width;
            }
        }
        let bias = layer.form == Form::Wide && part.bias;
        let lanes =
            part.panels.len() * net.geometry.panel() - (net.geometry.panel() - layer.width(part.panels.end - 1));
        let numbers = (part.rows.len() + usize::from(bias)) * lanes;
        let row_panels = net.geometry.index(part.rows.start)..net.geometry.panels(part.rows.end);
        let (lane_panels, c) = (part.panels.clone(), self.room(numbers));
        gradient(net, kernels, &mut Gradient { pairs, row_panels, lane_panels, goes_on, bias, c });
        self.at += numbers;
    }

    /// The other forms of a whole part's new weights.
    fn mirror_of(&mut self, part: &Part) {
        let layer = &self.net.layers[part.layer];
        if layer.form == Form::Narrow && part.bias {
            self.at += layer.padded_outputs();
        }
        let rows = part.rows.len() + usize::from(layer.form == Form::Wide && part.bias);
        for p in part.panels.clone() {
            self.reflect(layer, p, part.rows.clone());
            self.at += rows * layer.width(p);
        }
    }

    /// A normalised layer's gamma and beta: their gradients are the chunks' sums, added up in order; without a group they are
    /// in memory already.
    fn affine(&mut self, part: &Part, group: Option<&Group<'_, T>>, besides: Option<&Amend<'_, T>>) {
        let layer = &self.net.layers[part.layer];
        let half = layer.padded_outputs();
        for (row, begin) in [(1, 0), (0, half)] {
            for p in 0..self.net.geometry.panels(layer.outputs) {
                let first = begin + p * self.net.geometry.panel();
                let width = self.net.geometry.width(layer.outputs, p);
                debug_assert_eq!(self.at, first);
                if let Some(group) = group {
                    self.affine_gradient(part.layer, group, row, p, width);
                }
                self.biases(part.layer, width, besides);
                self.at += width;
            }
        }
    }

    /// The gradient of one panel of gamma (row 1 of the chunks' sums) or beta (row 0).
    fn affine_gradient(&mut self, layer: usize, group: &Group<'_, T>, row: usize, p: usize, width: usize) {
        let goes_on = self.how.goes_on;
        let c = self.room(width);
        if !goes_on {
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
    fn biases(&mut self, layer: usize, width: usize, besides: Option<&Amend<'_, T>>) {
        match besides {
            None => self.update(0..0, 0..width),
            Some(amend) => amend.block(self, Block::bias(layer, width)),
        };
    }

    /// The bias of a narrow layer, which stands before its panels.
    fn narrow_bias(&mut self, task: Task<'_, T>) {
        let (net, kernels, pairs, goes_on) = (self.net, self.kernels, task.pairs, self.how.goes_on);
        for q in 0..net.geometry.panels(task.layer.outputs) {
            let width = net.geometry.width(task.layer.outputs, q);
            if !pairs.is_empty() {
                let c = self.room(width);
                if task.layer.bias {
                    bias_gradient(net, kernels, &mut BiasGradient { pairs, panel: q, goes_on, c });
                } else {
                    c.fill(T::ZERO);
                }
            }
            if task.layer.bias {
                self.biases(task.part.layer, width, task.besides);
            }
            self.at += width;
        }
    }
}
