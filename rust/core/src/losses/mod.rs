//! Losses of scores against targets, and their gradients.

mod cosent;
mod cross_entropy;
mod exact;
mod fenchel_young;
mod group;
mod metrics;
mod rows;
mod subset;
mod zlpr;

pub use cosent::cosent;
pub use cross_entropy::{Margin, cross_entropy, margin_softmax};
pub use exact::exact_accuracy_loss;
pub use fenchel_young::{entmax_loss, normmax_loss, topk_cross_entropy};
pub use group::group_zlpr;
pub use metrics::{smooth_accuracy, smooth_f1, soft_argmax, soft_top_k, soft_top_k_vjp};
pub use rows::{Batch, Reduction, Targets};
pub use subset::subset_softmax_loss;
pub use zlpr::zlpr;

/// The kernels of the losses, as [`crate::kernels`] holds them.
pub(crate) struct Kernels<T> {
    cross_entropy: cross_entropy::Kernels<T>,
    fenchel_young: fenchel_young::Kernels<T>,
    metrics: metrics::Kernels<T>,
    rows: rows::Kernels<T>,
    zlpr: zlpr::Kernels<T>,
    subset: subset::Kernels<T>,
    group: group::Kernels<T>,
    cosent: cosent::Kernels<T>,
}

impl<T: crate::scalar::Real> Kernels<T> {
    pub(crate) const AT_ANY_LEVEL: Self = Self {
        cross_entropy: cross_entropy::Kernels::AT_ANY_LEVEL,
        fenchel_young: fenchel_young::Kernels::AT_ANY_LEVEL,
        metrics: metrics::Kernels::AT_ANY_LEVEL,
        rows: rows::Kernels::AT_ANY_LEVEL,
        zlpr: zlpr::Kernels::AT_ANY_LEVEL,
        subset: subset::Kernels::AT_ANY_LEVEL,
        group: group::Kernels::AT_ANY_LEVEL,
        cosent: cosent::Kernels::AT_ANY_LEVEL,
    };
}
