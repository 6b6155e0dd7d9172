//! The kernel calls of a plain step, written down while one is made, and made again in later ones.
//!
//! In a small network working out what each kernel is to read and write takes about as long as some of the kernels. Where one
//! thread takes one slice of always as many rows through a network, these are the same places in memory in every step: a
//! [`Recorder`] writes them down, and a [`Script`] makes the same calls again. The rule, whose constants change, is given anew.
//!
//! A script owns, for as long as it lives, all memory that its calls touch: it is made of exclusive borrows, and refuses
//! calls that touch anything else.

use super::{
    BiasGradient, Dots, Finish, Function, Gradient, GradientScale, Loss, LossRows, Math, Mirror, Pair, Product, Rule,
    Shrink, Start, StepKernels, Targets, Update,
};
use crate::activation::Activation;
use crate::panel::{Geometry, PanelsMut, PanelsRef};
use arrayvec::ArrayVec;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use std::sync::{Mutex, PoisonError};

/// Where numbers stand.
#[derive(Clone, Copy)]
struct Span {
    address: usize,
    len: usize,
}

impl Span {
    fn of<U>(numbers: &[U]) -> Self {
        Span { address: numbers.as_ptr().addr(), len: numbers.len() }
    }

    fn bytes<U>(self) -> Range<usize> {
        self.address..self.address + self.len * size_of::<U>()
    }

    /// # Safety
    /// They lie in memory that the script borrows, whose pointer was exposed, and nobody writes them meanwhile.
    unsafe fn read<'s, U>(self) -> &'s [U] {
        // SAFETY: as above; an empty slice's address is not null and aligned, as it was a slice's.
        unsafe { std::slice::from_raw_parts(with_exposed_provenance(self.address), self.len) }
    }

    /// # Safety
    /// As for [`Span::read`], and nobody reads them meanwhile.
    unsafe fn write<'s, U>(self) -> &'s mut [U] {
        // SAFETY: as for `read`.
        unsafe { std::slice::from_raw_parts_mut(with_exposed_provenance_mut(self.address), self.len) }
    }
}

/// A matrix in panels.
#[derive(Clone, Copy)]
struct Matrix {
    span: Span,
    rows: usize,
    lanes: usize,
    geometry: Geometry,
}

impl Matrix {
    fn of<T>(matrix: PanelsRef<'_, T>) -> Self {
        let (rows, lanes, geometry) = (matrix.rows(), matrix.lanes(), matrix.geometry());
        Matrix { span: Span::of(matrix.data()), rows, lanes, geometry }
    }

    /// # Safety
    /// As for [`Span::read`].
    unsafe fn read<'s, T>(self) -> PanelsRef<'s, T> {
        // SAFETY: the caller's promise.
        PanelsRef::new(unsafe { self.span.read() }, self.rows, self.lanes, self.geometry)
    }

    /// # Safety
    /// As for [`Span::write`].
    unsafe fn write<'s, T>(self) -> PanelsMut<'s, T> {
        // SAFETY: the caller's promise.
        PanelsMut::new(unsafe { self.span.write() }, self.rows, self.lanes, self.geometry)
    }
}

/// What a sum's result is multiplied by or goes through.
#[derive(Clone, Copy)]
enum End {
    Apply(Activation),
    Times(Activation, Span),
    By(Span),
}

/// A kernel's operands, as the structures of the same names have them.
enum Call<T> {
    Product {
        a: Matrix,
        b: Span,
        b_stride: usize,
        depth: Range<usize>,
        start: Option<Span>,
        end: End,
        totals: Span,
        c: Span,
        width: usize,
        lanes: usize,
    },
    Dots {
        a: Matrix,
        b: Matrix,
        bias: Span,
        scratch: Span,
        c: Matrix,
    },
    Map(Function, Span),
    Loss {
        logits: Matrix,
        targets: Span,
        classes: bool,
        scale: T,
        gradient_scale: T,
        losses: Span,
        scratch: Span,
    },
    Gradient {
        a: Matrix,
        b: Matrix,
        row_panels: Range<usize>,
        lane_panels: Range<usize>,
        bias: bool,
        c: Span,
    },
    BiasGradient {
        a: Matrix,
        panel: usize,
        c: Span,
    },
    Update {
        shrink: Shrink<T>,
        weights: Span,
        gradient: Span,
        states: [Span; 3],
    },
    Mirror {
        weights: Span,
        rows: usize,
        width: usize,
        mirror: Span,
        mirror_width: usize,
    },
}

impl<T> Call<T> {
    /// Where the numbers of type T stand that it reads or writes.
    fn spans(&self) -> ArrayVec<Span, 6> {
        match self {
            Call::Product { a, b, start, end, totals, c, .. } => {
                let of = if let End::Times(_, of) | End::By(of) = end { Some(*of) } else { None };
                [a.span, *b, *totals, *c].into_iter().chain(*start).chain(of).collect()
            }
            Call::Dots { a, b, bias, scratch, c } => [a.span, b.span, *bias, *scratch, c.span].into_iter().collect(),
            Call::Map(_, x) => [*x].into_iter().collect(),
            Call::Loss { logits, targets, classes, losses, scratch, .. } => {
                let numbers = if *classes { None } else { Some(*targets) };
                [logits.span, *losses, *scratch].into_iter().chain(numbers).collect()
            }
            Call::Gradient { a, b, c, .. } => [a.span, b.span, *c].into_iter().collect(),
            Call::BiasGradient { a, c, .. } => [a.span, *c].into_iter().collect(),
            Call::Update { weights, gradient, states, .. } => {
                [*weights, *gradient].into_iter().chain(*states).collect()
            }
            Call::Mirror { weights, mirror, .. } => [*weights, *mirror].into_iter().collect(),
        }
    }
}

/// Calls that were written down, in their order.
pub struct Calls<T> {
    calls: Vec<Call<T>>,
    /// Whether all that were made are there.
    complete: bool,
}

impl<T> Calls<T> {
    /// None.
    pub fn new() -> Self {
        Calls { calls: Vec::new(), complete: true }
    }
}

impl<T> Default for Calls<T> {
    fn default() -> Self {
        Calls::new()
    }
}

/// Makes a step's calls and writes them down.
pub struct Recorder<'k, T> {
    kernels: &'k dyn StepKernels<T>,
    calls: Mutex<&'k mut Calls<T>>,
}

impl<'k, T: Math> Recorder<'k, T> {
    /// Forgets what stands in `calls`; `kernels` make the calls.
    pub fn new(kernels: &'k dyn StepKernels<T>, calls: &'k mut Calls<T>) -> Self {
        calls.calls.clear();
        calls.complete = true;
        Recorder { kernels, calls: Mutex::new(calls) }
    }

    fn note(&self, call: Option<Call<T>>) {
        let calls = &mut **self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        match call {
            Some(call) => calls.calls.push(call),
            None => calls.complete = false,
        }
    }
}

impl<T: Math> StepKernels<T> for Recorder<'_, T> {
    fn product(&self, product: &mut Product<'_, T>) {
        let Product { a, b, b_stride, depth, start, finish, totals, c, width, lanes } = &*product;
        let start = match start {
            Start::Zero => None,
            Start::Lanes(bias) => Some(Span::of(bias)),
        };
        let end = match *finish {
            Finish::Apply(activation) => End::Apply(activation),
            Finish::Times(activation, of) => End::Times(activation, Span::of(of)),
            Finish::By(of) => End::By(Span::of(of)),
        };
        self.note(Some(Call::Product {
            a: Matrix::of(*a),
            b: Span::of(b),
            b_stride: *b_stride,
            depth: depth.clone(),
            start,
            end,
            totals: Span::of(totals),
            c: Span::of(c),
            width: *width,
            lanes: *lanes,
        }));
        self.kernels.product(product);
    }

    fn gradient(&self, gradient: &mut Gradient<'_, T>) {
        let Gradient { pairs, row_panels, lane_panels, goes_on, bias, c } = &*gradient;
        self.note(match pairs {
            [Pair { a, b, opens: true, nonzeros: None, turned: false }] if !goes_on => Some(Call::Gradient {
                a: Matrix::of(*a),
                b: Matrix::of(*b),
                row_panels: row_panels.clone(),
                lane_panels: lane_panels.clone(),
                bias: *bias,
                c: Span::of(c),
            }),
            _ => None,
        });
        self.kernels.gradient(gradient);
    }

    fn bias_gradient(&self, gradient: &mut BiasGradient<'_, T>) {
        let BiasGradient { pairs, panel, goes_on, c } = &*gradient;
        self.note(match pairs {
            [Pair { a, opens: true, .. }] if !goes_on => {
                Some(Call::BiasGradient { a: Matrix::of(*a), panel: *panel, c: Span::of(c) })
            }
            _ => None,
        });
        self.kernels.bias_gradient(gradient);
    }

    fn dots(&self, dots: &mut Dots<'_, T>) {
        let Dots { a, b, bias, scratch, c } = &*dots;
        let (bias, scratch) = (Span::of(bias), Span::of(scratch));
        self.note(Some(Call::Dots { a: Matrix::of(*a), b: Matrix::of(*b), bias, scratch, c: Matrix::of(c.view()) }));
        self.kernels.dots(dots);
    }

    fn update(&self, update: &mut Update<'_, T>) {
        let Update { rule: _, shrink, weights, gradient, first, second, third } = &*update;
        self.note(Some(Call::Update {
            shrink: *shrink,
            weights: Span::of(weights),
            gradient: Span::of(gradient),
            states: [Span::of(first), Span::of(second), Span::of(third)],
        }));
        self.kernels.update(update);
    }

    fn mirror(&self, mirror: &mut Mirror<'_, T>) {
        let Mirror { weights, rows, width, mirror: into, mirror_width } = &*mirror;
        self.note(Some(Call::Mirror {
            weights: Span::of(weights),
            rows: *rows,
            width: *width,
            mirror: Span::of(into),
            mirror_width: *mirror_width,
        }));
        self.kernels.mirror(mirror);
    }

    fn loss(&self, loss: &mut LossRows<'_, T>) {
        let LossRows { loss: _, logits, targets, scale, gradient_scale, losses, scratch } = &*loss;
        let (targets, classes) = match targets {
            Targets::Dense(values) => (Span::of(values), false),
            Targets::Classes(classes) => (Span::of(classes), true),
        };
        self.note(match *gradient_scale {
            GradientScale::Same(gradient_scale) => Some(Call::Loss {
                logits: Matrix::of(logits.view()),
                targets,
                classes,
                scale: *scale,
                gradient_scale,
                losses: Span::of(losses),
                scratch: Span::of(scratch),
            }),
            GradientScale::Rows(_) => None,
        });
        self.kernels.loss(loss);
    }

    fn map(&self, function: Function, x: &mut [T]) {
        // Its caller clears the padding behind it, which is no kernel's call.
        let stains = matches!(function, Function::Activate(activation) if activation.stains_padding());
        self.note((!stains).then(|| Call::Map(function, Span::of(x))));
        self.kernels.map(function, x);
    }
}

/// Slices besides, of which a layer has two: a network that needs more is not a small one.
pub const MOST_SLICES: usize = 64;

/// All memory that a step's calls touch.
pub struct Memory<'a, T> {
    /// A[0]
    pub input: PanelsMut<'a, T>,
    /// Targets, `[rows][outputs]`, or nothing.
    pub dense: &'a mut [T],
    /// Targets that are classes.
    pub classes: &'a mut [u32],
    /// Each row's loss.
    pub losses: &'a mut [T],
    /// Everything else.
    pub others: ArrayVec<&'a mut [T], MOST_SLICES>,
}

/// A step's calls, to be made again.
pub struct Script<'a, T> {
    kernels: &'a dyn StepKernels<T>,
    loss: &'a Loss,
    samples: &'a [Call<T>],
    weights: &'a [Call<T>],
    input: Matrix,
    dense: Span,
    classes: Span,
    losses: Span,
    memory: PhantomData<(&'a mut [T], &'a mut [u32])>,
}

impl<'a, T: Math> Script<'a, T> {
    /// Of what was written down of the samples' way and of the weights' update. `None` where that is not all, or some of it is
    /// outside of `memory`.
    pub fn new(
        kernels: &'a dyn StepKernels<T>,
        [samples, weights]: &'a [Calls<T>; 2],
        loss: &'a Loss,
        memory: Memory<'a, T>,
    ) -> Option<Self> {
        if !samples.complete || !weights.complete {
            return None;
        }
        let (samples, weights) = (&samples.calls[..], &weights.calls[..]);
        let Memory { input, dense, classes, losses, others } = memory;
        let (rows, lanes, geometry) = (input.rows(), input.lanes(), input.geometry());
        // Exposed: the calls reach the numbers by their addresses from now on.
        let expose = |numbers: &'a mut [T]| {
            let (len, start) = (numbers.len(), numbers.as_mut_ptr());
            Span { address: start.expose_provenance(), len }
        };
        let input = Matrix { span: expose(input.into_data()), rows, lanes, geometry };
        let (dense, losses) = (expose(dense), expose(losses));
        let classes = Span { len: classes.len(), address: classes.as_mut_ptr().expose_provenance() };
        let owned: ArrayVec<Range<usize>, { MOST_SLICES + 3 }> = [input.span, dense, losses]
            .into_iter()
            .chain(others.into_iter().map(expose))
            .map(Span::bytes::<T>)
            .collect();
        let within = |bytes: &Range<usize>, span: Range<usize>| bytes.start <= span.start && span.end <= bytes.end;
        let is_owned = |span: Span| span.len == 0 || owned.iter().any(|bytes| within(bytes, span.bytes::<T>()));
        let all_owned = samples.iter().chain(weights).all(|call: &Call<T>| {
            let classes_owned = match call {
                Call::Loss { targets, classes: true, .. } => within(&classes.bytes::<u32>(), targets.bytes::<u32>()),
                _ => true,
            };
            classes_owned && call.spans().into_iter().all(is_owned)
        });
        let memory = PhantomData;
        all_owned.then_some(Script { kernels, loss, samples, weights, input, dense, classes, losses, memory })
    }

    /// A[0], to be written.
    pub fn input(&mut self) -> PanelsMut<'_, T> {
        // SAFETY: it is memory that the script borrows, and `&mut self` binds the view to this one call.
        unsafe { self.input.write() }
    }

    /// The targets, to be written: numbers, and classes.
    pub fn targets(&mut self) -> (&mut [T], &mut [u32]) {
        // SAFETY: as for `input`; they are borrows of their own, so they do not overlap.
        unsafe { (self.dense.write(), self.classes.write()) }
    }

    /// Each row's loss.
    pub fn losses(&self) -> &[T] {
        // SAFETY: it is memory that the script borrows, which only `&mut self` writes.
        unsafe { self.losses.read() }
    }

    /// The samples' way: forward, loss, backward.
    pub fn pass(&mut self) {
        self.samples.iter().for_each(|call| self.make(call, None));
    }

    /// Gradient, update by the rule, and the weights' other forms.
    pub fn learn(&mut self, rule: Rule<T>) {
        self.weights.iter().for_each(|call| self.make(call, Some(rule)));
    }

    fn make(&self, call: &Call<T>, rule: Option<Rule<T>>) {
        let kernels = self.kernels;
        // SAFETY: `new` saw to it that every span lies in memory that the script borrows and whose pointers it exposed, aligned as
        // it was when the call was written down. What a call writes was an exclusive slice beside the others then, so that
        // none of its spans overlaps it; and no other reference lives, since only one call is made at a time, by a method that has
        // the script for itself.
        unsafe {
            match call {
                Call::Product { a, b, b_stride, depth, start, end, totals, c, width, lanes } => {
                    kernels.product(&mut Product {
                        a: a.read(),
                        b: b.read(),
                        b_stride: *b_stride,
                        depth: depth.clone(),
                        start: start.map_or(Start::Zero, |bias| Start::Lanes(bias.read())),
                        finish: match *end {
                            End::Apply(activation) => Finish::Apply(activation),
                            End::Times(activation, of) => Finish::Times(activation, of.read()),
                            End::By(of) => Finish::By(of.read()),
                        },
                        totals: totals.write(),
                        c: c.write(),
                        width: *width,
                        lanes: *lanes,
                    })
                }
                Call::Dots { a, b, bias, scratch, c } => kernels.dots(&mut Dots {
                    a: a.read(),
                    b: b.read(),
                    bias: bias.read(),
                    scratch: scratch.write(),
                    c: c.write(),
                }),
                Call::Map(function, x) => kernels.map(*function, x.write()),
                Call::Loss { logits, targets, classes, scale, gradient_scale, losses, scratch } => {
                    kernels.loss(&mut LossRows {
                        loss: self.loss,
                        logits: logits.write(),
                        targets: match classes {
                            true => Targets::Classes(targets.read()),
                            false => Targets::Dense(targets.read()),
                        },
                        scale: *scale,
                        gradient_scale: GradientScale::Same(*gradient_scale),
                        losses: losses.write(),
                        scratch: scratch.write(),
                    })
                }
                Call::Gradient { a, b, row_panels, lane_panels, bias, c } => kernels.gradient(&mut Gradient {
                    pairs: &[Pair { a: a.read(), b: b.read(), opens: true, nonzeros: None, turned: false }],
                    row_panels: row_panels.clone(),
                    lane_panels: lane_panels.clone(),
                    goes_on: false,
                    bias: *bias,
                    c: c.write(),
                }),
                Call::BiasGradient { a, panel, c } => kernels.bias_gradient(&mut BiasGradient {
                    pairs: &[Pair { a: a.read(), b: a.read(), opens: true, nonzeros: None, turned: false }],
                    panel: *panel,
                    goes_on: false,
                    c: c.write(),
                }),
                Call::Update { shrink, weights, gradient, states: [first, second, third] } => {
                    kernels.update(&mut Update {
                        rule: rule.expect("weights are updated by a rule"),
                        shrink: *shrink,
                        weights: weights.write(),
                        gradient: gradient.read(),
                        first: first.write(),
                        second: second.write(),
                        third: third.write(),
                    })
                }
                Call::Mirror { weights, rows, width, mirror, mirror_width } => kernels.mirror(&mut Mirror {
                    weights: weights.read(),
                    rows: *rows,
                    width: *width,
                    mirror: mirror.write(),
                    mirror_width: *mirror_width,
                }),
            }
        }
    }
}
