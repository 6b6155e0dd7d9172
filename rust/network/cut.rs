//! How the arena is cut into what one claim of the update phase owns, and in which order claims are made.

use super::layer::{Form, Layer};
use std::ops::Range;

/// A part holds about so many weights: few enough that threads end together, and that a chunk of inputs has activations
/// which stay in the second cache while all panels of outputs pass over them.
const PART_WEIGHTS: usize = 1024;
/// Of a layer that no cache of a core holds, more: its deltas then pass over several panels of inputs at a time.
const LARGE_PART_WEIGHTS: usize = 8192;
/// Weights from which a layer is such a one.
const LARGE_LAYER: usize = 1 << 18;
/// A job holds at least about so many weights, so that claiming it costs nothing beside filling it.
const JOB_WEIGHTS: usize = 512;

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
    pub(super) fn weights(&self, layer: &Layer) -> usize {
        if self.affine {
            return 2 * layer.outputs;
        }
        let lanes: usize = self.panels.clone().map(|p| layer.width(p)).sum();
        self.rows.len() * lanes
    }
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
    /// Whether it is several panels, or a panel and biases, all of which the optimizer's rule may take as one block.
    pub together: bool,
}

/// A layer's parts, ascending in the arena.
pub(super) fn cut(l: usize, layer: &Layer) -> Vec<Part> {
    let mut parts = cut_weights(l, layer);
    if layer.norm.is_some() {
        parts.push(Part { layer: l, panels: 0..0, rows: 0..0, bias: false, affine: true });
    }
    parts
}

fn cut_weights(l: usize, layer: &Layer) -> Vec<Part> {
    let (rows, panels, panel) = (layer.rows(), layer.panels(), layer.geometry.panel());
    let part = |panels: Range<usize>, rows: Range<usize>, bias| Part { layer: l, panels, rows, bias, affine: false };
    let large = layer.inputs.saturating_mul(layer.outputs) >= LARGE_LAYER;
    let wanted = if large { LARGE_PART_WEIGHTS } else { PART_WEIGHTS };
    let chunk_rows = wanted.div_ceil(panel).next_multiple_of(panel);
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
pub(super) fn group(layers: &[Layer], parts: &[Part]) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut weights = JOB_WEIGHTS;
    for (i, part) in parts.iter().enumerate() {
        if weights >= JOB_WEIGHTS || part.affine || parts[i - 1].affine {
            jobs.push(Job { parts: i..i, mirror: 0, pairs: pair_range(layers, part).start, together: false });
            weights = 0;
        }
        weights += part.weights(&layers[part.layer]);
        let last = jobs.len() - 1;
        jobs[last].parts.end = i + 1;
    }
    for job in &mut jobs {
        let parts_of = &parts[job.parts.clone()];
        // Biases that the network lacks would be updated among the rest.
        let plain = parts_of.iter().all(|part| !part.affine && layers[part.layer].bias);
        let blocks =
            |part: &Part| part.panels.len() + usize::from(part.bias && layers[part.layer].form == Form::Narrow);
        job.together = plain && parts_of.iter().map(blocks).sum::<usize>() > 1;
        let mut mirrors = parts_of.iter().map(|part| mirror_range(layers, part));
        let first = mirror_range(layers, &parts[job.parts.start]).start;
        job.mirror = mirrors.find(|range| !range.is_empty()).map_or(first, |range| range.start);
    }
    jobs
}

/// What each job owns of each buffer.
pub(super) fn ranges(layers: &[Layer], parts: &[Part], jobs: &[Job]) -> Vec<Vec<Range<usize>>> {
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

/// Empty for a layer without a mirror, and for gamma and beta.
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
        Form::Narrow => begin..layer.mirror_range(last, 0, layer.outputs).end,
    }
}

/// Chunk by chunk of a layer's inputs, all panels of outputs over each.
pub(super) fn claim_order(parts: &[Part], jobs: &[Job]) -> Vec<usize> {
    let first = |job: usize| &parts[jobs[job].parts.start];
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|&job| (first(job).layer, first(job).rows.start, first(job).panels.start));
    order
}
