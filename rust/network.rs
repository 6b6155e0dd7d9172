//! A network: its layers, and where their numbers lie in the arena.
//!
//! A layer's weights lie in one of two forms, its bias beside them:
//!
//! - wide: panels of outputs, `[panel][inputs + 1][P]`, the last row of a panel being the bias. Layers after the first
//!   also have a mirror, `[panel of outputs][panel of inputs][P][P]`, the transpose that backward data reads.
//! - narrow (few units, which would leave lanes idle): the bias, then panels of inputs, `[panel][outputs][P]`. Lanes are
//!   inputs in the weight gradient and in backward data, and in forward too where that pays (`kernels/dots.rs`); else that
//!   reads the mirror, which is the wide form without its bias: `[inputs][V]`.
//!
//! Behind a normalised layer's weights stand its gamma and beta, `[2][padded outputs]`.
//!
//! In mixed precision layers are narrow only where forward has inputs as lanes; the mirror then holds the pairs of bfloat16
//! that backward data reads, and a further buffer those that forward reads (`kernels/bf16.rs`).
//!
//! Gradient and optimizer state have the form of the weights. The arena is cut into [`Job`]s of one or more [`Part`]s, the unit
//! in which threads share the weight gradient and the update.
//!
//! `network/layer.rs` decides places, `network/cut.rs` parts and jobs, `network/statistics.rs` holds what batch normalisation knows. Nothing is
//! computed here; given weights are rounded by the kernels.

mod cut;
mod layer;
mod statistics;

pub use cut::{Job, Part};
pub use layer::{Form, Layer, LayerSpec, PanelRows};
pub use statistics::Statistics;

use crate::activation::Activation;
use crate::error::Error;
use crate::isa::Isa;
use crate::kernels::{Kernels, Loss, NoPairs, Norm, Number, PairKernels};
use crate::memory;
use crate::panel::{Arena, Geometry, Parts};

/// The arena's buffer of weights and biases.
pub const WEIGHTS: usize = 0;
/// The arena's buffer of mirrors.
pub const MIRROR: usize = 1;
/// The arena's buffer of gradients; empty until somebody needs them in memory.
pub const GRADIENT: usize = 2;
/// The arena's buffer of the optimizer's first state; empty until an optimizer needs it.
pub const FIRST: usize = 3;
/// The arena's buffer of the optimizer's second state; empty until an optimizer needs it.
pub const SECOND: usize = 4;
/// The arena's buffer of the weights' pairs of bfloat16 for forward; empty but in mixed precision.
pub const PAIRS: usize = 5;
/// The arena's buffer of the optimizer's third state; empty until an optimizer needs it.
pub const THIRD: usize = 6;
/// The buffers of the optimizer's state.
pub const STATES: [usize; 3] = [FIRST, SECOND, THIRD];
/// The arena's buffer of the weights' moving average; empty until somebody asks for it.
pub const AVERAGE: usize = 7;
/// How many buffers the arena has.
pub const BUFFERS: usize = 8;

/// Units of a layer, and features, at most: sizes up to here can be padded without overflow.
const MAX_UNITS: usize = u32::MAX as usize;

/// The arrays of parameters that a layer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// `(outputs, inputs)`
    Weights,
    /// `(outputs,)`
    Biases,
    /// The scale of a normalised layer, `(outputs,)`.
    Gamma,
    /// Its shift, `(outputs,)`.
    Beta,
}

/// A network with its numbers.
pub struct Network<T: Number> {
    /// First to last.
    pub layers: Vec<Layer>,
    /// What training minimises.
    pub loss: Loss,
    /// The layers' parts, ascending in the arena.
    pub parts: Vec<Part>,
    /// What each claim of the update phase owns: the parts of the arena.
    pub jobs: Vec<Job>,
    /// The order in which jobs are claimed.
    pub order: Vec<usize>,
    /// Weights of the jobs claimed before this one, and of all: `[jobs + 1]`.
    before: Vec<usize>,
    /// Weights, mirrors, gradients, optimizer state.
    pub arena: Arena<T>,
    /// Counters that live from one call to the next.
    pub progress: Progress,
    /// The greatest length of an output's incoming weights after an update, one a layer; infinity for no limit.
    pub max_norms: Vec<f64>,
    /// Norms of the gradient where they are clipped, until somebody takes them.
    pub gradient_norms: Norms,
    /// The layers that take statistics over the batch, ascending.
    pub coupled: Vec<usize>,
    /// Their statistics, in the same order.
    pub statistics: Parts<Statistics<T>>,
    /// The panels' width.
    pub geometry: Geometry,
    /// Who computes.
    pub kernels: &'static dyn Kernels<T>,
    /// Who computes the products, in mixed precision.
    pub pair_kernels: Option<&'static dyn PairKernels<T>>,
    /// What they run on.
    pub isa: Isa,
}

/// The gradients' norms: those of the epoch that goes on, and the means of finished ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Norms {
    /// The sum of the epoch's so far.
    pub sum: f64,
    /// How many these are.
    pub steps: usize,
    /// The mean in each epoch before.
    pub epochs: Vec<f64>,
}

/// How far training has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Updates made.
    pub steps: u64,
    /// Updates made by the optimizer that the state belongs to.
    pub state_steps: u64,
    /// Epochs finished.
    pub epochs: u64,
    /// `beta1^steps` of the moments now held.
    pub beta1_power: f64,
    /// `beta2^steps` of the moments now held.
    pub beta2_power: f64,
    /// The optimizer that the state belongs to.
    pub optimizer: Option<&'static str>,
}

impl Progress {
    /// Nothing done.
    pub const START: Progress =
        Progress { steps: 0, state_steps: 0, epochs: 0, beta1_power: 1.0, beta2_power: 1.0, optimizer: None };
    /// One more power of both. What is next to nothing becomes nothing, lest every further step multiply a subnormal number; one minus it
    /// is one either way.
    #[inline]
    pub fn decay(&mut self, beta1: f64, beta2: f64) {
        let decayed = |power: f64| if power < f64::MIN_POSITIVE { 0.0 } else { power };
        self.beta1_power = decayed(self.beta1_power * beta1);
        self.beta2_power = decayed(self.beta2_power * beta2);
    }
}

impl<T: Number> Network<T> {
    /// A network of zeros.
    ///
    /// # Errors
    /// [`Error::Value`] for no layers, a layer without units, softmax in a hidden layer, or a loss that does not fit the
    /// output; [`Error::Memory`] where the weights do not fit.
    pub fn new(features: usize, specs: &[LayerSpec], loss: Loss, isa: Isa) -> Result<Self, Error> {
        Network::with(features, specs, loss, isa, None)
    }

    /// A network of zeros whose products have bfloat16 operands.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and [`Error::Value`] where this CPU lacks the instructions, or the system refuses them.
    pub fn mixed(features: usize, specs: &[LayerSpec], loss: Loss, isa: Isa) -> Result<Self, Error> {
        let instructions = "the instructions of AVX-512 with BF16 (avx512_bf16)";
        let pairs = T::pair_kernels(isa).map_err(|why| match why {
            NoPairs::Missing => Error::expected("dtype bfloat16", instructions, "a CPU without AVX512_BF16"),
            NoPairs::Unknown => Error::expected("dtype bfloat16", instructions, format!("{} kernels", isa.name())),
            NoPairs::Refused(error) => {
                let expected = "the system's leave to use the tiles of AMX (LAMELLA_ISA=avx512 does without)";
                let got = match error {
                    libc::ENOSPC => "a thread whose stack for signal handlers they do not fit on".into(),
                    _ => std::io::Error::from_raw_os_error(error).to_string(),
                };
                Error::expected("dtype bfloat16", expected, got)
            }
        })?;
        Network::with(features, specs, loss, isa, Some(pairs))
    }

    /// The same with kernels in plain Rust, for tests.
    #[cfg(test)]
    pub fn mixed_in_plain_rust(features: usize, specs: &[LayerSpec], loss: Loss) -> Network<f32> {
        Network::with(features, specs, loss, Isa::Portable, Some(crate::kernels::PORTABLE_PAIRS)).unwrap()
    }

    /// The same with tiles in plain Rust, for tests; beside them it needs vectors of 16 lanes.
    #[cfg(test)]
    pub fn mixed_in_plain_tiles(features: usize, specs: &[LayerSpec], loss: Loss) -> Option<Network<f32>> {
        let tiles = Some(crate::kernels::PLAIN_TILES).filter(|_| Isa::Avx512.is_available())?;
        Some(Network::with(features, specs, loss, Isa::Avx512, Some(tiles)).unwrap())
    }

    /// A network of zeros, with or without kernels of mixed precision.
    fn with(
        features: usize,
        specs: &[LayerSpec],
        loss: Loss,
        isa: Isa,
        pair_kernels: Option<&'static dyn PairKernels<T>>,
    ) -> Result<Self, Error> {
        check(features, specs, &loss)?;
        for (l, spec) in (1..).zip(specs) {
            let (Some(Norm::Batch { epsilon, .. }) | Some(Norm::Layer { epsilon })) = spec.norm else { continue };
            if T::from_f64(epsilon) <= T::ZERO {
                let expected = format!("a number that {} holds above 0", T::NAME);
                return Err(Error::expected(format!("layer {l}: epsilon"), expected, epsilon));
            }
        }
        let kernels = T::kernels(isa);
        let layers = layer::place::<T>(features, specs, kernels.geometry(), pair_kernels);
        // Before the table of parts, which a network too large for the memory would make too large as well.
        let last = &layers[layers.len() - 1];
        let bytes = last.weights.saturating_add(last.numbers()).saturating_mul(size_of::<T>());
        if !memory::suffices(bytes) {
            return Err(Error::Memory { what: "network: its weights", bytes });
        }
        let parts: Vec<Part> = layers.iter().enumerate().flat_map(|(l, layer)| cut::cut(l, layer)).collect();
        let weights = |part: &Part| part.weights(&layers[part.layer]);
        let jobs = cut::group(&layers, &parts);
        let arena = Arena::zeroed(cut::ranges(&layers, &parts, &jobs), "network: its weights")?;
        let order = cut::claim_order(&parts, &jobs);
        let mut before = vec![0];
        for &job in &order {
            before.push(before[before.len() - 1] + parts[jobs[job].parts.clone()].iter().map(weights).sum::<usize>());
        }
        let (progress, geometry) = (Progress::START, kernels.geometry());
        let (max_norms, gradient_norms) = (vec![f64::INFINITY; layers.len()], Norms::default());
        let coupled: Vec<usize> = (0..layers.len()).filter(|&l| layers[l].couples()).collect();
        let statistics = coupled.iter().map(|&l| Statistics::new(&layers[l])).collect::<Result<_, _>>()?;
        let mut network = Network {
            statistics: Parts::new(statistics),
            layers,
            loss,
            parts,
            jobs,
            order,
            before,
            arena,
            progress,
            max_norms,
            gradient_norms,
            coupled,
            geometry,
            isa,
            kernels,
            pair_kernels,
        };
        (0..network.layers.len()).for_each(|l| network.set_affine(l, |_| T::ONE, |_| T::ZERO));
        Ok(network)
    }

    /// Whether its products are made of tiles.
    #[inline]
    pub fn has_tiles(&self) -> bool {
        self.pair_kernels.is_some_and(|kernels| kernels.has_tiles())
    }

    /// Features of a sample.
    pub fn features(&self) -> usize {
        self.layers[0].inputs
    }
    /// Units of the last layer.
    pub fn outputs(&self) -> usize {
        self.layers[self.layers.len() - 1].outputs
    }
    /// Weights and biases, without padding.
    pub fn n_parameters(&self) -> usize {
        self.layers.iter().map(Layer::n_parameters).sum()
    }

    /// Bytes that all its numbers take now: weights in their forms, gradients, optimizer state, with padding.
    pub fn bytes(&self) -> usize {
        let numbers = self.arena.read();
        (0..BUFFERS).map(|index| size_of_val(numbers.buffer(index))).sum()
    }

    /// Where in `order` the share of worker `worker` of `workers` begins: all have about the same number of weights.
    pub fn share(&self, worker: usize, workers: usize) -> usize {
        if workers == 1 {
            return worker * self.order.len();
        }
        let all = self.before[self.order.len()];
        let wanted = (all as u128 * worker as u128 / workers as u128) as usize;
        let at = self.before.partition_point(|&before| before < wanted);
        // The nearer of the two boundaries around it.
        if at > 0 && wanted - self.before[at - 1] < self.before[at] - wanted { at - 1 } else { at }
    }

    /// Makes room for the weights' average, which begins with the weights as they are; one that is there goes on.
    ///
    /// # Errors
    /// [`Error::Memory`] where it does not fit.
    pub fn prepare_average(&mut self) -> Result<(), Error> {
        if self.arena.buffer(AVERAGE).is_empty() {
            self.arena.materialise(AVERAGE, WEIGHTS, "network: its average weights")?;
            let weights = self.arena.buffer(WEIGHTS).to_vec();
            self.arena.buffer(AVERAGE).copy_from_slice(&weights);
        }
        Ok(())
    }

    /// Forgets optimizer state, average and counters.
    pub fn reset(&mut self) {
        self.arena.release(AVERAGE);
        self.progress = Progress::START;
        STATES.into_iter().for_each(|index| self.arena.buffer(index).fill(T::ZERO));
    }

    /// Gives the memory of the optimizer's state and of the gradient back; the counters stay.
    pub fn release_state(&mut self) {
        self.progress.optimizer = None;
        STATES.into_iter().chain([GRADIENT]).for_each(|index| self.arena.release(index));
    }

    /// Makes state for `optimizer`, all zero where it is another one than before.
    ///
    /// # Errors
    /// [`Error::Memory`] where it does not fit.
    pub fn prepare_state(&mut self, optimizer: &'static str, states: usize) -> Result<(), Error> {
        if self.progress.optimizer != Some(optimizer) {
            // Room first: where there is none, the other optimizer's state stays whole.
            let states = STATES.into_iter().take(states);
            let (missing, there): (Vec<_>, Vec<_>) = states.partition(|&index| self.arena.buffer(index).is_empty());
            for index in missing {
                self.arena.materialise(index, WEIGHTS, "network: optimizer state")?;
            }
            there.into_iter().for_each(|index| self.arena.buffer(index).fill(T::ZERO));
            let (steps, epochs) = (self.progress.steps, self.progress.epochs);
            self.progress = Progress { steps, epochs, optimizer: Some(optimizer), ..Progress::START };
        }
        Ok(())
    }

    /// Copies layer `l`'s plain weights `(outputs, inputs)`, row after row, and biases in.
    pub fn set_layer(&mut self, l: usize, weights: impl Fn(usize, usize) -> T, bias: impl Fn(usize) -> T) {
        let layer = self.layers[l];
        let buffer = self.arena.buffer(WEIGHTS);
        // A training that diverged may have left padding that is no number.
        buffer[layer.weights..layer.affine().start].fill(T::ZERO);
        for j in 0..layer.outputs {
            (0..layer.inputs).for_each(|i| buffer[layer.weight(j, i)] = weights(j, i));
            buffer[layer.bias(j)] = bias(j);
        }
        self.arena.buffer(MIRROR)[layer.mirror..layer.mirror + layer.mirror_numbers()].fill(T::ZERO);
        if self.pair_kernels.is_some() {
            self.renew_pairs(&layer);
        } else if layer.has_mirror {
            let (mirror, panel) = (self.arena.buffer(MIRROR), layer.geometry.panel());
            for (j, i) in (0..layer.outputs).flat_map(|j| (0..layer.inputs).map(move |i| (j, i))) {
                let (lane, row) = if layer.form == Form::Wide { (j, i) } else { (i, j) };
                let block = layer.mirror_block(lane / panel, row - row % panel);
                mirror[block + (lane % panel) * layer.mirror_width(row) + row % panel] = weights(j, i);
            }
        }
    }

    /// Copies one of layer `l`'s plain state arrays, shaped as its parameters, into one of the arena's buffers, which
    /// [`prepare_state`](Self::prepare_state) made: that of its weights, biases, gamma or beta.
    pub fn set_state(&mut self, l: usize, buffer: usize, kind: Parameter, numbers: &[T]) {
        let layer = self.layers[l];
        let buffer = self.arena.buffer(buffer);
        let affine = layer.affine();
        let beta = affine.start + affine.len() / 2;
        for (n, &x) in numbers.iter().enumerate() {
            let place = match kind {
                Parameter::Weights => layer.weight(n / layer.inputs, n % layer.inputs),
                Parameter::Biases => layer.bias(n),
                Parameter::Gamma => affine.start + n,
                Parameter::Beta => beta + n,
            };
            buffer[place] = x;
        }
    }

    /// Copies layer `l`'s gamma and beta in, where it is normalised.
    pub fn set_affine(&mut self, l: usize, gamma: impl Fn(usize) -> T, beta: impl Fn(usize) -> T) {
        let layer = self.layers[l];
        let place = &mut self.arena.buffer(WEIGHTS)[layer.affine()];
        place.fill(T::ZERO);
        let (gammas, betas) = place.split_at_mut(place.len() / 2);
        gammas.iter_mut().take(layer.outputs).enumerate().for_each(|(j, x)| *x = gamma(j));
        betas.iter_mut().take(layer.outputs).enumerate().for_each(|(j, x)| *x = beta(j));
    }

    /// Layer `l`'s gamma and beta, or their gradient; empty where it is not normalised.
    pub fn get_affine(&self, l: usize, buffer: usize) -> (Vec<T>, Vec<T>) {
        let (layer, reading) = (self.layers[l], self.arena.read());
        let place = &reading.buffer(buffer)[layer.affine()];
        let (gamma, beta) = place.split_at(place.len() / 2);
        let used = layer.outputs.min(gamma.len());
        (gamma[..used].to_vec(), beta[..used].to_vec())
    }

    /// Rounds a layer's weights into their forms of mixed precision.
    fn renew_pairs(&mut self, layer: &Layer) {
        let Some(kernels) = self.pair_kernels else { return };
        let panel = self.geometry.panel();
        let rows = layer.rows();
        for (p, row) in (0..layer.panels()).flat_map(|p| (0..rows).step_by(panel).map(move |row| (p, row))) {
            let (rows, begin) = (panel.min(rows - row), layer.row(p, row));
            let weights = self.arena.buffer(WEIGHTS)[begin..begin + rows * layer.width(p)].to_vec();
            let pairs = layer.pair_row(p, row)..layer.pair_row(p, row + rows);
            let (mirror, panel) = (layer.mirror_range(p, row, rows), PanelRows { p, row, rows });
            let mut forward = vec![T::ZERO; pairs.len()];
            layer.round(kernels, panel, &weights, &mut forward, &mut self.arena.buffer(MIRROR)[mirror]);
            self.arena.buffer(PAIRS)[pairs].copy_from_slice(&forward);
        }
    }

    /// Layer `l`'s plain `(outputs, inputs)` matrix, row after row, and its biases, from one of the arena's buffers
    /// in the weights' form.
    pub fn get_layer(&self, l: usize, buffer: usize) -> (Vec<T>, Vec<T>) {
        let (layer, reading) = (self.layers[l], self.arena.read());
        let buffer = reading.buffer(buffer);
        let pairs = (0..layer.outputs).flat_map(|j| (0..layer.inputs).map(move |i| (j, i)));
        let weights = pairs.map(|(j, i)| buffer[layer.weight(j, i)]).collect();
        (weights, (0..layer.outputs).map(|j| buffer[layer.bias(j)]).collect())
    }
}

fn check(features: usize, specs: &[LayerSpec], loss: &Loss) -> Result<(), Error> {
    if features == 0 {
        return Err(Error::expected("layer 0", "at least 1 feature", 0));
    }
    if features > MAX_UNITS {
        return Err(Error::expected("layer 0", format!("at most {MAX_UNITS} features"), features));
    }
    let Some((last, hidden)) = specs.split_last() else {
        return Err(Error::expected("layers", "at least one layer", "none"));
    };
    if last.norm.is_some() || last.dropout > 0.0 || last.residual {
        let expected = "no normalisation, dropout or residual in the last layer, whose result is the answer";
        return Err(Error::expected(format!("layer {}", specs.len()), expected, "one of them"));
    }
    let mut inputs = features;
    for (l, spec) in (1..).zip(specs) {
        if !(0.0..1.0).contains(&spec.dropout) {
            return Err(Error::expected(format!("layer {l}: dropout"), "a share in [0, 1)", spec.dropout));
        }
        if spec.residual && spec.units != inputs {
            let expected = format!("{inputs} units, as many as its input has, for a residual");
            return Err(Error::expected(format!("layer {l}"), expected, spec.units));
        }
        inputs = spec.units;
    }
    for (l, spec) in (1..).zip(specs) {
        if spec.units == 0 {
            return Err(Error::expected(format!("layer {l}"), "at least 1 unit", 0));
        }
        if spec.units > MAX_UNITS {
            return Err(Error::expected(format!("layer {l}"), format!("at most {MAX_UNITS} units"), spec.units));
        }
    }
    if let Some(l) = hidden.iter().position(|spec| spec.activation == Activation::Softmax) {
        return Err(Error::expected(format!("layer {}", l + 1), "a hidden activation", "softmax, which is an output"));
    }
    loss.check(last.activation, last.units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(dims: &[usize]) -> Vec<LayerSpec> {
        let relu = |&units: &usize| LayerSpec::plain(units, Activation::Relu);
        let mut specs: Vec<LayerSpec> = dims[1..].iter().map(relu).collect();
        specs.last_mut().unwrap().activation = Activation::Identity;
        specs
    }

    fn network(dims: &[usize], isa: Isa) -> Network<f32> {
        Network::new(dims[0], &specs(dims), Loss::SquaredError, isa).unwrap()
    }

    fn in_mixed_precision(dims: &[usize]) -> Network<f32> {
        Network::<f32>::mixed_in_plain_rust(dims[0], &specs(dims), Loss::SquaredError)
    }

    #[test]
    fn every_number_belongs_to_one_part_and_every_weight_has_its_place() {
        let full = Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(|isa| (isa, false));
        for (isa, mixed) in full.chain([(Isa::Portable, true)]) {
            for dims in [&[2, 16, 16, 1][..], &[300, 20, 7, 1], &[784, 512, 40], &[1, 1], &[33, 65, 1100, 3]] {
                let mut net = if mixed { in_mixed_precision(dims) } else { network(dims, isa) };
                for part in 0..net.arena.parts() {
                    let mut writing = net.arena.write(part);
                    let [weights, mirror, _, _, _, pairs] = writing.slices();
                    weights.iter_mut().chain(mirror).chain(pairs).for_each(|x| *x += 1.0);
                }
                let last = net.layers[dims.len() - 2];
                assert_eq!(net.arena.buffer(PAIRS).len(), if mixed { last.all_pairs().end } else { 0 });
                assert_eq!(net.arena.buffer(MIRROR).len(), last.mirror + last.mirror_numbers());
                for buffer in [WEIGHTS, MIRROR, PAIRS] {
                    assert!(net.arena.buffer(buffer).iter().all(|&x| x == 1.0), "{isa:?} {mixed} {dims:?}");
                }
                for l in 0..net.layers.len() {
                    net.set_layer(l, |j, i| (l * 10_000 + j * 100 + i) as f32, |j| -(j as f32));
                    let (weights, bias) = net.get_layer(l, WEIGHTS);
                    let layer = net.layers[l];
                    assert_eq!(weights[layer.inputs * layer.outputs - 1], {
                        (l * 10_000 + (layer.outputs - 1) * 100 + layer.inputs - 1) as f32
                    });
                    assert_eq!(bias[layer.outputs - 1], -((layer.outputs - 1) as f32));
                }
            }
        }
    }

    #[test]
    fn impossible_networks_are_refused() {
        let spec = LayerSpec::plain;
        let make = |features, specs: &[LayerSpec], loss| {
            Network::<f32>::new(features, specs, loss, Isa::Scalar).err().map(|e| e.to_string())
        };
        let sigmoid = spec(1, Activation::Sigmoid);
        assert!(make(0, &[sigmoid], Loss::BinaryCrossEntropy).unwrap().contains("layer 0"));
        assert!(make(3, &[], Loss::SquaredError).unwrap().contains("at least one layer"));
        assert!(make(3, &[spec(0, Activation::Relu), sigmoid], Loss::BinaryCrossEntropy).unwrap().contains("layer 1"));
        assert!(make(3, &[spec(2, Activation::Softmax), sigmoid], Loss::BinaryCrossEntropy).is_some());
        assert!(make(3, &[sigmoid], Loss::SquaredError).unwrap().contains("matches"));
        let huge =
            |units| Network::<f64>::new(1 << 31, &[spec(units, Activation::Identity)], Loss::SquaredError, Isa::Scalar);
        assert!(huge(usize::MAX).err().unwrap().to_string().contains("at most"));
        let refused = huge(1 << 31).err();
        assert!(matches!(refused, Some(Error::Memory { .. })), "{refused:?}");
    }
}
