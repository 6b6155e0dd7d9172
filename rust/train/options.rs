//! What a training is asked for.

use super::optimizer::Optimizer;
use super::penalty::Penalty;
use super::stretch::Stretch;
use crate::step::muon::Muon;

/// What is asked of a fit.
#[derive(Clone, Copy, Debug)]
pub struct Options<'o> {
    /// Passes over the data.
    pub epochs: usize,
    /// Rows of a batch; at most the data's.
    pub batch_size: usize,
    /// The rule.
    pub optimizer: Optimizer,
    /// Penalties on the weights.
    pub penalty: Penalty,
    /// The gradient of each weight and bias is held between minus and plus this; infinity for no limit.
    pub clip_value: f64,
    /// The whole gradient is scaled down to this norm where it is longer; infinity for no limit.
    pub clip_norm: f64,
    /// The decay of a moving average of the weights, where one is kept.
    pub average: Option<f64>,
    /// What weight matrices follow in place of the optimizer's rule.
    pub muon: Option<Muon>,
    /// What a sample's loss is multiplied by.
    pub loss_scale: f64,
    /// What each sample counts in its batch's mean, finite and at least 0, one for each row; `None` for all the same. A batch
    /// whose weights are all 0 has the loss 0 and no gradient.
    pub weights: Option<&'o [f64]>,
    /// The rows that are trained on, in their order where that is not drawn; `None` for all. They are read where they lie, and
    /// the bits are those of training on a copy of them. Weights are by the data's rows.
    pub rows: Option<&'o [u32]>,
    /// Whether batches are drawn anew in each epoch; a full batch keeps its order.
    pub shuffle: bool,
    /// Of the shuffle.
    pub seed: u64,
    /// Workers; `None` for as many as help.
    pub threads: Option<usize>,
    /// Epochs between reports; 0 for none.
    pub report_every: usize,
    /// What part of the epochs this call does.
    pub stretch: Stretch<'o>,
}

/// That a training follows scikit-learn's conventions, and what they leave open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scikit {
    /// What a sample's gradient is multiplied by; its loss has the options' scale.
    pub gradient_scale: f64,
    /// `alpha`: `alpha / 2 sum w^2` over weights is added to the sum of the losses of a batch.
    pub alpha: f64,
}
