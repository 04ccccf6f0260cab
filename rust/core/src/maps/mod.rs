//! Maps from scores to probability distributions.
mod anchored;
mod entmax;
mod gradient;
mod kernels;
mod power;
mod softmax;
mod sparse;
mod threshold;
mod tile;

pub use crate::batch::{PerRow, Scores, Shape, Storage};
pub(crate) use kernels::Kernels;

pub use entmax::{Method, entmax, project_simplex, threshold};
pub use gradient::{
    entmax_alpha_grad, entmax_vjp, entmax_vjp_sparse, log_softmax_vjp, softmax_vjp,
};
pub use softmax::{log_softmax, softmax};
pub use sparse::{Sparse, entmax_sparse, project_simplex_sparse};
