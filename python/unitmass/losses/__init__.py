"""Losses of scores against targets, with their gradients, and smooth stand-ins for metrics.

Every loss works along `axis` and returns a value for each row, or with ``value_and_grad=True`` also the gradient with
respect to the scores. The bits of a result do not depend on `workers`, the layout, the other rows, or the CPU.
"""

from unitmass.losses.labels import (
    am_softmax,
    arcface,
    cross_entropy,
    entmax_loss,
    exact_accuracy_loss,
    normmax_loss,
    sphereface,
    topk_cross_entropy,
)
from unitmass.losses.metrics import smooth_accuracy, smooth_f1, soft_argmax, soft_top_k, soft_top_k_vjp
from unitmass.losses.sets import cosent, group_zlpr, subset_softmax_loss, zlpr

__all__ = [
    "am_softmax",
    "arcface",
    "cosent",
    "cross_entropy",
    "entmax_loss",
    "exact_accuracy_loss",
    "group_zlpr",
    "normmax_loss",
    "smooth_accuracy",
    "smooth_f1",
    "soft_argmax",
    "soft_top_k",
    "soft_top_k_vjp",
    "sphereface",
    "subset_softmax_loss",
    "topk_cross_entropy",
    "zlpr",
]
