//! (network, batch, processors) -> threads, groups, slices: decides, never computes.
//!
//! Nothing decided here changes a bit of a result; only its time and memory.

use crate::kernels::{CHUNK, Number, SAMPLE_SEGMENT};
use crate::network::{Form, Network};
use crate::threads::MAX_THREADS;

/// The most slices in a group: what the weight gradient keeps pointers for.
pub const MAX_SLICES: usize = 64;
/// Rows of a slice that keep its activations in the second cache beside the weights.
const SLICE_ROWS: usize = 256;
/// Fewer rows than this in a slice read the weights too often.
const LEAST_SLICE_ROWS: usize = 48;
/// Segments that a group has at most, where the batch has several.
const GROUP_SEGMENTS: usize = 4;
/// Bytes of activations and gradients that a group of several segments may have.
const GROUP_BYTES: usize = 48 << 20;

/// What one thread does with a batch of this size: about so many floating-point operations a second, f32. Of
/// the right magnitude only: it decides whether sharing pays.
const RATE: f64 = 1.2e11;
/// Seconds that a step costs beside its arithmetic, and a layer of it.
const STEP_COST: f64 = 0.4e-6;
const LAYER_COST: f64 = 0.25e-6;
/// Seconds that two barriers of a step cost a pair of threads: a wait that outlasts its spins is several times as long as one
/// that does not, so steps of a few microseconds are not worth sharing.
const BARRIER_COST: f64 = 6.0e-6;
/// Seconds until a started thread works.
const START_COST: f64 = 60.0e-6;

/// How a call is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Workers.
    pub threads: usize,
    /// Rows of a group: the whole batch, or segments of it.
    pub group_rows: usize,
    /// Rows of a slice; where a group has several segments it divides them.
    pub slice_rows: usize,
}

/// What a pass over the data is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Forward, backward and the weights' gradient.
    Training,
    /// Forward alone.
    Forward,
}

/// Floating-point operations of one pass over `rows` rows.
fn work<T: Number>(network: &Network<T>, rows: usize, pass: Pass) -> f64 {
    let of_layer = |l: usize| {
        let layer = &network.layers[l];
        let (inputs, outputs) = match layer.form {
            Form::Wide => (layer.inputs as f64, network.geometry.padded(layer.outputs) as f64),
            Form::Narrow => (network.geometry.padded(layer.inputs) as f64, layer.outputs as f64),
        };
        let each = match pass {
            Pass::Training if l == 0 => 4.0,
            Pass::Training => 6.0,
            Pass::Forward => 2.0,
        };
        inputs * outputs * each
    };
    rows as f64 * (0..network.layers.len()).map(of_layer).sum::<f64>()
}

/// Seconds that one thread takes for a step on `rows` rows.
fn alone<T: Number>(network: &Network<T>, rows: usize, pass: Pass) -> f64 {
    let rate = RATE * 4.0 / size_of::<T>() as f64;
    STEP_COST + LAYER_COST * network.layers.len() as f64 + work(network, rows, pass) / rate
}

/// How many threads help a call of `steps` steps on `rows` rows. A call that is too small to share does not ask how many
/// there may be.
fn threads<T: Number>(network: &Network<T>, rows: usize, steps: f64, pass: Pass) -> usize {
    let alone = alone(network, rows, pass);
    let time = |n: usize| {
        let slices = rows.div_ceil(LEAST_SLICE_ROWS / 2).min(n) as f64;
        let shared = if n > 1 { BARRIER_COST + alone / slices } else { alone };
        steps * shared + (n - 1) as f64 * START_COST
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
    steps * alone(network, rows, Pass::Training)
}

/// Plans training on batches of `rows`, `steps` of them; `wanted` is the user's number of threads.
pub fn training<T: Number>(network: &Network<T>, rows: usize, steps: f64, wanted: Option<usize>) -> Plan {
    let threads = wanted.map_or_else(|| threads(network, rows, steps, Pass::Training), |n| n.min(MAX_THREADS));
    if rows <= SAMPLE_SEGMENT || !network.coupled.is_empty() {
        let (slice_rows, least) = (slice_rows(rows, threads, slice_unit(network)), rows.div_ceil(MAX_SLICES));
        // What couples the batch's samples keeps all of them, in slices that divide a segment.
        let large = SLICE_ROWS << least.div_ceil(SLICE_ROWS).next_power_of_two().trailing_zeros();
        let slice_rows = if rows <= SAMPLE_SEGMENT { slice_rows } else { large };
        return Plan { threads, group_rows: rows, slice_rows };
    }
    let units: usize = network.layers.iter().map(|layer| layer.outputs * 2).sum();
    let bytes = (units + network.features()).saturating_mul(size_of::<T>() * SAMPLE_SEGMENT);
    let segments = (GROUP_BYTES / bytes.max(1)).clamp(1, GROUP_SEGMENTS).min(rows.div_ceil(SAMPLE_SEGMENT));
    Plan { threads, group_rows: segments * SAMPLE_SEGMENT, slice_rows: SLICE_ROWS }
}

/// Plans a pass forward over `rows` rows.
pub fn inference<T: Number>(network: &Network<T>, rows: usize, wanted: Option<usize>) -> Plan {
    let threads = wanted.map_or_else(|| threads(network, rows, 1.0, Pass::Forward), |n| n.min(MAX_THREADS));
    let slice_rows = rows.div_ceil(threads).clamp(1, SLICE_ROWS);
    Plan { threads, group_rows: rows, slice_rows }
}

/// The most rows of a batch whose samples couple.
pub const MAX_COUPLED_ROWS: usize = MAX_SLICES * SAMPLE_SEGMENT;

/// Rows that a slice's size is a multiple of: a chunk where a layer is normalised, 2 in mixed precision.
fn slice_unit<T: Number>(network: &Network<T>) -> usize {
    // Chunks of samples do not straddle slices, nor do pairs.
    if network.layers.iter().any(|layer| layer.norm.is_some()) {
        return CHUNK;
    }
    if network.pair_kernels.is_some() { 2 } else { 1 }
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
