//! Gather: the user's rows into panels, from any number type and any strides, without a copy of the data set.
//!
//! Rows are samples here. A matrix of the L-layer functions (features x samples) arrives transposed, which
//! changes its strides and moves nothing.

use crate::isa::Float;
use crate::panel::Panels;
use half::f16;
use ndarray::{ArrayView2, Axis};
use std::ops::Range;

/// A number that users may have their data in.
pub trait Element: Copy + Sync {
    /// The nearest number of the computation's type.
    fn convert<T: Float>(self) -> T;
    /// Whether it becomes a finite number of the computation's type.
    #[inline(always)]
    fn fits<T: Float>(self) -> bool {
        self.convert::<T>().is_finite()
    }
}

macro_rules! element {
    ($($t:ty),*) => {$(
        impl Element for $t {
            #[inline(always)]
            fn convert<T: Float>(self) -> T {
                T::from_f64(self as f64)
            }
        }
    )*};
}
element!(f32, f64, u8, u16, u32, u64, i8, i16, i32, i64);

impl Element for f16 {
    #[inline(always)]
    fn convert<T: Float>(self) -> T {
        T::from_f64(self.to_f64())
    }
}

impl Element for bool {
    #[inline(always)]
    fn convert<T: Float>(self) -> T {
        if self { T::ONE } else { T::ZERO }
    }
}

/// The user's matrix, samples x columns, as it lies.
pub enum Matrix<'a> {
    /// 32-bit floats.
    F32(ArrayView2<'a, f32>),
    /// 64-bit floats.
    F64(ArrayView2<'a, f64>),
    /// 16-bit floats.
    F16(ArrayView2<'a, f16>),
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
    ($matrix:expr, $view:ident => $body:expr) => {
        match $matrix {
            Matrix::F32($view) => $body,
            Matrix::F64($view) => $body,
            Matrix::F16($view) => $body,
            Matrix::U8($view) => $body,
            Matrix::U16($view) => $body,
            Matrix::U32($view) => $body,
            Matrix::U64($view) => $body,
            Matrix::I8($view) => $body,
            Matrix::I16($view) => $body,
            Matrix::I32($view) => $body,
            Matrix::I64($view) => $body,
            Matrix::Bool($view) => $body,
        }
    };
}

/// Which rows of the data a slice of a batch takes.
#[derive(Clone, Copy)]
pub enum Selection<'a> {
    /// Neighbours, from this one on.
    From(usize),
    /// These, in this order.
    Rows(&'a [u32]),
}

impl Selection<'_> {
    #[inline(always)]
    fn row(&self, i: usize) -> usize {
        match self {
            Selection::From(first) => first + i,
            Selection::Rows(rows) => rows[i] as usize,
        }
    }
}

impl Matrix<'_> {
    /// Samples.
    pub fn rows(&self) -> usize {
        with_view!(self, view => view.nrows())
    }
    /// Columns of a sample.
    pub fn columns(&self) -> usize {
        with_view!(self, view => view.ncols())
    }
    /// Where the first number stands, rows first, that is not finite in the computation's type, and that number.
    pub fn first_non_finite<T: Float>(&self) -> Option<((usize, usize), f64)> {
        with_view!(self, view => first_that(view, |x| !x.fits::<T>()))
    }
    /// Whether every number is 0 or 1.
    pub fn is_binary(&self) -> bool {
        with_view!(self, view => first_that(view, |x| ![0.0, 1.0].contains(&x.convert::<f64>())).is_none())
    }
    /// Writes the selected rows, as many as `target` has, and zeros into its padding.
    pub fn gather<T: Float>(&self, selection: Selection<'_>, target: &mut Panels<T>) {
        with_view!(self, view => gather(view, selection, target))
    }
    /// Writes the selected rows one after the other: `[rows][columns]`.
    pub fn gather_plain<T: Float>(&self, selection: Selection<'_>, rows: Range<usize>, target: &mut [T]) {
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

/// Where the first bad number stands, rows first.
fn first_that<E: Element>(view: &ArrayView2<'_, E>, bad: impl Fn(E) -> bool) -> Option<((usize, usize), f64)> {
    // One pass in memory order decides; only bad data is searched in row order.
    let fine = match view.as_slice_memory_order() {
        Some(all) => all.chunks(4096).all(|chunk| !chunk.iter().fold(false, |any, &x| any | bad(x))),
        None => !view.iter().any(|&x| bad(x)),
    };
    if fine {
        return None;
    }
    view.indexed_iter().find(|&(_, &x)| bad(x)).map(|(at, x)| (at, x.convert()))
}

fn gather<E: Element, T: Float>(view: &ArrayView2<'_, E>, selection: Selection<'_>, target: &mut Panels<T>) {
    let (rows, panel) = (target.rows(), target.geometry().panel());
    assert_eq!(view.ncols(), target.lanes(), "a sample fills a row");
    let by_columns = view.stride_of(Axis(0)).unsigned_abs() < view.stride_of(Axis(1)).unsigned_abs();
    for p in 0..target.panels() {
        let (width, first) = (target.width(p), p * panel);
        let used = width.min(view.ncols() - first);
        let into = target.panel_mut(p);
        if by_columns {
            gather_columns(view, selection, first..first + used, width, into);
        } else {
            for (i, into) in into.chunks_exact_mut(width).enumerate().take(rows) {
                gather_row(view, selection.row(i), first..first + used, into);
            }
        }
    }
    target.renew_padding();
}

/// One row's columns into the lanes of a panel.
#[inline(always)]
fn gather_row<E: Element, T: Float>(view: &ArrayView2<'_, E>, row: usize, columns: Range<usize>, into: &mut [T]) {
    let row = view.row(row);
    match row.to_slice() {
        Some(row) => into.iter_mut().zip(&row[columns]).for_each(|(into, x)| *into = x.convert()),
        None => into.iter_mut().zip(columns).for_each(|(into, c)| *into = row[c].convert()),
    }
}

/// Column after column, where samples are neighbours in memory.
fn gather_columns<E: Element, T: Float>(
    view: &ArrayView2<'_, E>,
    selection: Selection<'_>,
    columns: Range<usize>,
    width: usize,
    into: &mut [T],
) {
    for (lane, c) in columns.enumerate() {
        let column = view.column(c);
        let slots = into[lane..].iter_mut().step_by(width);
        match selection {
            Selection::From(first) => {
                let from = column.slice_axis(Axis(0), ndarray::Slice::from(first as isize..));
                slots.zip(from).for_each(|(into, x)| *into = x.convert());
            }
            Selection::Rows(rows) => slots.zip(rows).for_each(|(into, &r)| *into = column[r as usize].convert()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panel::Geometry;
    use ndarray::Array2;

    fn check(view: ArrayView2<'_, f32>, selection: Selection<'_>, rows: usize) {
        let geometry = Geometry { lanes: 4 };
        let mut panels = Panels::<f64>::zeroed(rows, view.ncols(), geometry, "test").unwrap();
        panels.data_mut().fill(9.0);
        panels.clear_padding();
        Matrix::F32(view).gather(selection, &mut panels);
        for (i, j) in (0..rows).flat_map(|i| (0..view.ncols()).map(move |j| (i, j))) {
            assert_eq!(panels.get(i, j), view[[selection.row(i), j]] as f64);
        }
        let total: f64 = panels.view().data().iter().sum();
        let wanted: f64 = (0..rows).map(|i| view.row(selection.row(i)).iter().map(|&x| x as f64).sum::<f64>()).sum();
        assert_eq!(total, wanted, "padding is zero");
    }

    #[test]
    fn rows_arrive_from_every_layout() {
        for columns in [1, 5, 8, 21] {
            let c = Array2::from_shape_fn((11, columns), |(i, j)| (i * 100 + j) as f32);
            let mut f = Array2::zeros((columns, 11)).reversed_axes();
            f.assign(&c);
            let strided = Array2::from_shape_fn((22, 2 * columns), |(i, j)| (i * 100 + j) as f32);
            let strided = strided.slice(ndarray::s![..;-2, ..;2]);
            for view in [c.view(), f.view(), strided] {
                check(view, Selection::From(3), 7);
                check(view, Selection::Rows(&[5, 0, 5, 10]), 4);
            }
        }
    }

    #[test]
    fn the_first_number_that_is_not_finite_is_named() {
        let mut x = Array2::<f64>::zeros((4, 3));
        let first = |matrix: Matrix<'_>| matrix.first_non_finite::<f64>().map(|(at, _)| at);
        assert_eq!(first(Matrix::F64(x.view())), None);
        x[[3, 0]] = f64::NAN;
        x[[2, 1]] = f64::INFINITY;
        assert_eq!(Matrix::F64(x.view()).first_non_finite::<f64>(), Some(((2, 1), f64::INFINITY)));
        assert_eq!(first(Matrix::F64(x.t())), Some((0, 3)));
        assert_eq!(first(Matrix::F64(x.slice(ndarray::s![..2, ..2]))), None);
        x[[1, 1]] = 1e39;
        assert_eq!(Matrix::F64(x.view()).first_non_finite::<f32>(), Some(((1, 1), 1e39)));
    }

    #[test]
    fn labels_of_zero_and_one_are_known_in_every_type() {
        let mut y = Array2::<f32>::zeros((4, 3));
        y[[1, 2]] = 1.0;
        assert!(Matrix::F32(y.view()).is_binary());
        assert!(Matrix::F32(y.t()).is_binary());
        for bad in [0.5, -1.0, f32::NAN] {
            y[[3, 1]] = bad;
            assert!(!Matrix::F32(y.view()).is_binary(), "{bad}");
        }
        assert!(Matrix::Bool(ndarray::arr2(&[[true, false]]).view()).is_binary());
        assert!(!Matrix::I64(ndarray::arr2(&[[1, 2]]).view()).is_binary());
    }

    #[test]
    fn number_types_convert() {
        let mut panels = Panels::<f32>::zeroed(1, 1, Geometry { lanes: 1 }, "test").unwrap();
        Matrix::U8(ndarray::arr2(&[[200u8]]).view()).gather(Selection::From(0), &mut panels);
        assert_eq!(panels.get(0, 0), 200.0);
        Matrix::Bool(ndarray::arr2(&[[true]]).view()).gather(Selection::From(0), &mut panels);
        assert_eq!(panels.get(0, 0), 1.0);
        Matrix::F16(ndarray::arr2(&[[f16::from_f32(0.5)]]).view()).gather(Selection::From(0), &mut panels);
        assert_eq!(panels.get(0, 0), 0.5);
    }
}
