//! The door to Python: borrow arrays, release the GIL, call the kernels. No arithmetic.

mod array;
mod error;
mod gillespie;
mod losses;
mod maps;
mod run;
mod sectors;
mod smooth;

/// The compiled part of `unitmass`; private, its signatures may change.
#[pyo3::pymodule]
mod _core {
    #[pymodule_export]
    use crate::gillespie::Network;
    #[pymodule_export]
    use crate::losses::{
        cosent, cross_entropy, entmax_loss, exact_accuracy_loss, group_zlpr, margin_softmax,
        normmax_loss, smooth_accuracy, smooth_f1, soft_argmax, soft_top_k, soft_top_k_vjp,
        subset_softmax_loss, topk_cross_entropy, zlpr,
    };
    #[pymodule_export]
    use crate::maps::{
        Noise, capped_simplex, capped_simplex_vjp, csoftmax, csoftmax_vjp, entmax,
        entmax_alpha_grad, entmax_sparse, entmax_vjp, entmax_vjp_sparse, ev_softmax, log_softmax,
        log_softmax_vjp, noisy_argmax, noisy_argmax_vjp, noisy_sample, normmax, normmax_vjp,
        project_l1_ball, project_l1_ball_vjp, project_simplex, project_simplex_sparse, softmax,
        softmax_vjp, taylor_softmax, taylor_softmax_vjp, threshold, topk_softmax,
    };
    #[pymodule_export]
    use crate::run::{available_workers, simd_level, simd_levels};
    #[pymodule_export]
    use crate::sectors::{
        Density, Experiment, beta_quantile, gap_counts, gap_law, gap_means, gap_moments,
        half_circle, half_space, small_cap,
    };
    #[pymodule_export]
    use crate::smooth::{power_mean, smooth_abs, smooth_function, smooth_max, smooth_pieces};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::run::choose_level()?;
        // NumPy is met here, and not by a first call that a signal may interrupt.
        drop(numpy::PyArray1::<f64>::zeros(module.py(), 0, false));
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
