//! Passes forward: outputs and losses of any number of rows, in bounded memory.

use super::{Host, Poller, lock};
use crate::data::{Matrix, Selection};
use crate::error::Error;
use crate::kernels::Number;
use crate::network::{Network, WEIGHTS};
use crate::panel::Panels;
use crate::plan;
use crate::step::{Role, Slice, TargetData, forward};
use crate::threads::{self, Claims};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is wanted of each row, `n` outputs wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What the output layer returns.
    Outputs,
    /// The last layer before its activation.
    Logits,
}

/// Writes each row's outputs into `outputs`, `(rows, n)`, and with targets returns each row's loss (times `scale`).
///
/// # Errors
/// [`Error::Memory`], [`Error::Panic`], or what the host stopped the call with.
pub fn infer<T: Number>(
    network: &Network<T>,
    x: &Matrix<'_>,
    y: Option<(&TargetData<'_>, T)>,
    wanted: Wanted,
    threads: Option<usize>,
    outputs: &mut [T],
    host: &mut dyn Host,
) -> Result<Vec<f64>, Error> {
    let (rows, n) = (x.rows(), network.outputs());
    assert_eq!(outputs.len(), rows * n);
    if rows == 0 {
        return Ok(Vec::new());
    }
    let plan = plan::inference(network, rows, threads);
    let mut losses = vec![0.0; if y.is_some() { rows } else { 0 }];
    let slots: Vec<Mutex<(&mut [T], &mut [f64])>> = {
        let mut losses = losses.chunks_mut(plan.slice_rows);
        let outputs = outputs.chunks_mut(plan.slice_rows * n);
        outputs.map(|chunk| Mutex::new((chunk, losses.next().unwrap_or_default()))).collect()
    };
    let (claims, stop, outcome) = (Claims::new(plan.threads), AtomicBool::new(false), Mutex::new(Ok(())));
    let host = Mutex::new(host);
    let work = 2.0 * (network.n_parameters() * plan.slice_rows) as f64;
    let fail = |error: Error| {
        stop.store(true, Ordering::Relaxed);
        *lock(&outcome) = Err(error);
    };
    threads::run(plan.threads.min(slots.len()), |team, worker| {
        let mut slice = match Slice::new(network, plan.slice_rows, Role::Answers) {
            Ok(slice) => slice,
            Err(error) => return fail(error),
        };
        let (mut poller, mut pass) = (Poller::new(), Pass { network, x, y, wanted, spare: None });
        let share = |w: usize| w * slots.len() / team.size();
        while let Some(i) = claims.next(worker, team.size(), share) {
            let mut slot = lock(&slots[i]);
            let (outputs, losses) = &mut *slot;
            if let Err(error) = pass.run(&mut slice, i * plan.slice_rows, outputs, losses) {
                return fail(error);
            }
            if worker == 0
                && let Err(error) = poller.poll(work, &host)
            {
                fail(error);
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    })?;
    drop(slots);
    outcome.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())?;
    Ok(losses)
}

struct Pass<'p, 'x, 'y, T: Number> {
    network: &'p Network<T>,
    x: &'p Matrix<'x>,
    y: Option<(&'p TargetData<'y>, T)>,
    wanted: Wanted,
    /// The logits, while the loss needs them and the outputs too.
    spare: Option<Panels<T>>,
}

impl<T: Number> Pass<'_, '_, '_, T> {
    /// Rows from `first` on, as many as fit `outputs`.
    fn run(&mut self, slice: &mut Slice<T>, first: usize, outputs: &mut [T], losses: &mut [f64]) -> Result<(), Error> {
        let (network, n) = (self.network, self.network.outputs());
        let selection = Selection::From(first);
        slice.gather(self.x, selection, outputs.len() / n);
        {
            let reading = network.arena.read();
            forward::forward(network, forward::Weights::of(&reading), slice);
        }
        if let Some((y, scale)) = self.y {
            self.loss(slice, y, scale, selection, losses)?;
        }
        if self.wanted == Wanted::Outputs {
            forward::output(network, slice);
        }
        unpack(slice.deltas.last().expect("a network has a layer"), outputs);
        Ok(())
    }

    /// The rows' losses; the logits are put back afterwards.
    fn loss(
        &mut self,
        slice: &mut Slice<T>,
        y: &TargetData<'_>,
        scale: T,
        selection: Selection<'_>,
        losses: &mut [f64],
    ) -> Result<(), Error> {
        // The first rows to come may be the short last ones: there has to be room for as many as the slice takes.
        let capacity = slice.losses.len();
        let logits = slice.deltas.last_mut().expect("a network has a layer");
        let spare = match &mut self.spare {
            Some(spare) => spare,
            None => {
                let fresh = Panels::zeroed(capacity, logits.lanes(), logits.geometry(), "batch: its logits")?;
                self.spare.insert(fresh)
            }
        };
        spare.reshape(logits.rows(), logits.lanes());
        spare.data_mut().copy_from_slice(logits.view().data());
        slice.gather_targets(y, selection);
        slice.loss(self.network, y, scale, T::ZERO);
        losses.iter_mut().zip(slice.losses()).for_each(|(into, x)| *into = x.to_f64());
        slice.deltas.last_mut().expect("a network has a layer").data_mut().copy_from_slice(spare.view().data());
        Ok(())
    }
}

/// Panels to plain rows.
pub fn unpack<T: Number>(panels: &Panels<T>, rows: &mut [T]) {
    let n = panels.lanes();
    for p in 0..panels.panels() {
        let (width, first) = (panels.width(p), p * panels.geometry().panel());
        let used = width.min(n - first);
        for (row, from) in rows.chunks_exact_mut(n).zip(panels.panel(p).chunks_exact(width)) {
            row[first..first + used].copy_from_slice(&from[..used]);
        }
    }
}

/// `l2 / 2` times the sum of the squared weights: 32 strided partials over the logical index, then a tree.
pub fn penalty<T: Number>(network: &Network<T>, l2: f64) -> f64 {
    if l2 == 0.0 {
        return 0.0;
    }
    let reading = network.arena.read();
    let weights = reading.buffer(WEIGHTS);
    let mut sum = StridedSum::new();
    for layer in &network.layers {
        let pairs = (0..layer.outputs).flat_map(|j| (0..layer.inputs).map(move |i| (j, i)));
        pairs.map(|(j, i)| weights[layer.weight(j, i)].to_f64()).for_each(|w| sum.add(w * w));
    }
    0.5 * l2 * sum.total()
}

/// A sum over a logical index in 32 strided partials and a tree: the same bits whoever computes the terms.
pub struct StridedSum {
    partial: [f64; 32],
    next: usize,
}

impl StridedSum {
    /// An empty sum.
    pub fn new() -> Self {
        StridedSum { partial: [0.0; 32], next: 0 }
    }
    /// The next term.
    pub fn add(&mut self, term: f64) {
        self.partial[self.next % 32] += term;
        self.next += 1;
    }
    /// The next terms.
    pub fn extend<T: Number>(&mut self, terms: &[T]) {
        let (ahead, rest) = terms.split_at(((32 - self.next % 32) % 32).min(terms.len()));
        ahead.iter().for_each(|&term| self.add(term.to_f64()));
        for terms in rest.chunks(32) {
            self.partial.iter_mut().zip(terms).for_each(|(partial, &term)| *partial += term.to_f64());
        }
        self.next += rest.len();
    }
    /// The sum of all.
    pub fn total(&self) -> f64 {
        let mut partial = self.partial;
        for half in [16, 8, 4, 2, 1] {
            (0..half).for_each(|i| partial[i] += partial[i + half]);
        }
        partial[0]
    }
}

impl Default for StridedSum {
    fn default() -> Self {
        StridedSum::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::isa::Isa;
    use crate::kernels::Loss;
    use crate::network::LayerSpec;
    use ndarray::Array2;

    #[test]
    fn a_strided_sum_is_the_same_however_its_terms_arrive() {
        let terms: Vec<f32> = (0..200).map(|i| 1.0 / (i as f32 + 0.3)).collect();
        let mut one_by_one = StridedSum::new();
        terms.iter().for_each(|&term| one_by_one.add(term.into()));
        for cut in [0, 1, 31, 32, 33, 64, 199, 200] {
            let mut sum = StridedSum::new();
            sum.extend(&terms[..cut]);
            sum.extend(&terms[cut..]);
            assert_eq!(sum.total(), one_by_one.total(), "{cut}");
        }
    }

    #[test]
    fn a_worker_may_take_the_short_last_rows_first() {
        let spec = LayerSpec { units: 1, activation: Activation::Sigmoid };
        let mut network = Network::<f32>::new(3, &[spec], Loss::BinaryCrossEntropy, Isa::Scalar).unwrap();
        network.set_layer(0, |_, i| i as f32 - 1.0, |_| 0.5);
        let (x, y) = (Array2::from_shape_fn((5, 3), |(i, j)| (i * 3 + j) as f32 / 7.0), Array2::<f32>::ones((5, 1)));
        let (x, y) = (Matrix::F32(x.view()), TargetData::Dense(Matrix::F32(y.view())));
        let losses = |slices: &[(usize, usize)]| {
            let mut slice = Slice::new(&network, 3, Role::Answers).unwrap();
            let (y, wanted) = (Some((&y, 1.0)), Wanted::Outputs);
            let mut pass = Pass { network: &network, x: &x, y, wanted, spare: None };
            let (mut losses, mut outputs) = ([0.0; 5], [0.0; 5]);
            for &(first, end) in slices {
                pass.run(&mut slice, first, &mut outputs[first..end], &mut losses[first..end]).unwrap();
            }
            (losses, outputs)
        };
        assert_eq!(losses(&[(3, 5), (0, 3)]), losses(&[(0, 3), (3, 5)]));
    }
}
