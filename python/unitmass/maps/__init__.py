"""Maps from scores to probability distributions, and their gradients.

Every function works along `axis` (the last by default, where SciPy's softmax takes all), on arrays of any shape and
memory layout. The bits of a result do not depend on `workers`, the layout, the other rows, or the CPU.
"""

from unitmass.maps.bounded import (
    budget,
    budget_vjp,
    capped_simplex,
    capped_simplex_vjp,
    csoftmax,
    csoftmax_vjp,
    csparsemax,
    csparsemax_vjp,
)
from unitmass.maps.exponential import (
    ev_softmax,
    ev_softmax_vjp,
    log_softmax,
    log_softmax_vjp,
    softmax,
    softmax_vjp,
    taylor_softmax,
    taylor_softmax_vjp,
    topk_softmax,
    topk_softmax_vjp,
)
from unitmass.maps.listing import Map, Table, table
from unitmass.maps.noise import noisy_argmax, noisy_argmax_vjp, sample
from unitmass.maps.norms import normmax, normmax_vjp, project_l1_ball, project_l1_ball_vjp
from unitmass.maps.thresholds import (
    entmax,
    entmax_alpha_grad,
    entmax_vjp,
    project_simplex,
    project_simplex_vjp,
    sparsegen,
    sparsegen_vjp,
    sparsemax,
    sparsemax_vjp,
    threshold,
)

__all__ = [
    "Map",
    "Table",
    "budget",
    "budget_vjp",
    "capped_simplex",
    "capped_simplex_vjp",
    "csoftmax",
    "csoftmax_vjp",
    "csparsemax",
    "csparsemax_vjp",
    "entmax",
    "entmax_alpha_grad",
    "entmax_vjp",
    "ev_softmax",
    "ev_softmax_vjp",
    "log_softmax",
    "log_softmax_vjp",
    "noisy_argmax",
    "noisy_argmax_vjp",
    "normmax",
    "normmax_vjp",
    "project_l1_ball",
    "project_l1_ball_vjp",
    "project_simplex",
    "project_simplex_vjp",
    "sample",
    "softmax",
    "softmax_vjp",
    "sparsegen",
    "sparsegen_vjp",
    "sparsemax",
    "sparsemax_vjp",
    "table",
    "taylor_softmax",
    "taylor_softmax_vjp",
    "threshold",
    "topk_softmax",
    "topk_softmax_vjp",
]
