//! Gather: the user's rows into panels, from any number type, any strides and sparse rows, without a copy of the data set.
//!
//! Rows are samples here. A matrix of the L-layer functions (features x samples) arrives transposed, which
//! changes its strides and moves nothing. The conversions are vectorised by the compiler, for the instruction set that
//! the network's kernels have.

mod dense;
mod element;
mod sparse;

pub use dense::Dense;
pub use element::{Element, Half};
pub use sparse::{Indices, Sparse};

use crate::error::Error;
use crate::isa::{Either, Float, Isa};
use crate::panel::{Geometry, Panels, PanelsMut};
use std::ops::Range;

/// The user's matrix, samples x columns, as it lies.
pub enum Matrix<'a> {
    /// All its numbers.
    Dense(Dense<'a>),
    /// Those that are not zero.
    Sparse(Sparse<'a>),
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
    /// The `i`th of the rows.
    #[inline(always)]
    pub fn row(&self, i: usize) -> usize {
        match self {
            Selection::From(first) => first + i,
            Selection::Rows(rows) => rows[i] as usize,
        }
    }
    /// The `i`th of `rows` rows, where there is such a one and the processor cannot foresee it.
    #[inline(always)]
    fn jump(&self, i: usize, rows: usize) -> Option<usize> {
        match self {
            Selection::Rows(order) if i < rows => Some(order[i] as usize),
            _ => None,
        }
    }
}

/// A number that cannot be computed with, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unfit {
    /// Its sample.
    pub row: usize,
    /// Its column.
    pub column: usize,
    /// NaN, an infinity, or a number beyond the computation's range.
    pub value: f64,
}

impl Matrix<'_> {
    /// Samples.
    pub fn rows(&self) -> usize {
        match self {
            Matrix::Dense(dense) => dense.rows(),
            Matrix::Sparse(sparse) => sparse.rows(),
        }
    }
    /// Columns of a sample.
    pub fn columns(&self) -> usize {
        match self {
            Matrix::Dense(dense) => dense.columns(),
            Matrix::Sparse(sparse) => sparse.columns,
        }
    }
    /// Whether the computation's type holds less than the matrix's.
    pub fn narrows<T: Float>(&self) -> bool {
        match self {
            Matrix::Dense(dense) => dense.narrows::<T>(),
            Matrix::Sparse(sparse) => sparse.narrows::<T>(),
        }
    }
    /// Whether every number is 0 or 1.
    pub fn is_binary(&self) -> bool {
        match self {
            Matrix::Dense(dense) => dense.is_binary(),
            Matrix::Sparse(sparse) => sparse.values.is_binary(),
        }
    }
}

// Code for every pair of types is much. The generic functions only tell the types apart, since they are compiled anew in every
// crate that calls them; what they call is compiled here, once.
impl Matrix<'_> {
    /// Where the first number stands that is not a finite one within T, rows first; at most so many threads look, or
    /// as many as help.
    ///
    /// # Errors
    /// [`Error::Panic`]
    pub fn first_unfit<T: Float>(&self, isa: Isa, threads: Option<usize>) -> Result<Option<Unfit>, Error> {
        self.first_unfit_of_either(T::IS_SINGLE, isa, threads)
    }
    fn first_unfit_of_either(&self, single: bool, isa: Isa, threads: Option<usize>) -> Result<Option<Unfit>, Error> {
        match (self, single) {
            (Matrix::Dense(dense), true) => dense.first_unfit::<f32>(isa, threads),
            (Matrix::Dense(dense), false) => dense.first_unfit::<f64>(isa, threads),
            (Matrix::Sparse(sparse), true) => sparse.first_unfit::<f32>(isa, threads),
            (Matrix::Sparse(sparse), false) => sparse.first_unfit::<f64>(isa, threads),
        }
    }

    /// Writes the selected rows, as many as `target` has, and zeros into its padding; its panels are those of `isa`.
    pub fn gather<T: Float>(&self, isa: Isa, selection: Selection<'_>, target: &mut Panels<T>) {
        self.gather_lanes(isa, selection, target.view_mut());
        target.renew_padding();
    }
    /// The same, but padding may be left alone.
    pub fn gather_lanes<T: Float>(&self, isa: Isa, selection: Selection<'_>, target: PanelsMut<'_, T>) {
        let (rows, lanes, geometry) = (target.rows(), target.lanes(), target.geometry());
        self.gather_either(isa, selection, T::either(target.into_data()), rows, lanes, geometry);
    }
    fn gather_either(
        &self,
        isa: Isa,
        selection: Selection<'_>,
        target: Either<'_>,
        rows: usize,
        lanes: usize,
        geometry: Geometry,
    ) {
        match target {
            Either::Single(data) => self.gather_typed(isa, selection, PanelsMut::new(data, rows, lanes, geometry)),
            Either::Double(data) => self.gather_typed(isa, selection, PanelsMut::new(data, rows, lanes, geometry)),
        }
    }

    /// The same into panels of one type.
    fn gather_typed<T: Float>(&self, isa: Isa, selection: Selection<'_>, target: PanelsMut<'_, T>) {
        match self {
            Matrix::Dense(dense) => dense.gather_lanes(isa, selection, target),
            Matrix::Sparse(sparse) => sparse.gather_lanes(selection, target),
        }
    }

    /// Writes the selected rows one after the other: `[rows][columns]`.
    pub fn gather_plain<T: Float>(&self, selection: Selection<'_>, rows: Range<usize>, target: &mut [T]) {
        self.gather_plain_either(selection, rows, T::either(target));
    }
    fn gather_plain_either(&self, selection: Selection<'_>, rows: Range<usize>, target: Either<'_>) {
        match (self, target) {
            (Matrix::Dense(dense), Either::Single(target)) => dense.gather_plain(selection, rows, target),
            (Matrix::Dense(dense), Either::Double(target)) => dense.gather_plain(selection, rows, target),
            (Matrix::Sparse(sparse), Either::Single(target)) => sparse.gather_plain(selection, rows, target),
            (Matrix::Sparse(sparse), Either::Double(target)) => sparse.gather_plain(selection, rows, target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Number;
    use ndarray::{Array2, ArrayView2};

    /// Gathers with every instruction set, in both precisions; panels had another shape and hold other numbers before.
    fn check(matrix: &Matrix<'_>, wanted: &Array2<f32>, selection: Selection<'_>, rows: usize) {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            check_in::<f32>(isa, matrix, wanted, selection, rows);
            check_in::<f64>(isa, matrix, wanted, selection, rows);
        }
    }

    fn check_in<T: Number>(isa: Isa, matrix: &Matrix<'_>, wanted: &Array2<f32>, selection: Selection<'_>, rows: usize) {
        let geometry = T::kernels(isa).geometry();
        let mut panels = Panels::<T>::zeroed(rows + 1, wanted.ncols() + 1, geometry, "test").unwrap();
        panels.data_mut().fill(T::from_f64(9.0));
        panels.reshape(rows, wanted.ncols());
        matrix.gather(isa, selection, &mut panels);
        let mut total = 0.0;
        let mut plain = vec![T::from_f64(9.0); rows * wanted.ncols()];
        matrix.gather_plain(selection, 0..rows, &mut plain);
        for (i, j) in (0..rows).flat_map(|i| (0..wanted.ncols()).map(move |j| (i, j))) {
            let x = f64::from(wanted[[selection.row(i), j]]);
            assert_eq!(panels.get(i, j).to_f64(), x);
            assert_eq!(plain[i * wanted.ncols() + j].to_f64(), x);
            total += x;
        }
        let sum: f64 = panels.view().data().iter().map(|x| x.to_f64()).sum();
        assert_eq!(sum, total, "padding is zero");
    }

    fn check_view(view: ArrayView2<'_, f32>) {
        for (selection, rows) in [(Selection::From(3), 7), (Selection::Rows(&[5, 0, 5, 10]), 4)] {
            check(&Matrix::Dense(Dense::F32(view)), &view.to_owned(), selection, rows);
        }
    }

    #[test]
    fn rows_arrive_from_every_layout() {
        for columns in [1, 5, 8, 21, 32, 67] {
            let c = Array2::from_shape_fn((11, columns), |(i, j)| (i * 100 + j) as f32);
            let mut f = Array2::zeros((columns, 11)).reversed_axes();
            f.assign(&c);
            let strided = Array2::from_shape_fn((22, 2 * columns), |(i, j)| (i * 100 + j) as f32);
            for view in [c.view(), f.view(), c.slice(ndarray::s![..;-1, ..]), f.slice(ndarray::s![..;-1, ..;-1])] {
                check_view(view);
            }
            check_view(strided.slice(ndarray::s![..;-2, ..;2]));
            check_view(strided.slice(ndarray::s![..;2, ..columns]));
            check_view(strided.slice(ndarray::s![..1, ..columns]).broadcast((11, columns)).unwrap());
        }
    }

    #[test]
    fn many_rows_arrive_from_columns() {
        let c = Array2::from_shape_fn((300, 70), |(i, j)| (i * 100 + j) as f32);
        let mut f = Array2::zeros((70, 300)).reversed_axes();
        f.assign(&c);
        let order: Vec<u32> = (0..259).map(|i| (i * 7) % 300).collect();
        for view in [c.view(), f.view()] {
            check(&Matrix::Dense(Dense::F32(view)), &c, Selection::From(11), 277);
            check(&Matrix::Dense(Dense::F32(view)), &c, Selection::Rows(&order), 259);
        }
    }

    #[test]
    fn the_first_number_that_does_not_fit_is_named() {
        let isa = Isa::choose().unwrap();
        let find = |view: ArrayView2<'_, f64>| {
            let found = Matrix::Dense(Dense::F64(view)).first_unfit::<f32>(isa, Some(1)).unwrap();
            found.map(|bad| (bad.row, bad.column, bad.value))
        };
        let mut x = Array2::<f64>::zeros((4000, 3));
        assert_eq!(find(x.view()), None);
        x[[3999, 0]] = f64::INFINITY;
        assert_eq!(find(x.view()), Some((3999, 0, f64::INFINITY)));
        x[[2, 1]] = -1e300;
        assert_eq!(find(x.view()), Some((2, 1, -1e300)));
        assert_eq!(find(x.t()), Some((0, 3999, f64::INFINITY)));
        assert_eq!(find(x.slice(ndarray::s![..2, ..2])), None);
        let double =
            Matrix::Dense(Dense::F64(x.slice(ndarray::s![..3999, ..]))).first_unfit::<f64>(isa, Some(1)).unwrap();
        assert_eq!(double, None, "f64 holds what f32 does not");
    }

    #[test]
    fn threads_that_share_a_search_find_the_first() {
        let isa = Isa::choose().unwrap();
        let mut x = Array2::<f32>::zeros((9_000, 1_000));
        let find = |x: &Array2<f32>| {
            let found = Matrix::Dense(Dense::F32(x.view())).first_unfit::<f32>(isa, Some(3)).unwrap();
            found.map(|bad| (bad.row, bad.column))
        };
        assert_eq!(find(&x), None);
        x[[8_999, 999]] = f32::NAN;
        assert_eq!(find(&x), Some((8_999, 999)));
        x[[4_000, 7]] = f32::NAN;
        assert_eq!(find(&x), Some((4_000, 7)));
    }

    /// 0 0 7 | 1 0 2 (stored backwards) | nothing | 0 3 0
    const STARTS: [i32; 5] = [0, 1, 3, 3, 4];
    const INDICES: [i64; 5] = [2, 2, 0, 1, 99];
    const VALUES: [f32; 5] = [7.0, 2.0, 1.0, 3.0, f32::NAN];

    fn sparse<'a>(starts: &'a [i32], indices: &'a [i64], values: &'a [f32]) -> Sparse<'a> {
        let values = Dense::F32(ArrayView2::from_shape((1, values.len()), values).unwrap());
        Sparse { columns: 3, starts: Indices::I32(starts), indices: Indices::I64(indices), values }
    }

    #[test]
    fn sparse_rows_arrive_among_zeros() {
        let matrix = sparse(&STARTS, &INDICES, &VALUES);
        assert_eq!(matrix.check("X", 4), Ok(false));
        let matrix = Matrix::Sparse(matrix);
        assert_eq!((matrix.rows(), matrix.columns()), (4, 3));
        assert_eq!(matrix.first_unfit::<f32>(Isa::Scalar, Some(1)).unwrap(), None, "what no row has is not looked at");
        let wanted = ndarray::arr2(&[[0.0, 0.0, 7.0], [1.0, 0.0, 2.0], [0.0; 3], [0.0, 3.0, 0.0]]);
        check(&matrix, &wanted, Selection::From(1), 3);
        check(&matrix, &wanted, Selection::Rows(&[3, 0, 0, 1, 2]), 5);
    }

    #[test]
    fn sparse_indices_are_checked() {
        let wrong = |starts: &[i32], indices: &[i64], rows| sparse(starts, indices, &VALUES).check("X", rows);
        assert!(wrong(&STARTS, &INDICES, 3).is_err());
        for starts in [[1, 1, 3, 3, 4], [0, 3, 1, 3, 4], [0, 1, 3, 3, 6], [0, -1, 3, 3, 4]] {
            assert!(wrong(&starts, &INDICES, 4).is_err(), "{starts:?}");
        }
        for column in [3, -1, i64::MIN] {
            let message = wrong(&STARTS, &[2, 2, column, 1], 4).unwrap_err().to_string();
            assert_eq!(message, format!("X.indices: expected columns in 0..3, got {column} in row 1"));
        }
        assert_eq!(wrong(&STARTS, &[2, 2, 2, 1], 4), Ok(true), "one place twice");
        let mut values = VALUES;
        values[1] = f32::INFINITY;
        let bad = sparse(&STARTS, &INDICES, &values).first_unfit::<f32>(Isa::Scalar, Some(1)).unwrap();
        assert_eq!(bad, Some(Unfit { row: 1, column: 2, value: f64::INFINITY }));
    }

    #[test]
    fn number_types_convert() {
        fn gathered(dense: Dense<'_>) -> f32 {
            let mut panels = Panels::<f32>::zeroed(1, 1, Geometry { lanes: 1 }, "test").unwrap();
            Matrix::Dense(dense).gather(Isa::Scalar, Selection::From(0), &mut panels);
            panels.get(0, 0)
        }
        assert_eq!(gathered(Dense::U8(ndarray::arr2(&[[200]]).view())), 200.0);
        assert_eq!(gathered(Dense::Bool(ndarray::arr2(&[[true]]).view())), 1.0);
    }
}
