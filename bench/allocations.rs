//! A step allocates nothing after the first (but for a slice's lists of zeros, when it first meets an input that is mostly zero):
//! fits of 3 and of 60 steps ask the allocator equally often.
//!
//! A program, not a test, since the counter counts for the whole process, and the harness's own thread would
//! ask for memory beside it.

mod nobody;

use lamella::activation::Activation;
use lamella::data::{Dense, Matrix};
use lamella::isa::Isa;
use lamella::kernels::{Loss, SAMPLE_SEGMENT};
use lamella::network::{LayerSpec, Network};
use lamella::step::TargetData;
use lamella::step::muon::{Adjust, Muon};
use lamella::train::infer::{Spares, Wanted, infer};
use lamella::train::optimizer::{Kind, Moments, Optimizer};
use lamella::train::options::Options;
use lamella::train::penalty::Penalty;
use lamella::train::stretch::Stretch;
use lamella::train::trainer::{Workspace, fit};
use ndarray::Array2;
use nobody::Nobody;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The system's allocator, which counts how often it is asked for memory.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every request goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(start, layout, size) }
    }
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` asks for memory.
fn count(work: impl FnOnce()) -> usize {
    let before = COUNT.load(Ordering::Relaxed);
    work();
    COUNT.load(Ordering::Relaxed) - before
}

/// Rows, rows of a batch, steps of an epoch.
const CASES: [(usize, usize, usize); 4] = [
    // A full batch of one segment.
    (96, 96, 1),
    // Mini-batches, the last one short.
    (250, 100, 3),
    // A full batch of several segments, one group.
    (2 * SAMPLE_SEGMENT + 100, 2 * SAMPLE_SEGMENT + 100, 1),
    // A full batch of several groups.
    (6 * SAMPLE_SEGMENT + 1, 6 * SAMPLE_SEGMENT + 1, 1),
];

/// Batches too small for slices, whose products threads share; the last one is shorter.
const FEW_ROWS: [(usize, usize, usize); 1] = [(20, 8, 3)];

/// Features of the case whose first layer's products skip zeros.
const THIN: usize = 90;

const MUON: Muon = Muon {
    learning_rate: 0.02,
    weight_decay: 0.1,
    momentum: 0.95,
    nesterov: true,
    coefficients: [3.4445, -4.775, 2.0315],
    epsilon: 1e-7,
    steps: 5,
    adjust: Adjust::Original,
    rounds: true,
    hidden_only: false,
};

fn network(features: usize, units: usize) -> Network<f32> {
    let relu = |units| LayerSpec::plain(units, Activation::Relu);
    let specs = [relu(units), relu(9), LayerSpec::plain(3, Activation::Softmax)];
    let mut network = Network::new(features, &specs, Loss::CrossEntropy, Isa::choose().unwrap()).unwrap();
    for l in 0..specs.len() {
        network.set_layer(l, |j, i| ((7 * j + 3 * i) % 11) as f32 * 0.02 - 0.1, |_| 0.0);
    }
    network
}

fn main() {
    steps_after_the_first_allocate_nothing();
    a_second_pass_forward_on_one_thread_allocates_nothing();
    println!("allocations: ok");
}

fn steps_after_the_first_allocate_nothing() {
    // So many features that the first layer's sums run along them, and too few for that; most of the input zero.
    let mini = &CASES[1..2];
    for (features, units, cases) in
        [(512, 20, &CASES[..]), (6, 20, &CASES[..]), (700, 600, &FEW_ROWS[..]), (THIN, 40, mini)]
    {
        for &(rows, batch_size, of_epoch) in cases {
            let zero = |i: usize, j: usize| features == THIN && !(i + 3 * j).is_multiple_of(7);
            let number = |(i, j)| if zero(i, j) { 0.0 } else { ((i * 31 + j * 17) % 13) as f32 - 6.0 };
            let x = Array2::from_shape_fn((rows, features), number);
            let (x, classes) =
                (Matrix::Dense(Dense::F32(x.view())), (0..rows as u32).map(|i| i % 3).collect::<Vec<_>>());
            let y = TargetData::Classes(&classes);
            let ones = vec![1.0; rows];
            let rates = vec![1e-3; 60];
            let deadline = Some(Instant::now() + Duration::from_secs(1 << 20));
            for (threads, weights, scheduled, all) in [
                (1, None, false, false),
                (2, None, false, false),
                (1, Some(&ones[..]), true, false),
                (2, Some(&ones[..]), false, false),
                (1, None, true, true),
                (2, None, false, true),
            ] {
                let fit_steps = |network: &mut Network<f32>, workspace: &mut Workspace<f32>, steps: usize| {
                    let moments = Moments { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
                    let kind = Kind::Adam { moments, amsgrad: false };
                    let options = Options {
                        epochs: steps / of_epoch,
                        batch_size,
                        optimizer: Optimizer { learning_rate: 1e-3, weight_decay: 0.01, kind },
                        penalty: Penalty { l2: 1e-4, ..Penalty::default() },
                        clip_value: f64::INFINITY,
                        clip_norm: if all { 0.1 } else { f64::INFINITY },
                        average: all.then_some(0.9),
                        muon: all.then_some(MUON),
                        loss_scale: 1.0,
                        weights,
                        rows: None,
                        shuffle: true,
                        seed: 1,
                        threads: Some(threads),
                        report_every: 0,
                        stretch: if scheduled {
                            Stretch { deadline, rates: Some(&rates), ..Stretch::WHOLE }
                        } else {
                            Stretch::WHOLE
                        },
                    };
                    let losses = fit(network, workspace, &x, &y, &options, &mut Nobody).unwrap();
                    assert_eq!(network.progress.steps % 3, 0);
                    assert_eq!(losses.len(), steps / of_epoch);
                };
                let made = || {
                    let mut network = network(features, units);
                    network.max_norms.fill(if all { 0.2 } else { f64::INFINITY });
                    (network, Workspace::new())
                };
                let of = |steps| {
                    let (mut network, mut workspace) = made();
                    count(|| fit_steps(&mut network, &mut workspace, steps))
                };
                let few = of(3);
                assert_eq!(
                    few,
                    of(if all { 9 } else { 60 }),
                    "{features} features, {rows} rows in batches of {batch_size}, {threads} {scheduled} {all}"
                );
                let (mut network, mut workspace) = made();
                fit_steps(&mut network, &mut workspace, 3);
                let again = count(|| fit_steps(&mut network, &mut workspace, 3));
                assert!(again < few, "buffers live on: {again} of {few} allocations");
            }
        }
    }
}

fn a_second_pass_forward_on_one_thread_allocates_nothing() {
    let (network, spares) = (network(6, 20), Spares::new());
    let x = Array2::<f32>::ones((1000, 6));
    for rows in [1000, 1, 300] {
        let mut labels = vec![0; rows];
        let x = Matrix::Dense(Dense::F32(x.slice(ndarray::s![..rows, ..])));
        let mut pass =
            || infer(&network, &spares, &x, None, Wanted::Labels(&mut labels), Some(1), &mut Nobody).map(drop).unwrap();
        if rows == 1000 {
            pass();
        }
        assert_eq!(count(pass), 0, "{rows} rows");
    }
}
