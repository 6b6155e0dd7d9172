//! NumPy arrays and SciPy's sparse rows in: any dtype and strides to checked views; and results out.
//!
//! A [`Held`] keeps the array alive and counted as read for as long as its views are used, also while the interpreter
//! lock is released. (Python code that writes into the array meanwhile races with the reader, as with NumPy's own
//! functions.)

use lamella::data::{Dense, Half, Indices, Matrix, Sparse};
use lamella::error::Error;
use lamella::kernels::Number;
use numpy::ndarray::{Array2, ArrayView2, Dimension, IntoDimension};
use numpy::npyffi::PY_ARRAY_API;
use numpy::prelude::*;
use numpy::{
    IntoPyArray, PyArray, PyArray1, PyArray2, PyArrayDescr, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArray,
    ToNpyDims,
};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// A two-dimensional array of any numeric dtype.
pub enum Held<'py> {
    /// 32-bit floats.
    F32(PyReadonlyArray2<'py, f32>),
    /// 64-bit floats.
    F64(PyReadonlyArray2<'py, f64>),
    /// 16-bit floats, seen as the integers of their bits.
    F16(PyReadonlyArray2<'py, u16>),
    /// Bytes.
    U8(PyReadonlyArray2<'py, u8>),
    /// Unsigned 16-bit integers.
    U16(PyReadonlyArray2<'py, u16>),
    /// Unsigned 32-bit integers.
    U32(PyReadonlyArray2<'py, u32>),
    /// Unsigned 64-bit integers.
    U64(PyReadonlyArray2<'py, u64>),
    /// Signed bytes.
    I8(PyReadonlyArray2<'py, i8>),
    /// Signed 16-bit integers.
    I16(PyReadonlyArray2<'py, i16>),
    /// Signed 32-bit integers.
    I32(PyReadonlyArray2<'py, i32>),
    /// Signed 64-bit integers.
    I64(PyReadonlyArray2<'py, i64>),
    /// Truth values.
    Bool(PyReadonlyArray2<'py, bool>),
}

impl<'py> Held<'py> {
    /// Takes hold of `object`, which an error calls `name`.
    ///
    /// # Errors
    /// TypeError for anything but a numeric NumPy array, ValueError for one that is not two-dimensional.
    pub fn new(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let array = untyped(name, object)?;
        if array.ndim() != 2 {
            let got = format!("{} dimensions", array.ndim());
            return Err(super::exception(Error::expected(name, "a two-dimensional array", got)));
        }
        // A view must be aligned; arrays that are not (fields of packed records) are rare enough to copy.
        let object = if array.is_aligned() { object.clone() } else { object.call_method0("copy")? };
        macro_rules! first_of {
            ($($variant:ident),*) => {
                $(if let Ok(array) = object.extract() { return Ok(Held::$variant(array)); })*
            };
        }
        first_of!(F32, F64, U8, I64, Bool, U16, U32, U64, I8, I16, I32);
        if array.dtype().is_equiv_to(&PyArrayDescr::new(object.py(), "float16")?) {
            return Ok(Held::F16(object.call_method1("view", ("uint16",))?.extract()?));
        }
        let got = array.dtype().str()?;
        Err(PyTypeError::new_err(format!("{name}: expected a real numeric dtype in native byte order, got {got}")))
    }

    fn dense(&self) -> Dense<'_> {
        match self {
            Held::F32(array) => Dense::F32(array.as_array()),
            Held::F64(array) => Dense::F64(array.as_array()),
            Held::F16(array) => {
                let bits = array.as_array().raw_view().cast::<Half>();
                // SAFETY: a `Half` is an `u16` and nothing else, and the array is held for as long as the view.
                Dense::F16(unsafe { bits.deref_into_view() })
            }
            Held::U8(array) => Dense::U8(array.as_array()),
            Held::U16(array) => Dense::U16(array.as_array()),
            Held::U32(array) => Dense::U32(array.as_array()),
            Held::U64(array) => Dense::U64(array.as_array()),
            Held::I8(array) => Dense::I8(array.as_array()),
            Held::I16(array) => Dense::I16(array.as_array()),
            Held::I32(array) => Dense::I32(array.as_array()),
            Held::I64(array) => Dense::I64(array.as_array()),
            Held::Bool(array) => Dense::Bool(array.as_array()),
        }
    }

    /// The numbers, as they lie.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix::Dense(self.dense())
    }

    /// The transpose: the same numbers with swapped strides.
    pub fn transposed(&self) -> Matrix<'_> {
        Matrix::Dense(match self.dense() {
            Dense::F32(view) => Dense::F32(view.reversed_axes()),
            Dense::F64(view) => Dense::F64(view.reversed_axes()),
            Dense::F16(view) => Dense::F16(view.reversed_axes()),
            Dense::U8(view) => Dense::U8(view.reversed_axes()),
            Dense::U16(view) => Dense::U16(view.reversed_axes()),
            Dense::U32(view) => Dense::U32(view.reversed_axes()),
            Dense::U64(view) => Dense::U64(view.reversed_axes()),
            Dense::I8(view) => Dense::I8(view.reversed_axes()),
            Dense::I16(view) => Dense::I16(view.reversed_axes()),
            Dense::I32(view) => Dense::I32(view.reversed_axes()),
            Dense::I64(view) => Dense::I64(view.reversed_axes()),
            Dense::Bool(view) => Dense::Bool(view.reversed_axes()),
        })
    }
}

/// The samples of a call: a NumPy array, or SciPy's compressed sparse rows.
pub enum Samples<'py> {
    /// An array.
    Dense(Held<'py>),
    /// A sparse matrix.
    Sparse(HeldSparse<'py>),
}

impl<'py> Samples<'py> {
    /// Takes hold of `object`, which an error calls `name`: what is no array and has an `indptr` is sparse. All
    /// indices are checked.
    ///
    /// # Errors
    /// As [`Held::new`], and ValueError for sparse rows whose indices are not sound.
    pub fn new(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyUntypedArray>() || !object.hasattr("indptr")? {
            return Ok(Samples::Dense(Held::new(name, object)?));
        }
        let held = HeldSparse::new(name, object)?;
        let (view, rows) = (held.view(), held.rows);
        let duplicates = super::unlocked(object.py(), || view.check(name, rows)).map_err(super::exception)?;
        if !duplicates {
            return Ok(Samples::Sparse(held));
        }
        // Entries of one place are summed as SciPy does it, in a copy. (Its loops may run: the indices are sound.)
        let copy = object.call_method0("copy")?;
        copy.call_method0("sum_duplicates")?;
        Ok(Samples::Sparse(HeldSparse::new(name, &copy)?))
    }

    /// The numbers, as they lie.
    pub fn matrix(&self) -> Matrix<'_> {
        match self {
            Samples::Dense(held) => held.matrix(),
            Samples::Sparse(held) => Matrix::Sparse(held.view()),
        }
    }
}

/// The three arrays of a sparse matrix.
pub struct HeldSparse<'py> {
    rows: usize,
    columns: usize,
    starts: HeldIndices<'py>,
    indices: HeldIndices<'py>,
    values: Held<'py>,
}

impl<'py> HeldSparse<'py> {
    fn new(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let (rows, columns) = object.getattr("shape")?.extract()?;
        let values = contiguous(&format!("{name}.data"), &object.getattr("data")?)?.call_method1("reshape", (1, -1))?;
        let indices = |kind: &str| HeldIndices::new(&format!("{name}.{kind}"), &object.getattr(kind)?);
        Ok(HeldSparse {
            rows,
            columns,
            starts: indices("indptr")?,
            indices: indices("indices")?,
            values: Held::new(&format!("{name}.data"), &values)?,
        })
    }

    fn view(&self) -> Sparse<'_> {
        Sparse {
            columns: self.columns,
            starts: self.starts.view(),
            indices: self.indices.view(),
            values: self.values.dense(),
        }
    }
}

/// Places in an array, in one of SciPy's two types.
enum HeldIndices<'py> {
    I32(PyReadonlyArray1<'py, i32>),
    I64(PyReadonlyArray1<'py, i64>),
}

impl<'py> HeldIndices<'py> {
    fn new(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let array = contiguous(name, object)?;
        if let Ok(array) = array.extract() {
            return Ok(HeldIndices::I32(array));
        }
        if let Ok(array) = array.extract() {
            return Ok(HeldIndices::I64(array));
        }
        let got = untyped(name, &array)?.dtype().str()?;
        Err(PyTypeError::new_err(format!("{name}: expected a vector of int32 or int64, got {got}")))
    }

    fn view(&self) -> Indices<'_> {
        match self {
            HeldIndices::I32(array) => Indices::I32(array.as_slice().expect("contiguous")),
            HeldIndices::I64(array) => Indices::I64(array.as_slice().expect("contiguous")),
        }
    }
}

/// `object`, or where its numbers do not lie one after the other, aligned, a copy in which they do.
fn contiguous<'py>(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let array = untyped(name, object)?;
    if array.is_c_contiguous() && array.is_aligned() { Ok(object.clone()) } else { object.call_method0("copy") }
}

/// Whether `object` is an array that the core reads as it is: no subclass, real numbers of at most 64 bits in native byte
/// order (float16 excepted), of a shape that `fits`.
pub fn is_plain(object: &Bound<'_, PyAny>, fits: impl FnOnce(&[usize]) -> bool) -> bool {
    object.cast_exact::<PyUntypedArray>().is_ok_and(|array| {
        let dtype = array.dtype();
        let numeric = match dtype.kind() {
            b'f' => [4, 8].contains(&dtype.itemsize()),
            b'b' | b'i' | b'u' => true,
            _ => false,
        };
        numeric && dtype.is_native_byteorder() != Some(false) && fits(array.shape())
    })
}

/// `object` as an array of whatever dtype.
///
/// # Errors
/// TypeError for anything else, naming it.
pub fn untyped<'a, 'py>(name: &str, object: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyUntypedArray>> {
    object.cast::<PyUntypedArray>().map_err(|_| {
        let got = object.get_type();
        PyTypeError::new_err(format!("{name}: expected a NumPy array, got {got}"))
    })
}

/// Plain numbers of the computation's dtype, `(rows, columns)` and row after row, from a one- or two-dimensional array; a
/// vector is a column.
///
/// # Errors
/// TypeError for what is no real numeric array, ValueError for another shape.
pub fn plain<'py, T: Number + numpy::Element>(
    name: &str,
    object: &Bound<'py, PyAny>,
    shape: (usize, usize),
) -> PyResult<Vec<T>> {
    let array = untyped(name, object)?;
    let fits = match *array.shape() {
        [rows, columns] => (rows, columns) == shape,
        [rows] => (rows, 1) == shape,
        _ => false,
    };
    if !fits {
        let (rows, columns) = shape;
        let expected = format!("shape ({rows}, {columns})");
        let expected = if columns == 1 { format!("shape ({rows},) or ({rows}, 1)") } else { expected };
        let got = object.getattr("shape")?.str()?;
        return Err(super::exception(Error::expected(name, expected, got)));
    }
    let object = if array.ndim() == 1 { object.call_method1("reshape", (shape,))? } else { object.clone() };
    let held = Held::new(name, &object)?;
    let mut numbers = vec![T::ZERO; shape.0 * shape.1];
    held.matrix().gather_plain(lamella::data::Selection::From(0), 0..shape.0, &mut numbers);
    Ok(numbers)
}

/// Classes below `outputs` from a one-dimensional int64 array.
///
/// # Errors
/// TypeError for anything else, ValueError for a class out of range, naming its row.
pub fn classes(name: &str, object: &Bound<'_, PyAny>, outputs: usize) -> PyResult<Vec<u32>> {
    let array = object.cast::<PyArray1<i64>>().map_err(|_| {
        PyTypeError::new_err(format!("{name}: expected a vector of int64 classes or a matrix of one column a class"))
    })?;
    let array = if array.is_aligned() { array.clone() } else { array.call_method0("copy")?.cast_into()? };
    let array = array.readonly();
    let check = |(row, &class): (usize, &i64)| {
        u32::try_from(class).ok().filter(|&class| (class as usize) < outputs).ok_or_else(|| {
            super::exception(Error::expected(name, format!("classes in 0..{outputs}"), format!("{class} in row {row}")))
        })
    };
    array.as_array().iter().enumerate().map(check).collect()
}

/// A new array of zeros that `fill` writes into, row after row, before anybody else sees it; and what `fill` returns.
///
/// # Errors
/// MemoryError where it does not fit, and those of `fill`.
pub fn filled<'py, T: numpy::Element, D: Dimension, R>(
    py: Python<'py>,
    shape: impl IntoDimension<Dim = D>,
    fill: impl FnOnce(&mut [T]) -> PyResult<R>,
) -> PyResult<(R, Bound<'py, PyAny>)> {
    let mut shape = shape.into_dimension();
    let numbers = shape.slice().iter().fold(1usize, |all, &n| all.saturating_mul(n));
    let bytes = numbers.saturating_mul(size_of::<T>());
    if !lamella::memory::suffices(bytes) {
        return Err(super::exception(Error::Memory { what: "outputs", bytes }));
    }
    let dtype = T::get_dtype(py).into_dtype_ptr();
    // SAFETY: NumPy reads as many sizes as there are dimensions, takes the reference to the dtype over, and returns a new
    // array of that shape and dtype in row order, or null with an exception set.
    let array = unsafe {
        let array = PY_ARRAY_API.PyArray_Zeros(py, shape.ndim_cint(), shape.as_dims_ptr(), dtype, 0);
        Bound::from_owned_ptr_or_err(py, array)?.cast_into_unchecked::<PyArray<T, D>>()
    };
    // SAFETY: nobody else has the array yet, and it lies without gaps.
    let result = fill(unsafe { array.as_slice_mut()? })?;
    Ok((result, array.into_any()))
}

/// A new array `(rows, columns)` of numbers that lie row after row.
pub fn matrix<'py, T: numpy::Element>(
    py: Python<'py>,
    rows: usize,
    columns: usize,
    numbers: Vec<T>,
) -> Bound<'py, PyAny> {
    let array = Array2::from_shape_vec((rows, columns), numbers).expect("as many numbers as the shape says");
    array.into_pyarray(py).into_any()
}

/// A new array, the transpose `(columns, rows)` in C order of numbers that lie row after row.
pub fn transposed<'py, T: Number + numpy::Element>(
    py: Python<'py>,
    rows: usize,
    columns: usize,
    numbers: &[T],
) -> Bound<'py, PyAny> {
    let view = ArrayView2::from_shape((rows, columns), numbers).expect("as many numbers as the shape says");
    let turned: Array2<T> = view.t().as_standard_layout().into_owned();
    PyArray2::from_owned_array(py, turned).into_any()
}
