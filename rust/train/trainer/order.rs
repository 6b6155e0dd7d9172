//! The order of an epoch's rows.

use crate::rng;

/// An epoch's order of the rows, kept for the stretches that an epoch is cut into.
#[derive(Default)]
pub(super) struct Order {
    pub(super) rows: Vec<u32>,
    /// The seed and the epoch that it was drawn for, and whether from a selection.
    pub(super) of: Option<(u64, u64, bool)>,
}

impl Order {
    /// Room for so many rows; what was drawn for as many stays.
    pub(super) fn resized(self, rows: usize) -> Self {
        if self.rows.len() == rows { self } else { Order { rows: vec![0; rows], of: None } }
    }

    /// The order of an epoch: of all rows, or of those selected, drawn where they are to be shuffled.
    pub(super) fn draw(&mut self, seed: u64, epoch: u64, selected: Option<&[u32]>, shuffles: bool) {
        let of = (seed, epoch, selected.is_some());
        if self.of == Some(of) {
            return;
        }
        if shuffles {
            rng::shuffle(&mut self.rows, seed, epoch);
        }
        match selected {
            Some(selected) if shuffles => self.rows.iter_mut().for_each(|at| *at = selected[*at as usize]),
            Some(selected) => self.rows.copy_from_slice(selected),
            None => {}
        }
        self.of = Some(of);
    }
}
