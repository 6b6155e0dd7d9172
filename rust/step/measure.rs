//! One number for each output of every layer: the sum of squares or of sizes of its incoming weights, or of their gradient.
//!
//! An output's sum runs over its inputs (`kernels/length.rs`), so a claim here owns outputs and reads all their inputs,
//! where the jobs of the update may cut a panel's rows. Biases, and whatever else a layer has one of for each output, are left
//! to the caller, who adds them with [`strided_total`].

use crate::error::Error;
use crate::kernels::{LaneSums, Number, Of, RowSum};
use crate::network::{Form, Layer, Network};
use crate::panel::{Arena, ArenaReading};
use std::ops::Range;

/// A claim measures at least about so many weights.
const UNIT_WEIGHTS: usize = 8192;

/// What one claim measures.
#[derive(Clone, Debug)]
struct Unit {
    layer: usize,
    /// In a wide layer from a multiple of `P` on.
    outputs: Range<usize>,
}

/// A number for each output, and the claims that make them.
pub struct Measures<T> {
    units: Vec<Unit>,
    /// Where each layer's outputs begin.
    offsets: Vec<usize>,
    numbers: Arena<T>,
}

impl<T: Number> Measures<T> {
    /// Zeros.
    ///
    /// # Errors
    /// [`Error::Memory`] where they do not fit.
    pub fn new(network: &Network<T>) -> Result<Self, Error> {
        let (geometry, mut units, mut ranges) = (network.geometry, Vec::new(), Vec::new());
        let (mut offsets, mut offset) = (Vec::new(), 0);
        for (l, layer) in network.layers.iter().enumerate() {
            let unit = if layer.form == Form::Wide { geometry.panel() } else { 1 };
            let step = unit * UNIT_WEIGHTS.div_ceil(unit * layer.inputs);
            offsets.push(offset);
            for first in (0..layer.outputs).step_by(step) {
                let outputs = first..(first + step).min(layer.outputs);
                ranges.push(offset + first..offset + geometry.padded(outputs.end).min(first + step));
                units.push(Unit { layer: l, outputs });
            }
            offset += geometry.padded(layer.outputs);
        }
        Ok(Measures { units, offsets, numbers: Arena::zeroed(vec![ranges], "network: lengths of its weights")? })
    }

    /// How many claims there are.
    pub fn units(&self) -> usize {
        self.units.len()
    }

    /// Measures the outputs of one claim in `buffer`, which has the form of all weights; `makes` makes a number of the layer and
    /// of each sum.
    pub fn measure(&self, network: &Network<T>, unit: usize, of: Of, buffer: &[T], makes: impl Fn(usize, T) -> T) {
        let Unit { layer, outputs } = &self.units[unit];
        let mut writing = self.numbers.write(unit);
        let [sums] = writing.slices();
        sums_of(network, of, &network.layers[*layer], buffer, outputs.clone(), sums);
        sums.iter_mut().for_each(|sum| *sum = makes(*layer, *sum));
    }

    /// All numbers, to read.
    pub fn read(&self) -> Measured<'_, T> {
        Measured { measures: self, reading: self.numbers.read() }
    }
}

/// All numbers of [`Measures`], until dropped.
pub struct Measured<'m, T> {
    measures: &'m Measures<T>,
    reading: ArenaReading<'m, T>,
}

impl<T: Number> Measured<'_, T> {
    /// The numbers of layer `l` (from 0), with padding.
    pub fn layer(&self, l: usize) -> &[T] {
        let offsets = &self.measures.offsets;
        let all = self.reading.buffer(0);
        &all[offsets[l]..offsets.get(l + 1).copied().unwrap_or(all.len())]
    }
}

/// Sums over the inputs of some outputs of a layer, in a buffer where the layer begins at `layer.weights`. In a wide layer the
/// outputs begin at a multiple of `P`, and the sums of padding lanes are written too.
pub fn sums_of<T: Number>(
    network: &Network<T>,
    of: Of,
    layer: &Layer,
    buffer: &[T],
    outputs: Range<usize>,
    sums: &mut [T],
) {
    let (kernels, panel) = (network.kernels, network.geometry.panel());
    match layer.form {
        Form::Wide => {
            for (sums, first) in sums.chunks_mut(panel).zip(outputs.step_by(panel)) {
                let p = first / panel;
                let rows = &buffer[layer.row(p, 0)..layer.row(p, layer.inputs)];
                kernels.lane_sums(&mut LaneSums { of, rows, sums });
            }
        }
        Form::Narrow => {
            let last = layer.panels() - 1;
            let panels = &buffer[layer.row(0, 0)..layer.row(last, 0) + layer.outputs * layer.width(last)];
            for (sum, row) in sums.iter_mut().zip(outputs) {
                *sum = kernels.row_sum(&RowSum { of, panels, rows: layer.outputs, row });
            }
        }
    }
}

/// The sum of some terms in 32 strided partials and a tree.
pub fn strided_total(terms: impl Iterator<Item = f64>) -> f64 {
    let mut partial = [0.0; 32];
    terms.enumerate().for_each(|(i, term)| partial[i % 32] += term);
    for half in [16, 8, 4, 2, 1] {
        (0..half).for_each(|i| partial[i] += partial[i + half]);
    }
    partial[0]
}
