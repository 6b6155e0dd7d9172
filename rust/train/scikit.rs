//! Training by the conventions of scikit-learn's multilayer perceptrons, where they differ from this crate's own.
//!
//! There the caller draws each epoch's order; the penalty of a batch is divided by its samples, or the sum of their weights; a
//! batch counts in its epoch by its samples, whatever their weights; a loss may be a mean over outputs whose gradient is a sum;
//! and a loss that is not finite is reported like any other. The step is the one of `trainer.rs`.

use super::Host;
use super::infer::StridedSum;
use super::stretch::Stretch;
use super::trainer::{Options, Run, Task, Workspace};
use crate::data::Matrix;
use crate::error::Error;
use crate::kernels::Number;
use crate::network::{Form, GRADIENT, Layer, Network, WEIGHTS};
use crate::step::TargetData;

/// That a training follows scikit-learn's conventions, and what they leave open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scikit {
    /// What a sample's gradient is multiplied by; its loss has the options' scale.
    pub gradient_scale: f64,
    /// `alpha`: `alpha / 2 sum w^2` over weights is added to the sum of the losses of a batch.
    pub alpha: f64,
}

/// One epoch over the rows of X and Y that `order` names, batch after batch as they stand there; returns its loss, which may be
/// no finite number.
///
/// # Errors
/// [`Error::Value`] where `order` is empty or names a row that is not there, or as for [`super::trainer::fit`], divergence
/// excepted.
#[allow(clippy::too_many_arguments)]
pub fn epoch<T: Number>(
    network: &mut Network<T>,
    workspace: &mut Workspace<T>,
    x: &Matrix<'_>,
    y: &TargetData<'_>,
    order: &[u32],
    options: &Options<'_>,
    scikit: Scikit,
    host: &mut dyn Host,
) -> Result<f64, Error> {
    options.optimizer.check()?;
    options.optimizer.fits::<T>()?;
    if let Some(&row) = order.iter().find(|&&row| row as usize >= x.rows()) {
        return Err(Error::expected("order", format!("rows below {}", x.rows()), row));
    }
    if order.is_empty() {
        return Err(Error::expected("order", "at least one row", "none"));
    }
    network.prepare_state(options.optimizer.state_name(), options.optimizer.states())?;
    let whole = Options { epochs: 1, shuffle: false, report_every: 0, stretch: Stretch::WHOLE, ..*options };
    let options = Options { rows: Some(order), ..whole };
    let task = Task { updates: true, scikit: Some(scikit) };
    let (done, progress, norms) = Run::new(network, workspace, x, y, &options, task)?.execute(workspace, host);
    network.progress = progress;
    network.gradient_norms = norms;
    done.map(|(losses, _)| losses[0])
}

/// The loss of all rows as one batch, its gradient left in the arena's [`GRADIENT`].
///
/// # Errors
/// As for [`epoch`].
pub fn objective<T: Number>(
    network: &mut Network<T>,
    workspace: &mut Workspace<T>,
    x: &Matrix<'_>,
    y: &TargetData<'_>,
    options: &Options<'_>,
    scikit: Scikit,
    host: &mut dyn Host,
) -> Result<f64, Error> {
    let options = Options { epochs: 1, batch_size: x.rows(), report_every: 0, ..*options };
    let task = Task { updates: false, scikit: Some(scikit) };
    let (done, ..) = Run::new(network, workspace, x, y, &options, task)?.execute(workspace, host);
    let loss = done?.0[0];
    let counts = options.weights.map_or(x.rows() as f64, |weights| weights.iter().sum());
    add_penalty(network, if counts != 0.0 { scikit.alpha / counts } else { 0.0 });
    Ok(loss)
}

/// Adds `rate w` to the gradient of every weight in the arena.
fn add_penalty<T: Number>(network: &mut Network<T>, rate: f64) {
    if rate == 0.0 {
        return;
    }
    let rate = T::from_f64(rate);
    for l in 0..network.layers.len() {
        let layer = network.layers[l];
        for range in runs(&layer) {
            let weights = network.arena.buffer(WEIGHTS)[range.clone()].to_vec();
            let gradient = &mut network.arena.buffer(GRADIENT)[range];
            gradient.iter_mut().zip(&weights).for_each(|(g, &w)| *g = rate.mul_add(w, *g));
        }
    }
}

/// Where a layer's weights lie, without its biases: a run a panel, padding included.
fn runs(layer: &Layer) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..layer.panels()).map(|p| layer.row(p, 0)..layer.row(p, layer.rows()))
}

/// The sum of the squares of all weights, in an order that does not depend on panels: over each output's inputs in 32 strided
/// partials and a tree, then so over the outputs of all layers.
pub(super) fn sum_of_squares<T: Number>(network: &Network<T>) -> f64 {
    let reading = network.arena.read();
    let weights = reading.buffer(WEIGHTS);
    let mut sum = StridedSum::new();
    for layer in &network.layers {
        match layer.form {
            Form::Wide => wide(layer, weights, &mut sum),
            Form::Narrow => narrow(layer, weights, &mut sum),
        }
    }
    sum.total()
}

/// Lanes that are summed side by side.
const LANES: usize = 4;

/// Lanes are outputs: a few of them at a time, row after row.
fn wide<T: Number>(layer: &Layer, weights: &[T], sum: &mut StridedSum) {
    for p in 0..layer.panels() {
        let width = layer.width(p);
        let panel = &weights[layer.row(p, 0)..layer.row(p, layer.inputs)];
        let used = width.min(layer.outputs - p * layer.width(0));
        // All widths are multiples of the number of lanes, or below it.
        let step = LANES.min(width);
        for lane in (0..used).step_by(step) {
            let mut partial = [[0.0; LANES]; 32];
            for (row, numbers) in panel.chunks_exact(width).enumerate() {
                let into = &mut partial[row % 32];
                into.iter_mut().zip(&numbers[lane..lane + step]).for_each(|(into, &w)| *into += square(w));
            }
            (lane..used.min(lane + step)).for_each(|j| sum.add(tree(|i| partial[i][j - lane])));
        }
    }
}

/// Lanes are inputs, so an output's weights lie in one row of every panel.
fn narrow<T: Number>(layer: &Layer, weights: &[T], sum: &mut StridedSum) {
    for j in 0..layer.outputs {
        let mut partial = [0.0; 32];
        let mut input = 0;
        for p in 0..layer.panels() {
            let row = &weights[layer.row(p, j)..][..layer.width(p).min(layer.inputs - input)];
            for (i, &w) in (input..).zip(row) {
                partial[i % 32] += square(w);
            }
            input += row.len();
        }
        sum.add(tree(|i| partial[i]));
    }
}

fn square<T: Number>(w: T) -> f64 {
    let w = w.to_f64();
    w * w
}

/// The sum of 32 partials, as [`StridedSum`] adds them.
fn tree(partial: impl Fn(usize) -> f64) -> f64 {
    let mut partial: [f64; 32] = std::array::from_fn(partial);
    for half in [16, 8, 4, 2, 1] {
        (0..half).for_each(|i| partial[i] += partial[i + half]);
    }
    partial[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::isa::Isa;
    use crate::kernels::Loss;
    use crate::network::LayerSpec;

    #[test]
    fn the_sum_of_squares_has_the_same_bits_on_every_instruction_set() {
        for dims in [&[3, 5, 1][..], &[300, 20, 7, 1], &[64, 100, 10], &[70, 33, 65, 3]] {
            let mut expected = None;
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                let specs = |&units: &usize| LayerSpec::plain(units, Activation::Identity);
                let specs: Vec<LayerSpec> = dims[1..].iter().map(specs).collect();
                let mut net = Network::<f64>::new(dims[0], &specs, Loss::SquaredError, isa).unwrap();
                let mut plain = 0.0;
                for l in 0..net.layers.len() {
                    let weight = |j: usize, i: usize| 1.0 / (1.0 + (l + 3 * j + 7 * i) as f64);
                    net.set_layer(l, weight, |_| 100.0);
                    let layer = net.layers[l];
                    for j in 0..layer.outputs {
                        plain += (0..layer.inputs).map(|i| weight(j, i) * weight(j, i)).sum::<f64>();
                    }
                }
                let sum = sum_of_squares(&net);
                assert!((sum - plain).abs() < 1e-12 * plain, "{isa:?} {dims:?}: {sum} for {plain}");
                assert_eq!(*expected.get_or_insert(sum), sum, "{isa:?} {dims:?}");
            }
        }
    }
}
