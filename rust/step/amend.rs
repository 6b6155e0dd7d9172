//! What a step does to a block of weights beside its gradient and the optimizer's rule, where options ask for it.
//!
//! Penalties on a gradient that stays in memory, its scale (clipping by norm), Muon's directions in its place, rows of
//! weights cut to a length, averages of weights. A plain step has none of it and does not come here.

use super::measure::Measured;
use super::muon::{Direction, Muon};
use super::run::Run;
use crate::kernels::{Approach, Blend, Factors, Number, Penalise, Rule, Scale, Shrink, Update};
use crate::network::Form;
use crate::panel::Reading;

/// What is done, in this order; the optimizer's rule, if there is one, comes after the directions.
pub struct Amend<'a, T> {
    /// Whether the gradient in memory gets its penalties and is clipped by value.
    pub penalises: bool,
    /// What the gradient in memory is multiplied by.
    pub factor: T,
    /// What Muon's weights follow in place of the rule, with their momentum in the optimizer's first state.
    pub directions: Option<(&'a Muon, &'a Reading<'a, Direction<T>>)>,
    /// What each output's incoming weights are multiplied by.
    pub lengths: Option<&'a Measured<'a, T>>,
    /// What comes of new weights into the average: one minus its decay.
    pub average: Option<T>,
}

impl<T: Number> Amend<'_, T> {
    /// Nothing.
    pub fn nothing() -> Self {
        Amend { penalises: false, factor: T::ONE, directions: None, lengths: None, average: None }
    }
}

/// Some rows of a panel, and the bias behind them, or a bias alone.
#[derive(Clone, Copy)]
pub struct Block {
    /// Of which layer.
    pub layer: usize,
    /// Where it begins in the layer's form.
    pub start: usize,
    /// Which panel.
    pub panel: usize,
    /// Its first row.
    pub row: usize,
    /// Lanes with padding.
    pub width: usize,
    /// How many of its numbers are weights.
    pub weights: usize,
    /// How many there are.
    pub all: usize,
}

impl Block {
    /// `width` biases of a layer.
    pub fn bias(layer: usize, width: usize) -> Self {
        Block { layer, start: 0, panel: 0, row: 0, width, weights: 0, all: width }
    }
}

impl<T: Number> Amend<'_, T> {
    /// Does it to the block at `run.at`; returns whether weights were written.
    #[inline(never)]
    pub(super) fn block(&self, run: &mut Run<'_, T>, block: Block) -> bool {
        if self.penalises {
            penalise(run, block);
        }
        if self.factor != T::ONE {
            let here = run.at..run.at + block.all;
            let (x, keep) = (&mut run.gradient[here], self.factor);
            run.net.kernels.blend(&mut Blend { x, keep, y: &[], share: T::ZERO });
        }
        let mut writes = match self.directions {
            Some((muon, directions)) if muon.covers(block.layer, run.net.layers.len()) => {
                follow(run, block, muon, directions.get(block.layer));
                run.update(block.weights..block.weights, block.weights..block.all)
            }
            _ => run.update(0..block.weights, block.weights..block.all),
        };
        if let Some(lengths) = self.lengths {
            writes |= shorten(run, block, lengths.layer(block.layer));
        }
        if let Some(share) = self.average {
            let here = run.at..run.at + block.all;
            let (x, y) = (&mut run.average[here.clone()], &run.weights[here]);
            run.net.kernels.approach(&mut Approach { x, y, share });
        }
        writes
    }
}

/// Penalties and clipping by value on the gradient of weights, then on that of the biases behind them.
fn penalise<T: Number>(run: &mut Run<'_, T>, block: Block) {
    let parts = [(0..block.weights, run.how.shrink), (block.weights..block.all, run.how.shrink_biases)];
    for (range, shrink) in parts {
        let here = run.at + range.start..run.at + range.end;
        let (weights, gradient) = (&run.weights[here.clone()], &mut run.gradient[here]);
        run.net.kernels.penalise(&mut Penalise { shrink, weights, gradient });
    }
}

/// Muon's step: the momentum takes the gradient in, the weights follow the direction.
fn follow<T: Number>(run: &mut Run<'_, T>, block: Block, muon: &Muon, direction: &Direction<T>) {
    if block.weights == 0 {
        return;
    }
    let (kernels, here) = (run.net.kernels, run.at..run.at + block.weights);
    let (x, y) = (&mut run.first[here.clone()], &run.gradient[here.clone()]);
    kernels.approach(&mut Approach { x, y, share: T::from_f64(1.0 - muon.momentum) });
    kernels.update(&mut Update {
        rule: Rule::Descent { rate: T::from_f64(muon.rate(&run.net.layers[block.layer])) },
        shrink: Shrink { keep: T::from_f64(muon.keep()), ..Shrink::NONE },
        weights: &mut run.weights[here],
        gradient: &direction.numbers[block.start..block.start + block.weights],
        first: &mut [],
        second: &mut [],
        third: &mut [],
    });
}

/// Each output's incoming weights times its factor; `factors` are the layer's. Returns whether any is not 1.
fn shorten<T: Number>(run: &mut Run<'_, T>, block: Block, factors: &[T]) -> bool {
    let (width, rows) = (block.width, block.weights / block.width);
    let form = run.net.layers[block.layer].form;
    let here = match form {
        Form::Wide => &factors[block.panel * run.net.geometry.panel()..][..width],
        Form::Narrow => &factors[block.row..block.row + rows],
    };
    if rows == 0 || here.iter().all(|&factor| factor == T::ONE) {
        return false;
    }
    let factors = if form == Form::Wide { Factors::Lanes(here) } else { Factors::Rows(here) };
    let weights = &mut run.weights[run.at..run.at + block.weights];
    run.net.kernels.scale(&mut Scale { block: weights, width, factors });
    true
}
