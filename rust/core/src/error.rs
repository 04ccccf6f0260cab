//! What can be wrong with a call, named so that its owner can mend it.

/// A call that was refused or stopped. A refused call has written nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The axis to work along has no values.
    #[error("{argument}: the axis is empty")]
    Empty {
        /// The argument's name, as the caller knows it.
        argument: &'static str,
    },
    /// The number of values does not fit.
    #[error("{argument}: expected {expected} values, found {found}")]
    Length {
        /// The argument's name, as the caller knows it.
        argument: &'static str,
        /// What would have fitted.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// A parameter lies outside its domain.
    #[error("{argument}: must be {domain}, found {}", Shown(*.value))]
    Domain {
        /// The argument's name, as the caller knows it.
        argument: &'static str,
        /// The values that are allowed.
        domain: &'static str,
        /// What came.
        value: f64,
    },
    /// The watch asked to stop; what was written so far is unspecified.
    #[error("interrupted")]
    Interrupted,
}

/// A number as Python shows it.
struct Shown(f64);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_nan() {
            f.write_str("nan")
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}
