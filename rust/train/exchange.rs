//! What a step and the host's own loss tell each other: a whole batch's logits, its loss and gradient, in plain rows.
//!
//! It grows with the batch, unlike everything else of a step.

use super::infer;
use super::sums::StridedSum;
use crate::error::Error;
use crate::kernels::Number;
use crate::panel::Panels;
use std::any::Any;

/// A batch's loss.
#[derive(Clone, Debug, PartialEq)]
pub enum Losses {
    /// Of the batch; the gradient is its own.
    Batch(f64),
    /// Of each row, `(rows,)`; a row's gradient is that of its loss, and the batch's loss is their weighted mean.
    Rows(Vec<f64>),
}

/// A batch, `rows x outputs`, row after row.
pub struct Exchange<T> {
    /// Outputs of the network.
    pub outputs: usize,
    /// Where the batch begins in the data, and which rows it has where they are not neighbours.
    pub first: usize,
    /// See above; empty for neighbours.
    pub order: Vec<u32>,
    /// The last layer before its activation.
    pub logits: Vec<T>,
    /// The loss's gradient by them.
    pub gradient: Vec<T>,
    /// The loss.
    pub losses: Losses,
}

/// A batch of either number type.
pub enum Exchanged<'a> {
    /// Of 32 bits.
    F32(&'a mut Exchange<f32>),
    /// Of 64 bits.
    F64(&'a mut Exchange<f64>),
}

impl<T: Number> Exchange<T> {
    /// Room for batches of up to `rows` rows.
    ///
    /// # Errors
    /// [`Error::Memory`] where it does not fit.
    pub fn new(rows: usize, outputs: usize) -> Result<Self, Error> {
        let numbers = rows.saturating_mul(outputs);
        let bytes = numbers.saturating_mul(2 * size_of::<T>());
        let refused = || Error::Memory { what: "loss: a batch's logits and their gradient", bytes };
        if !crate::memory::suffices(bytes) {
            return Err(refused());
        }
        let room = || {
            let mut room = Vec::new();
            room.try_reserve_exact(numbers).map(|()| room).map_err(|_| refused())
        };
        let (logits, gradient) = (room()?, room()?);
        Ok(Exchange { outputs, first: 0, order: Vec::new(), logits, gradient, losses: Losses::Batch(0.0) })
    }

    /// Begins a batch whose first row is `first` of the data, or whose rows are `order`.
    pub fn begin(&mut self, first: usize, order: &[u32]) {
        self.first = first;
        self.order.clear();
        self.order.extend_from_slice(order);
        self.logits.clear();
    }

    /// Adds a slice's logits behind those of the slices before it.
    pub fn append(&mut self, logits: &Panels<T>) {
        let at = self.logits.len();
        self.logits.resize(at + logits.rows() * logits.lanes(), T::ZERO);
        infer::unpack(logits, &mut self.logits[at..]);
    }

    /// The batch's rows.
    pub fn rows(&self) -> usize {
        self.logits.len() / self.outputs
    }

    /// The numbers by their type, for the host.
    pub fn typed(&mut self) -> Exchanged<'_> {
        let any: &mut dyn Any = self;
        if any.is::<Exchange<f32>>() {
            return Exchanged::F32(any.downcast_mut().expect("just looked"));
        }
        Exchanged::F64(any.downcast_mut().expect("the only other number"))
    }

    /// The batch's loss, where row i weighs `weight(i)` and all together `whole`.
    pub fn mean(&self, weight: impl Fn(usize) -> f64, whole: f64) -> f64 {
        match &self.losses {
            Losses::Batch(loss) => *loss,
            Losses::Rows(losses) => {
                let mut sum = StridedSum::new();
                losses.iter().enumerate().for_each(|(i, loss)| sum.add(weight(i) * loss));
                if whole > 0.0 { sum.total() / whole } else { 0.0 }
            }
        }
    }
}
