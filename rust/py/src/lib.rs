//! The door to Python: borrow arrays, release the GIL, call the kernels. No arithmetic.

mod array;
mod error;
mod gillespie;
mod maps;
mod run;

/// The compiled part of `unitmass`; private, its signatures may change.
#[pyo3::pymodule]
mod _core {
    #[pymodule_export]
    use crate::gillespie::Network;
    #[pymodule_export]
    use crate::maps::{
        entmax, entmax_alpha_grad, entmax_sparse, entmax_vjp, entmax_vjp_sparse, log_softmax,
        log_softmax_vjp, project_simplex, project_simplex_sparse, softmax, softmax_vjp, threshold,
    };
    #[pymodule_export]
    use crate::run::{available_workers, simd_level, simd_levels};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::run::choose_level()?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
