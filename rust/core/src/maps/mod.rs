//! Maps from scores to probability distributions.
mod anchored;
mod bounded;
mod entmax;
mod evidence;
mod gradient;
mod infinite;
mod kernels;
mod l1_ball;
mod mass;
pub(crate) mod noise;
mod normmax;
mod power;
mod softmax;
mod sparse;
mod taylor;
mod tempered;
mod threshold;
pub(crate) mod tile;
pub(crate) mod top;

pub use crate::batch::{PerRow, Scores, Shape, Storage};
pub(crate) use infinite::Shares;
pub(crate) use kernels::Kernels;
pub(crate) use mass::Mass;
pub(crate) use softmax::{inverse_temperature, multiply};

pub use bounded::{Upper, capped_simplex, capped_simplex_vjp, csoftmax, csoftmax_vjp};
pub use entmax::{Method, entmax, project_simplex, threshold};
pub use evidence::ev_softmax;
pub use gradient::{
    entmax_alpha_grad, entmax_vjp, entmax_vjp_sparse, log_softmax_vjp, softmax_vjp,
};
pub use l1_ball::{project_l1_ball, project_l1_ball_vjp};
pub use noise::{Noise, Table, noisy_argmax, noisy_argmax_vjp, noisy_sample};
pub use normmax::{normmax, normmax_vjp};
pub use softmax::{log_softmax, softmax};
pub use sparse::{Sparse, entmax_sparse, project_simplex_sparse};
pub use taylor::{taylor_softmax, taylor_softmax_vjp};
pub use top::{Keep, topk_softmax};
