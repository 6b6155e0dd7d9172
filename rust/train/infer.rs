//! Passes forward: outputs and losses of any number of rows, in bounded memory.

use super::{Host, Poller, lock};
use crate::activation::Activation;
use crate::data::{Matrix, Selection};
use crate::error::Error;
use crate::kernels::{Loss, Number, SAMPLE_SEGMENT};
use crate::memory;
use crate::network::{Layer, Network};
use crate::panel::{Panels, Parts};
use crate::plan::{self, Plan};
use crate::step::share::{self, Sharing, Stage, has_totals};
use crate::step::weights::Weights;
use crate::step::{Draw, Role, Slice, TargetData, forward, route};
use crate::threads::{self, Claims, Team};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is wanted of each row, `n` outputs wide, and the place for it.
pub enum Wanted<'o, T> {
    /// What the output layer returns, `(rows, n)`.
    Outputs(&'o mut [T]),
    /// The last layer before its activation, `(rows, n)`.
    Logits(&'o mut [T]),
    /// The class, `(rows,)`, or whether each output is above its threshold, `(rows, n)`: see [`Answer`].
    Labels(&'o mut [i64]),
}

impl<'o, T: Number> Wanted<'o, T> {
    /// How many numbers there is a place for.
    fn len(&self) -> usize {
        match self {
            Wanted::Outputs(all) | Wanted::Logits(all) => all.len(),
            Wanted::Labels(all) => all.len(),
        }
    }

    /// The first `n` numbers and the rest.
    fn split(self, n: usize) -> (Self, Self) {
        match self {
            Wanted::Outputs(all) => {
                let (head, rest) = all.split_at_mut(n);
                (Wanted::Outputs(head), Wanted::Outputs(rest))
            }
            Wanted::Logits(all) => {
                let (head, rest) = all.split_at_mut(n);
                (Wanted::Logits(head), Wanted::Logits(rest))
            }
            Wanted::Labels(all) => {
                let (head, rest) = all.split_at_mut(n);
                (Wanted::Labels(head), Wanted::Labels(rest))
            }
        }
    }
}

/// How labels are read off outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    /// The greatest output's index: softmax, and margins of several classes.
    Class,
    /// Whether each output is above this number: a probability above one half, a positive margin.
    Above(f64),
}

fn answer<T: Number>(network: &Network<T>) -> Answer {
    match network.layers[network.layers.len() - 1].activation {
        Activation::Softmax => Answer::Class,
        _ if network.loss.takes_classes() => Answer::Class,
        _ if matches!(network.loss, Loss::Hinge { .. }) => Answer::Above(0.0),
        _ => Answer::Above(0.5),
    }
}

/// How many labels a row has.
pub fn labels_per_row<T: Number>(network: &Network<T>) -> usize {
    if answer(network) == Answer::Class { 1 } else { network.outputs() }
}

/// Slices kept for the next passes through one network that are not training. Calls may overlap: each takes slices of its own.
pub struct Spares<T>(Mutex<Vec<Slice<T>>>);

/// So many slices are kept: as many as a call on few threads takes, or several calls at once.
const MOST_SPARES: usize = 8;

impl<T: Number> Spares<T> {
    /// None yet.
    pub fn new() -> Self {
        Spares(Mutex::new(Vec::new()))
    }

    pub(super) fn take(&self, network: &Network<T>, rows: usize, role: Role) -> Result<Slice<T>, Error> {
        let mut kept = lock(&self.0);
        if let Some(at) = kept.iter().position(|slice| slice.serves(rows, role)) {
            return Ok(kept.swap_remove(at));
        }
        // One that is too small makes room for a larger one.
        if let Some(at) = kept.iter().position(|slice| slice.serves(0, role)) {
            kept.swap_remove(at);
        }
        drop(kept);
        Slice::new(network, rows, role)
    }

    pub(super) fn put(&self, slice: Slice<T>) {
        let mut kept = lock(&self.0);
        if kept.len() < MOST_SPARES {
            kept.push(slice);
        }
    }
}

impl<T: Number> Default for Spares<T> {
    fn default() -> Self {
        Spares::new()
    }
}

/// What a call has for all its workers.
struct Call<'c, 'x, 'y, T: Number> {
    network: &'c Network<T>,
    spares: &'c Spares<T>,
    x: &'c Matrix<'x>,
    /// The rows that are passed; `None` for all.
    rows: Option<&'c [u32]>,
    y: Option<(&'c TargetData<'y>, T)>,
    plan: Plan,
    /// Operations of a slice.
    work: f64,
}

/// Writes what is wanted of each row, and with targets returns each row's loss (times `scale`).
///
/// # Errors
/// [`Error::Memory`], [`Error::Panic`], or what the host stopped the call with.
pub fn infer<T: Number>(
    network: &Network<T>,
    spares: &Spares<T>,
    x: &Matrix<'_>,
    y: Option<(&TargetData<'_>, T)>,
    wanted: Wanted<'_, T>,
    threads: Option<usize>,
    host: &mut dyn Host,
) -> Result<Vec<f64>, Error> {
    let rows = x.rows();
    if rows == 0 {
        return Ok(Vec::new());
    }
    let plan = plan::inference(network, rows, threads);
    let mut losses = vec![0.0; if y.is_some() { rows } else { 0 }];
    let work = 2.0 * (network.n_parameters() * plan.slice_rows) as f64;
    let call = Call { network, spares, x, rows: None, y, plan, work };
    let host = Mutex::new(host);
    match plan.threads.min(rows.div_ceil(plan.slice_rows)) {
        _ if plan.by_panels => call.by_panels(wanted, &mut losses, &host)?,
        1 => call.alone(wanted, &mut losses, &host)?,
        threads => call.shared(threads, wanted, &mut losses, &host)?,
    }
    Ok(losses)
}

/// The loss of each of the rows `rows` (times `scale`), and what the last layer returns of them; on this thread.
///
/// # Errors
/// As for [`infer`].
pub fn infer_rows<T: Number>(
    network: &Network<T>,
    spares: &Spares<T>,
    x: &Matrix<'_>,
    rows: &[u32],
    (y, scale): (&TargetData<'_>, T),
    outputs: &mut [T],
    host: &mut dyn Host,
) -> Result<Vec<f64>, Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let plan = plan::inference(network, rows.len(), Some(1));
    let mut losses = vec![0.0; rows.len()];
    let work = 2.0 * (network.n_parameters() * plan.slice_rows) as f64;
    let call = Call { network, spares, x, rows: Some(rows), y: Some((y, scale)), plan, work };
    call.alone(Wanted::Outputs(outputs), &mut losses, &Mutex::new(host))?;
    Ok(losses)
}

/// A[1] ... A[L] of all rows, each plain `(rows, n[l])`; on this thread.
///
/// # Errors
/// [`Error::Memory`] where they do not fit, or what the host stopped the call with.
pub fn activations<T: Number>(
    network: &Network<T>,
    spares: &Spares<T>,
    x: &Matrix<'_>,
    host: &mut dyn Host,
) -> Result<Vec<Vec<T>>, Error> {
    let (rows, step) = (x.rows(), plan::inference(network, x.rows(), Some(1)).slice_rows);
    let units: usize = network.layers.iter().map(|layer| layer.outputs).sum();
    let bytes = rows.saturating_mul(units).saturating_mul(size_of::<T>());
    if !memory::suffices(bytes) {
        return Err(Error::Memory { what: "activations", bytes });
    }
    let mut all: Vec<Vec<T>> = network.layers.iter().map(|layer| vec![T::ZERO; rows * layer.outputs]).collect();
    let mut slice = spares.take(network, step.min(rows), Role::Answers)?;
    let (mut poller, host) = (Poller::new(), Mutex::new(host));
    for first in (0..rows).step_by(step) {
        let count = step.min(rows - first);
        slice.gather(network, x, Selection::From(first), count);
        forward::forward(network, Weights::of(&network.arena.read(), network.kernels), &mut slice);
        forward::output(network, &mut slice);
        for (l, (into, layer)) in all.iter_mut().zip(&network.layers).enumerate() {
            unpack(slice.result(l), &mut into[first * layer.outputs..(first + count) * layer.outputs]);
        }
        poller.poll(2.0 * (network.n_parameters() * count) as f64, &host)?;
    }
    spares.put(slice);
    Ok(all)
}

/// The same as the step `draw` would see it, all rows one batch: with its masks and the batch's own statistics, which are not
/// entered into the running ones.
///
/// # Errors
/// [`Error::Value`] for more rows than a batch whose samples couple may have, [`Error::Memory`].
pub fn activations_in_training<T: Number>(
    network: &Network<T>,
    x: &Matrix<'_>,
    draw: Draw,
) -> Result<Vec<Vec<T>>, Error> {
    let rows = x.rows();
    if rows > SAMPLE_SEGMENT {
        return Err(Error::expected("X", format!("at most {SAMPLE_SEGMENT} samples"), rows));
    }
    let slices = Parts::new(vec![Slice::new(network, rows, Role::Learns)?]);
    {
        let slice = &mut *slices.write(0);
        slice.gather(network, x, Selection::From(0), rows);
        slice.trains(0, draw);
    }
    let reading = network.arena.read();
    for index in 0..=network.coupled.len() {
        route::stretch(network, Weights::of(&reading, network.kernels), &mut slices.write(0), index, |_| false);
        if index < network.coupled.len() {
            route::couple(network, &slices.read(), 1, index, rows);
        }
    }
    let slice = &mut *slices.write(0);
    forward::output(network, slice);
    let plain = |(l, layer): (usize, &Layer)| {
        let mut numbers = vec![T::ZERO; rows * layer.outputs];
        unpack(slice.result(l), &mut numbers);
        numbers
    };
    Ok(network.layers.iter().enumerate().map(plain).collect())
}

impl<T: Number> Call<'_, '_, '_, T> {
    /// How many rows are passed.
    fn n_rows(&self) -> usize {
        self.rows.map_or(self.x.rows(), <[u32]>::len)
    }

    /// Slice after slice, on this thread; nothing is allocated where a spare serves.
    fn alone(
        &self,
        mut wanted: Wanted<'_, T>,
        mut losses: &mut [f64],
        host: &Mutex<&mut dyn Host>,
    ) -> Result<(), Error> {
        let (rows, step) = (self.n_rows(), self.plan.slice_rows);
        let per_row = wanted.len() / rows;
        let mut slice = self.spares.take(self.network, step.min(rows), Role::Answers)?;
        let (mut poller, mut spare) = (Poller::new(), None);
        for first in (0..rows).step_by(step) {
            let count = step.min(rows - first);
            let (chunk, rest) = wanted.split(count * per_row);
            wanted = rest;
            let (chunk_losses, rest) = losses.split_at_mut(count.min(losses.len()));
            losses = rest;
            self.pass(&mut slice, &mut spare, first..first + count, chunk, chunk_losses)?;
            poller.poll(self.work, host)?;
        }
        self.spares.put(slice);
        Ok(())
    }

    /// Workers claim slices.
    fn shared(
        &self,
        threads: usize,
        mut wanted: Wanted<'_, T>,
        mut losses: &mut [f64],
        host: &Mutex<&mut dyn Host>,
    ) -> Result<(), Error> {
        let (rows, step) = (self.n_rows(), self.plan.slice_rows);
        let per_row = wanted.len() / rows;
        let mut slots = Vec::with_capacity(rows.div_ceil(step));
        for first in (0..rows).step_by(step) {
            let count = step.min(rows - first);
            let (chunk, rest) = wanted.split(count * per_row);
            wanted = rest;
            let (chunk_losses, rest) = losses.split_at_mut(count.min(losses.len()));
            losses = rest;
            slots.push(Mutex::new(Some((first..first + count, chunk, chunk_losses))));
        }
        let (claims, stop, outcome) = (Claims::new(threads), AtomicBool::new(false), Mutex::new(Ok(())));
        let fail = |error: Error| {
            stop.store(true, Ordering::Relaxed);
            let mut outcome = lock(&outcome);
            if outcome.is_ok() {
                *outcome = Err(error);
            }
        };
        threads::run(threads, |team, worker| {
            let mut slice = match self.spares.take(self.network, step, Role::Answers) {
                Ok(slice) => slice,
                Err(error) => return fail(error),
            };
            slice.walk_from(worker, team.size());
            let (mut poller, mut spare) = (Poller::new(), None);
            let share = |w: usize| w * slots.len() / team.size();
            while let Some(i) = claims.next(worker, team.size(), share) {
                let (range, chunk, losses) = lock(&slots[i]).take().expect("a slice is claimed once");
                if let Err(error) = self.pass(&mut slice, &mut spare, range, chunk, losses) {
                    return fail(error);
                }
                if worker == 0
                    && let Err(error) = poller.poll(self.work, host)
                {
                    fail(error);
                }
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            self.spares.put(slice);
        })?;
        drop(slots);
        outcome.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// All rows are one slice, and workers share its products.
    fn by_panels(&self, wanted: Wanted<'_, T>, losses: &mut [f64], host: &Mutex<&mut dyn Host>) -> Result<(), Error> {
        let (network, rows, threads) = (self.network, self.n_rows(), self.plan.threads);
        let sharing = Sharing::forward(network, rows, threads);
        let mut slice = self.spares.take(network, rows, Role::Answers)?;
        slice.gather(network, self.x, self.selection(0..rows), rows);
        sharing.enter(&mut slice, 0);
        let (slices, stopped, outcome) = (Parts::new(vec![slice]), AtomicBool::new(false), Mutex::new(Ok(())));
        threads::run(threads, |team, worker| {
            let (mut poller, stages) = (Poller::new(), sharing.stages.len());
            let mut totals = vec![T::ZERO; if has_totals(network) { rows * network.geometry.panel() } else { 0 }];
            for stage in 0..stages {
                self.stage(&sharing, stage, &slices, (team, worker), &mut totals);
                if worker == 0
                    && let Err(error) = poller.poll(self.work / stages as f64, host)
                {
                    *lock(&outcome) = Err(error);
                }
                let goes_on = team.barrier(|| {
                    stopped.store(lock(&outcome).is_err(), Ordering::Release);
                    let slice = &mut slices.write(0);
                    sharing.leave(slice, stage);
                    if stage + 1 < stages {
                        sharing.enter(slice, stage + 1);
                    }
                });
                if !goes_on || stopped.load(Ordering::Acquire) {
                    return;
                }
            }
        })?;
        outcome.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())?;
        let mut slice = slices.into_items().remove(0);
        self.settle(&mut slice, &mut None, 0..rows, wanted, losses)?;
        self.spares.put(slice);
        Ok(())
    }

    /// What a worker does in a stage; what is not shared is worker 0's.
    fn stage(
        &self,
        sharing: &Sharing<T>,
        stage: usize,
        slices: &Parts<Slice<T>>,
        (team, worker): (&Team, usize),
        totals: &mut [T],
    ) {
        let reading = self.network.arena.read();
        let from = Weights::of(&reading, self.network.kernels);
        match &sharing.stages[stage] {
            &Stage::Shared(item) => {
                sharing.work(self.network, from, slices.read().get(0), item, (team, worker), totals);
            }
            Stage::Alone(items) if worker == 0 => {
                share::alone(self.network, from, &mut slices.write(0), items.clone(), |_| ());
            }
            Stage::Alone(_) => {}
        }
    }

    fn selection(&self, range: Range<usize>) -> Selection<'_> {
        match self.rows {
            Some(rows) => Selection::Rows(&rows[range]),
            None => Selection::From(range.start),
        }
    }

    /// The rows `range`; `spare` keeps the logits while the loss needs them and the outputs too.
    fn pass(
        &self,
        slice: &mut Slice<T>,
        spare: &mut Option<Panels<T>>,
        range: Range<usize>,
        wanted: Wanted<'_, T>,
        losses: &mut [f64],
    ) -> Result<(), Error> {
        slice.gather(self.network, self.x, self.selection(range.clone()), range.len());
        {
            let reading = self.network.arena.read();
            forward::forward(self.network, Weights::of(&reading, self.network.kernels), slice);
        }
        self.settle(slice, spare, range, wanted, losses)
    }

    /// What is wanted of the rows `range`, whose logits are there.
    fn settle(
        &self,
        slice: &mut Slice<T>,
        spare: &mut Option<Panels<T>>,
        range: Range<usize>,
        wanted: Wanted<'_, T>,
        losses: &mut [f64],
    ) -> Result<(), Error> {
        let (network, selection) = (self.network, self.selection(range));
        if let Some((y, scale)) = self.y {
            self.loss(slice, spare, y, scale, selection, losses)?;
        }
        if !matches!(wanted, Wanted::Logits(_)) {
            forward::output(network, slice);
        }
        let result = slice.deltas.last().expect("a network has a layer");
        match wanted {
            Wanted::Outputs(into) | Wanted::Logits(into) => unpack(result, into),
            Wanted::Labels(into) => match answer(network) {
                Answer::Class => classes(result, into),
                Answer::Above(threshold) => above(result, T::from_f64(threshold), into),
            },
        }
        Ok(())
    }

    /// The rows' losses; the logits are put back afterwards.
    fn loss(
        &self,
        slice: &mut Slice<T>,
        spare: &mut Option<Panels<T>>,
        y: &TargetData<'_>,
        scale: T,
        selection: Selection<'_>,
        losses: &mut [f64],
    ) -> Result<(), Error> {
        let logits = slice.deltas.last_mut().expect("a network has a layer");
        let spare = match spare {
            Some(spare) => spare,
            None => {
                let rows = self.plan.slice_rows;
                let fresh = Panels::zeroed(rows, logits.lanes(), logits.geometry(), "batch: its logits")?;
                spare.insert(fresh)
            }
        };
        spare.reshape(logits.rows(), logits.lanes());
        spare.data_mut().copy_from_slice(logits.view().data());
        slice.gather_targets(y, selection);
        slice.loss((&self.network.loss, self.network.kernels), y, scale, T::ZERO);
        losses.iter_mut().zip(slice.losses()).for_each(|(into, x)| *into = x.to_f64());
        slice.deltas.last_mut().expect("a network has a layer").data_mut().copy_from_slice(spare.view().data());
        Ok(())
    }
}

/// Panels to plain rows.
pub fn unpack<T: Number>(panels: &Panels<T>, rows: &mut [T]) {
    unpack_beside(panels, rows, 1, 0);
}

/// Panels to matrix number `at` of those that stand row beside row, `count` of them and of as many lanes each.
pub fn unpack_beside<T: Number>(panels: &Panels<T>, rows: &mut [T], count: usize, at: usize) {
    let n = panels.lanes();
    for p in 0..panels.panels() {
        let (width, first) = (panels.width(p), p * panels.geometry().panel());
        let used = width.min(n - first);
        let from = at * n + first;
        for (row, numbers) in rows.chunks_exact_mut(count * n).zip(panels.panel(p).chunks_exact(width)) {
            row[from..from + used].copy_from_slice(&numbers[..used]);
        }
    }
}

/// Of each row the lane that is greatest, the first of several; a NaN counts as the greatest, as with NumPy's argmax.
fn classes<T: Number>(panels: &Panels<T>, into: &mut [i64]) {
    for (row, class) in into.iter_mut().enumerate() {
        let (mut best, mut at) = (None::<T>, 0);
        for (lane, x) in lanes(panels, row).enumerate() {
            // False for a NaN that came first.
            let greater = best.is_none_or(|best| x > best || (!is_nan(best) && is_nan(x)));
            if greater {
                (best, at) = (Some(x), lane as i64);
            }
        }
        *class = at;
    }
}

fn above<T: Number>(panels: &Panels<T>, threshold: T, into: &mut [i64]) {
    for (row, labels) in into.chunks_exact_mut(panels.lanes()).enumerate() {
        labels.iter_mut().zip(lanes(panels, row)).for_each(|(label, x)| *label = i64::from(x > threshold));
    }
}

/// One row's lanes, without padding.
fn lanes<T: Number>(panels: &Panels<T>, row: usize) -> impl Iterator<Item = T> {
    let of_panel = move |p: usize| {
        let width = panels.width(p);
        panels.panel(p)[row * width..(row + 1) * width].iter().copied()
    };
    (0..panels.panels()).flat_map(of_panel).take(panels.lanes())
}

fn is_nan<T: Number>(x: T) -> bool {
    x.partial_cmp(&x).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dense;
    use crate::isa::Isa;
    use crate::network::LayerSpec;
    use ndarray::Array2;

    #[test]
    fn a_worker_may_take_the_short_last_rows_first() {
        let spec = LayerSpec::plain(1, Activation::Sigmoid);
        let mut network = Network::<f32>::new(3, &[spec], Loss::BinaryCrossEntropy, Isa::Scalar).unwrap();
        network.set_layer(0, |_, i| i as f32 - 1.0, |_| 0.5);
        let (x, y) = (Array2::from_shape_fn((5, 3), |(i, j)| (i * 3 + j) as f32 / 7.0), Array2::<f32>::ones((5, 1)));
        let x = Matrix::Dense(Dense::F32(x.view()));
        let y = TargetData::Dense(Matrix::Dense(Dense::F32(y.view())));
        let (spares, plan) = (Spares::new(), Plan { threads: 1, group_rows: 5, slice_rows: 3, by_panels: false });
        let call = Call { network: &network, spares: &spares, x: &x, rows: None, y: Some((&y, 1.0)), plan, work: 1.0 };
        let losses = |ranges: &[Range<usize>]| {
            let (mut slice, mut spare) = (Slice::new(&network, 3, Role::Answers).unwrap(), None);
            let (mut losses, mut outputs) = ([0.0; 5], [0.0; 5]);
            for range in ranges {
                let (wanted, losses) = (Wanted::Outputs(&mut outputs[range.clone()]), &mut losses[range.clone()]);
                call.pass(&mut slice, &mut spare, range.clone(), wanted, losses).unwrap();
            }
            (losses, outputs)
        };
        assert_eq!(losses(&[3..5, 0..3]), losses(&[0..3, 3..5]));
    }
}
