//! A step in mixed precision, in plain Rust, against loops over plain matrices, with layers of few units among others; and small jobs
//! against their blocks one by one.

use super::amend::Amend;
use super::gradient::{Group, job, scratch};
use super::run::Finishing;
use super::weights::Weights;
use super::{Draw, Role, Slice, backward, forward};
use crate::activation::Activation;
use crate::data::{Dense, Matrix, Selection};
use crate::isa::Isa;
use crate::isa::bf16::{pair, parts};
use crate::kernels::{Loss, Rule, Shrink, TILE_SAMPLES};
use crate::network::{FIRST, Form, GRADIENT, LayerSpec, MIRROR, Network, PAIRS, SECOND, WEIGHTS};
use crate::panel::Parts;
use crate::plan;
use ndarray::Array2;

fn number(i: usize, j: usize, salt: usize) -> f32 {
    let mixed = (i * 7919 + j * 104_729 + salt * 1_299_709).wrapping_mul(2_654_435_761) >> 7;
    (mixed % 2003) as f32 / 1000.0 - 1.0
}

fn round(x: f32) -> f64 {
    f64::from(parts(pair(x, 0.0))[0])
}

fn weight(l: usize, inputs: usize) -> impl Fn(usize, usize) -> f32 {
    move |j, i| number(j, i, l) * (2.0 / inputs as f32).sqrt()
}

/// Which kernels a network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Those of an instruction set.
    Full(Isa),
    /// Of mixed precision, in plain Rust.
    Pairs,
    /// The same, with tiles.
    Tiles,
}

/// The kinds of mixed precision, of which tiles need vectors of 16 lanes beside them.
fn mixed() -> Vec<Kind> {
    match Isa::Avx512.is_available() {
        true => vec![Kind::Pairs, Kind::Tiles],
        false => {
            println!("AVX-512: not on this CPU, tiles skipped");
            vec![Kind::Pairs]
        }
    }
}

fn network_on(dims: &[usize], kind: Kind) -> Network<f32> {
    let last = dims.len() - 2;
    let activation = |l: usize| if l == last { Activation::Identity } else { Activation::Relu };
    let specs: Vec<LayerSpec> = (0..=last).map(|l| LayerSpec::plain(dims[l + 1], activation(l))).collect();
    let mut network = match kind {
        Kind::Pairs => Network::<f32>::mixed_in_plain_rust(dims[0], &specs, Loss::SquaredError),
        Kind::Tiles => Network::<f32>::mixed_in_plain_tiles(dims[0], &specs, Loss::SquaredError).unwrap(),
        Kind::Full(isa) => Network::new(dims[0], &specs, Loss::SquaredError, isa).unwrap(),
    };
    (0..=last).for_each(|l| network.set_layer(l, weight(l, dims[l]), |j| number(j, 3, l + 50)));
    network
}

/// A slice after forward and backward from a given dZ of the last layer.
fn passed(network: &Network<f32>, rows: usize) -> Slice<f32> {
    let x = Array2::from_shape_fn((rows, network.features()), |(r, i)| number(r, i, 90));
    let before = Array2::from_shape_fn((rows + 2, network.features()), |(r, i)| number(r, i, 92));
    let delta: Vec<f32> =
        (0..rows * network.outputs()).map(|n| number(n / network.outputs(), n % network.outputs(), 91)).collect();
    let mut slice = Slice::new(network, rows + 2, Role::Learns).unwrap();
    // Of rows that were there before nothing is left.
    slice.gather(network, &Matrix::Dense(Dense::F32(before.view())), Selection::From(0), rows + 2);
    slice.gather(network, &Matrix::Dense(Dense::F32(x.view())), Selection::From(0), rows);
    slice.trains(0, Draw { seed: 0, step: 1 });
    let reading = network.arena.read();
    forward::forward(network, Weights::of(&reading, network.kernels), &mut slice);
    slice.set_delta(&delta, |_| 1.0);
    backward::backward(network, Weights::of(&reading, network.kernels), &mut slice);
    slice
}

/// Every layer's gradient `(outputs, inputs + 1)` by plain loops in f64; the last column is the biases'.
fn oracle(network: &Network<f32>, dims: &[usize], rows: usize) -> Vec<Array2<f64>> {
    let layers = dims.len() - 1;
    let mut units = vec![Array2::from_shape_fn((rows, dims[0]), |(r, i)| number(r, i, 90))];
    for l in 0..layers - 1 {
        let w = weight(l, dims[l]);
        let sum = |r: usize, j: usize| (0..dims[l]).map(|i| round(w(j, i)) * round(units[l][[r, i]])).sum::<f64>();
        let unit = |(r, j)| (sum(r, j) as f32 + number(j, 3, l + 50)).max(0.0);
        units.push(Array2::from_shape_fn((rows, dims[l + 1]), unit));
    }
    let mut delta = Array2::from_shape_fn((rows, network.outputs()), |(r, j)| number(r, j, 91));
    let mut gradients = Vec::new();
    for l in (0..layers).rev() {
        let below = |r: usize, i: usize| if i < dims[l] { round(units[l][[r, i]]) } else { 1.0 };
        let of = |(j, i)| (0..rows).map(|r| round(delta[[r, j]]) * below(r, i)).sum::<f64>();
        gradients.insert(0, Array2::from_shape_fn((dims[l + 1], dims[l] + 1), of));
        let w = weight(l, dims[l]);
        delta = Array2::from_shape_fn((rows, dims[l]), |(r, i)| {
            let back: f64 = (0..dims[l + 1]).map(|j| round(w(j, i)) * round(delta[[r, j]])).sum();
            if units[l][[r, i]] > 0.0 { back as f32 } else { 0.0 }
        });
    }
    gradients
}

fn run_jobs(
    network: &Network<f32>,
    slices: &Parts<Slice<f32>>,
    rule: Option<Rule<f32>>,
    shrink: Shrink<f32>,
    besides: Option<&Amend<'_, f32>>,
) {
    let reading = slices.read();
    let group = Group { kernels: network.kernels, slices: &reading, used: 1, per_segment: 1 };
    let how = Finishing { goes_on: false, rule, shrink, shrink_biases: shrink };
    let mut room = vec![f32::NAN; scratch(network)];
    (0..network.jobs.len()).for_each(|index| job(network, index, &group, how, besides, &mut room));
}

/// Sizes whose layers have few units, all but the second; odd numbers of them and of inputs.
const NARROW: [usize; 5] = [131, 5, 401, 19, 1];

#[test]
fn gradients_equal_plain_loops_over_rounded_numbers() {
    let sizes = [(&NARROW[..], 13), (&NARROW, 1), (&[40, 9, 12], 6), (&[2100, 33, 130, 2], 5), (&[50, 70, 12], 45)];
    for (kind, (dims, rows)) in mixed().into_iter().flat_map(|kind| sizes.map(|size| (kind, size))) {
        let mut network = network_on(dims, kind);
        network.arena.materialise(GRADIENT, WEIGHTS, "test").unwrap();
        let slices = Parts::new(vec![passed(&network, rows)]);
        run_jobs(&network, &slices, None, Shrink::NONE, None);
        for (l, wanted) in oracle(&network, dims, rows).iter().enumerate() {
            let (weights, biases) = network.get_layer(l, GRADIENT);
            let largest = wanted.iter().fold(0.0f64, |most, x| most.max(x.abs()));
            for ((j, i), wanted) in wanted.indexed_iter() {
                let got = if i < dims[l] { weights[j * dims[l] + i] } else { biases[j] };
                // A sum that is rounded another way may become a neighbouring bfloat16 number, 2^-8 apart: this holds the terms of
                // each sum to their places, and the kernels' tests their bits.
                let close = (f64::from(got) - wanted).abs() <= 2e-3 * largest;
                assert!(close, "{kind:?} {dims:?}, layer {l}: ({j}, {i}) is {got}, not {wanted}");
            }
        }
    }
}

#[test]
fn layers_of_few_units_have_inputs_as_lanes() {
    let network = network_on(&NARROW, Kind::Pairs);
    let forms: Vec<Form> = network.layers.iter().map(|layer| layer.form).collect();
    assert_eq!(forms, [Form::Narrow, Form::Wide, Form::Narrow, Form::Narrow]);
    assert!(network.layers.iter().all(|layer| layer.dots == (layer.form == Form::Narrow)));
}

#[test]
fn tiles_leave_few_layers_inputs_as_lanes() {
    for kind in mixed().into_iter().filter(|&kind| kind == Kind::Tiles) {
        let forms: Vec<Form> = network_on(&NARROW, kind).layers.iter().map(|layer| layer.form).collect();
        assert_eq!(forms, [Form::Wide, Form::Wide, Form::Wide, Form::Narrow]);
    }
}

#[test]
fn tiles_begin_slices_at_multiples_of_their_samples() {
    for kind in mixed() {
        let network = network_on(&[20, 30, 3], kind);
        for (rows, threads) in [(128, 2), (200, 2), (200, 3), (77, 5), (1000, 7), (5000, 2), (33, 2)] {
            let slice = plan::training(&network, rows, 10.0, Some(threads)).slice_rows;
            let unit = if kind == Kind::Tiles { TILE_SAMPLES } else { 2 };
            assert!(slice.is_multiple_of(unit), "{kind:?}: {slice} of {rows} rows for {threads}");
        }
    }
}

#[test]
fn an_update_leaves_the_pairs_that_its_weights_would_be_given() {
    let sizes = [&NARROW[..], &[40, 9, 12], &[2100, 33, 130, 2]];
    for (kind, dims) in mixed().into_iter().flat_map(|kind| sizes.map(|dims| (kind, dims))) {
        let mut network = network_on(dims, kind);
        let slices = Parts::new(vec![passed(&network, 7)]);
        run_jobs(&network, &slices, Some(Rule::Descent { rate: 0.25 }), Shrink::NONE, None);
        let copies = |network: &mut Network<f32>| {
            [MIRROR, PAIRS].map(|buffer| network.arena.buffer(buffer).iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        };
        let left = copies(&mut network);
        for l in 0..network.layers.len() {
            let (weights, biases) = network.get_layer(l, WEIGHTS);
            let given = weight(l, dims[l]);
            let updated = weights.iter().enumerate().any(|(n, &w)| w != given(n / dims[l], n % dims[l]));
            assert!(updated, "layer {l} was updated");
            network.set_layer(l, |j, i| weights[j * dims[l] + i], |j| biases[j]);
        }
        assert_eq!(left, copies(&mut network), "{kind:?} {dims:?}");
    }
}

#[test]
fn small_jobs_get_the_bits_of_their_blocks_one_by_one() {
    let rule = Rule::Adam {
        step: 0.01,
        scale: 1.5,
        beta1_rest: 0.1,
        beta2: 0.999,
        beta2_rest: 0.001,
        epsilon: 1e-8,
        greatest: false,
    };
    let shrink = Shrink { l2: 0.01, keep: 0.99, ..Shrink::NONE };
    let sets = Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(Kind::Full);
    for kind in sets.chain(mixed()) {
        for dims in [&NARROW[..], &[20, 40, 1], &[2, 16, 16, 1]] {
            let bits = |besides: Option<&Amend<'_, f32>>| {
                let mut network = network_on(dims, kind);
                network.prepare_state("adam", 2).unwrap();
                let slices = Parts::new(vec![passed(&network, 7)]);
                (0..2).for_each(|_| run_jobs(&network, &slices, Some(rule), shrink, besides));
                [WEIGHTS, MIRROR, PAIRS, FIRST, SECOND]
                    .map(|buffer| network.arena.buffer(buffer).iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            };
            assert!(network_on(dims, kind).jobs.iter().any(|job| job.together), "{kind:?} {dims:?}");
            assert!(bits(None) == bits(Some(&Amend::nothing())), "{kind:?} {dims:?}");
        }
    }
}
