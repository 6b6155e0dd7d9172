//! Scripts make the calls that were written down, own what these touch, and refuse what is not all or not theirs.

use super::*;
use crate::activation::Activation;
use crate::isa::Isa;
use crate::panel::Panels;
use arrayvec::ArrayVec;

const ROWS: usize = 3;
const RELU: Function = Function::Activate(Activation::Relu);

/// What a memory is made of.
struct Owned {
    input: Panels<f32>,
    dense: Vec<f32>,
    classes: Vec<u32>,
    losses: Vec<f32>,
    other: Vec<f32>,
}

impl Owned {
    fn new(kernels: &dyn Kernels<f32>) -> Self {
        let input = Panels::zeroed(ROWS, 2, kernels.geometry(), "test").unwrap();
        Owned { input, dense: vec![0.0; 4], classes: vec![0; ROWS], losses: vec![0.0; ROWS], other: vec![0.0; 64] }
    }
    fn memory(&mut self) -> Memory<'_, f32> {
        let Owned { input, dense, classes, losses, other } = self;
        Memory { input: input.view_mut(), dense, classes, losses, others: ArrayVec::from_iter([&mut other[..]]) }
    }
}

fn kernels() -> &'static dyn Kernels<f32> {
    f32::kernels(Isa::choose().unwrap())
}

/// What `samples` and `weights` call.
fn written(
    samples: impl FnOnce(&dyn StepKernels<f32>),
    weights: impl FnOnce(&dyn StepKernels<f32>),
) -> [Calls<f32>; 2] {
    let mut calls = [Calls::new(), Calls::new()];
    samples(&Recorder::new(kernels(), &mut calls[0]));
    weights(&Recorder::new(kernels(), &mut calls[1]));
    calls
}

#[test]
fn calls_are_made_as_they_are_written_down_and_again() {
    let mut owned = Owned::new(kernels());
    let (all, rate) = (16, 0.5);
    let rule = |rate| Rule::Descent { rate };
    let Owned { input, other, .. } = &mut owned;
    let (weights, gradient) = other.split_at_mut(32);
    let calls = written(
        |kernels| kernels.map(RELU, input.data_mut()),
        |kernels| {
            kernels.update(&mut Update {
                rule: rule(rate),
                shrink: Shrink::NONE,
                weights: &mut weights[..all],
                gradient: &gradient[..all],
                first: &mut [],
                second: &mut [],
                third: &mut [],
            });
        },
    );
    owned.other[32..].fill(2.0);
    let mut script = Script::new(kernels(), &calls, &Loss::SquaredError, owned.memory()).unwrap();
    script.input().data_mut().fill(-3.0);
    script.targets().0.fill(7.0);
    script.targets().1.fill(8);
    script.pass();
    assert_eq!(script.losses(), [0.0; ROWS]);
    script.learn(rule(0.25));
    script.learn(rule(1.0));
    assert!(script.input().data_mut().iter().all(|&x| x == 0.0));
    assert_eq!((&owned.dense[..], &owned.classes[..]), (&[7.0; 4][..], &[8; ROWS][..]));
    assert_eq!(owned.other[..all], [-2.5; 16], "rates are those given, not those written down");
    assert_eq!(owned.other[all..32], [0.0; 16]);
}

#[test]
fn calls_on_other_memory_are_refused() {
    let mut owned = Owned::new(kernels());
    let mut foreign = vec![0.0f32; 40];
    let calls = written(|kernels| kernels.map(RELU, &mut foreign), |_| {});
    assert!(Script::new(kernels(), &calls, &Loss::SquaredError, owned.memory()).is_none());
    // Partly outside.
    let calls = written(|kernels| kernels.map(RELU, &mut owned.other), |_| {});
    let Owned { input, dense, classes, losses, other } = &mut owned;
    let others = ArrayVec::from_iter([&mut other[1..]]);
    let less = Memory { input: input.view_mut(), dense, classes, losses, others };
    assert!(Script::new(kernels(), &calls, &Loss::SquaredError, less).is_none());
    // All of it, in the second part.
    let [samples, weights] = written(|_| {}, |kernels| kernels.map(RELU, &mut owned.other));
    assert!(Script::new(kernels(), &[samples, weights], &Loss::SquaredError, owned.memory()).is_some());
    // Classes that are not the memory's.
    let strange = [0u32; ROWS];
    let mut scratch = vec![0.0; loss_rows::scratch(kernels().geometry(), 2)];
    let Owned { input, losses, .. } = &mut owned;
    let calls = written(
        |kernels| {
            kernels.loss(&mut LossRows {
                loss: &Loss::CrossEntropy,
                logits: input.view_mut(),
                targets: Targets::Classes(&strange),
                scale: 1.0,
                gradient_scale: GradientScale::Same(1.0),
                losses,
                scratch: &mut scratch,
            });
        },
        |_| {},
    );
    let Owned { input, dense, classes, losses, .. } = &mut owned;
    let others = ArrayVec::from_iter([&mut scratch[..]]);
    let memory = Memory { input: input.view_mut(), dense, classes, losses, others };
    assert!(Script::new(kernels(), &calls, &Loss::CrossEntropy, memory).is_none());
}

#[test]
fn calls_that_are_not_all_are_refused() {
    let mut owned = Owned::new(kernels());
    // Padding is cleared behind a sigmoid by its caller.
    let sigmoid = Function::Activate(Activation::Sigmoid);
    let calls = written(|kernels| kernels.map(sigmoid, &mut owned.other), |_| {});
    assert!(Script::new(kernels(), &calls, &Loss::SquaredError, owned.memory()).is_none());
    // A gradient of several groups, and one of several slices.
    let Owned { input, other, .. } = &mut owned;
    let (a, width) = (input.view(), kernels().geometry().lanes);
    let pair = Pair { a, b: a, opens: true, nonzeros: None, turned: false };
    let written = |pairs: &[Pair<'_, f32>], goes_on| {
        let c = &mut other[..width];
        written(|_| {}, |kernels| kernels.bias_gradient(&mut BiasGradient { pairs, panel: 0, goes_on, c }))
    };
    let calls = [(&[pair][..], false), (&[pair], true), (&[pair, pair], false)].map({
        let mut written = written;
        move |(pairs, goes_on)| written(pairs, goes_on)
    });
    let refused = calls.map(|calls| Script::new(kernels(), &calls, &Loss::SquaredError, owned.memory()).is_none());
    assert_eq!(refused, [false, true, true]);
}
