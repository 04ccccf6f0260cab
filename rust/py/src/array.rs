//! Borrowing arrays: the element types, and the order that the kernels rely on.

use numpy::{
    Element, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn,
    PyReadwriteArrayDyn, PyUntypedArray, PyUntypedArrayMethods, npyffi::NPY_TYPES,
};
use pyo3::{exceptions::PyTypeError, prelude::*};
use unitmass_core::maps::{PerRow, Shape};

/// How an array lies along an axis; nothing unless the kernels take it as it is: of floating-point numbers, in C order,
/// and with values on the axis.
pub(crate) fn plain_shape(array: &Bound<'_, PyUntypedArray>, axis: isize) -> Option<Shape> {
    const KNOWN: [NPY_TYPES; 3] = [
        NPY_TYPES::NPY_FLOAT,
        NPY_TYPES::NPY_DOUBLE,
        NPY_TYPES::NPY_HALF,
    ];
    let dtype = array.dtype();
    let plain = array.is_c_contiguous()
        && array.is_aligned()
        && dtype.is_native_byteorder() == Some(true)
        && KNOWN.iter().any(|&known| known as i32 == dtype.num());
    let dimensions = array.shape();
    let from_end = if axis < 0 { dimensions.len() } else { 0 };
    let axis = from_end.checked_add_signed(axis)?;
    let n = *dimensions.get(axis)?;
    (plain && n > 0).then(|| Shape {
        outer: dimensions[..axis].iter().product(),
        n,
        inner: dimensions[axis + 1..].iter().product(),
    })
}

/// [`plain_shape`] of an array that Python has made plain.
pub(crate) fn shape(array: &Bound<'_, PyUntypedArray>, axis: isize) -> PyResult<Shape> {
    plain_shape(array, axis).ok_or_else(|| {
        PyTypeError::new_err("expected a C-contiguous, aligned array of numbers along the axis")
    })
}

/// Evaluates an expression with `$E` naming the element type of an array: f32, f64 or f16.
macro_rules! by_dtype {
    ($array:expr, $E:ident => $body:expr) => {{
        let array: &pyo3::Bound<'_, numpy::PyUntypedArray> = $array;
        if array.is_instance_of::<numpy::PyArrayDyn<f32>>() {
            type $E = f32;
            $body
        } else if array.is_instance_of::<numpy::PyArrayDyn<f64>>() {
            type $E = f64;
            $body
        } else {
            type $E = half::f16;
            $body
        }
    }};
}
pub(crate) use by_dtype;

/// A new array, to be filled.
pub(crate) fn empty_like<'py, E: Element>(
    array: &Bound<'py, PyUntypedArray>,
) -> Bound<'py, PyUntypedArray> {
    // SAFETY: of numbers, which may be anything; and nothing reads it before a kernel has filled it.
    let new = unsafe { PyArrayDyn::<E>::new(array.py(), array.shape(), false) };
    new.as_untyped().clone()
}

/// Borrows to read.
pub(crate) fn borrowed<'py, E: Element>(
    array: &Bound<'py, PyUntypedArray>,
) -> PyResult<PyReadonlyArrayDyn<'py, E>> {
    Ok(contiguous(array)?.try_readonly()?)
}

/// Borrows to write.
pub(crate) fn borrowed_mut<'py, E: Element>(
    array: &Bound<'py, PyUntypedArray>,
) -> PyResult<PyReadwriteArrayDyn<'py, E>> {
    Ok(contiguous(array)?.try_readwrite()?)
}

/// Refuses what is no slice. `as_slice` alone would take Fortran order for C order, and shuffle the rows.
fn contiguous<'a, 'py, E: Element>(
    array: &'a Bound<'py, PyUntypedArray>,
) -> PyResult<&'a Bound<'py, PyArrayDyn<E>>> {
    if !array.is_c_contiguous() {
        return Err(PyTypeError::new_err("the array is not C-contiguous"));
    }
    if !array.is_aligned() {
        return Err(PyTypeError::new_err("the array is not aligned"));
    }
    Ok(array.cast::<PyArrayDyn<E>>()?)
}

/// A parameter for all rows, or one for each.
#[derive(FromPyObject)]
pub(crate) enum Parameter<'py> {
    All(f64),
    Each(PyReadonlyArrayDyn<'py, f64>),
}

impl Parameter<'_> {
    pub(crate) fn per_row(&self) -> PyResult<PerRow<'_>> {
        Ok(match self {
            Parameter::All(value) => PerRow::All(*value),
            Parameter::Each(values) => PerRow::Each(values.as_slice()?),
        })
    }
}
