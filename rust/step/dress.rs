//! What a hidden layer that is not plain does to its Z, and the way back to dZ, for one slice.
//!
//! `A[l] = dropout(f(norm(Z))) + A[l-1]`, each part optional. A plain layer's activation and derivative are in the epilogue of
//! its product instead.

use super::weights::Weights;
use super::{Draw, Kept, Slice};
use crate::kernels::{Dress, Finish, Mask, Norm, Normalize, Number, Undress};
use crate::network::{Layer, Network};
use crate::panel::Panels;

/// The mask of a panel of layer `l` in this step, where units are dropped.
fn mask(layer: &Layer, l: usize, training: Option<(usize, Draw)>, first_unit: usize) -> Option<Mask> {
    let (first_row, Draw { seed, step }) = training.filter(|_| layer.dropout > 0.0)?;
    // The nearest share that 32 bits have; a share below 1 leaves something.
    let threshold = (layer.dropout * 4_294_967_296.0).round().min(4_294_967_295.0) as u32;
    Some(Mask {
        key: [seed as u32, (seed >> 32) as u32],
        counter: [l as u32 ^ ((step >> 32) as u32) << 16, step as u32],
        threshold,
        scale: 1.0 / (1.0 - layer.dropout),
        first_row,
        first_unit,
    })
}

/// Y of panel `p` of layer `l` (from 0), in `units`, becomes A; `below` is A of the layer before it.
pub fn panel<T: Number>(
    net: &Network<T>,
    l: usize,
    p: usize,
    units: &mut Panels<T>,
    below: &Panels<T>,
    kept: &mut Option<Kept<T>>,
    training: Option<(usize, Draw)>,
) {
    let layer = &net.layers[l];
    let Some(kept) = kept else { return };
    let (width, first) = (units.width(p), p * net.geometry.panel());
    net.kernels.dress(&mut Dress {
        activation: layer.activation,
        mask: mask(layer, l, training, first),
        units: units.panel_mut(p),
        onto: if layer.residual { below.panel(p) } else { &[] },
        slopes: if kept.slopes.rows() > 0 { kept.slopes.panel_mut(p) } else { &mut [] },
        width,
        lanes: width.min(layer.outputs - first),
    });
}

/// Z of layer `l` becomes Y, by the sample's own statistics, or by the units': in a prediction the running ones, in training
/// those of the batch, which are there by now.
pub fn normalize<T: Number>(net: &Network<T>, from: Weights<'_, T>, slice: &mut Slice<T>, l: usize) {
    let layer = &net.layers[l];
    let trains = slice.training.is_some();
    let Some(kept) = &mut slice.kept[l] else { return };
    let (units, normed, affine) = (&mut slice.activations[l], &mut kept.normed, &from.weights[layer.affine()]);
    match layer.norm {
        None => {}
        Some(Norm::Layer { epsilon }) => {
            let inverse = &mut kept.inverse;
            net.kernels.normalize(&mut Normalize::BySample { units, normed, inverse, affine, epsilon });
        }
        Some(Norm::Batch { .. }) => {
            let statistics = net.statistics.read();
            let of = statistics.get(place(net, l));
            let (mean, inverse) =
                if trains { (&of.mean, &of.inverse) } else { (&of.running_mean, &of.running_inverse) };
            net.kernels.normalize(&mut Normalize::ByUnit { units, normed, mean, inverse, affine });
        }
    }
}

/// Where the statistics of layer `l` stand.
pub fn place<T: Number>(net: &Network<T>, l: usize) -> usize {
    net.coupled.iter().position(|&coupled| coupled == l).expect("the layer takes statistics over the batch")
}

/// The slice's part of the statistics of layer `l`, from its Z.
pub fn moments<T: Number>(net: &Network<T>, slice: &mut Slice<T>, l: usize) {
    let Some(kept) = &mut slice.kept[l] else { return };
    net.kernels.normalize(&mut Normalize::Moments { z: &slice.activations[l], sums: &mut kept.sums });
}

/// The slice's sums of dY of layer `l`: its part of the gradients of gamma and beta.
pub fn sums<T: Number>(net: &Network<T>, slice: &mut Slice<T>, l: usize) {
    let Some(kept) = &mut slice.kept[l] else { return };
    let (deltas, normed, sums) = (&slice.deltas[l], &kept.normed, &mut kept.sums);
    net.kernels.normalize(&mut Normalize::Sums { deltas, normed, sums });
}

/// dY of layer `l` becomes dZ: in training through the batch's statistics too, in a prediction past the running ones.
pub fn denormalize<T: Number>(net: &Network<T>, from: Weights<'_, T>, slice: &mut Slice<T>, l: usize) {
    let layer = &net.layers[l];
    let trains = slice.training.is_some();
    let Some(kept) = &mut slice.kept[l] else { return };
    let (deltas, normed, affine) = (&mut slice.deltas[l], &kept.normed, &from.weights[layer.affine()]);
    match layer.norm {
        None => {}
        Some(Norm::Layer { .. }) => {
            let inverse = &kept.inverse;
            net.kernels.normalize(&mut Normalize::BackBySample { deltas, normed, inverse, affine });
        }
        Some(Norm::Batch { .. }) => {
            let statistics = net.statistics.read();
            let of = statistics.get(place(net, l));
            if !trains {
                return scale(deltas, affine, &of.running_inverse);
            }
            let (inverse, means) = (&of.inverse, &of.backward);
            net.kernels.normalize(&mut Normalize::BackByUnit { deltas, normed, inverse, affine, means });
        }
    }
}

/// `dZ = gamma inverse dY`, in place: where statistics are constants, normalised Z is no part of it, which may have overflowed.
fn scale<T: Number>(deltas: &mut Panels<T>, gamma: &[T], inverse: &[T]) {
    for p in 0..deltas.panels() {
        let (width, first) = (deltas.width(p), p * deltas.geometry().panel());
        let by = gamma[first..first + width].iter().zip(&inverse[first..first + width]);
        for row in deltas.panel_mut(p).chunks_exact_mut(width) {
            row.iter_mut().zip(by.clone()).for_each(|(x, (&gamma, &inverse))| *x = *x * (gamma * inverse));
        }
    }
}

/// What a product that makes dA of layer `l` multiplies it by to make dY, in registers: nothing where the residual's dA
/// is to be added first.
pub fn slopes<'s, T: Number>(
    net: &Network<T>,
    kept: &'s [Option<Kept<T>>],
    activations: &'s [Panels<T>],
    l: usize,
    p: usize,
) -> Finish<'s, T> {
    match &kept[l] {
        Some(kept) => Finish::By(kept.slopes.panel(p)),
        None => Finish::Times(net.layers[l].activation, activations[l].panel(p)),
    }
}

/// Whether a residual runs past layer `l + 1` or past layer `l`.
pub fn streams<T: Number>(net: &Network<T>, l: usize) -> bool {
    net.layers[l + 1].residual || net.layers[l].residual
}

/// dA of panel `p` of layer `l`, without what went past the weights of the layer above, becomes dY.
pub fn undress<T: Number>(
    net: &Network<T>,
    l: usize,
    p: usize,
    deltas: &mut Panels<T>,
    activations: &[Panels<T>],
    kept: &[Option<Kept<T>>],
    stream: &mut Panels<T>,
) {
    stream.reshape(deltas.rows(), deltas.lanes());
    net.kernels.undress(&mut Undress {
        deltas: deltas.panel_mut(p),
        stream: stream.panel_mut(p),
        adds: net.layers[l + 1].residual,
        keeps: net.layers[l].residual,
        by: slopes(net, kept, activations, l, p),
    });
}
