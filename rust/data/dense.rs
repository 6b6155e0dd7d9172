//! Dense arrays of any number type and strides into panels.
//!
//! Rows that lie one after the other are read once, in order, and dealt out to the panels; where samples are
//! neighbours (Fortran order), columns are read instead.

use super::element::{Element, Half};
use super::{Selection, Unfit};
use crate::error::Error;
use crate::isa::{Compilable, Float, Isa, Lanes, prefetch};
use crate::panel::PanelsMut;
use crate::threads;
use ndarray::{ArrayView1, ArrayView2, Axis};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The user's array, samples x columns, as it lies.
pub enum Dense<'a> {
    /// 32-bit floats.
    F32(ArrayView2<'a, f32>),
    /// 64-bit floats.
    F64(ArrayView2<'a, f64>),
    /// 16-bit floats.
    F16(ArrayView2<'a, Half>),
    /// Bytes.
    U8(ArrayView2<'a, u8>),
    /// Unsigned 16-bit integers.
    U16(ArrayView2<'a, u16>),
    /// Unsigned 32-bit integers.
    U32(ArrayView2<'a, u32>),
    /// Unsigned 64-bit integers.
    U64(ArrayView2<'a, u64>),
    /// Signed bytes.
    I8(ArrayView2<'a, i8>),
    /// Signed 16-bit integers.
    I16(ArrayView2<'a, i16>),
    /// Signed 32-bit integers.
    I32(ArrayView2<'a, i32>),
    /// Signed 64-bit integers.
    I64(ArrayView2<'a, i64>),
    /// Truth values.
    Bool(ArrayView2<'a, bool>),
}

/// Evaluates `$body` with `$view` bound to the typed view.
macro_rules! with_view {
    ($dense:expr, $view:ident => $body:expr) => {
        match $dense {
            Dense::F32($view) => $body,
            Dense::F64($view) => $body,
            Dense::F16($view) => $body,
            Dense::U8($view) => $body,
            Dense::U16($view) => $body,
            Dense::U32($view) => $body,
            Dense::U64($view) => $body,
            Dense::I8($view) => $body,
            Dense::I16($view) => $body,
            Dense::I32($view) => $body,
            Dense::I64($view) => $body,
            Dense::Bool($view) => $body,
        }
    };
}
pub(super) use with_view;

impl Dense<'_> {
    /// Samples.
    pub fn rows(&self) -> usize {
        with_view!(self, view => view.nrows())
    }
    /// Columns of a sample.
    pub fn columns(&self) -> usize {
        with_view!(self, view => view.ncols())
    }
    /// Whether the computation's type holds less than this one.
    pub fn narrows<T: Float>(&self) -> bool {
        matches!(self, Dense::F64(_)) && T::IS_SINGLE
    }
    /// Where the first number stands that is not a finite one within T, rows first; at most so many threads look, or
    /// as many as help.
    ///
    /// # Errors
    /// [`Error::Panic`]
    pub(super) fn first_unfit<T: Float>(&self, isa: Isa, threads: Option<usize>) -> Result<Option<Unfit>, Error> {
        with_view!(self, view => first_unfit::<_, T>(view, isa, threads))
    }
    /// Whether every number is 0 or 1.
    pub fn is_binary(&self) -> bool {
        with_view!(self, view => view.iter().all(|x| [0.0, 1.0].contains(&x.convert::<f64>())))
    }
    /// Writes the selected rows, as many as `target` has, and leaves its padding alone; its panels are those of `isa`.
    pub(super) fn gather_lanes<T: Float>(&self, isa: Isa, selection: Selection<'_>, mut target: PanelsMut<'_, T>) {
        assert_eq!(self.columns(), target.lanes(), "a sample fills a row");
        with_view!(self, view => isa.run(Gather { view, selection, target: &mut target }));
    }
    /// Writes the selected rows one after the other: `[rows][columns]`.
    pub(super) fn gather_plain<T: Float>(&self, selection: Selection<'_>, rows: Range<usize>, target: &mut [T]) {
        with_view!(self, view => gather_plain(view, selection, rows, target))
    }
}

fn gather_plain<E: Element, T: Float>(
    view: &ArrayView2<'_, E>,
    selection: Selection<'_>,
    rows: Range<usize>,
    target: &mut [T],
) {
    let columns = view.ncols();
    if let (Some(all), Selection::From(first)) = (view.as_slice(), selection) {
        let from = &all[(first + rows.start) * columns..(first + rows.end) * columns];
        target.iter_mut().zip(from).for_each(|(into, x)| *into = x.convert());
        return;
    }
    for (i, into) in rows.zip(target.chunks_exact_mut(columns)) {
        let from = view.row(selection.row(i));
        into.iter_mut().zip(from).for_each(|(into, x)| *into = x.convert());
    }
}

fn first_unfit<E: Element, T: Float>(
    view: &ArrayView2<'_, E>,
    isa: Isa,
    threads: Option<usize>,
) -> Result<Option<Unfit>, Error> {
    if !E::MAY_NOT_FIT {
        return Ok(None);
    }
    // One pass in memory order decides; only bad data is searched in row order.
    let fit = match view.as_slice_memory_order() {
        Some(all) => place_of_unfit::<E, T>(all, isa, threads)?.is_none(),
        None => {
            let axis = if view.stride_of(Axis(0)) == 1 { Axis(0) } else { Axis(1) };
            view.lanes(axis).into_iter().all(|lane| match lane.to_slice() {
                Some(numbers) => search::<E, T>(numbers, isa).is_none(),
                None => lane.iter().all(|x| x.fits::<T>()),
            })
        }
    };
    if fit {
        return Ok(None);
    }
    let bad = view.indexed_iter().find(|(_, x)| !x.fits::<T>());
    Ok(bad.map(|((row, column), x)| Unfit { row, column, value: x.convert() }))
}

/// Bytes that a thread reads in several times the time that it takes to start one.
const SHARE: usize = 8 << 20;

/// Where the first number of a slice stands that does not fit T. At most so many threads share a long one, since one
/// alone does not use all of the memory's speed.
///
/// # Errors
/// [`Error::Panic`]
pub(super) fn place_of_unfit<E: Element, T: Float>(
    numbers: &[E],
    isa: Isa,
    threads: Option<usize>,
) -> Result<Option<usize>, Error> {
    if !E::MAY_NOT_FIT {
        return Ok(None);
    }
    // Short ones do not even ask how many threads there may be: the system takes longer to answer than they take.
    let shares = size_of_val(numbers) / SHARE;
    let threads = if shares < 2 { 1 } else { threads.unwrap_or_else(threads::limit).min(shares) };
    if threads < 2 {
        return Ok(search::<E, T>(numbers, isa));
    }
    let first = AtomicUsize::new(usize::MAX);
    threads::run(threads, |team, worker| {
        let share = numbers.len().div_ceil(team.size());
        let begin = (worker * share).min(numbers.len());
        let end = (begin + share).min(numbers.len());
        if let Some(at) = search::<E, T>(&numbers[begin..end], isa) {
            first.fetch_min(begin + at, Ordering::Relaxed);
        }
    })?;
    Ok(Some(first.into_inner()).filter(|&at| at < usize::MAX))
}

fn search<E: Element, T: Float>(numbers: &[E], isa: Isa) -> Option<usize> {
    isa.run(Search { numbers, computed_in: PhantomData::<T> })
}

struct Search<'s, E, T> {
    numbers: &'s [E],
    computed_in: PhantomData<T>,
}

impl<E: Element, T: Float> Compilable for Search<'_, E, T> {
    type Output = Option<usize>;
    #[inline(always)]
    fn run(self, _: Lanes) -> Option<usize> {
        // Counting has no branch, so it is vectorised.
        const BLOCK: usize = 1024;
        let misfits = |block: &[E]| block.iter().map(|x| u32::from(!x.fits::<T>())).sum::<u32>();
        let block = self.numbers.chunks(BLOCK).position(|block| misfits(block) > 0)?;
        let begin = block * BLOCK;
        self.numbers[begin..].iter().position(|x| !x.fits::<T>()).map(|at| begin + at)
    }
}

struct Gather<'g, 'v, 's, 't, E, T> {
    view: &'g ArrayView2<'v, E>,
    selection: Selection<'s>,
    target: &'g mut PanelsMut<'t, T>,
}

impl<E: Element, T: Float> Compilable for Gather<'_, '_, '_, '_, E, T> {
    type Output = ();
    #[inline(always)]
    fn run(self, lanes: Lanes) {
        let Gather { view, selection, target } = self;
        if view.stride_of(Axis(1)) == 1 || view.ncols() == 1 && view.stride_of(Axis(0)) == 1 {
            gather_rows(view, selection, target, 2 * lanes.of::<T>());
        } else if view.stride_of(Axis(0)).unsigned_abs() < view.stride_of(Axis(1)).unsigned_abs() {
            gather_columns(view, selection, target);
        } else {
            gather_strided(view, selection, target);
        }
    }
}

/// How many rows ahead a row is asked for, where it does not follow the one before: short rows (784 bytes) then take half
/// the time, for long ones (3136) the processor does it by itself. 1 to 8 measured alike.
const AHEAD: usize = 2;

/// Rows whose columns are neighbours: each is read once, in order, and dealt out to the panels. All but the last are `panel`
/// wide, a constant where this is inlined, so that whole vectors are copied.
#[inline(always)]
fn gather_rows<E: Element, T: Float>(
    view: &ArrayView2<'_, E>,
    selection: Selection<'_>,
    target: &mut PanelsMut<'_, T>,
    panel: usize,
) {
    let (rows, lanes) = (target.rows(), target.lanes());
    assert_eq!(target.geometry().panel(), panel);
    let (last, last_width) = (target.panels() - 1, target.width(target.panels() - 1));
    let data = target.data_mut();
    if let (0, Selection::From(first), Some(all)) = (last, selection, view.as_slice()) {
        // One panel and neighbouring rows: for a few columns the dealing out would cost more than the copy.
        let from = &all[first * lanes..(first + rows) * lanes];
        return match lanes {
            1 => deal::<E, T, 1>(from, data, last_width),
            2 => deal::<E, T, 2>(from, data, last_width),
            4 => deal::<E, T, 4>(from, data, last_width),
            _ => {
                let rows = from.chunks_exact(lanes).zip(data.chunks_exact_mut(last_width));
                rows.for_each(|(row, into)| convert(row, &mut into[..lanes]));
            }
        };
    }
    for i in 0..rows {
        if let Some(next) = selection.jump(i + AHEAD, rows) {
            prefetch(view.row(next).to_slice().unwrap_or_default());
        }
        let row = view.row(selection.row(i));
        let row = &row.to_slice().expect("columns are neighbours")[..lanes];
        let (whole, rest) = row.split_at(last * panel);
        for (p, from) in whole.chunks_exact(panel).enumerate() {
            let at = (p * rows + i) * panel;
            convert(from, &mut data[at..at + panel]);
        }
        let at = last * panel * rows + i * last_width;
        convert(rest, &mut data[at..at + rest.len()]);
    }
}

/// Rows of N columns, a constant, so that a row is a move or two, into rows of `width`.
#[inline(always)]
fn deal<E: Element, T: Float, const N: usize>(from: &[E], into: &mut [T], width: usize) {
    let (rows, _) = from.as_chunks::<N>();
    rows.iter().zip(into.chunks_exact_mut(width)).for_each(|(row, into)| convert(row, &mut into[..N]));
}

#[inline(always)]
fn convert<E: Element, T: Float>(from: &[E], into: &mut [T]) {
    into.iter_mut().zip(from).for_each(|(into, x)| *into = x.convert());
}

/// Rows whose columns are apart.
#[inline(always)]
fn gather_strided<E: Element, T: Float>(
    view: &ArrayView2<'_, E>,
    selection: Selection<'_>,
    target: &mut PanelsMut<'_, T>,
) {
    let (rows, lanes, panel) = (target.rows(), target.lanes(), target.geometry().panel());
    for i in 0..rows {
        let row = view.row(selection.row(i));
        for p in 0..target.panels() {
            let width = target.width(p);
            let into = &mut target.panel_mut(p)[i * width..(i + 1) * width];
            into.iter_mut().zip(p * panel..lanes).for_each(|(into, c)| *into = row[c].convert());
        }
    }
}

/// Rows of a panel that are filled together, column after column: they stay in the first cache until they are complete.
const ROWS_AT_ONCE: usize = 64;

/// Column after column, where samples are neighbours in memory.
#[inline(always)]
fn gather_columns<E: Element, T: Float>(
    view: &ArrayView2<'_, E>,
    selection: Selection<'_>,
    target: &mut PanelsMut<'_, T>,
) {
    let (rows, lanes, panel) = (target.rows(), target.lanes(), target.geometry().panel());
    for p in 0..target.panels() {
        let (width, columns) = (target.width(p), p * panel..lanes.min((p + 1) * panel));
        let blocks = target.panel_mut(p).chunks_mut(ROWS_AT_ONCE * width);
        for (into, first) in blocks.zip((0..rows).step_by(ROWS_AT_ONCE)) {
            let block = first..rows.min(first + ROWS_AT_ONCE);
            for (lane, c) in columns.clone().enumerate() {
                if let (Selection::From(begin), true) = (selection, c + AHEAD < lanes) {
                    let next = view.column(c + AHEAD).to_slice().unwrap_or_default();
                    prefetch(next.get(begin + block.start..begin + block.end).unwrap_or_default());
                }
                let slots = into[lane..].iter_mut().step_by(width);
                gather_column(view.column(c), selection, block.clone(), slots);
            }
        }
    }
}

/// The selected rows' numbers of one column.
#[inline(always)]
fn gather_column<'t, E: Element, T: Float>(
    column: ArrayView1<'_, E>,
    selection: Selection<'_>,
    rows: Range<usize>,
    slots: impl Iterator<Item = &'t mut T>,
) {
    match (selection, column.to_slice()) {
        (Selection::From(first), Some(column)) => {
            let from = &column[first + rows.start..first + rows.end];
            slots.zip(from).for_each(|(into, x)| *into = x.convert());
        }
        (Selection::Rows(order), Some(column)) => {
            slots.zip(&order[rows]).for_each(|(into, &row)| *into = column[row as usize].convert());
        }
        (_, None) => slots.zip(rows).for_each(|(into, i)| *into = column[selection.row(i)].convert()),
    }
}
