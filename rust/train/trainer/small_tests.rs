//! Fits whose steps are written down and made again, against fits of two threads, whose steps are not: the same bits.

use super::*;
use crate::activation::Activation;
use crate::data::Dense;
use crate::isa::Isa;
use crate::network::{FIRST, LayerSpec, SECOND};
use crate::train::optimizer::{Kind, Moments, Optimizer};
use crate::train::stretch::Stretch;
use ndarray::Array2;

/// Looks on, and stops the call at the first poll where it is impatient.
struct Onlooker {
    impatient: bool,
    reports: Vec<(usize, f64)>,
}

impl Host for Onlooker {
    fn poll(&mut self) -> Result<(), Error> {
        if self.impatient { Err(Error::Interrupted) } else { Ok(()) }
    }
    fn report(&mut self, epoch: usize, loss: f64) -> Result<(), Error> {
        self.reports.push((epoch, loss));
        Ok(())
    }
}

fn onlooker() -> Onlooker {
    Onlooker { impatient: false, reports: Vec::new() }
}

fn number(i: usize, j: usize, salt: usize) -> f64 {
    let mixed = (i * 7919 + j * 104_729 + salt * 1_299_709).wrapping_mul(2_654_435_761) >> 7;
    (mixed % 2003) as f64 / 1000.0 - 1.0
}

const ADAM: Kind = Kind::Adam { moments: Moments { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }, amsgrad: false };
const SGD: Kind = Kind::Sgd { momentum: 0.0, nesterov: false };

fn options(batch_size: usize, kind: Kind, threads: usize) -> Options<'static> {
    Options {
        epochs: 4,
        batch_size,
        optimizer: Optimizer { learning_rate: 0.01, weight_decay: 0.0, kind },
        penalty: Penalty::default(),
        clip_value: f64::INFINITY,
        clip_norm: f64::INFINITY,
        average: None,
        muon: None,
        loss_scale: 1.0,
        weights: None,
        rows: None,
        shuffle: true,
        seed: 5,
        threads: Some(threads),
        report_every: 2,
        stretch: Stretch::WHOLE,
    }
}

/// Layers' widths, the hidden activation, the loss.
type Case = (&'static [usize], Activation, Loss);

/// A layer of few units behind many inputs, whose activation leaves padding to be cleared: no call of a kernel.
const STAINED: Case = (&[300, 3, 2, 1], Activation::Sigmoid, Loss::SquaredError);

fn cases() -> Vec<Case> {
    let leaky = Activation::LeakyRelu { slope: 0.1 };
    vec![
        (&[2, 16, 16, 1], Activation::Relu, Loss::BinaryCrossEntropy),
        (&[20, 40, 1], Activation::Tanh, Loss::BinaryCrossEntropy),
        (&[9, 33, 5, 3], leaky, Loss::CrossEntropy),
        (&[300, 3, 2, 1], Activation::Tanh, Loss::SquaredError),
        (&[6, 12, 9, 1], Activation::Sigmoid, Loss::SquaredError),
        (&[5, 1], Activation::Relu, Loss::SquaredError),
        (&[7, 20, 4], Activation::Relu, Loss::Huber { delta: 0.5 }),
    ]
}

fn network<T: Number>((dims, hidden, loss): &Case, isa: Isa) -> Network<T> {
    let last = dims.len() - 2;
    let output = match loss {
        Loss::BinaryCrossEntropy => Activation::Sigmoid,
        Loss::CrossEntropy => Activation::Softmax,
        _ => Activation::Identity,
    };
    let activation = |l: usize| if l == last { output } else { *hidden };
    // Some layers without biases.
    let spec = |l: usize| LayerSpec {
        bias: !(l + dims.len()).is_multiple_of(3),
        ..LayerSpec::plain(dims[l + 1], activation(l))
    };
    let specs: Vec<_> = (0..=last).map(spec).collect();
    let mut network = Network::new(dims[0], &specs, loss.clone(), isa).unwrap();
    for l in 0..=last {
        let scale = (2.0 / dims[l] as f64).sqrt();
        network.set_layer(l, |j, i| T::from_f64(scale * number(j, i, l)), |j| T::from_f64(0.1 * number(j, 1, l)));
    }
    network
}

/// Rows and their targets.
struct Data {
    x: Array2<f64>,
    values: Array2<f64>,
    classes: Vec<u32>,
}

impl Data {
    fn of((dims, _, _): &Case, rows: usize) -> Self {
        let outputs = dims[dims.len() - 1];
        Data {
            x: Array2::from_shape_fn((rows, dims[0]), |(i, j)| number(i, j, 70)),
            values: Array2::from_shape_fn((rows, outputs), |(i, j)| f64::from(number(i, j, 71) > 0.0)),
            classes: (0..rows).map(|i| (i * 7 % outputs) as u32).collect(),
        }
    }
    fn x(&self) -> Matrix<'_> {
        Matrix::Dense(Dense::F64(self.x.view()))
    }
    fn y(&self, loss: &Loss) -> TargetData<'_> {
        match loss {
            Loss::CrossEntropy => TargetData::Classes(&self.classes),
            _ => TargetData::Dense(Matrix::Dense(Dense::F64(self.values.view()))),
        }
    }
}

/// All that a fit leaves.
#[derive(PartialEq)]
struct Left<T> {
    done: Result<Vec<f64>, Error>,
    reports: Vec<(usize, f64)>,
    steps: u64,
    numbers: [Vec<T>; 3],
}

fn fitted<T: Number>(case: &Case, data: &Data, isa: Isa, options: &Options<'_>) -> Left<T> {
    let (mut network, mut host) = (network::<T>(case, isa), onlooker());
    let y = data.y(&case.2);
    let done = fit(&mut network, &mut Workspace::new(), &data.x(), &y, options, &mut host);
    let numbers = [WEIGHTS, FIRST, SECOND].map(|index| network.arena.buffer(index).to_vec());
    Left { done, reports: host.reports, steps: network.progress.steps, numbers }
}

/// How many steps the first [`Run::steps`] of a fit makes.
fn made_at_once(case: &Case, data: &Data, isa: Isa, options: &Options<'_>) -> u64 {
    let (mut network, mut workspace) = (network::<f32>(case, isa), Workspace::new());
    network.prepare_state(options.optimizer.state_name(), options.optimizer.states()).unwrap();
    let (x, y) = (data.x(), data.y(&case.2));
    let run = Run::new(&mut network, &mut workspace, &x, &y, options, Task::UPDATES).unwrap();
    if !run.is_small() || !run.is_worth_writing(run.state()) {
        return 0;
    }
    let (host, steps) = (&mut onlooker(), AtomicU64::new(0));
    let host: Mutex<&mut dyn Host> = Mutex::new(host);
    threads::run(1, |team, worker| {
        let mut scratch = run.buffers.scratch.write(worker);
        run.steps(team, run.state(), &mut Some(Default::default()), &mut scratch, &mut Poller::new(), &host);
        steps.store(lock(&run.books).progress.steps, Ordering::Relaxed);
    })
    .unwrap();
    steps.into_inner()
}

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

#[test]
fn steps_made_again_have_the_bits_of_two_threads_steps() {
    for (case, isa) in cases().iter().chain([&STAINED]).flat_map(|case| isas().map(move |isa| (case, isa))) {
        // The last batch is shorter; all are alike; a batch is a row; a batch is everything.
        for (rows, batch, kind) in [(130, 32, ADAM), (96, 32, SGD), (9, 1, ADAM), (50, 50, ADAM)] {
            let data = Data::of(case, rows);
            let (alone, two) = (options(batch, kind, 1), options(batch, kind, 2));
            // Not `assert_eq`: the numbers are many.
            let same = fitted::<f32>(case, &data, isa, &alone) == fitted(case, &data, isa, &two);
            assert!(same, "float32, {case:?} {isa:?} {batch}");
            let same = fitted::<f64>(case, &data, isa, &alone) == fitted(case, &data, isa, &two);
            assert!(same, "float64, {case:?} {isa:?} {batch}");
        }
    }
}

#[test]
fn all_steps_that_are_alike_are_made_at_once() {
    let isa = Isa::choose().unwrap();
    for case in &cases() {
        let data = Data::of(case, 130);
        let made = |options: Options<'_>| made_at_once(case, &data, isa, &options);
        assert_eq!(made(options(26, ADAM, 1)), 20, "{case:?}");
        // A shorter batch ends the row.
        assert_eq!(made(options(32, ADAM, 1)), 4, "{case:?}");
        let stretch = Stretch { steps: Some(7), ..Stretch::WHOLE };
        assert_eq!(made(Options { stretch, ..options(26, ADAM, 1) }), 7, "{case:?}");
        // Decay at a rate of its own in each step is not alike.
        let rates = [0.01; 20];
        let optimizer = Optimizer { weight_decay: 0.1, ..options(26, ADAM, 1).optimizer };
        let stretch = Stretch { rates: Some(&rates), ..Stretch::WHOLE };
        assert_eq!(made(Options { optimizer, ..options(26, ADAM, 1) }), 20, "{case:?}");
        assert_eq!(made(Options { stretch, ..options(26, ADAM, 1) }), 20, "{case:?}");
        assert_eq!(made(Options { stretch, optimizer, ..options(26, ADAM, 1) }), 0, "{case:?}");
        // Nor are steps that are not plain ones.
        assert_eq!(made(options(26, ADAM, 2)), 0);
        assert_eq!(made(Options { clip_norm: 1.0, ..options(26, ADAM, 1) }), 0);
        assert_eq!(made(Options { average: Some(0.9), ..options(26, ADAM, 1) }), 0);
        assert_eq!(made(Options { penalty: Penalty { l2: 0.1, ..Penalty::default() }, ..options(26, ADAM, 1) }), 0);
        assert_eq!(made(Options { weights: Some(&[1.0; 130]), ..options(26, ADAM, 1) }), 0);
    }
    // The first step's calls are not all that it does.
    assert_eq!(made_at_once(&STAINED, &Data::of(&STAINED, 130), isa, &options(26, ADAM, 1)), 1);
}

#[test]
fn rates_decay_and_clipping_by_value_reach_steps_made_again() {
    let rates: Vec<f64> = (0..20).map(|step| 0.01 / (1.0 + step as f64)).collect();
    let case = &cases()[2];
    let data = Data::of(case, 130);
    for (isa, weight_decay) in isas().flat_map(|isa| [(isa, 0.0), (isa, 0.1)]) {
        let of = |threads| {
            let plain = options(26, ADAM, threads);
            let optimizer = Optimizer { weight_decay, ..plain.optimizer };
            let stretch = Stretch { rates: Some(&rates), ..Stretch::WHOLE };
            let scheduled = Options { optimizer, stretch, ..plain };
            let clipped = Options { optimizer, clip_value: 1e-3, ..plain };
            [scheduled, clipped].map(|options| fitted::<f32>(case, &data, isa, &options))
        };
        let (alone, two) = (of(1), of(2));
        assert!(alone == two, "{isa:?} {weight_decay}");
        assert!(alone[0] != alone[1]);
    }
}

#[test]
fn divergence_in_a_step_made_again_names_step_and_layer() {
    let case = &cases()[6];
    let data = Data::of(case, 96);
    let of = |threads| {
        let plain = options(32, SGD, threads);
        let optimizer = Optimizer { learning_rate: 1e13, ..plain.optimizer };
        fitted::<f32>(case, &data, Isa::choose().unwrap(), &Options { optimizer, ..plain })
    };
    let alone = of(1);
    assert!(matches!(alone.done, Err(Error::Divergence { step: 2.., .. })), "{:?}", alone.done);
    assert!(alone == of(2));
}

#[test]
fn a_host_that_stops_steps_made_again_finds_whole_steps() {
    let case = &cases()[0];
    let (data, isa) = (Data::of(case, 96), Isa::choose().unwrap());
    let endless = Options { epochs: usize::MAX, report_every: 0, ..options(32, ADAM, 1) };
    let mut stopped = network::<f32>(case, isa);
    let mut host = Onlooker { impatient: true, ..onlooker() };
    let done = fit(&mut stopped, &mut Workspace::new(), &data.x(), &data.y(&case.2), &endless, &mut host);
    assert_eq!(done, Err(Error::Interrupted));
    let steps = stopped.progress.steps;
    assert!(steps > 100, "{steps}");
    let stretch = Stretch { steps: Some(steps), ..Stretch::WHOLE };
    let again = fitted::<f32>(case, &data, isa, &Options { stretch, ..endless });
    assert_eq!(again.steps, steps);
    assert!(again.numbers[0] == stopped.arena.buffer(WEIGHTS));
}
