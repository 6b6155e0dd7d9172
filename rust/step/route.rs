//! The way of a slice through a step, cut where samples couple.
//!
//! A network without batch normalisation has one stretch: forward, loss, backward. With `k` layers of batch normalisation
//! there are `2 k + 1`: each such layer stops the way forward until the batch's statistics are known, and the way back until the
//! batch's sums are. [`couple`] makes them from the slices' parts, when all slices have arrived.

use super::weights::Weights;
use super::{Slice, backward, dress, forward};
use crate::kernels::{CHUNK, Norm, Number};
use crate::network::{Layer, Network, Statistics};
use crate::panel::Reading;

/// How many stretches a step has.
pub fn stretches<T: Number>(network: &Network<T>) -> usize {
    2 * network.coupled.len() + 1
}

/// Takes a slice over a stretch; `loss` turns the logits into dZ[L], or returns false to stop there.
pub fn stretch<T: Number>(
    network: &Network<T>,
    from: Weights<'_, T>,
    slice: &mut Slice<T>,
    index: usize,
    loss: impl FnOnce(&mut Slice<T>) -> bool,
) {
    let (coupled, top) = (&network.coupled, network.layers.len() - 1);
    let stops = coupled.len();
    if index > stops {
        let l = coupled[2 * stops - index];
        backward::enter(network, from, slice, l);
        return descend(network, from, slice, l);
    }
    let begin = match index.checked_sub(1) {
        None => 0,
        Some(before) => {
            forward::finish(network, from, slice, coupled[before]);
            coupled[before] + 1
        }
    };
    for l in begin..=top {
        forward::layer(network, from, slice, l, true);
        if network.layers[l].couples() {
            return dress::moments(network, slice, l);
        }
    }
    if loss(slice) {
        back(network, from, slice);
    }
}

/// Backward from dZ[L], until samples couple.
pub fn back<T: Number>(network: &Network<T>, from: Weights<'_, T>, slice: &mut Slice<T>) {
    let top = network.layers.len() - 1;
    backward::enter(network, from, slice, top);
    descend(network, from, slice, top);
}

/// Backward from layer `l`, whose dZ is there, until samples couple.
fn descend<T: Number>(network: &Network<T>, from: Weights<'_, T>, slice: &mut Slice<T>, l: usize) {
    for l in (1..=l).rev() {
        backward::data(network, from, slice, l);
        if network.layers[l - 1].couples() {
            return;
        }
    }
}

/// The batch's statistics, or sums, at the end of stretch `index` (not the last), from those of `used` slices.
pub fn couple<T: Number>(network: &Network<T>, slices: &Reading<'_, Slice<T>>, used: usize, index: usize, rows: usize) {
    let stops = network.coupled.len();
    let place = if index < stops { index } else { 2 * stops - 1 - index };
    let l = network.coupled[place];
    let mut statistics = network.statistics.write(place);
    let chunks = (0..used).flat_map(|i| {
        let slice = slices.get(i);
        (0..slice.rows().div_ceil(CHUNK)).map(move |c| (slice, c))
    });
    let panels = chunks.map(|(slice, c)| (slice.chunk_sums(l), c, CHUNK.min(slice.rows() - c * CHUNK)));
    if index < stops {
        moments(&network.layers[l], &mut statistics, panels);
    } else {
        sums(&network.layers[l], &mut statistics, panels, rows);
    }
}

/// Sums of a slice, the chunk, its rows.
type Chunk<'a, T> = (&'a crate::panel::Panels<T>, usize, usize);

/// Merges the chunks' moments; variances are of the batch, as it is.
fn moments<'a, T: Number>(layer: &Layer, statistics: &mut Statistics<T>, chunks: impl Iterator<Item = Chunk<'a, T>>) {
    let Statistics { mean, squares, .. } = statistics;
    mean.fill(T::ZERO);
    squares.fill(T::ZERO);
    let mut seen = 0;
    for (sums, c, rows) in chunks {
        let all = (seen + rows) as f64;
        let (share, both) = (T::from_f64(rows as f64 / all), T::from_f64(seen as f64 * (rows as f64 / all)));
        seen += rows;
        for p in 0..sums.panels() {
            let (width, first) = (sums.width(p), p * sums.geometry().panel());
            let (of_mean, of_squares) = sums.panel(p)[2 * c * width..][..2 * width].split_at(width);
            for lane in 0..width {
                let (mean, squares) = (&mut mean[first + lane], &mut squares[first + lane]);
                let d = of_mean[lane] - *mean;
                *mean += d * share;
                *squares = *squares + of_squares[lane] + d * d * both;
            }
        }
    }
    let Some(Norm::Batch { epsilon, .. }) = layer.norm else { return };
    let (count, epsilon) = (T::from_f64(seen as f64), T::from_f64(epsilon));
    let of = statistics.inverse.iter_mut().zip(statistics.squares.iter());
    of.for_each(|(inverse, &squares)| *inverse = T::ONE / (squares / count + epsilon).sqrt());
}

/// The running statistics take the last batch in.
pub fn run_on<T: Number>(network: &Network<T>, rows: usize) {
    for (place, &l) in network.coupled.iter().enumerate() {
        network.statistics.write(place).run_on(&network.layers[l], rows);
    }
}

/// Adds the chunks' sums up and divides them by the batch's rows.
fn sums<'a, T: Number>(
    layer: &Layer,
    statistics: &mut Statistics<T>,
    chunks: impl Iterator<Item = Chunk<'a, T>>,
    rows: usize,
) {
    let backward = &mut statistics.backward;
    backward.fill(T::ZERO);
    let (of_deltas, of_products) = backward.split_at_mut(layer.padded_outputs());
    for (sums, c, _) in chunks {
        for p in 0..sums.panels() {
            let (width, first) = (sums.width(p), p * sums.geometry().panel());
            let (deltas, products) = sums.panel(p)[2 * c * width..][..2 * width].split_at(width);
            let add = |into: &mut [T], x: &[T]| into.iter_mut().zip(x).for_each(|(into, &x)| *into += x);
            add(&mut of_deltas[first..], deltas);
            add(&mut of_products[first..], products);
        }
    }
    let count = T::from_f64(rows as f64);
    backward.iter_mut().for_each(|x| *x = *x / count);
}
