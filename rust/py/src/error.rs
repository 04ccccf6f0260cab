//! Core errors on their way to Python.

use pyo3::{
    exceptions::{PyKeyboardInterrupt, PyValueError},
    prelude::*,
};
use unitmass_core::error::Error;

/// A core error (the orphan rule asks for a type of our own).
pub(crate) struct Refused(pub(crate) Error);

impl From<Refused> for PyErr {
    fn from(Refused(error): Refused) -> Self {
        match error {
            Error::Empty { .. }
            | Error::Length { .. }
            | Error::Domain { .. }
            | Error::Integer { .. }
            | Error::Unsupported { .. }
            | Error::Trajectory(_) => PyValueError::new_err(error.to_string()),
            Error::Interrupted => PyKeyboardInterrupt::new_err(()),
        }
    }
}
