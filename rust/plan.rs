//! (network, batch, processors) -> threads, groups, slices: decides, never computes.
//!
//! Nothing decided here changes a bit of a result; only its time and memory.

use crate::kernels::{CHUNK, Loss, MAX_SLICES, Number, SAMPLE_SEGMENT, TILE_SAMPLES};
use crate::network::{Form, Layer, Network};
use crate::threads::MAX_THREADS;

/// Rows of a slice that keep its activations in the second cache beside the weights.
pub const SLICE_ROWS: usize = 256;
/// Fewer rows than this in a slice read the weights too often.
const LEAST_SLICE_ROWS: usize = 48;
/// Segments that a group has at most, where the batch has several.
const GROUP_SEGMENTS: usize = 4;
/// Bytes of activations and gradients that a group of several segments may have.
const GROUP_BYTES: usize = 48 << 20;

/// What one thread does with a batch of this size: about so many floating-point operations a second, f32. Of
/// the right magnitude only: it decides whether sharing pays.
const RATE: f64 = 1.2e11;
/// Bytes of weights that one thread reads in a second from a cache that others share; it decides where rows are so few that arithmetic
/// does not.
const BANDWIDTH: f64 = 4.0e10;
/// Seconds that a step costs beside its arithmetic, and a layer of it.
const STEP_COST: f64 = 0.4e-6;
const LAYER_COST: f64 = 0.25e-6;
/// Seconds that two barriers of a step cost a pair of threads: a wait that outlasts its spins is several times as long as one
/// that does not, so steps of a few microseconds are not worth sharing.
const BARRIER_COST: f64 = 6.0e-6;
/// Seconds until a started thread works.
const START_COST: f64 = 60.0e-6;
/// Seconds that the barrier behind a product costs whose panels threads share.
const PANELS_COST: f64 = BARRIER_COST / 2.0;
/// Seconds of one thread that such a product takes at least: two threads save half of them.
const LEAST_SHARED: f64 = 2.0 * PANELS_COST;

/// How a call is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Workers.
    pub threads: usize,
    /// Rows of a group: the whole batch, or segments of it.
    pub group_rows: usize,
    /// Rows of a slice; where a group has several segments it divides them.
    pub slice_rows: usize,
    /// Whether the batch is one slice and threads share the panels of its products: `step/share.rs`.
    pub by_panels: bool,
}

impl Plan {
    /// How many slices so many rows of a group are: mostly one where a step is small, and then nothing need be divided.
    #[inline]
    pub fn slices(&self, rows: usize) -> usize {
        if rows <= self.slice_rows { 1 } else { rows.div_ceil(self.slice_rows) }
    }
}

/// What a pass over the data is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Forward, backward and the weights' gradient.
    Training,
    /// Forward alone.
    Forward,
}

/// Numbers of a layer's weights that a product computes with, padding among them.
fn weights<T: Number>(network: &Network<T>, layer: &Layer) -> f64 {
    let (inputs, outputs) = match layer.form {
        Form::Wide => (layer.inputs, network.geometry.padded(layer.outputs)),
        Form::Narrow => (network.geometry.padded(layer.inputs), layer.outputs),
    };
    inputs as f64 * outputs as f64
}

/// Seconds that one thread takes for one product of `rows` rows with so many weights.
fn product<T: Number>(rows: usize, weights: f64) -> f64 {
    let bytes = weights * size_of::<T>() as f64;
    (rows as f64 * bytes / (2.0 * RATE)).max(bytes / BANDWIDTH)
}

/// Seconds of a step on `rows` rows by one thread.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Beside the arithmetic.
    fixed: f64,
    /// Forward and backward.
    samples: f64,
    /// The part of that which is in products whose panels threads may share.
    shared: f64,
    /// How many these are.
    products: usize,
    /// How many panels each of them has at least.
    panels: usize,
    /// The weights' gradient.
    weights: f64,
}

impl Cost {
    fn new<T: Number>(network: &Network<T>, rows: usize, pass: Pass) -> Self {
        let layers = &network.layers;
        let fixed = STEP_COST + LAYER_COST * layers.len() as f64;
        let mut cost = Cost { fixed, samples: 0.0, shared: 0.0, products: 0, panels: usize::MAX, weights: 0.0 };
        let may_share = rows <= SLICE_ROWS && may_share(network);
        for (l, layer) in layers.iter().enumerate() {
            let one = product::<T>(rows, weights(network, layer));
            let mut count = |shares: bool, lanes: usize| {
                cost.samples += one;
                if may_share && shares {
                    cost.shared += one;
                    cost.products += 1;
                    cost.panels = cost.panels.min(network.geometry.panels(lanes));
                }
            };
            count(shares_forward(network, rows, l), layer.outputs);
            if pass == Pass::Training && l > 0 {
                count(shares_backward(network, rows, l), layer.inputs);
            }
            cost.weights += if pass == Pass::Training { one } else { 0.0 };
        }
        cost
    }

    fn alone(&self) -> f64 {
        self.fixed + self.samples + self.weights
    }

    /// Seconds of `threads` with slices of the batch.
    fn by_slices(&self, rows: usize, threads: usize) -> f64 {
        if threads == 1 {
            return self.alone();
        }
        let slices = rows.div_ceil(LEAST_SLICE_ROWS / 2).min(threads) as f64;
        BARRIER_COST + self.fixed + self.samples / slices + self.weights / threads as f64
    }

    /// Seconds of `threads` that share products.
    fn by_panels(&self, threads: usize) -> f64 {
        let shared = self.shared / threads.min(self.panels) as f64 + self.weights / threads as f64;
        // A step's own, one behind each product, and one behind what a worker does alone before the first.
        let barriers = BARRIER_COST + (1 + self.products) as f64 * PANELS_COST;
        barriers + self.fixed + self.samples - self.shared + shared
    }

    fn prefers_panels(&self, rows: usize, threads: usize) -> bool {
        threads > 1 && self.products > 0 && self.by_panels(threads) < 0.95 * self.by_slices(rows, threads)
    }
}

/// Whether threads may share a network's products: what layers do besides, and mixed precision's rounding, is done by whole panels of
/// a slice, and a loss of the host's own has phases of its own.
fn may_share<T: Number>(network: &Network<T>) -> bool {
    let hidden = network.layers.len() - 1;
    let plain = network.layers[..hidden].iter().all(Layer::is_plain);
    plain && network.pair_kernels.is_none() && network.loss != Loss::Custom
}

/// Whether the panels of layer `l`'s product (from 0) are worth sharing where a batch of `rows` rows is one slice.
pub fn shares_forward<T: Number>(network: &Network<T>, rows: usize, l: usize) -> bool {
    let layer = &network.layers[l];
    network.geometry.panels(layer.outputs) > 1 && layer.form == Form::Wide && is_large(network, rows, l)
}

/// The same of the product that makes dZ of the layer before it.
pub fn shares_backward<T: Number>(network: &Network<T>, rows: usize, l: usize) -> bool {
    network.geometry.panels(network.layers[l].inputs) > 1 && is_large(network, rows, l)
}

fn is_large<T: Number>(network: &Network<T>, rows: usize, l: usize) -> bool {
    product::<T>(rows, weights(network, &network.layers[l])) >= LEAST_SHARED
}

/// How many threads help a call of `steps` steps on `rows` rows. A call that is too small to share does not ask how many
/// there may be.
fn threads<T: Number>(network: &Network<T>, rows: usize, steps: f64, pass: Pass) -> usize {
    let cost = Cost::new(network, rows, pass);
    let time = |n: usize| {
        let step = if cost.prefers_panels(rows, n) { cost.by_panels(n) } else { cost.by_slices(rows, n) };
        steps * step + (n - 1) as f64 * START_COST
    };
    if time(1) <= START_COST {
        return 1;
    }
    (1..=crate::threads::limit())
        .fold((1, time(1)), |best, n| if time(n) < 0.95 * best.1 { (n, time(n)) } else { best })
        .0
}

/// About how many seconds one thread takes for `steps` steps of training on `rows` rows each.
pub fn training_alone<T: Number>(network: &Network<T>, rows: usize, steps: f64) -> f64 {
    steps * Cost::new(network, rows, Pass::Training).alone()
}

/// Plans training on batches of `rows`, `steps` of them; `wanted` is the user's number of threads.
pub fn training<T: Number>(network: &Network<T>, rows: usize, steps: f64, wanted: Option<usize>) -> Plan {
    let threads = wanted.map_or_else(|| threads(network, rows, steps, Pass::Training), |n| n.min(MAX_THREADS));
    if threads > 1 && Cost::new(network, rows, Pass::Training).prefers_panels(rows, threads) {
        return Plan { threads, group_rows: rows, slice_rows: rows, by_panels: true };
    }
    if rows <= SAMPLE_SEGMENT || !network.coupled.is_empty() {
        let (slice_rows, least) = (slice_rows(rows, threads, slice_unit(network)), rows.div_ceil(MAX_SLICES));
        // What couples the batch's samples keeps all of them, in slices that divide a segment.
        let large = SLICE_ROWS << least.div_ceil(SLICE_ROWS).next_power_of_two().trailing_zeros();
        let slice_rows = if rows <= SAMPLE_SEGMENT { slice_rows } else { large };
        return Plan { threads, group_rows: rows, slice_rows, by_panels: false };
    }
    let units: usize = network.layers.iter().map(|layer| layer.outputs * 2).sum();
    let bytes = (units + network.features()).saturating_mul(size_of::<T>() * SAMPLE_SEGMENT);
    let segments = (GROUP_BYTES / bytes.max(1)).clamp(1, GROUP_SEGMENTS).min(rows.div_ceil(SAMPLE_SEGMENT));
    Plan { threads, group_rows: segments * SAMPLE_SEGMENT, slice_rows: SLICE_ROWS, by_panels: false }
}

/// Plans a pass forward over `rows` rows.
pub fn inference<T: Number>(network: &Network<T>, rows: usize, wanted: Option<usize>) -> Plan {
    let threads = wanted.map_or_else(|| threads(network, rows, 1.0, Pass::Forward), |n| n.min(MAX_THREADS));
    let slice_rows = rows.div_ceil(threads).clamp(1, SLICE_ROWS);
    if threads > 1 {
        let cost = Cost::new(network, rows, Pass::Forward);
        // More than there are panels would only be waited for.
        let threads = threads.min(cost.panels);
        let start = (threads - 1) as f64 * START_COST;
        if cost.prefers_panels(rows, threads) && start + cost.by_panels(threads) < cost.by_slices(rows, threads) {
            return Plan { threads, group_rows: rows, slice_rows: rows, by_panels: true };
        }
    }
    Plan { threads, group_rows: rows, slice_rows, by_panels: false }
}

/// The most rows of a batch whose samples couple.
pub const MAX_COUPLED_ROWS: usize = MAX_SLICES * SAMPLE_SEGMENT;

/// Rows that a slice's size is a multiple of: a chunk where a layer is normalised, a pair in mixed precision, or a tile's.
fn slice_unit<T: Number>(network: &Network<T>) -> usize {
    // Chunks of samples do not straddle slices, nor do pairs or tiles.
    if network.layers.iter().any(|layer| layer.norm.is_some()) {
        const { assert!(CHUNK.is_multiple_of(TILE_SAMPLES)) };
        return CHUNK;
    }
    match network.pair_kernels {
        Some(_) if network.has_tiles() => TILE_SAMPLES,
        Some(_) => 2,
        None => 1,
    }
}

/// Even slices of a batch of one segment, multiples of `unit` rows: one thread takes it in the largest that fit the cache;
/// several threads get two each, so that a late one can be helped, where those are large enough and as even, else one: two slices
/// of 50 rows cost a few percent more than one of 100.
fn slice_rows(rows: usize, threads: usize, unit: usize) -> usize {
    let of = |slices: usize| rows.div_ceil(slices.min(MAX_SLICES)).next_multiple_of(unit).max(1);
    let least = rows.div_ceil(SLICE_ROWS).next_multiple_of(threads);
    if threads == 1 {
        return of(least);
    }
    let most = rows.div_ceil(LEAST_SLICE_ROWS / 2).max(1);
    // What the busiest thread has to do.
    let longest = |slices: usize| rows.div_ceil(of(slices)).div_ceil(threads) * of(slices);
    let one_each = least.min(most);
    let two_each = 2 * least;
    if rows >= 2 * two_each * LEAST_SLICE_ROWS && longest(two_each) <= longest(one_each) {
        of(two_each)
    } else {
        of(one_each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::isa::Isa;
    use crate::network::LayerSpec;

    fn network(features: usize, units: &[usize], dropout: f64) -> Network<f32> {
        let hidden = |&units: &usize| LayerSpec { dropout, ..LayerSpec::plain(units, Activation::Relu) };
        let (last, before) = units.split_last().unwrap();
        let mut specs: Vec<LayerSpec> = before.iter().map(hidden).collect();
        specs.push(LayerSpec::plain(*last, Activation::Identity));
        Network::new(features, &specs, Loss::SquaredError, Isa::Scalar).unwrap()
    }

    #[test]
    fn few_rows_of_a_large_network_are_shared_by_panels() {
        let large = network(1500, &[1200, 10], 0.0);
        for rows in [1, 8, 24] {
            let plan = training(&large, rows, 10.0, Some(2));
            assert!(plan.by_panels && (plan.group_rows, plan.slice_rows) == (rows, rows), "{rows}");
        }
        assert!(inference(&large, 8, Some(2)).by_panels);
        assert!(!inference(&large, 8, Some(64)).by_panels, "so many threads would start for longer than one works");
        for (network, rows, threads) in [
            (&large, 8, 1),                                 // nobody to share with
            (&large, 200, 2),                               // slices do as well, with fewer barriers
            (&network(20, &[40, 1], 0.0), 1, 2),            // not worth a barrier
            (&network(1500, &[1200, 1200, 10], 0.5), 8, 2), // what is dropped is not shared
        ] {
            assert!(!training(network, rows, 10.0, Some(threads)).by_panels, "{rows} {threads}");
            assert!(!inference(network, rows, Some(threads)).by_panels, "{rows} {threads}");
        }
        let over_before_a_thread_has_started = network(700, &[600, 10], 0.0);
        assert!(!inference(&over_before_a_thread_has_started, 1, Some(2)).by_panels);
    }

    #[test]
    fn slices_cover_a_batch_and_never_straddle_segments() {
        for rows in [1, 2, 31, 128, 200, 209, 1000, 1024] {
            for (threads, unit) in [1, 2, 3, 7, 64].into_iter().flat_map(|threads| [(threads, 1), (threads, 16)]) {
                let slice = slice_rows(rows, threads, unit);
                assert!((1..=SLICE_ROWS).contains(&slice) && rows.div_ceil(slice) <= MAX_SLICES, "{rows} {threads}");
                assert!(slice.is_multiple_of(unit));
            }
        }
        assert!(SAMPLE_SEGMENT.is_multiple_of(SLICE_ROWS));
        const { assert!(GROUP_SEGMENTS * SAMPLE_SEGMENT / SLICE_ROWS <= MAX_SLICES) };
        assert_eq!(slice_rows(128, 2, 1), 64);
        assert_eq!(slice_rows(200, 2, 1), 100);
        assert_eq!(slice_rows(512, 2, 1), 128);
        assert_eq!(slice_rows(209, 2, 16), 112);
    }
}
