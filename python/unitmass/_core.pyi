from collections.abc import Callable
from typing import Any, Literal, Self, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Density",
    "Experiment",
    "Network",
    "Noise",
    "__version__",
    "available_workers",
    "beta_quantile",
    "capped_simplex",
    "capped_simplex_vjp",
    "cosent",
    "cross_entropy",
    "csoftmax",
    "csoftmax_vjp",
    "entmax",
    "entmax_alpha_grad",
    "entmax_loss",
    "entmax_sparse",
    "entmax_vjp",
    "entmax_vjp_sparse",
    "ev_softmax",
    "exact_accuracy_loss",
    "gap_counts",
    "gap_law",
    "gap_means",
    "gap_moments",
    "group_zlpr",
    "half_circle",
    "half_space",
    "log_softmax",
    "log_softmax_vjp",
    "margin_softmax",
    "noisy_argmax",
    "noisy_argmax_vjp",
    "noisy_sample",
    "normmax",
    "normmax_loss",
    "normmax_vjp",
    "power_mean",
    "project_l1_ball",
    "project_l1_ball_vjp",
    "project_simplex",
    "project_simplex_sparse",
    "simd_level",
    "simd_levels",
    "small_cap",
    "smooth_abs",
    "smooth_accuracy",
    "smooth_f1",
    "smooth_function",
    "smooth_max",
    "smooth_pieces",
    "soft_argmax",
    "soft_top_k",
    "soft_top_k_vjp",
    "softmax",
    "softmax_vjp",
    "subset_softmax_loss",
    "taylor_softmax",
    "taylor_softmax_vjp",
    "threshold",
    "topk_cross_entropy",
    "topk_softmax",
    "zlpr",
]

__version__: str

_Scores: TypeAlias = NDArray[np.floating[Any]]
_Mask: TypeAlias = NDArray[np.bool_] | None
_PerRow: TypeAlias = float | NDArray[np.float64]
_Upper: TypeAlias = float | _Scores
_Triple: TypeAlias = tuple[_Scores, NDArray[np.uintp], NDArray[np.uintp]]

_Ops: TypeAlias = list[tuple[str, float]]
_Form: TypeAlias = tuple[int, list[tuple[int, int]]] | _Ops
_Intervention: TypeAlias = tuple[_Ops, bool, bool, bool, _Ops | None, list[tuple[int, _Ops]]]

@final
class Network:
    def __new__(
        cls,
        species: int,
        variables: int,
        constants: int,
        reactions: list[tuple[_Form, list[tuple[int, int]]]],
        interventions: list[_Intervention],
    ) -> Network: ...
    def fastest(self, until: _Ops | None) -> str: ...
    def simulate(
        self,
        method: str,
        start: NDArray[np.float64],
        constants: NDArray[np.float64],
        times: NDArray[np.float64],
        species: list[int],
        seed: int,
        first: int,
        max_events: int | None,
        until: _Ops | None,
        counts: NDArray[np.int64],
        events: NDArray[np.uint64],
        stopped: NDArray[np.float64],
        log: bool,
        workers: int,
        progress: Callable[[int, int], object] | None,
    ) -> tuple[
        tuple[str, int, float, int, float, list[float]] | None,
        tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]] | None,
    ]: ...

def available_workers() -> int: ...
def simd_level() -> str: ...
def simd_levels() -> list[str]: ...
def softmax(
    x: _Scores | None, mask: _Mask, out: _Scores | None, axis: int, temperature: float, workers: int
) -> _Scores | None: ...
def log_softmax(
    x: _Scores | None, mask: _Mask, out: _Scores | None, axis: int, temperature: float, workers: int
) -> _Scores | None: ...
def project_simplex(
    x: _Scores | None, mask: _Mask, out: _Scores | None, axis: int, total: _PerRow, workers: int
) -> _Scores | None: ...
def entmax(
    x: _Scores | None,
    mask: _Mask,
    out: _Scores | None,
    axis: int,
    alpha: _PerRow,
    n_iter: int | None,
    temperature: float,
    workers: int,
) -> _Scores | None: ...
def capped_simplex(
    x: _Scores | None,
    mask: _Mask,
    out: _Scores | None,
    axis: int,
    total: _PerRow,
    upper: _Upper,
    temperature: float,
    workers: int,
) -> _Scores | None: ...
def csoftmax(
    x: _Scores | None,
    mask: _Mask,
    out: _Scores | None,
    axis: int,
    temperature: float,
    upper: _Upper,
    workers: int,
) -> _Scores | None: ...
def normmax(
    x: _Scores | None,
    mask: _Mask,
    out: _Scores | None,
    axis: int,
    alpha: _PerRow,
    temperature: float,
    workers: int,
) -> _Scores | None: ...
def project_l1_ball(
    x: _Scores | None, mask: _Mask, out: _Scores | None, axis: int, radius: _PerRow, workers: int
) -> _Scores | None: ...
def topk_softmax(
    x: _Scores | None,
    mask: _Mask,
    out: _Scores | None,
    axis: int,
    temperature: float,
    k: int | None,
    top_p: float | None,
    workers: int,
) -> _Scores | None: ...
def taylor_softmax(
    x: _Scores | None,
    mask: _Mask,
    out: _Scores | None,
    axis: int,
    temperature: float,
    order: int,
    workers: int,
) -> _Scores | None: ...
def ev_softmax(
    x: _Scores | None, mask: _Mask, out: _Scores | None, axis: int, temperature: float, workers: int
) -> _Scores | None: ...

@final
class Noise:
    def __new__(cls, name: str) -> Self: ...
    @staticmethod
    def table(grid: NDArray[np.float64], pdf: NDArray[np.float64], cdf: NDArray[np.float64]) -> Noise: ...

def noisy_argmax(
    x: _Scores | None,
    mask: _Mask,
    out: _Scores | None,
    axis: int,
    scale: float,
    noise: Noise,
    workers: int,
) -> _Scores | None: ...
def noisy_sample(
    x: _Scores, mask: _Mask, axis: int, noise: Noise, scale: float, size: int, seed: int, workers: int
) -> NDArray[np.int64]: ...
def project_simplex_sparse(x: _Scores, mask: _Mask, axis: int, total: _PerRow, workers: int) -> _Triple: ...
def entmax_sparse(
    x: _Scores, mask: _Mask, axis: int, alpha: _PerRow, n_iter: int | None, temperature: float, workers: int
) -> _Triple: ...
def threshold(
    x: _Scores, mask: _Mask, axis: int, alpha: _PerRow, workers: int
) -> tuple[_Scores, NDArray[np.int64]]: ...
def softmax_vjp(p: _Scores, g: _Scores, out: _Scores, axis: int, temperature: float, workers: int) -> None: ...
def log_softmax_vjp(log_p: _Scores, g: _Scores, out: _Scores, axis: int, temperature: float, workers: int) -> None: ...
def entmax_vjp(
    p: _Scores, g: _Scores, out: _Scores, axis: int, alpha: _PerRow, temperature: float, workers: int
) -> None: ...
def entmax_alpha_grad(p: _Scores, g: _Scores, out: _Scores, axis: int, alpha: _PerRow, workers: int) -> None: ...
def entmax_vjp_sparse(
    p: _Scores,
    columns: NDArray[np.uintp],
    starts: NDArray[np.uintp],
    g: _Scores,
    out: _Scores,
    n: int,
    alpha: _PerRow,
    temperature: float,
    workers: int,
) -> None: ...
def capped_simplex_vjp(
    p: _Scores, g: _Scores, out: _Scores, axis: int, upper: _Upper, temperature: float, workers: int
) -> None: ...
def csoftmax_vjp(
    p: _Scores, g: _Scores, out: _Scores, axis: int, upper: _Upper, temperature: float, workers: int
) -> None: ...
def normmax_vjp(
    p: _Scores, g: _Scores, out: _Scores, axis: int, alpha: _PerRow, temperature: float, workers: int
) -> None: ...
def project_l1_ball_vjp(p: _Scores, g: _Scores, out: _Scores, axis: int, radius: _PerRow, workers: int) -> None: ...
def taylor_softmax_vjp(
    x: _Scores, g: _Scores, out: _Scores, axis: int, order: int, temperature: float, workers: int
) -> None: ...
def noisy_argmax_vjp(
    x: _Scores, g: _Scores, out: _Scores, axis: int, noise: Noise, scale: float, workers: int
) -> None: ...

@final
class Density:
    CELLS: int
    @property
    def peak(self) -> float: ...
    def __new__(cls, masses: NDArray[np.float64]) -> Self: ...
    @staticmethod
    def von_mises(kappa: float) -> Density: ...
    @staticmethod
    def wrapped_normal(sigma: float) -> Density: ...
    def leaders(self, n: int, theta: NDArray[np.float64], workers: int) -> NDArray[np.float64]: ...

@final
class Experiment:
    @staticmethod
    def arc(n: int, k: int, density: Density | None = None) -> Experiment: ...
    @staticmethod
    def cap(n: int, d: int) -> Experiment: ...
    @staticmethod
    def cover(lengths: NDArray[np.float64]) -> Experiment: ...
    @staticmethod
    def lead(n: int, theta: float, density: Density | None = None) -> Experiment: ...
    def trials_in_block(self, angles: NDArray[np.float64]) -> int: ...
    def count(
        self,
        angles: NDArray[np.float64],
        seed: int,
        first_block: int,
        blocks: int,
        trials: int,
        hits: int,
        above: bool,
        seconds: float,
        workers: int,
        progress: Callable[[int, int], object] | None,
    ) -> tuple[NDArray[np.uint64], int, Literal["trials", "hits", "time"]]: ...
    def sample(
        self,
        numbers: NDArray[np.float64],
        seed: int,
        workers: int,
        progress: Callable[[int, int], object] | None,
    ) -> None: ...

def gap_law(
    law: str, quantity: str, n: NDArray[np.uint64], value: NDArray[np.float64], workers: int
) -> NDArray[np.float64]: ...
def gap_moments(law: str, n: int) -> tuple[float, float]: ...
def gap_means(means: NDArray[np.float64], workers: int) -> None: ...
def gap_counts(n: int, gap: float) -> NDArray[np.float64]: ...
def half_circle(n: int, k: int) -> float: ...
def half_space(n: int, d: int) -> tuple[float, float]: ...
def small_cap(n: int, angle: float) -> float: ...
def beta_quantile(a: float, b: float, p: float) -> float: ...

# --- losses -----------------------------------------------------------------------------------------------------------

_Targets: TypeAlias = _Scores | NDArray[np.int64]
# Scores, targets, mask, axis, weights, the label to ignore, reduction, whether the gradient is wanted, workers.
_Request: TypeAlias = tuple[_Scores, _Targets, _Mask, int, _PerRow, int | None, str, bool, int]
_Loss: TypeAlias = tuple[NDArray[np.float64], _Scores | None, float]

def cross_entropy(
    request: _Request,
    temperature: float,
    label_smoothing: float,
) -> _Loss: ...
def margin_softmax(
    request: _Request,
    kind: str,
    margin: float,
    scale: float,
) -> _Loss: ...
def entmax_loss(
    request: _Request,
    alpha: _PerRow,
    with_alpha_slopes: bool,
) -> tuple[NDArray[np.float64], _Scores | None, float, NDArray[np.float64] | None]: ...
def normmax_loss(
    request: _Request,
    alpha: _PerRow,
) -> _Loss: ...
def topk_cross_entropy(
    request: _Request,
    k: int,
) -> _Loss: ...
def smooth_accuracy(
    request: _Request,
    temperature: float,
) -> _Loss: ...
def smooth_f1(
    request: _Request,
    temperature: float,
) -> _Loss: ...
def exact_accuracy_loss(
    request: _Request,
    temperature: float,
    margin: float | None,
    normalize: bool,
) -> _Loss: ...
def zlpr(
    request: _Request,
    threshold: _PerRow,
    margin: float | None,
    scale: float,
) -> _Loss: ...
def subset_softmax_loss(
    request: _Request,
) -> _Loss: ...
def group_zlpr(
    request: _Request,
    m: int,
    centred: bool,
) -> _Loss: ...
def cosent(
    request: _Request,
    scale: float,
) -> _Loss: ...
def soft_argmax(
    scores: _Scores, mask: _Mask, axis: int, with_gradient: bool, temperature: float, workers: int
) -> tuple[NDArray[np.float64], _Scores | None]: ...
def soft_top_k(scores: _Scores, mask: _Mask, out: _Scores, axis: int, k: int, workers: int) -> None: ...
def soft_top_k_vjp(scores: _Scores, g: _Scores, out: _Scores, axis: int, k: int, workers: int) -> None: ...
def smooth_function(
    x: _Scores | None,
    out: _Scores,
    slopes: _Scores | None,
    function: str,
    slope: float,
    width: float,
    kernel: str,
    workers: int,
) -> None: ...
def smooth_pieces(
    x: _Scores | None,
    out: _Scores,
    slopes: _Scores | None,
    pieces: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float],
    width: float,
    kernel: str,
    workers: int,
) -> None: ...
def smooth_abs(x: _Scores | None, out: _Scores, slopes: _Scores | None, k: float, form: str, workers: int) -> None: ...
def smooth_max(
    x: _Scores, mask: _Mask, out: _Scores, gradient: _Scores | None, axis: int, k: float, workers: int
) -> None: ...
def power_mean(
    x: _Scores, mask: _Mask, out: _Scores, gradient: _Scores | None, axis: int, p: float, workers: int
) -> None: ...
