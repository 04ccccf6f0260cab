from collections.abc import Callable
from typing import Any, Literal, Self, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Density",
    "Experiment",
    "Network",
    "__version__",
    "available_workers",
    "beta_quantile",
    "entmax",
    "entmax_alpha_grad",
    "entmax_sparse",
    "entmax_vjp",
    "entmax_vjp_sparse",
    "gap_counts",
    "gap_law",
    "gap_means",
    "gap_moments",
    "half_circle",
    "half_space",
    "log_softmax",
    "log_softmax_vjp",
    "project_simplex",
    "project_simplex_sparse",
    "simd_level",
    "simd_levels",
    "small_cap",
    "softmax",
    "softmax_vjp",
    "threshold",
]

__version__: str

_Scores: TypeAlias = NDArray[np.floating[Any]]
_Mask: TypeAlias = NDArray[np.bool_] | None
_PerRow: TypeAlias = float | NDArray[np.float64]
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
    workers: int,
) -> _Scores | None: ...
def project_simplex_sparse(x: _Scores, mask: _Mask, axis: int, total: _PerRow, workers: int) -> _Triple: ...
def entmax_sparse(x: _Scores, mask: _Mask, axis: int, alpha: _PerRow, n_iter: int | None, workers: int) -> _Triple: ...
def threshold(
    x: _Scores, mask: _Mask, axis: int, alpha: _PerRow, workers: int
) -> tuple[_Scores, NDArray[np.int64]]: ...
def softmax_vjp(p: _Scores, g: _Scores, out: _Scores, axis: int, temperature: float, workers: int) -> None: ...
def log_softmax_vjp(log_p: _Scores, g: _Scores, out: _Scores, axis: int, temperature: float, workers: int) -> None: ...
def entmax_vjp(p: _Scores, g: _Scores, out: _Scores, axis: int, alpha: _PerRow, workers: int) -> None: ...
def entmax_alpha_grad(p: _Scores, g: _Scores, out: _Scores, axis: int, alpha: _PerRow, workers: int) -> None: ...
def entmax_vjp_sparse(
    p: _Scores,
    columns: NDArray[np.uintp],
    starts: NDArray[np.uintp],
    g: _Scores,
    out: _Scores,
    n: int,
    alpha: _PerRow,
    workers: int,
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
