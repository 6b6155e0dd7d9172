//! Gradients of a network's answers with respect to its inputs: forward as in a prediction, and all the way back.
//!
//! Nothing is dropped, and batch normalisation's running statistics are constants. Rows do not depend on each other, so neither
//! slices nor threads change a bit.

use super::infer::{Spares, unpack_beside};
use super::{Host, Poller, lock};
use crate::data::{Matrix, Selection};
use crate::error::Error;
use crate::kernels::Number;
use crate::memory;
use crate::network::Network;
use crate::plan;
use crate::step::backward::{self, InputGradient};
use crate::step::weights::Weights;
use crate::step::{Role, forward};
use crate::threads;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// dX of the rows of `x` for `count` dZ[L] of each, `(count, m, n[L])`: `(m, count, n[0])`.
///
/// # Errors
/// [`Error::Value`] in mixed precision, whose products have no input gradients; [`Error::Memory`], [`Error::Panic`], or what the
/// host stopped the call with.
pub fn input_gradients<T: Number>(
    network: &Network<T>,
    spares: &Spares<T>,
    x: &Matrix<'_>,
    (deltas, count): (&[T], usize),
    threads: Option<usize>,
    host: &mut dyn Host,
) -> Result<Vec<T>, Error> {
    let (rows, features, outputs) = (x.rows(), network.features(), network.outputs());
    if network.pair_kernels.is_some() {
        return Err(Error::expected("dtype", "float32 or float64", "bfloat16"));
    }
    if deltas.len() != rows.saturating_mul(outputs).saturating_mul(count) {
        return Err(Error::expected("deltas", format!("{count} x {rows} rows of {outputs} numbers"), deltas.len()));
    }
    let numbers = rows.saturating_mul(features).saturating_mul(count);
    let bytes = numbers.saturating_mul(size_of::<T>());
    if !memory::suffices(bytes) {
        return Err(Error::Memory { what: "input gradients", bytes });
    }
    let mut gradients = vec![T::ZERO; numbers];
    if numbers == 0 {
        return Ok(gradients);
    }
    let plan = plan::inference(network, rows, threads);
    let step = if plan.by_panels { rows.div_ceil(plan.threads) } else { plan.slice_rows };
    let work = 4.0 * (network.n_parameters() * step) as f64;
    let mirror = {
        let reading = network.arena.read();
        backward::first_mirror(network, Weights::of(&reading, network.kernels))?
    };
    let chunks: Vec<_> = gradients.chunks_mut(step * count * features).map(Mutex::new).collect();
    let (host, stop, outcome) = (Mutex::new(host), AtomicBool::new(false), Mutex::new(Ok(())));
    threads::run(plan.threads.min(chunks.len()), |team, worker| {
        let pass = || -> Result<(), Error> {
            let mut slice = spares.take(network, step.min(rows), Role::Learns)?;
            let reading = network.arena.read();
            let from = Weights::of(&reading, network.kernels);
            let (mut gradient, mut poller) = (InputGradient::new(network, step.min(rows))?, Poller::new());
            for i in (worker..chunks.len()).step_by(team.size()) {
                let (first, some) = (i * step, step.min(rows - i * step));
                slice.gather(network, x, Selection::From(first), some);
                forward::forward(network, from, &mut slice);
                for at in 0..count {
                    slice.set_delta(&deltas[(at * rows + first) * outputs..][..some * outputs], |_| T::ONE);
                    backward::inputs(network, from, &mirror, &mut slice, &mut gradient);
                    unpack_beside(&gradient.result, &mut lock(&chunks[i]), count, at);
                    if worker == 0 {
                        poller.poll(work, &host)?;
                    }
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                }
            }
            spares.put(slice);
            Ok(())
        };
        if let Err(error) = pass() {
            stop.store(true, Ordering::Relaxed);
            let mut outcome = lock(&outcome);
            if outcome.is_ok() {
                *outcome = Err(error);
            }
        }
    })?;
    drop(chunks);
    outcome.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())?;
    Ok(gradients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::data::Dense;
    use crate::isa::Isa;
    use crate::kernels::Loss;
    use crate::network::LayerSpec;
    use ndarray::Array2;

    struct Nobody;

    impl Host for Nobody {
        fn poll(&mut self) -> Result<(), Error> {
            Ok(())
        }
        fn report(&mut self, _: usize, _: f64) -> Result<(), Error> {
            Ok(())
        }
    }

    /// Small whole numbers, so that every sum is exact.
    fn weight(j: usize, i: usize) -> f32 {
        ((3 * j + 5 * i) % 7) as f32 - 3.0
    }

    #[test]
    fn in_a_linear_network_they_are_the_deltas_times_its_weights() {
        for (features, units, outputs, rows) in [(1, 1, 1, 1), (37, 5, 3, 9), (5, 40, 1, 300), (600, 2, 2, 3)] {
            let specs = [units, outputs].map(|units| LayerSpec::plain(units, Activation::Identity));
            let mut network =
                Network::<f32>::new(features, &specs, Loss::SquaredError, Isa::choose().unwrap()).unwrap();
            (0..2).for_each(|l| network.set_layer(l, weight, |_| 1.0));
            let x = Array2::<f32>::ones((rows, features));
            let x = Matrix::Dense(Dense::F32(x.view()));
            let delta = |at: usize, row: usize, k: usize| ((at + 2 * row + 3 * k) % 5) as f32 - 2.0;
            let all = (0..2).flat_map(|at| (0..rows).map(move |row| (at, row)));
            let deltas: Vec<f32> = all.flat_map(|(at, row)| (0..outputs).map(move |k| delta(at, row, k))).collect();
            let ours = |threads| {
                let deltas = (&deltas[..], 2);
                input_gradients(&network, &Spares::new(), &x, deltas, Some(threads), &mut Nobody).unwrap()
            };
            let expected: Vec<f32> = (0..rows * 2 * features)
                .map(|n| {
                    let (row, at, i) = (n / features / 2, n / features % 2, n % features);
                    let hidden = |j| (0..outputs).map(|k| delta(at, row, k) * weight(k, j)).sum::<f32>();
                    (0..units).map(|j| hidden(j) * weight(j, i)).sum()
                })
                .collect();
            assert_eq!(ours(1), expected, "{features} {units} {outputs} {rows}");
            assert_eq!(ours(3), expected, "{features} {units} {outputs} {rows}");
        }
    }

    #[test]
    fn wrong_deltas_are_named() {
        let specs = [LayerSpec::plain(2, Activation::Identity)];
        let network = Network::<f32>::new(3, &specs, Loss::SquaredError, Isa::Scalar).unwrap();
        let x = Array2::<f32>::ones((4, 3));
        let x = Matrix::Dense(Dense::F32(x.view()));
        let error = input_gradients(&network, &Spares::new(), &x, (&[0.0; 7], 1), None, &mut Nobody).unwrap_err();
        assert_eq!(error.to_string(), "deltas: expected 1 x 4 rows of 2 numbers, got 7");
    }
}
