"""Probability kernels: scores in, probabilities out, fast and to the last place.

The maps (`softmax`, `sparsemax`, `entmax`, `project_simplex` and their gradients) take arrays of any shape and work
along one axis; `score_batches` and the command ``unitmass score`` run them over files. `ReactionNetwork` simulates
networks of reactions, trajectory by trajectory. `common_sector` and its relatives tell how random points lie on circles
and spheres, exactly or by trials.
"""

from unitmass._config import show_config
from unitmass._core import __version__ as __version__
from unitmass._workers import set_workers
from unitmass.gillespie import Ensemble, Events, Moments, Passages, ReactionNetwork
from unitmass.maps import (
    entmax,
    entmax_alpha_grad,
    entmax_vjp,
    log_softmax,
    log_softmax_vjp,
    project_simplex,
    project_simplex_vjp,
    softmax,
    softmax_vjp,
    sparsemax,
    sparsemax_vjp,
    threshold,
)
from unitmass.score import score_batches
from unitmass.sectors import (
    CircularTest,
    CommonSector,
    MaxGap,
    MinGap,
    SectorEstimate,
    circular_range_test,
    common_cap,
    common_sector,
    coverage,
    gap_counts,
    gap_means,
    hemisphere,
    hodges_ajne_test,
    scan_circle,
    simulate_gaps,
)

__all__ = [
    "CircularTest",
    "CommonSector",
    "Ensemble",
    "Events",
    "MaxGap",
    "MinGap",
    "Moments",
    "Passages",
    "ReactionNetwork",
    "SectorEstimate",
    "circular_range_test",
    "common_cap",
    "common_sector",
    "coverage",
    "entmax",
    "entmax_alpha_grad",
    "entmax_vjp",
    "gap_counts",
    "gap_means",
    "hemisphere",
    "hodges_ajne_test",
    "log_softmax",
    "log_softmax_vjp",
    "project_simplex",
    "project_simplex_vjp",
    "scan_circle",
    "score_batches",
    "set_workers",
    "show_config",
    "simulate_gaps",
    "softmax",
    "softmax_vjp",
    "sparsemax",
    "sparsemax_vjp",
    "threshold",
]
