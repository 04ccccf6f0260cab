//! Borrowing arrays: the element types, and the order that the kernels rely on.

use numpy::{
    Element, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyReadwriteArrayDyn,
    PyUntypedArrayMethods,
};
use pyo3::{exceptions::PyTypeError, prelude::*};
use unitmass_core::maps::{PerRow, Shape};

/// `(outer, n, inner)`, as Python counts it.
pub(crate) type Dimensions = (usize, usize, usize);

pub(crate) fn shape((outer, n, inner): Dimensions) -> Shape {
    Shape { outer, n, inner }
}

/// Evaluates an expression with `$E` naming the element type of an array: f32, f64 or f16.
macro_rules! by_dtype {
    ($array:expr, $E:ident => $body:expr) => {{
        let array: &pyo3::Bound<'_, pyo3::PyAny> = $array;
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

/// Borrows to read.
pub(crate) fn borrowed<'py, E: Element>(
    array: &Bound<'py, PyAny>,
) -> PyResult<PyReadonlyArrayDyn<'py, E>> {
    Ok(contiguous(array)?.try_readonly()?)
}

/// Borrows to write.
pub(crate) fn borrowed_mut<'py, E: Element>(
    array: &Bound<'py, PyAny>,
) -> PyResult<PyReadwriteArrayDyn<'py, E>> {
    Ok(contiguous(array)?.try_readwrite()?)
}

/// Refuses what is no slice. `as_slice` alone would take Fortran order for C order, and shuffle the rows.
fn contiguous<'a, 'py, E: Element>(
    array: &'a Bound<'py, PyAny>,
) -> PyResult<&'a Bound<'py, PyArrayDyn<E>>> {
    let array = array.cast::<PyArrayDyn<E>>()?;
    if !array.is_c_contiguous() {
        return Err(PyTypeError::new_err("the array is not C-contiguous"));
    }
    if !array.data().is_aligned() {
        return Err(PyTypeError::new_err("the array is not aligned"));
    }
    Ok(array)
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
