//! A slice of samples and its way through the network: gather, forward, loss, backward.
//!
//! Samples are independent until the weight gradient, so a thread takes a slice through everything
//! without waiting for another. `forward.rs` and `backward.rs` stand side by side; `gradient.rs` is what comes after the barrier.

pub mod amend;
pub mod backward;
mod dress;
pub mod forward;
pub mod gradient;
pub mod measure;
pub mod muon;
pub mod route;
pub mod run;
pub mod share;
mod sparsity;
pub mod weights;

use crate::data::{Matrix, Selection};
use crate::error::Error;
use crate::kernels::{
    CHUNK, GradientScale, Loss, LossRows, Memory, Number, Pack, PairKernels, Product, StepKernels, Targets, dots,
    loss_rows,
};
use crate::network::{Form, Layer, Network};
use crate::panel::{Buffer, Geometry, Panels, PanelsRef};
use arrayvec::ArrayVec;
use sparsity::Sparsity;
use std::ops::Range;

/// The user's targets: samples x outputs, or a class a sample.
pub enum TargetData<'a> {
    /// Numbers, samples x outputs.
    Dense(Matrix<'a>),
    /// Classes, each below the number of outputs.
    Classes(&'a [u32]),
    /// The host has the targets of so many samples, and their loss.
    Elsewhere(usize),
}

impl TargetData<'_> {
    /// Reads the targets of `rows` rows: numbers, or classes.
    #[inline]
    pub fn gather<T: Number>(&self, selection: Selection<'_>, rows: usize, dense: &mut [T], classes: &mut [u32]) {
        match (self, selection) {
            (TargetData::Elsewhere(_), _) => {}
            (TargetData::Dense(y), _) => y.gather_plain(selection, 0..rows, dense),
            (TargetData::Classes(y), Selection::From(first)) => {
                classes[..rows].copy_from_slice(&y[first..first + rows]);
            }
            (TargetData::Classes(y), Selection::Rows(from)) => {
                classes.iter_mut().zip(&from[..rows]).for_each(|(class, &row)| *class = y[row as usize]);
            }
        }
    }
}

/// A matrix rounded to pairs of bfloat16, in the two forms that products read (`kernels/bf16.rs`).
pub struct Rounded<T> {
    /// Pairs of neighbouring lanes: `m x ceil(lanes / 2)`, in panels of half the width.
    pub rows: Panels<T>,
    /// Pairs of neighbouring rows: `ceil(m / 2) x lanes`.
    pub pairs: Panels<T>,
    /// Whether those are turned (`kernels/tiles.rs`).
    pub turned: bool,
}

impl<T: Number> Rounded<T> {
    fn new(rows: usize, lanes: usize, geometry: Geometry, learns: bool, turned: bool) -> Result<Self, Error> {
        let what = "batch: its activations, rounded";
        let half = Geometry { lanes: geometry.lanes / 2 };
        let pairs = if learns { rows.div_ceil(2) } else { 0 };
        Ok(Rounded {
            rows: Panels::zeroed(rows, lanes.div_ceil(2), half, what)?,
            pairs: Panels::zeroed(pairs, lanes, geometry, what)?,
            turned,
        })
    }

    fn reshape(&mut self, rows: usize) {
        self.rows.reshape(rows, self.rows.lanes());
        if self.pairs.rows() > 0 {
            self.pairs.reshape(rows.div_ceil(2), self.pairs.lanes());
        }
    }

    /// Rounds panel `p` of a matrix of f32.
    pub fn pack(&mut self, kernels: &dyn PairKernels<T>, source: &Panels<T>, p: usize) {
        let pairs = if self.pairs.rows() > 0 { self.pairs.panel_mut(p) } else { &mut [] };
        let (rows, width) = (self.rows.panel_mut(p), source.width(p));
        let lanes = width.min(source.lanes() - p * source.geometry().panel());
        kernels.pack(&mut Pack { source: source.panel(p), width, lanes, rows, pairs, turned: self.turned });
    }
}

/// The loss, and the kernels that compute it.
pub type LossOf<'a, T> = (&'a Loss, &'a dyn StepKernels<T>);

/// What a slice is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Forward only: it has no dZ but the last.
    Answers,
    /// Training.
    Learns,
}

/// What training draws its masks from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The network's seed.
    pub seed: u64,
    /// The step, from 1.
    pub step: u64,
}

/// What a hidden layer that is not plain keeps for its way back.
struct Kept<T> {
    /// What dA is multiplied by, `(m, n[l])`.
    slopes: Panels<T>,
    /// Normalised Z, `(m, n[l])`, or nothing.
    normed: Panels<T>,
    /// One over each sample's standard deviation, or nothing.
    inverse: Buffer<T>,
    /// Two sums of every chunk of samples, `(2 chunks, n[l])`, or nothing.
    sums: Panels<T>,
}

impl<T: Number> Kept<T> {
    fn new(layer: &Layer, capacity: usize, geometry: Geometry, learns: bool) -> Result<Self, Error> {
        let what = "batch: what its layers keep";
        let rows_if = |wanted: bool, rows: usize| if wanted { rows } else { 0 };
        let normed = learns && layer.norm.is_some();
        let panels = |rows: usize| Panels::zeroed(rows, layer.outputs, geometry, what);
        Ok(Kept {
            slopes: panels(rows_if(learns, capacity))?,
            normed: panels(rows_if(normed, capacity))?,
            inverse: Buffer::zeroed(rows_if(layer.norm.is_some(), capacity), what)?,
            sums: panels(rows_if(normed, 2 * capacity.div_ceil(CHUNK)))?,
        })
    }

    fn resize(&mut self, rows: usize) {
        let resize = |panels: &mut Panels<T>, rows: usize| {
            if panels.rows() > 0 {
                panels.reshape(rows, panels.lanes());
            }
        };
        resize(&mut self.slopes, rows);
        resize(&mut self.normed, rows);
        resize(&mut self.sums, 2 * rows.div_ceil(CHUNK));
    }
}

/// One slice's numbers, made once and used by step after step.
///
/// `L` layers; `m` rows of this slice. Buffers hold `capacity` rows.
pub struct Slice<T> {
    /// A[0], `(m, n[0])`
    pub input: Panels<T>,
    /// A[1] ... A[L-1], `(m, n[l])`
    pub activations: Vec<Panels<T>>,
    /// dZ[1] ... dZ[L], `(m, n[l])`; the last holds the logits until the loss is known.
    pub deltas: Vec<Panels<T>>,
    /// The operands of mixed precision, rounded from `input` and `activations`: A[0] ... A[L-1]
    pub rounded_units: Vec<Rounded<T>>,
    /// The same of `deltas`: dZ[1] ... dZ[L]
    pub rounded_deltas: Vec<Rounded<T>>,
    /// Each row's loss, `(m,)`
    pub losses: Buffer<T>,
    /// What hidden layers that are not plain keep.
    kept: Vec<Option<Kept<T>>>,
    /// dA of the layer above, where that one adds its input to its result.
    stream: Panels<T>,
    /// Its first row in the batch, and what masks are drawn from; without, the pass is a prediction.
    training: Option<(usize, Draw)>,
    /// What each row's gradient is multiplied by, `(m,)`; meaningless where rows have no weights.
    factors: Buffer<T>,
    role: Role,
    rows: usize,
    totals: Buffer<T>,
    /// Which one this is of how many that go their ways at once.
    walk: (usize, usize),
    /// What sums whose lanes are inputs are made of.
    partials: Buffer<T>,
    dense: Buffer<T>,
    classes: Vec<u32>,
    scratch: Buffer<T>,
    /// Where the input is not zero, if that is of use.
    sparsity: Option<Sparsity<T>>,
}

impl<T: Number> Slice<T> {
    /// A slice of at most `capacity` rows.
    ///
    /// # Errors
    /// [`Error::Memory`] where it does not fit.
    pub fn new(network: &Network<T>, capacity: usize, role: Role) -> Result<Self, Error> {
        let learns = role == Role::Learns;
        let (layers, geometry) = (&network.layers, network.geometry);
        let what = "batch: its activations";
        let panels = |rows: usize, lanes: usize| Panels::zeroed(rows, lanes, geometry, what);
        let (hidden, outputs) = (layers.len() - 1, network.outputs());
        let activations =
            layers[..hidden].iter().map(|layer| panels(capacity, layer.outputs)).collect::<Result<_, _>>()?;
        let delta = |layer: &Layer| panels(if learns { capacity } else { 0 }, layer.outputs);
        let mut deltas: Vec<Panels<T>> = layers[..hidden].iter().map(delta).collect::<Result<_, _>>()?;
        deltas.push(panels(capacity, outputs)?);
        let widest = layers.iter().map(|layer| geometry.padded(layer.outputs)).max().unwrap_or(0);
        let totals = if share::has_totals(network) { capacity.saturating_mul(widest) } else { 0 };
        let partials = layers.iter().filter(|layer| layer.dots).map(|layer| layer.outputs).max().unwrap_or(0);
        let partials = dots::scratch::<T>(capacity, partials);
        let scratch = loss_rows::scratch(geometry, outputs);
        let mixed = network.pair_kernels.is_some();
        // A narrow layer's weight gradient is not made of tiles.
        let turned = |layer: &Layer| network.has_tiles() && layer.form == Form::Wide;
        let inputs_of = |layer: &Layer| Rounded::new(capacity, layer.inputs, geometry, learns, turned(layer));
        let rounded_units = layers.iter().filter(|_| mixed).map(inputs_of).collect::<Result<_, _>>()?;
        let outputs_of = |layer: &Layer| Rounded::new(capacity, layer.outputs, geometry, learns, false);
        let rounded_deltas = layers.iter().filter(|_| mixed && learns).map(outputs_of).collect::<Result<_, _>>()?;
        let keep = |layer: &Layer| {
            if layer.is_plain() { Ok(None) } else { Kept::new(layer, capacity, geometry, learns).map(Some) }
        };
        let kept = layers[..hidden].iter().map(keep).collect::<Result<_, _>>()?;
        let residual = layers.iter().filter(|layer| layer.residual && learns).map(|layer| layer.outputs).max();
        Ok(Slice {
            kept,
            stream: panels(residual.map_or(0, |_| capacity), residual.unwrap_or(1))?,
            training: None,
            rounded_units,
            rounded_deltas,
            input: panels(capacity, network.features())?,
            role,
            partials: Buffer::zeroed(partials, what)?,
            activations,
            deltas,
            walk: (0, 1),
            losses: Buffer::zeroed(capacity, what)?,
            factors: Buffer::zeroed(if learns { capacity } else { 0 }, what)?,
            rows: capacity,
            totals: Buffer::zeroed(totals, what)?,
            dense: Buffer::zeroed(capacity.saturating_mul(outputs), what)?,
            classes: vec![0; capacity],
            scratch: Buffer::zeroed(scratch, what)?,
            sparsity: Sparsity::new(network, capacity),
        })
    }

    /// From now on it is number `share` of `of` that go their ways at once.
    pub fn walk_from(&mut self, share: usize, of: usize) {
        debug_assert!(share < of);
        self.walk = (share, of);
    }

    /// `n` panels in the order in which a product's are made: slices that go their ways at once begin at different ones. If they
    /// waited for the same weights, which another core has just changed, at the same time, each would wait longer.
    fn walk(&self, n: usize) -> impl Iterator<Item = usize> + Clone + use<T> {
        let first = self.walk.0 * n / self.walk.1;
        (first..n).chain(0..first)
    }

    /// Rows that it holds now.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether it can be used again for `rows` rows in this role.
    pub fn serves(&self, rows: usize, role: Role) -> bool {
        self.losses.len() >= rows && self.role == role
    }

    /// The sums of layer `l`'s chunks, `(2 chunks, n[l])`; it is a normalised one.
    pub fn chunk_sums(&self, l: usize) -> &Panels<T> {
        &self.kept[l].as_ref().expect("a normalised layer keeps sums").sums
    }

    /// Each row's loss.
    pub fn losses(&self) -> &[T] {
        &self.losses[..self.rows]
    }

    /// All memory that a pass touches, of a network of plain layers; `None` where what a pass does depends on the data, or the
    /// network has very many layers.
    pub fn memory(&mut self) -> Option<Memory<'_, T>> {
        let Slice { input, activations, deltas, losses, totals, partials, dense, classes, scratch, .. } = self;
        if self.sparsity.is_some() {
            return None;
        }
        let mut others = ArrayVec::new();
        let panels = activations.iter_mut().chain(deltas).map(|panels| panels.data_mut());
        for numbers in panels.chain([&mut **totals, &mut **partials, &mut **scratch]) {
            others.try_push(numbers).ok()?;
        }
        Some(Memory { input: input.view_mut(), dense, classes, losses: &mut losses[..self.rows], others })
    }

    /// From now on it holds `rows` rows.
    fn resize(&mut self, rows: usize) {
        let reshape = |panels: &mut Panels<T>| {
            // A slice that does not learn has no room for the hidden layers' dZ.
            if panels.rows() > 0 {
                panels.reshape(rows, panels.lanes());
            }
        };
        self.rows = rows;
        self.activations.iter_mut().for_each(reshape);
        self.deltas.iter_mut().for_each(reshape);
        self.input.reshape(rows, self.input.lanes());
        self.kept.iter_mut().flatten().for_each(|kept| kept.resize(rows));
        self.rounded_units.iter_mut().chain(&mut self.rounded_deltas).for_each(|rounded| rounded.reshape(rows));
    }

    /// Reads `rows` rows of the user's data, and in mixed precision rounds them.
    pub fn gather(&mut self, network: &Network<T>, x: &Matrix<'_>, selection: Selection<'_>, rows: usize) {
        if rows != self.rows {
            self.resize(rows);
        }
        x.gather(network.isa, selection, &mut self.input);
        if let Some(sparsity) = &mut self.sparsity {
            sparsity.look(network.isa, &self.input);
        }
        if let Some(kernels) = network.pair_kernels {
            (0..self.input.panels()).for_each(|p| self.rounded_units[0].pack(kernels, &self.input, p));
        }
    }

    /// From now on passes are training, on the batch's rows from `first` on.
    pub fn trains(&mut self, first: usize, draw: Draw) {
        self.training = Some((first, draw));
    }

    /// Reads the targets of the same rows.
    pub fn gather_targets(&mut self, y: &TargetData<'_>, selection: Selection<'_>) {
        y.gather(selection, self.rows, &mut self.dense, &mut self.classes);
    }

    /// Losses of the rows from the logits, which become dZ[L]. A sample's loss is multiplied by `scale`,
    /// its gradient by `gradient_scale`.
    pub fn loss(&mut self, of: LossOf<'_, T>, y: &TargetData<'_>, scale: T, gradient_scale: T) {
        self.loss_of(of, y, scale, Some(gradient_scale));
    }

    /// The same where rows have weights: row i's gradient is multiplied by `factor(i)`.
    pub fn weighted_loss(&mut self, of: LossOf<'_, T>, y: &TargetData<'_>, scale: T, factor: impl Fn(usize) -> T) {
        self.factors[..self.rows].iter_mut().enumerate().for_each(|(i, into)| *into = factor(i));
        self.loss_of(of, y, scale, None);
    }

    fn loss_of(&mut self, (loss, kernels): LossOf<'_, T>, y: &TargetData<'_>, scale: T, same: Option<T>) {
        let last = self.deltas.len() - 1;
        let targets = match y {
            TargetData::Dense(_) => Targets::Dense(&self.dense),
            TargetData::Classes(_) => Targets::Classes(&self.classes),
            TargetData::Elsewhere(_) => unreachable!("the host's loss"),
        };
        kernels.loss(&mut LossRows {
            loss,
            logits: self.deltas[last].view_mut(),
            targets,
            scale,
            gradient_scale: same.map_or(GradientScale::Rows(&self.factors), GradientScale::Same),
            losses: &mut self.losses[..self.rows],
            scratch: &mut self.scratch,
        });
    }

    /// dZ[L] from plain rows, `(m, n[L])`, row i's numbers times `factor(i)`.
    pub fn set_delta(&mut self, rows: &[T], factor: impl Fn(usize) -> T) {
        let last = self.deltas.len() - 1;
        let delta = &mut self.deltas[last];
        let n = delta.lanes();
        for p in 0..delta.panels() {
            let (width, first) = (delta.width(p), p * delta.geometry().panel());
            let used = width.min(n - first);
            let rows = delta.panel_mut(p).chunks_exact_mut(width).zip(rows.chunks_exact(n));
            for (i, (into, from)) in rows.enumerate() {
                let factor = factor(i);
                into[..used].iter_mut().zip(&from[first..]).for_each(|(into, &x)| *into = x * factor);
            }
        }
    }

    /// What layer `l` (from 0) left: A[l + 1], or of the last layer its logits, their gradient or the output.
    pub fn result(&self, l: usize) -> &Panels<T> {
        self.activations.get(l).unwrap_or(&self.deltas[self.deltas.len() - 1])
    }

    /// Whether every number that layer `l` left is finite; padding does not count.
    pub fn is_finite(&self, l: usize) -> bool {
        let result = self.result(l);
        (0..result.panels()).all(|p| {
            let width = result.width(p);
            let lanes = width.min(result.lanes() - p * result.geometry().panel());
            result.panel(p).chunks_exact(width).all(|row| row[..lanes].iter().all(|x| x.is_finite()))
        })
    }
}

/// A product; in mixed precision, of pairs.
fn product<T: Number>(network: &Network<T>, plain: &dyn StepKernels<T>, product: &mut Product<'_, T>) {
    match network.pair_kernels {
        None => plain.product(product),
        Some(kernels) => kernels.product(product),
    }
}

/// A block of the sums that make one panel of a product's result.
struct PanelBlock<'b, T> {
    /// The panel.
    p: usize,
    /// The broadcast operand.
    a: PanelsRef<'b, T>,
    /// The terms.
    depth: Range<usize>,
    /// Earlier segments' sums, shaped as `c`; of any size where there is one segment.
    totals: &'b mut [T],
    /// The panel's numbers.
    c: &'b mut [T],
}

/// Blocks of the summed index: a multiple of every panel width and a divisor of a segment, such that a block of a panel of weights
/// stays in the first cache while all rows pass over it (16 KiB with AVX2, 32 with AVX-512), and one of a slice's activations in
/// the second. Twice as much costs 5 to 9 % of a product's speed with AVX2.
const DEPTH_BLOCK: usize = 256;
/// A sum this deep is not worth cutting.
const UNCUT_DEPTH: usize = 384;
/// A block where there are tiles: they add so much at once that storing and loading sums would show more than the second cache.
const TILE_DEPTH_BLOCK: usize = 1024;

/// The blocks of a layer's sum over `depth` terms, in order.
#[inline]
fn blocks<T: Number>(net: &Network<T>, depth: usize) -> impl Iterator<Item = Range<usize>> + use<T> {
    blocks_of(depth, if net.has_tiles() { TILE_DEPTH_BLOCK } else { DEPTH_BLOCK })
}

/// The blocks of any sum, `most` terms each.
#[inline]
fn blocks_of(depth: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let block = if depth <= UNCUT_DEPTH { depth } else { most };
    let mut end = 0;
    // Not `step_by`, which divides first to know how many they are.
    std::iter::from_fn(move || {
        let begin = end;
        end = (begin + block).min(depth);
        (begin < depth).then_some(begin..end)
    })
}

/// The totals of the panel that begins at lane `first` (empty where no sum has several segments).
fn panel_of<T>(totals: &mut [T], rows: usize, first: usize, width: usize) -> &mut [T] {
    if totals.is_empty() { totals } else { &mut totals[first * rows..(first + width) * rows] }
}

#[cfg(test)]
mod tests;
