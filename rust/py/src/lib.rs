//! The door to Python: borrow arrays, release the GIL, call the kernels. No arithmetic.

mod array;
mod error;
mod gillespie;
mod maps;
mod run;
mod sectors;

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
    #[pymodule_export]
    use crate::sectors::{
        Density, Experiment, beta_quantile, gap_counts, gap_law, gap_means, gap_moments,
        half_circle, half_space, small_cap,
    };
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::run::choose_level()?;
        // NumPy is met here, and not by a first call that a signal may interrupt.
        drop(numpy::PyArray1::<f64>::zeros(module.py(), 0, false));
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
