//! What batch normalisation knows of a layer's units.

use super::layer::Layer;
use crate::error::Error;
use crate::kernels::{Norm, Number};
use crate::panel::Buffer;

/// What batch normalisation knows of a layer's units, `[padded outputs]` each.
pub struct Statistics<T> {
    /// The last batch's means.
    pub mean: Buffer<T>,
    /// Its squared distances from them, summed.
    pub squares: Buffer<T>,
    /// One over its standard deviations.
    pub inverse: Buffer<T>,
    /// Means over the batch of dY, then of dY times the normed.
    pub backward: Buffer<T>,
    /// Running mean, what predictions use.
    pub running_mean: Buffer<T>,
    /// Running variance, unbiased.
    pub running_variance: Buffer<T>,
    /// One over the running standard deviations.
    pub running_inverse: Buffer<T>,
}

impl<T: Number> Statistics<T> {
    pub(super) fn new(layer: &Layer) -> Result<Self, Error> {
        let zeros = |n: usize| Buffer::zeroed(n.saturating_mul(layer.padded_outputs()), "network: its statistics");
        let mut statistics = Statistics {
            mean: zeros(1)?,
            squares: zeros(1)?,
            inverse: zeros(1)?,
            backward: zeros(2)?,
            running_mean: zeros(1)?,
            running_variance: zeros(1)?,
            running_inverse: zeros(1)?,
        };
        statistics.running_variance[..layer.outputs].fill(T::ONE);
        statistics.renew(layer);
        Ok(statistics)
    }

    /// The running statistics take a batch of `rows` rows in; its variance is the unbiased one, as in PyTorch.
    pub fn run_on(&mut self, layer: &Layer, rows: usize) {
        let Some(Norm::Batch { momentum, .. }) = layer.norm else { return };
        let (momentum, kept) = (T::from_f64(momentum), T::from_f64(1.0 - momentum));
        let count = T::from_f64(rows.saturating_sub(1).max(1) as f64);
        let means = self.running_mean.iter_mut().zip(self.mean.iter());
        means.for_each(|(running, &mean)| *running = kept * *running + momentum * mean);
        let variances = self.running_variance.iter_mut().zip(self.squares.iter());
        variances.for_each(|(running, &squares)| *running = kept * *running + momentum * (squares / count));
        self.renew(layer);
    }

    /// After a change of the running variance.
    pub fn renew(&mut self, layer: &Layer) {
        let Some(Norm::Batch { epsilon, .. }) = layer.norm else { return };
        let epsilon = T::from_f64(epsilon);
        let of = self.running_inverse.iter_mut().zip(self.running_variance.iter());
        of.for_each(|(inverse, &variance)| *inverse = T::ONE / (variance + epsilon).sqrt());
    }
}
