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
//! In mixed precision all layers are wide; the mirror then holds pairs of bfloat16, `[panel of outputs][panel of
//! inputs][P/2][P]`, and a further buffer the pairs that forward reads (`kernels/bf16.rs`).
//!
//! Gradient and optimizer state have the form of the weights. The arena is cut into [`Job`]s of one or more [`Part`]s, the unit
//! in which threads share the weight gradient and the update. This file decides places; it computes nothing, and has given
//! weights rounded by the kernels.

use crate::activation::Activation;
use crate::error::Error;
use crate::isa::Isa;
use crate::kernels::{Kernels, Loss, Norm, Number, PairKernels, PairMirror, dots};
use crate::memory;
use crate::panel::{Arena, Buffer, Geometry, Parts};
use std::ops::Range;

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

/// A part holds about so many weights: few enough that threads end together, and that a chunk of inputs has activations
/// which stay in the second cache while all panels of outputs pass over them.
const PART_WEIGHTS: usize = 1024;
/// A job holds at least about so many weights, so that claiming it costs nothing beside filling it.
const JOB_WEIGHTS: usize = 512;
/// Units of a layer, and features, at most: sizes up to here can be padded without overflow.
const MAX_UNITS: usize = u32::MAX as usize;
/// Vectors that adding up the lanes of one sum costs as much as.
const DOTS_FOLD: usize = 8;
/// Bytes of a sample whose products wait for memory: they read it once where its lanes are inputs, and once for each tile of
/// units where those are.
const LONG_ROW: usize = 64 << 10;
/// The most vectors of units of such a layer.
const FEW_VECTORS: usize = 4;

/// What the user asks of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerSpec {
    /// Units.
    pub units: usize,
    /// The function after them.
    pub activation: Activation,
    /// Whether they have biases.
    pub bias: bool,
    /// What is done before the activation.
    pub norm: Option<Norm>,
    /// The share of units that training drops, in [0, 1).
    pub dropout: f64,
    /// Whether the layer's input is added to its result.
    pub residual: bool,
}

impl LayerSpec {
    /// A layer with biases and nothing else.
    pub fn plain(units: usize, activation: Activation) -> Self {
        LayerSpec { units, activation, bias: true, norm: None, dropout: 0.0, residual: false }
    }
}

/// Which way a layer's weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lanes are outputs.
    Wide,
    /// Lanes are inputs.
    Narrow,
}

/// A layer and its places.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// `n[l-1]`
    pub inputs: usize,
    /// `n[l]`
    pub outputs: usize,
    /// The function after it.
    pub activation: Activation,
    /// Whether it has biases; without, they stand in their places as zeros.
    pub bias: bool,
    /// What is done before the activation.
    pub norm: Option<Norm>,
    /// The share of units that training drops.
    pub dropout: f64,
    /// Whether its input is added to its result.
    pub residual: bool,
    /// Which way its weights lie.
    pub form: Form,
    /// Whether forward too has inputs as lanes, in a narrow layer.
    pub dots: bool,
    /// Where its weights begin.
    pub weights: usize,
    /// Where its mirror begins; meaningless for the first layer, which has none.
    pub mirror: usize,
    /// Whether it has one: every layer but the first.
    pub has_mirror: bool,
    /// Where its pairs of bfloat16 for forward begin, in mixed precision.
    pub pairs: usize,
    /// Terms of a sum in one number of the products' operands: 2 in mixed precision, else 1.
    terms: usize,
    geometry: Geometry,
}

impl Layer {
    /// Whether it is a product and an activation that its result tells the derivative of.
    pub fn is_plain(&self) -> bool {
        self.norm.is_none() && self.dropout == 0.0 && !self.residual && self.activation.is_told_by_its_result()
    }
    /// What was asked for.
    pub fn spec(&self) -> LayerSpec {
        let Layer { outputs: units, activation, bias, norm, dropout, residual, .. } = *self;
        LayerSpec { units, activation, bias, norm, dropout, residual }
    }
    /// Whether it takes statistics over the batch.
    pub fn couples(&self) -> bool {
        matches!(self.norm, Some(Norm::Batch { .. }))
    }
    /// Units with padding.
    pub fn padded_outputs(&self) -> usize {
        self.geometry.padded(self.outputs)
    }
    /// Where gamma, then beta, `[2][padded_outputs]`, begin: behind the weights; empty without normalisation.
    pub fn affine(&self) -> Range<usize> {
        let begin = self.weights.saturating_add(self.weight_numbers());
        let len = if self.norm.is_some() { self.padded_outputs().saturating_mul(2) } else { 0 };
        begin..begin.saturating_add(len)
    }
    /// Parameters, without padding.
    fn n_parameters(&self) -> usize {
        let rows = self.inputs + usize::from(self.bias) + if self.norm.is_some() { 2 } else { 0 };
        self.outputs * rows
    }
    /// Panels of the form's lanes.
    pub fn panels(&self) -> usize {
        self.geometry.panels(self.lanes())
    }
    /// Lanes of the form, without padding.
    pub fn lanes(&self) -> usize {
        match self.form {
            Form::Wide => self.outputs,
            Form::Narrow => self.inputs,
        }
    }
    /// Rows of the form, without the bias.
    pub fn rows(&self) -> usize {
        match self.form {
            Form::Wide => self.inputs,
            Form::Narrow => self.outputs,
        }
    }
    /// Lanes of panel `p` of the form, with padding.
    pub fn width(&self, p: usize) -> usize {
        self.geometry.width(self.lanes(), p)
    }
    /// Where row `row` of panel `p` begins; a wide panel's row `inputs` is its bias.
    pub fn row(&self, p: usize, row: usize) -> usize {
        let panel = self.geometry.panel();
        self.weights
            + match self.form {
                Form::Wide => p * panel * (self.inputs + 1) + row * self.width(p),
                Form::Narrow => self.geometry.padded(self.outputs) + p * panel * self.outputs + row * self.width(p),
            }
    }
    /// Where the weight from input `i` to output `j` stands.
    pub fn weight(&self, j: usize, i: usize) -> usize {
        let (lane, row) = match self.form {
            Form::Wide => (j, i),
            Form::Narrow => (i, j),
        };
        self.row(lane / self.geometry.panel(), row) + lane % self.geometry.panel()
    }
    /// Where the bias of output `j` stands.
    pub fn bias(&self, j: usize) -> usize {
        match self.form {
            Form::Wide => self.weight(j, self.inputs),
            Form::Narrow => self.weights + j,
        }
    }
    /// All numbers of the layer with padding.
    pub fn numbers(&self) -> usize {
        self.weight_numbers().saturating_add(self.affine().len())
    }
    /// Its weights and biases with padding.
    fn weight_numbers(&self) -> usize {
        match self.form {
            Form::Wide => self.geometry.padded(self.outputs).saturating_mul(self.inputs + 1),
            Form::Narrow => {
                self.geometry.padded(self.inputs).saturating_mul(self.outputs) + self.geometry.padded(self.outputs)
            }
        }
    }
    /// From one panel of outputs of a wide layer's mirror to the next.
    pub fn mirror_stride(&self) -> usize {
        (self.geometry.panel() / self.terms).saturating_mul(self.geometry.padded(self.inputs))
    }
    /// Where the pairs of row `row` (an even one, or the number of rows) of panel `p` begin.
    pub fn pair_row(&self, p: usize, row: usize) -> usize {
        self.pairs + p * self.geometry.panel() * self.inputs.div_ceil(2) + row.div_ceil(2) * self.width(p)
    }
    /// Where the mirror of the block that begins at row `row` of panel `p` begins: `[lanes of the panel][mirror_width]`.
    pub fn mirror_block(&self, p: usize, row: usize) -> usize {
        let panel = self.geometry.panel();
        self.mirror
            + match self.form {
                Form::Wide => p * self.mirror_stride() + row * panel / self.terms,
                Form::Narrow => p * panel * self.geometry.padded(self.outputs),
            }
    }
    /// Lanes with padding of the rows of a mirror's block.
    pub fn mirror_width(&self, row: usize) -> usize {
        match self.form {
            Form::Wide => self.geometry.width(self.inputs, row / self.geometry.panel()),
            Form::Narrow => self.geometry.padded(self.outputs),
        }
    }
    /// All numbers of the mirror.
    fn mirror_numbers(&self) -> usize {
        match (self.has_mirror, self.form) {
            (false, _) => 0,
            (true, Form::Wide) => self.mirror_stride().saturating_mul(self.geometry.panels(self.outputs)),
            (true, Form::Narrow) => {
                self.geometry.padded(self.inputs).saturating_mul(self.geometry.padded(self.outputs))
            }
        }
    }
}

/// Panels of a layer's form, whole or (one panel only) a run of rows; or a layer's gamma and beta.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which layer.
    pub layer: usize,
    /// Its panels.
    pub panels: Range<usize>,
    /// Rows of the form, without the bias.
    pub rows: Range<usize>,
    /// Whether the bias belongs to it.
    pub bias: bool,
    /// Whether it is gamma and beta, and nothing else.
    pub affine: bool,
}

impl Part {
    fn weights(&self, layer: &Layer) -> usize {
        if self.affine {
            return 2 * layer.outputs;
        }
        let lanes: usize = self.panels.clone().map(|p| layer.width(p)).sum();
        self.rows.len() * lanes
    }
}

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

/// What one claim of the update phase owns: neighbouring parts, several where they are small.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which of the network's parts.
    pub parts: Range<usize>,
    /// Where its range of the mirrors begins.
    pub mirror: usize,
    /// Where its range of the pairs begins.
    pub pairs: usize,
}

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
    fn new(layer: &Layer) -> Result<Self, Error> {
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
    /// As for [`new`](Self::new), and [`Error::Value`] where this CPU lacks the instructions.
    pub fn mixed(features: usize, specs: &[LayerSpec], loss: Loss, isa: Isa) -> Result<Self, Error> {
        let missing = || {
            let got =
                if isa == Isa::Avx512 { "a CPU without AVX512_BF16".into() } else { format!("{} kernels", isa.name()) };
            Error::expected("dtype bfloat16", "the instructions of AVX-512 with BF16 (avx512_bf16)", got)
        };
        let pairs = T::pair_kernels().filter(|_| isa == Isa::Avx512).ok_or_else(missing)?;
        Network::with(features, specs, loss, isa, Some(pairs))
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
        let layers = place::<T>(features, specs, kernels.geometry(), pair_kernels.is_some());
        // Before the table of parts, which a network too large for the memory would make too large as well.
        let last = &layers[layers.len() - 1];
        let bytes = last.weights.saturating_add(last.numbers()).saturating_mul(size_of::<T>());
        if !memory::suffices(bytes) {
            return Err(Error::Memory { what: "network: its weights", bytes });
        }
        let parts: Vec<Part> = layers.iter().enumerate().flat_map(|(l, layer)| cut(l, layer)).collect();
        let weights = |part: &Part| part.weights(&layers[part.layer]);
        let jobs = group(&layers, &parts);
        let arena = Arena::zeroed(ranges(&layers, &parts, &jobs), "network: its weights")?;
        let order = claim_order(&parts, &jobs);
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
            for index in STATES.into_iter().take(states) {
                self.arena.materialise(index, WEIGHTS, "network: optimizer state")?;
            }
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
    pub fn get_affine(&mut self, l: usize, buffer: usize) -> (Vec<T>, Vec<T>) {
        let layer = self.layers[l];
        let place = &self.arena.buffer(buffer)[layer.affine()];
        let (gamma, beta) = place.split_at(place.len() / 2);
        let used = layer.outputs.min(gamma.len());
        (gamma[..used].to_vec(), beta[..used].to_vec())
    }

    /// Rounds a layer's weights into their forms of mixed precision.
    fn renew_pairs(&mut self, layer: &Layer) {
        let Some(kernels) = self.pair_kernels else { return };
        let panel = self.geometry.panel();
        for (p, row) in (0..layer.panels()).flat_map(|p| (0..layer.inputs).step_by(panel).map(move |row| (p, row))) {
            let (rows, width) = (panel.min(layer.inputs - row), layer.width(p));
            let begin = layer.row(p, row);
            let block = self.arena.buffer(WEIGHTS)[begin..begin + rows * width].to_vec();
            let reflect = |forward: &mut [T], mirror: &mut [T]| {
                let (weights, mirror_width) = (&block[..], layer.mirror_width(row));
                kernels.reflect(&mut PairMirror { weights, rows, width, forward, mirror, mirror_width });
            };
            let pairs = layer.pair_row(p, row)..layer.pair_row(p, row + rows);
            reflect(&mut self.arena.buffer(PAIRS)[pairs], &mut []);
            if layer.has_mirror {
                let begin = layer.mirror_block(p, row);
                let len = width / 2 * layer.mirror_width(row);
                reflect(&mut [], &mut self.arena.buffer(MIRROR)[begin..begin + len]);
            }
        }
    }

    /// Layer `l`'s plain `(outputs, inputs)` matrix, row after row, and its biases, from one of the arena's buffers
    /// in the weights' form.
    pub fn get_layer(&mut self, l: usize, buffer: usize) -> (Vec<T>, Vec<T>) {
        let layer = self.layers[l];
        let buffer = self.arena.buffer(buffer);
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

/// Whether forward has inputs as lanes, the layer being narrow: where that takes fewer vectors than units as lanes do, or a
/// row of the input is long. The same on every instruction set, as it decides the order of sums.
fn dots_pay<T: Number>(inputs: usize, units: usize) -> bool {
    let vector = dots::partials::<T>();
    let with_inputs = units.saturating_mul(inputs.div_ceil(vector) + DOTS_FOLD);
    let with_units = inputs.saturating_mul(units.div_ceil(vector));
    let is_long = inputs.saturating_mul(size_of::<T>()) >= LONG_ROW;
    units <= FEW_VECTORS * vector && (with_inputs < with_units || is_long)
}

fn place<T: Number>(features: usize, specs: &[LayerSpec], geometry: Geometry, mixed: bool) -> Vec<Layer> {
    let (mut inputs, mut weights, mut mirror, mut pairs) = (features, 0usize, 0usize, 0usize);
    let terms = if mixed { 2 } else { 1 };
    let mut layers = Vec::with_capacity(specs.len());
    for (l, spec) in specs.iter().enumerate() {
        let waste = geometry.padded(spec.units) as f64 / spec.units as f64;
        let dots = !mixed && dots_pay::<T>(inputs, spec.units);
        let narrow = !mixed && l > 0 && waste >= 2.0;
        let form = if dots || narrow { Form::Narrow } else { Form::Wide };
        let outputs = spec.units;
        let layer = Layer {
            inputs,
            outputs,
            activation: spec.activation,
            bias: spec.bias,
            norm: spec.norm,
            dropout: spec.dropout,
            residual: spec.residual,
            form,
            weights,
            mirror,
            dots,
            has_mirror: l > 0 && !dots,
            pairs,
            terms,
            geometry,
        };
        weights = weights.saturating_add(layer.numbers());
        mirror = mirror.saturating_add(layer.mirror_numbers());
        if mixed {
            pairs = pairs.saturating_add(geometry.padded(outputs).saturating_mul(layer.inputs.div_ceil(2)));
        }
        inputs = outputs;
        layers.push(layer);
    }
    layers
}

/// A layer's parts, ascending in the arena.
fn cut(l: usize, layer: &Layer) -> Vec<Part> {
    let mut parts = cut_weights(l, layer);
    if layer.norm.is_some() {
        parts.push(Part { layer: l, panels: 0..0, rows: 0..0, bias: false, affine: true });
    }
    parts
}

fn cut_weights(l: usize, layer: &Layer) -> Vec<Part> {
    let (rows, panels, panel) = (layer.rows(), layer.panels(), layer.geometry.panel());
    let part = |panels: Range<usize>, rows: Range<usize>, bias| Part { layer: l, panels, rows, bias, affine: false };
    let chunk_rows = PART_WEIGHTS.div_ceil(panel).next_multiple_of(panel);
    if layer.form == Form::Wide && rows >= 2 * chunk_rows {
        let chunks = rows / chunk_rows;
        let chunk = move |c: usize| c * chunk_rows..if c + 1 == chunks { rows } else { (c + 1) * chunk_rows };
        let of_panel = |p: usize| (0..chunks).map(move |c| part(p..p + 1, chunk(c), c + 1 == chunks));
        return (0..panels).flat_map(of_panel).collect();
    }
    let weights = rows * panel;
    let wanted = if layer.form == Form::Wide { JOB_WEIGHTS } else { 4 * PART_WEIGHTS };
    let group = wanted.div_ceil(weights).max(1);
    (0..panels)
        .step_by(group)
        .map(|p| part(p..(p + group).min(panels), 0..rows, layer.form == Form::Wide || p == 0))
        .collect()
}

/// Neighbouring parts until they are worth a claim; gamma and beta are one of their own.
fn group(layers: &[Layer], parts: &[Part]) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut weights = JOB_WEIGHTS;
    for (i, part) in parts.iter().enumerate() {
        if weights >= JOB_WEIGHTS || part.affine || parts[i - 1].affine {
            jobs.push(Job { parts: i..i, mirror: 0, pairs: pair_range(layers, part).start });
            weights = 0;
        }
        weights += part.weights(&layers[part.layer]);
        let last = jobs.len() - 1;
        jobs[last].parts.end = i + 1;
    }
    for job in &mut jobs {
        let mut mirrors = parts[job.parts.clone()].iter().map(|part| mirror_range(layers, part));
        let first = mirror_range(layers, &parts[job.parts.start]).start;
        job.mirror = mirrors.find(|range| !range.is_empty()).map_or(first, |range| range.start);
    }
    jobs
}

/// What each job owns of each buffer.
fn ranges(layers: &[Layer], parts: &[Part], jobs: &[Job]) -> Vec<Vec<Range<usize>>> {
    let ends = |job: &Job| (&parts[job.parts.start], &parts[job.parts.end - 1]);
    let weights = jobs.iter().map(|job| {
        let (first, last) = ends(job);
        weight_range(layers, first).start..weight_range(layers, last).end
    });
    let mirror = jobs.iter().map(|job| job.mirror..mirror_range(layers, ends(job).1).end.max(job.mirror));
    let pairs = jobs.iter().map(|job| {
        let (first, last) = ends(job);
        pair_range(layers, first).start..pair_range(layers, last).end
    });
    let none = vec![0..0; jobs.len()];
    let (weights, mirror, pairs) = (weights.collect(), mirror.collect(), pairs.collect());
    vec![weights, mirror, none.clone(), none.clone(), none.clone(), pairs, none.clone(), none]
}

/// Empty but in mixed precision.
fn pair_range(layers: &[Layer], part: &Part) -> Range<usize> {
    let layer = &layers[part.layer];
    if layer.terms == 1 {
        return 0..0;
    }
    if part.affine {
        let end = layer.pair_row(layer.panels() - 1, layer.rows()); // the last panel may be narrow
        return end..end;
    }
    layer.pair_row(part.panels.start, part.rows.start)..layer.pair_row(part.panels.end - 1, part.rows.end)
}

fn weight_range(layers: &[Layer], part: &Part) -> Range<usize> {
    let layer = &layers[part.layer];
    if part.affine {
        return layer.affine();
    }
    let begin = if layer.form == Form::Narrow && part.bias {
        layer.weights
    } else {
        layer.row(part.panels.start, part.rows.start)
    };
    let bias = usize::from(layer.form == Form::Wide && part.bias);
    begin..layer.row(part.panels.end - 1, part.rows.end + bias)
}

/// Empty for the first layer, which has no mirror, and for gamma and beta.
fn mirror_range(layers: &[Layer], part: &Part) -> Range<usize> {
    let layer = &layers[part.layer];
    if part.affine {
        let end = layer.mirror + layer.mirror_numbers();
        return end..end;
    }
    if !layer.has_mirror {
        return layer.mirror..layer.mirror;
    }
    let begin = layer.mirror_block(part.panels.start, part.rows.start);
    let last = part.panels.end - 1;
    match layer.form {
        Form::Wide if part.rows.end < layer.inputs => begin..layer.mirror_block(last, part.rows.end),
        Form::Wide => begin..layer.mirror + part.panels.end * layer.mirror_stride(),
        Form::Narrow => begin..layer.mirror_block(last, 0) + layer.width(last) * layer.mirror_width(0),
    }
}

/// Chunk by chunk of a layer's inputs, all panels of outputs over each.
fn claim_order(parts: &[Part], jobs: &[Job]) -> Vec<usize> {
    let first = |job: usize| &parts[jobs[job].parts.start];
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|&job| (first(job).layer, first(job).rows.start, first(job).panels.start));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(dims: &[usize], isa: Isa) -> Network<f32> {
        let relu = |&units: &usize| LayerSpec::plain(units, Activation::Relu);
        let mut specs: Vec<LayerSpec> = dims[1..].iter().map(relu).collect();
        specs.last_mut().unwrap().activation = Activation::Identity;
        Network::new(dims[0], &specs, Loss::SquaredError, isa).unwrap()
    }

    #[test]
    fn every_number_belongs_to_one_part_and_every_weight_has_its_place() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for dims in [&[2, 16, 16, 1][..], &[300, 20, 7, 1], &[784, 512, 40], &[1, 1], &[33, 65, 1100, 3]] {
                let mut net = network(dims, isa);
                for part in 0..net.arena.parts() {
                    let mut writing = net.arena.write(part);
                    let [weights, mirror] = writing.slices();
                    weights.iter_mut().chain(mirror).for_each(|x| *x += 1.0);
                }
                assert!(net.arena.buffer(WEIGHTS).iter().all(|&x| x == 1.0), "{isa:?} {dims:?}");
                assert!(net.arena.buffer(MIRROR).iter().all(|&x| x == 1.0), "{isa:?} {dims:?}");
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
