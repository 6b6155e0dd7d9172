//! Sparse rows (CSR, as SciPy has them) into panels: zeros, then the stored entries.
//!
//! [`Sparse::check`] looks at every index once. What comes after it is bounds-checked all the same: the arrays belong to
//! the user, who may write into them meanwhile.

use super::dense::{self, Dense, with_view};
use super::element::Element;
use super::{Selection, Unfit};
use crate::error::Error;
use crate::isa::{Float, Isa, prefetch};
use crate::panel::PanelsMut;
use std::ops::Range;

/// Places in an array or a row, in SciPy's two types.
#[derive(Clone, Copy)]
pub enum Indices<'a> {
    /// 32 bits.
    I32(&'a [i32]),
    /// 64 bits.
    I64(&'a [i64]),
}

/// Evaluates `$body` with `$slice` bound to the typed slice.
macro_rules! with_indices {
    ($indices:expr, $slice:ident => $body:expr) => {
        match $indices {
            Indices::I32($slice) => $body,
            Indices::I64($slice) => $body,
        }
    };
}

/// An index in one of SciPy's types.
trait Index: Copy + Ord + Sync {
    /// As a place; a negative one is beyond every array.
    fn place(self) -> usize;
}

impl Index for i32 {
    #[inline(always)]
    fn place(self) -> usize {
        self as isize as usize
    }
}

impl Index for i64 {
    #[inline(always)]
    fn place(self) -> usize {
        self as usize
    }
}

impl Indices<'_> {
    fn len(&self) -> usize {
        with_indices!(self, slice => slice.len())
    }
    #[inline(always)]
    fn at(&self, i: usize) -> usize {
        with_indices!(self, slice => slice[i].place())
    }
}

/// The user's matrix, samples x columns, as compressed sparse rows.
pub struct Sparse<'a> {
    /// Columns of a sample.
    pub columns: usize,
    /// Where each row's entries begin, and the last one's end: `indptr (rows + 1,)`
    pub starts: Indices<'a>,
    /// Each entry's column: `indices (entries,)`
    pub indices: Indices<'a>,
    /// Each entry: `data (entries,)`, as one contiguous row.
    pub values: Dense<'a>,
}

impl Sparse<'_> {
    /// Looks at every index once; returns whether a row has several entries of one column, which have to be summed
    /// before the matrix can be gathered.
    ///
    /// # Errors
    /// [`Error::Value`] where this is not a matrix of `rows` rows; it speaks of attributes of `name`.
    pub fn check(&self, name: &str, rows: usize) -> Result<bool, Error> {
        if self.starts.len().checked_sub(1) != Some(rows) {
            let expected = format!("one number more than its {rows} rows");
            return Err(Error::expected(format!("{name}.indptr"), expected, self.starts.len()));
        }
        let entries = self.indices.len().min(self.values.columns());
        let ascends = |row: usize| self.starts.at(row) <= self.starts.at(row + 1) && self.starts.at(row + 1) <= entries;
        let wrong = if self.starts.at(0) == 0 { (0..rows).find(|&row| !ascends(row)) } else { Some(0) };
        if let Some(row) = wrong {
            let expected = format!("ascending places of {entries} entries, from 0 on");
            return Err(Error::expected(format!("{name}.indptr"), expected, format!("others at row {row}")));
        }
        with_indices!(self.indices, indices => self.check_columns(name, indices))
    }

    fn check_columns<I: Index>(&self, name: &str, indices: &[I]) -> Result<bool, Error> {
        let (mut duplicates, mut sorted) = (false, Vec::new());
        for row in 0..self.rows() {
            let of_row = &indices[self.entries(row)];
            if let Some(wrong) = of_row.iter().find(|column| column.place() >= self.columns) {
                let expected = format!("columns in 0..{}", self.columns);
                let got = format!("{} in row {row}", wrong.place() as isize);
                return Err(Error::expected(format!("{name}.indices"), expected, got));
            }
            if !duplicates && !of_row.is_sorted_by(|a, b| a < b) {
                sorted.clear();
                sorted.extend_from_slice(of_row);
                sorted.sort_unstable();
                duplicates = sorted.windows(2).any(|pair| pair[0] == pair[1]);
            }
        }
        Ok(duplicates)
    }

    /// Samples.
    pub fn rows(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }
    /// Whether the computation's type holds less than the entries'.
    pub fn narrows<T: Float>(&self) -> bool {
        self.values.narrows::<T>()
    }

    /// Which entries are a row's.
    #[inline(always)]
    fn entries(&self, row: usize) -> Range<usize> {
        self.starts.at(row)..self.starts.at(row + 1)
    }

    /// Where the first entry stands that is not a finite number within T, rows first; at most so many threads look, or
    /// as many as help.
    ///
    /// # Errors
    /// [`Error::Panic`]
    pub(super) fn first_unfit<T: Float>(&self, isa: Isa, threads: Option<usize>) -> Result<Option<Unfit>, Error> {
        let used = self.starts.at(self.rows());
        let (entry, value) = with_view!(&self.values, view => {
            let values = &view.to_slice().expect("one contiguous row")[..used];
            match dense::place_of_unfit::<_, T>(values, isa, threads)? {
                Some(entry) => (entry, values[entry].convert()),
                None => return Ok(None),
            }
        });
        let row = (0..self.rows()).find(|&row| self.entries(row).contains(&entry)).unwrap_or(0);
        Ok(Some(Unfit { row, column: self.indices.at(entry), value }))
    }

    /// Writes the selected rows, as many as `target` has, and zeros everywhere else.
    pub(super) fn gather_lanes<T: Float>(&self, selection: Selection<'_>, mut target: PanelsMut<'_, T>) {
        assert_eq!(self.columns, target.lanes(), "a sample fills a row");
        let (rows, panel) = (target.rows(), target.geometry().panel());
        let (last, last_width) = (target.panels() - 1, target.width(target.panels() - 1));
        let shift = panel.trailing_zeros();
        let data = target.data_mut();
        data.fill(T::ZERO);
        let put = |row: usize, column: usize, x: T| {
            let p = column >> shift;
            let width = if p == last { last_width } else { panel };
            data[p * panel * rows + row * width + (column & (panel - 1))] = x;
        };
        self.scatter(selection, 0..rows, put);
    }

    /// Writes the selected rows one after the other: `[rows][columns]`.
    pub(super) fn gather_plain<T: Float>(&self, selection: Selection<'_>, rows: Range<usize>, target: &mut [T]) {
        let first = rows.start;
        target.fill(T::ZERO);
        self.scatter(selection, rows, |row, column, x| target[(row - first) * self.columns + column] = x);
    }

    /// Tells `put` of every entry of the selected rows: its row in the selection, its column, its value.
    fn scatter<T: Float>(&self, selection: Selection<'_>, rows: Range<usize>, put: impl FnMut(usize, usize, T)) {
        with_view!(&self.values, view => {
            let values = view.to_slice().expect("one contiguous row");
            with_indices!(self.indices, indices => self.scatter_entries(selection, rows, indices, values, put))
        });
    }

    fn scatter_entries<I: Index, E: Element, T: Float>(
        &self,
        selection: Selection<'_>,
        rows: Range<usize>,
        indices: &[I],
        values: &[E],
        mut put: impl FnMut(usize, usize, T),
    ) {
        for row in rows.clone() {
            if let Some(next) = selection.jump(row + AHEAD, rows.end) {
                let next = self.entries(next);
                prefetch(&indices[next.clone()]);
                prefetch(&values[next]);
            }
            let entries = self.entries(selection.row(row));
            for (column, value) in indices[entries.clone()].iter().zip(&values[entries]) {
                // Zero and the entry, as SciPy's `toarray` adds them: a stored -0 is 0.
                put(row, column.place(), T::ZERO + value.convert());
            }
        }
    }
}

/// How many rows ahead a row is asked for.
const AHEAD: usize = 2;
