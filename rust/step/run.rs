//! One job's numbers on their way through gradient, rule and mirror.

use crate::kernels::{Mirror, Number, Rule, Shrink, StepKernels, Update};
use crate::network::{BUFFERS, Job, Layer, Network, PanelRows};
use crate::panel::ArenaWriting;
use std::ops::Range;

/// What becomes of a part's gradient.
#[derive(Clone, Copy)]
pub struct Finishing<T> {
    /// Whether the arena's gradient holds the sum of earlier groups.
    pub goes_on: bool,
    /// The rule that makes new weights of it, once all groups are in; without one it stays in the arena.
    pub rule: Option<Rule<T>>,
    /// What is done to the weights' gradient first, and to the weights besides.
    pub shrink: Shrink<T>,
    /// The same for the biases.
    pub shrink_biases: Shrink<T>,
}

/// One job on its way: what it owns of the arena's buffers.
pub(super) struct Run<'r, T: Number> {
    /// The network.
    pub net: &'r Network<T>,
    /// Its kernels, or what stands before them.
    pub kernels: &'r dyn StepKernels<T>,
    /// What becomes of the gradient.
    pub how: Finishing<T>,
    /// Weights and biases.
    pub weights: &'r mut [T],
    /// Their gradient, or nothing: then it is made in scratch.
    pub gradient: &'r mut [T],
    /// The optimizer's first state.
    pub first: &'r mut [T],
    /// The weights' moving average, or nothing.
    pub average: &'r mut [T],
    /// How far in these buffers it is.
    pub at: usize,
    /// Whether the gradient of the whole job is made in scratch, or else block by block.
    pub together: bool,
    job: &'r Job,
    mirror: &'r mut [T],
    rounded: &'r mut [T],
    second: &'r mut [T],
    third: &'r mut [T],
    scratch: &'r mut [T],
}

impl<'r, T: Number> Run<'r, T> {
    /// Of a job whose buffers are being written.
    #[inline(always)]
    pub fn new(
        net: &'r Network<T>,
        kernels: &'r dyn StepKernels<T>,
        job: &'r Job,
        writing: &'r mut ArenaWriting<'_, T>,
        how: Finishing<T>,
        scratch: &'r mut [T],
    ) -> Self {
        let [weights, mirror, gradient, first, second, rounded, third, average] = writing.slices::<BUFFERS>();
        let (at, together) = (0, false);
        Run {
            net,
            kernels,
            job,
            how,
            weights,
            mirror,
            rounded,
            gradient,
            first,
            second,
            third,
            average,
            scratch,
            at,
            together,
        }
    }
}

impl<T: Number> Run<'_, T> {
    /// Whether the rule can take all the job's numbers as one block: where these are several small ones, together at most `most`,
    /// treated alike, whose gradient is in nobody's memory.
    #[inline]
    pub fn fits_together(&self, most: usize) -> bool {
        let Finishing { rule, shrink, shrink_biases, .. } = &self.how;
        let plain = rule.is_some() && shrink == shrink_biases && self.gradient.is_empty();
        self.job.together && self.weights.len() <= most && plain
    }

    /// Whether any of the job's weights is kept in another form too.
    #[inline]
    pub fn has_copies(&self) -> bool {
        !(self.mirror.is_empty() && self.rounded.is_empty())
    }

    /// Where the gradient of the next `numbers` numbers is made.
    pub fn room(&mut self, numbers: usize) -> &mut [T] {
        if self.gradient.is_empty() {
            let begin = if self.together { self.at } else { 0 };
            &mut self.scratch[begin..begin + numbers]
        } else {
            &mut self.gradient[self.at..self.at + numbers]
        }
    }

    /// Applies the rule to weights and the biases behind them, counted from `at`; returns whether there is one.
    pub fn update(&mut self, weights: Range<usize>, biases: Range<usize>) -> bool {
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
            self.kernels.update(&mut Update {
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

    /// Writes the updated rows of a strip of panel `p` into the forms that the next step's products read, P rows after P rows.
    pub fn reflect(&mut self, layer: &Layer, p: usize, strip: Range<usize>) {
        if !layer.has_mirror && self.net.pair_kernels.is_none() {
            return;
        }
        let (panel, width, mut at) = (self.net.geometry.panel(), layer.width(p), self.at);
        let mut row = strip.start;
        while row < strip.end {
            let rows = panel.min(strip.end - row);
            self.reflect_block(layer, p, row, rows, at);
            (row, at) = (row + rows, at + rows * width);
        }
    }

    /// The same of `rows` rows, at most P, which stand at `at`.
    #[inline(always)] // into the loop, whose every turn is a block
    fn reflect_block(&mut self, layer: &Layer, p: usize, row: usize, rows: usize, at: usize) {
        if self.net.pair_kernels.is_some() {
            return self.round_block(layer, PanelRows { p, row, rows }, at);
        }
        let (width, mirror_width) = (layer.width(p), layer.mirror_width(row));
        let weights = &self.weights[at..at + rows * width];
        let begin = layer.mirror_block(p, row) - self.job.mirror;
        let mirror = &mut self.mirror[begin..begin + width * mirror_width];
        self.kernels.mirror(&mut Mirror { weights, rows, width, mirror, mirror_width });
    }

    /// The same in mixed precision.
    #[inline(never)]
    fn round_block(&mut self, layer: &Layer, here: PanelRows, at: usize) {
        let Some(kernels) = self.net.pair_kernels else { return };
        let PanelRows { p, row, rows } = here;
        let weights = &self.weights[at..at + rows * layer.width(p)];
        let (mirror, pairs) = (layer.mirror_range(p, row, rows), layer.pair_row(p, row)..layer.pair_row(p, row + rows));
        let mirror = match layer.has_mirror {
            true => &mut self.mirror[mirror.start - self.job.mirror..mirror.end - self.job.mirror],
            false => &mut [],
        };
        let forward = &mut self.rounded[pairs.start - self.job.pairs..pairs.end - self.job.pairs];
        layer.round(kernels, here, weights, forward, mirror);
    }
}
