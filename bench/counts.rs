//! `counts LAYERS BATCH BATCHES LOSS CALLS`: so many calls of `fit`, for a program that counts instructions.
//!
//! `LAYERS` are widths such as `2-16-16-1`, `LOSS` one of cases.toml. A call makes one pass over `BATCHES` mini-batches on
//! one thread, with Adam. The counts of two numbers of calls differ by those of calls alone: starting the program and
//! making the data drop out. No Python and no clock takes part, so the same program gives the same counts.

mod nobody;

use lamella::activation::Activation;
use lamella::data::{Dense, Matrix};
use lamella::error::Error;
use lamella::isa::Isa;
use lamella::kernels::Loss;
use lamella::network::{LayerSpec, Network};
use lamella::step::TargetData;
use lamella::train::optimizer::{Kind, Moments, Optimizer};
use lamella::train::options::Options;
use lamella::train::penalty::Penalty;
use lamella::train::stretch::Stretch;
use lamella::train::trainer::{self, Workspace};
use ndarray::Array2;
use nobody::Nobody;

/// What the command line asks for.
struct Request {
    layers: Vec<usize>,
    batch: usize,
    batches: usize,
    loss: Loss,
    calls: usize,
}

impl Request {
    fn read(arguments: &[String]) -> Option<Self> {
        let [layers, batch, batches, loss, calls] = arguments else { return None };
        let loss = match loss.as_str() {
            "binary_cross_entropy" => Loss::BinaryCrossEntropy,
            "cross_entropy" => Loss::CrossEntropy,
            "squared_error" => Loss::SquaredError,
            _ => return None,
        };
        let layers: Vec<usize> = layers.split('-').map(|width| width.parse().ok()).collect::<Option<_>>()?;
        let (batch, batches, calls) = (batch.parse().ok()?, batches.parse().ok()?, calls.parse().ok()?);
        (layers.len() > 1).then_some(Request { layers, batch, batches, loss, calls })
    }
}

/// Numbers in [-1, 1) without structure.
fn number(i: usize, j: usize) -> f32 {
    let mixed = (i * 7919 + j * 104_729 + 17).wrapping_mul(2_654_435_761) >> 7;
    (mixed % 2000) as f32 / 1000.0 - 1.0
}

fn network(request: &Request) -> Result<Network<f32>, Error> {
    let output = match request.loss {
        Loss::BinaryCrossEntropy => Activation::Sigmoid,
        Loss::CrossEntropy => Activation::Softmax,
        _ => Activation::Identity,
    };
    let last = request.layers.len() - 2;
    let activation = |l: usize| if l == last { output } else { Activation::Relu };
    let specs: Vec<LayerSpec> =
        request.layers[1..].iter().enumerate().map(|(l, &units)| LayerSpec::plain(units, activation(l))).collect();
    let mut network = Network::new(request.layers[0], &specs, request.loss.clone(), Isa::choose()?)?;
    for l in 0..specs.len() {
        let scale = (2.0 / request.layers[l] as f32).sqrt();
        network.set_layer(l, |j, i| scale * number(j + l, i), |_| 0.0);
    }
    Ok(network)
}

fn train(request: &Request) -> Result<f64, Error> {
    let mut network = network(request)?;
    let (rows, outputs) = (request.batch * request.batches, network.outputs());
    let x = Array2::from_shape_fn((rows, network.features()), |(i, j)| number(i, j));
    let values = Array2::from_shape_fn((rows, outputs), |(i, j)| match request.loss {
        Loss::SquaredError => number(j, i),
        _ => f32::from(i % 2 == 0),
    });
    let classes: Vec<u32> = (0..rows).map(|i| (i % outputs) as u32).collect();
    let y = match request.loss {
        Loss::CrossEntropy => TargetData::Classes(&classes),
        _ => TargetData::Dense(Matrix::Dense(Dense::F32(values.view()))),
    };
    let options = Options {
        epochs: 1,
        batch_size: request.batch,
        optimizer: Optimizer {
            learning_rate: 1e-3,
            weight_decay: 0.0,
            kind: Kind::Adam { moments: Moments { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }, amsgrad: false },
        },
        penalty: Penalty::default(),
        clip_value: f64::INFINITY,
        clip_norm: f64::INFINITY,
        average: None,
        muon: None,
        loss_scale: 1.0,
        weights: None,
        rows: None,
        shuffle: false,
        seed: 0,
        threads: Some(1),
        report_every: 0,
        stretch: Stretch::WHOLE,
    };
    let mut workspace = Workspace::new();
    let mut loss = f64::NAN;
    for _ in 0..request.calls {
        let x = Matrix::Dense(Dense::F32(x.view()));
        loss = trainer::fit(&mut network, &mut workspace, &x, &y, &options, &mut Nobody)?[0];
    }
    Ok(loss)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(request) = Request::read(&arguments) else {
        eprintln!("usage: counts LAYERS BATCH BATCHES LOSS CALLS");
        std::process::exit(2);
    };
    match train(&request) {
        Ok(loss) => println!("{loss}"),
        Err(error) => {
            eprintln!("counts: {error}");
            std::process::exit(1);
        }
    }
}
