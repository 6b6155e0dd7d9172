//! A layer: what is asked of it, which form its weights have, and where each of them stands in the arena.

use crate::activation::Activation;
use crate::kernels::{Norm, Number, Pack, PairKernels, PairMirror, dots};
use crate::panel::Geometry;
use std::ops::Range;

/// Vectors that adding up the lanes of one sum costs as much as.
const DOTS_FOLD: usize = 8;
/// Bytes of a sample whose products wait for memory: they read it once where its lanes are inputs, and once for each tile of
/// units where those are.
const LONG_ROW: usize = 64 << 10;
/// The most vectors of units of such a layer.
const FEW_VECTORS: usize = 4;
/// Lanes of units for each unit from which on it has this form where there are tiles.
const TILES_WASTE: f64 = 4.0;

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

/// Rows of one panel of a layer's form, at most P from a multiple of P on.
#[derive(Clone, Copy, Debug)]
pub struct PanelRows {
    /// The panel.
    pub p: usize,
    /// The first of them.
    pub row: usize,
    /// How many.
    pub rows: usize,
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
    /// Where its mirror begins, or would.
    pub mirror: usize,
    /// Whether it has one: every layer but the first, and but those that `dots` in full precision.
    pub has_mirror: bool,
    /// Where its pairs of bfloat16 for forward begin, in mixed precision.
    pub pairs: usize,
    /// Terms of a sum in one number of the products' operands: 2 in mixed precision, else 1.
    pub(super) terms: usize,
    pub(super) geometry: Geometry,
}

impl Layer {
    /// Whether it is a product and an activation that its result tells the derivative of.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.norm.is_none() && self.dropout == 0.0 && !self.residual && self.activation.is_told_by_its_result()
    }
    /// What was asked for.
    pub fn spec(&self) -> LayerSpec {
        let Layer { outputs: units, activation, bias, norm, dropout, residual, .. } = *self;
        LayerSpec { units, activation, bias, norm, dropout, residual }
    }
    /// Whether it takes statistics over the batch.
    #[inline]
    pub fn couples(&self) -> bool {
        matches!(self.norm, Some(Norm::Batch { .. }))
    }
    /// Units with padding.
    #[inline]
    pub fn padded_outputs(&self) -> usize {
        self.geometry.padded(self.outputs)
    }
    /// Where gamma, then beta, `[2][padded_outputs]`, begin: behind the weights; empty without normalisation.
    #[inline]
    pub fn affine(&self) -> Range<usize> {
        let begin = self.weights.saturating_add(self.weight_numbers());
        let len = if self.norm.is_some() { self.padded_outputs().saturating_mul(2) } else { 0 };
        begin..begin.saturating_add(len)
    }
    /// Parameters, without padding.
    pub(super) fn n_parameters(&self) -> usize {
        let rows = self.inputs + usize::from(self.bias) + if self.norm.is_some() { 2 } else { 0 };
        self.outputs * rows
    }
    /// Panels of the form's lanes.
    #[inline]
    pub fn panels(&self) -> usize {
        self.geometry.panels(self.lanes())
    }
    /// Lanes of the form, without padding.
    #[inline]
    pub fn lanes(&self) -> usize {
        match self.form {
            Form::Wide => self.outputs,
            Form::Narrow => self.inputs,
        }
    }
    /// Rows of the form, without the bias.
    #[inline]
    pub fn rows(&self) -> usize {
        match self.form {
            Form::Wide => self.inputs,
            Form::Narrow => self.outputs,
        }
    }
    /// Lanes of panel `p` of the form, with padding.
    #[inline]
    pub fn width(&self, p: usize) -> usize {
        self.geometry.width(self.lanes(), p)
    }
    /// Where row `row` of panel `p` begins; a wide panel's row `inputs` is its bias.
    #[inline]
    pub fn row(&self, p: usize, row: usize) -> usize {
        let panel = self.geometry.panel();
        self.weights
            + match self.form {
                Form::Wide => p * panel * (self.inputs + 1) + row * self.width(p),
                Form::Narrow => self.geometry.padded(self.outputs) + p * panel * self.outputs + row * self.width(p),
            }
    }
    /// Where the weight from input `i` to output `j` stands.
    #[inline]
    pub fn weight(&self, j: usize, i: usize) -> usize {
        let (lane, row) = match self.form {
            Form::Wide => (j, i),
            Form::Narrow => (i, j),
        };
        self.row(lane / self.geometry.panel(), row) + lane % self.geometry.panel()
    }
    /// Where the bias of output `j` stands.
    #[inline]
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
    #[inline]
    fn weight_numbers(&self) -> usize {
        match self.form {
            Form::Wide => self.geometry.padded(self.outputs).saturating_mul(self.inputs + 1),
            Form::Narrow => {
                self.geometry.padded(self.inputs).saturating_mul(self.outputs) + self.geometry.padded(self.outputs)
            }
        }
    }
    /// From one panel of outputs of a wide layer's mirror to the next.
    #[inline]
    pub fn mirror_stride(&self) -> usize {
        (self.geometry.panel() / self.terms).saturating_mul(self.geometry.padded(self.inputs))
    }
    /// Where the pairs of row `row` (an even one, or the number of rows) of panel `p` begin: pairs of inputs, which are rows of
    /// a wide layer and lanes of a narrow one.
    #[inline]
    pub fn pair_row(&self, p: usize, row: usize) -> usize {
        let panel = self.geometry.panel();
        self.pairs
            + match self.form {
                Form::Wide => p * panel * self.inputs.div_ceil(2) + row.div_ceil(2) * self.width(p),
                Form::Narrow => p * panel / 2 * self.outputs + row * self.width(p) / 2,
            }
    }
    /// Where all its pairs stand.
    #[inline]
    pub fn all_pairs(&self) -> Range<usize> {
        let len = match self.form {
            Form::Wide => self.geometry.padded(self.outputs).saturating_mul(self.inputs.div_ceil(2)),
            Form::Narrow => (self.geometry.padded(self.inputs) / 2).saturating_mul(self.outputs),
        };
        self.pairs..self.pairs.saturating_add(len)
    }
    /// Where the mirror of the block that begins at row `row` of panel `p` begins: `[lanes of the panel][mirror_width]`, of a
    /// narrow layer in mixed precision `[pairs of its rows][lanes of the panel]`.
    #[inline]
    pub fn mirror_block(&self, p: usize, row: usize) -> usize {
        let panel = self.geometry.panel();
        self.mirror
            + match self.form {
                Form::Wide => p * self.mirror_stride() + row * panel / self.terms,
                Form::Narrow if self.terms == 1 => p * panel * self.geometry.padded(self.outputs),
                Form::Narrow => p * panel * self.outputs.div_ceil(2) + row / 2 * self.width(p),
            }
    }
    /// The mirror of `rows` rows from row `row` on of panel `p`, in a wide layer at most P; empty for a layer without one.
    #[inline]
    pub fn mirror_range(&self, p: usize, row: usize, rows: usize) -> Range<usize> {
        if !self.has_mirror {
            return self.mirror..self.mirror;
        }
        let begin = self.mirror_block(p, row);
        let len = match self.form {
            Form::Narrow if self.terms == 2 => rows.div_ceil(2) * self.width(p),
            _ => self.width(p) / self.terms * self.mirror_width(row),
        };
        begin..begin + len
    }
    /// Lanes with padding of the rows of a mirror's block.
    #[inline]
    pub fn mirror_width(&self, row: usize) -> usize {
        match self.form {
            Form::Wide => self.geometry.width(self.inputs, self.geometry.index(row)),
            Form::Narrow => self.geometry.padded(self.outputs),
        }
    }
    /// Rounds some rows of a panel into the pairs that forward reads and, where the mirror is not empty, into those that
    /// backward data reads.
    pub fn round<T: Number>(
        &self,
        kernels: &dyn PairKernels<T>,
        PanelRows { p, row, rows }: PanelRows,
        weights: &[T],
        forward: &mut [T],
        mirror: &mut [T],
    ) {
        let width = self.width(p);
        match self.form {
            Form::Wide => {
                let mirror_width = self.mirror_width(row);
                kernels.reflect(&mut PairMirror { weights, rows, width, forward, mirror, mirror_width });
            }
            Form::Narrow => {
                let lanes = width.min(self.inputs - p * self.geometry.panel());
                kernels.pack(&mut Pack { source: weights, width, lanes, rows: forward, pairs: mirror, turned: false });
            }
        }
    }
    /// All numbers of the mirror.
    pub(super) fn mirror_numbers(&self) -> usize {
        match (self.has_mirror, self.form) {
            (false, _) => 0,
            (true, Form::Wide) => self.mirror_stride().saturating_mul(self.geometry.panels(self.outputs)),
            (true, Form::Narrow) => {
                let rows = if self.terms == 1 { self.padded_outputs() } else { self.outputs.div_ceil(2) };
                self.geometry.padded(self.inputs).saturating_mul(rows)
            }
        }
    }
}

/// Whether forward has inputs as lanes, the layer being narrow: where that takes fewer vectors than units as lanes do, or a
/// row of the input is long. `inputs` counts numbers of an operand, pairs in mixed precision. The same on every instruction
/// set, as it decides the order of sums, but where there are tiles, which have an order of their own.
fn dots_pay<T: Number>(inputs: usize, units: usize) -> bool {
    let vector = dots::partials::<T>();
    let with_inputs = units.saturating_mul(inputs.div_ceil(vector) + DOTS_FOLD);
    let with_units = inputs.saturating_mul(units.div_ceil(vector));
    let is_long = inputs.saturating_mul(size_of::<T>()) >= LONG_ROW;
    units <= FEW_VECTORS * vector && (with_inputs < with_units || is_long)
}

pub(super) fn place<T: Number>(
    features: usize,
    specs: &[LayerSpec],
    geometry: Geometry,
    pair_kernels: Option<&dyn PairKernels<T>>,
) -> Vec<Layer> {
    let (mixed, has_tiles) = (pair_kernels.is_some(), pair_kernels.is_some_and(|kernels| kernels.has_tiles()));
    let (mut inputs, mut weights, mut mirror, mut pairs) = (features, 0usize, 0usize, 0usize);
    let terms = if mixed { 2 } else { 1 };
    let mut layers = Vec::with_capacity(specs.len());
    for (l, spec) in specs.iter().enumerate() {
        let waste = geometry.padded(spec.units) as f64 / spec.units as f64;
        // Tiles waste less than vectors that they are so much faster than.
        let dots = dots_pay::<T>(inputs.div_ceil(terms), spec.units) && (!has_tiles || waste >= TILES_WASTE);
        // In mixed precision forward would read a third copy of the weights.
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
            has_mirror: l > 0 && (mixed || !dots),
            pairs,
            terms,
            geometry,
        };
        weights = weights.saturating_add(layer.numbers());
        mirror = mirror.saturating_add(layer.mirror_numbers());
        if mixed {
            pairs = layer.all_pairs().end;
        }
        inputs = outputs;
        layers.push(layer);
    }
    layers
}
