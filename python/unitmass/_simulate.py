"""From a file with a reaction network to one of counts or moments, and a picture: the body of `unitmass simulate`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unitmass._core import __version__
from unitmass._ensemble import Ensemble, Moments, extra
from unitmass.gillespie import Method, ReactionNetwork

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MODELS", "RESULTS", "blank_figure", "replacing", "simulate_file"]

MODELS: dict[str, Callable[[str], ReactionNetwork]] = {
    ".txt": lambda path: ReactionNetwork.from_text(path),
    ".xml": lambda path: ReactionNetwork.from_sbml(path),
    ".net": lambda path: ReactionNetwork.from_bionetgen(path),
}
"""How a model is read, by the end of its name."""

RESULTS: dict[str, tuple[tuple[str, str], ...]] = {
    ".npz": (),
    ".parquet": (("pyarrow.parquet", "cli"),),
    ".nc": tuple((name, "xarray") for name in ("xarray", "h5netcdf", "h5py")),
}
"""What is needed to write a result, by the end of its name: modules and their extras."""

_GROUP_ROWS = 1 << 20


def simulate_file(
    model: str,
    *,
    t_end: float,
    points: int = 101,
    runs: int = 1,
    seed: int | None = None,
    out: str | None = None,
    plot: str | None = None,
    moments: bool = False,
    params: Mapping[str, float] | None = None,
    x0: Mapping[str, float] | None = None,
    species: Sequence[str] | None = None,
    method: Method = "auto",
    first: int = 0,
    max_events: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Simulate the network in a file, write and draw the result, and tell what was done.

    Nothing is at `out` and `plot` before all is done; what was there stays until then.
    """
    clock = time.perf_counter()
    network = MODELS[Path(model).suffix.lower()](model)
    kind = Path(out).suffix.lower() if out else ".npz"
    for module, name in (*RESULTS[kind], *([("matplotlib", "plot")] if plot else [])):
        extra(module, name)
    if kind == ".parquet" and not moments:
        for name in ("trajectory", "time"):
            if name in network.species or name in network.rules:
                raise ValueError(f"{out}: {name!r} is a column of its own and the name of a species: use .npz or .nc")
    with ExitStack() as files:
        result_file, picture = (
            files.enter_context(replacing(path, overwrite)) if path else None for path in (out, plot)
        )
        begun = time.perf_counter()
        simulate = network.moments if moments else network.simulate
        try:
            result: Ensemble | Moments = simulate(
                x0,
                t=np.linspace(0, t_end, points),
                n=runs,
                rng=seed,
                first=first,
                params=params,
                species=species,
                method=method,
                workers=workers,
                max_events=max_events,
                progress=progress,
            )
        except MemoryError as error:
            hint = "fewer --species take less" if moments else "--moments needs no room for trajectories"
            raise MemoryError(f"{str(error).partition(';')[0]}; {hint}") from None
        seconds = time.perf_counter() - begun
        if result_file:
            _write(result, result_file, kind)
        if picture:
            _draw(result, picture, f"{Path(model).name}: {runs:,} trajector{'y' if runs == 1 else 'ies'}")
    events = int(np.sum(result.n_events))
    return {
        "model": model,
        "out": out,
        "plot": plot,
        "moments": moments,
        "trajectories": runs,
        "first": first,
        "points": points,
        "t_end": t_end,
        "params": dict(params or {}),
        "x0": dict(x0 or {}),
        "species": list(result.species),
        "seed": result.seed,
        "method": result.method,
        "events": events,
        "seconds": seconds,
        "events_per_second": events / seconds,
        "seconds_with_files": time.perf_counter() - clock,
    }


@contextmanager
def replacing(path: str, overwrite: bool) -> Iterator[Path]:
    """Give a file to write, which gets its name when it is whole."""
    target = Path(os.path.realpath(path))
    if target.exists() and not overwrite:
        raise FileExistsError(f"{path}: exists already; --overwrite replaces it")
    if target.is_dir():
        raise IsADirectoryError(f"{path}: is a folder")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder does not exist")
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        partial.touch()  # before the work: a folder that cannot be written to is found now
        yield partial
        with open(partial, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def blank_figure(width: float, height: float) -> Figure:
    """Make a figure that is drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _write(result: Ensemble | Moments, path: Path, kind: str) -> None:
    if kind == ".npz":
        with open(path, "wb") as file:
            np.savez(file, **_arrays(result))
    elif kind == ".nc":
        dataset = result.to_xarray().assign_attrs(source=f"unitmass {__version__}")
        dataset.to_netcdf(path, engine="h5netcdf")
    elif isinstance(result, Ensemble):
        _write_trajectories(result, path)
    else:
        _write_moments(result, path)


def _arrays(result: Ensemble | Moments) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "t": result.t,
        "species": np.array(result.species, np.str_),
        "seed": np.uint64(result.seed),
        "first": result.first,
        "n_events": result.n_events,
        "method": result.method,
    }
    if isinstance(result, Moments):
        return {**arrays, "mean": result.mean, "cov": result.cov, "n": result.n}
    arrays["counts"] = result.counts
    observed = result.observed()
    if observed:
        arrays["observables"] = np.array(list(observed), np.str_)
        arrays["observed"] = np.stack(list(observed.values()), axis=-1)
    return arrays


def _write_trajectories(ens: Ensemble, path: Path) -> None:
    """Write a row for each trajectory and time, a million of them in a row group."""
    pa, pq = extra("pyarrow", "cli"), extra("pyarrow.parquet", "cli")
    columns = {name: ens.counts[:, :, k] for k, name in enumerate(ens.species)} | ens.observed()
    types = {"trajectory": pa.int64(), "time": pa.float64()}
    types |= {name: pa.from_numpy_dtype(values.dtype) for name, values in columns.items()}
    n, step = len(ens.counts), max(1, _GROUP_ROWS // ens.t.size)
    with pq.ParquetWriter(path, pa.schema(types, _metadata(ens))) as writer:
        for begin in range(0, n, step):
            part = slice(begin, min(begin + step, n))
            trajectories = np.arange(part.start, part.stop) + ens.first
            table = {"trajectory": trajectories.repeat(ens.t.size), "time": np.tile(ens.t, len(trajectories))}
            table |= {name: values[part].ravel() for name, values in columns.items()}
            writer.write_table(pa.table(table, writer.schema), row_group_size=_GROUP_ROWS)


def _write_moments(moments: Moments, path: Path) -> None:
    """Write a row for each time and species; the covariances with the others are columns."""
    pa, pq = extra("pyarrow", "cli"), extra("pyarrow.parquet", "cli")
    times, width = moments.mean.shape
    table = {
        "time": moments.t.repeat(width),
        "species": list(moments.species) * times,
        "mean": moments.mean.ravel(),
        "sd": np.sqrt(moments.var).ravel(),
        "standard_error": moments.standard_error.ravel(),
        **{f"cov_{name}": moments.cov[:, :, k].ravel() for k, name in enumerate(moments.species)},
    }
    pq.write_table(pa.table(table, metadata=_metadata(moments)), path)


def _metadata(result: Ensemble | Moments) -> dict[str, str]:
    facts = {name: getattr(result, name) for name in ("seed", "method", "first")}
    facts["n_events"] = int(np.sum(result.n_events))
    return {"unitmass": json.dumps({"version": __version__, **facts})}


def _draw(result: Ensemble | Moments, path: Path, title: str) -> None:
    figure = blank_figure(9, 5)
    ax = result.plot(ax=figure.subplots())
    ax.set_title(title)
    ax.margins(x=0)
    ax.set_ylim(bottom=-0.01 * ax.get_ylim()[1])  # counts are not negative, though a mean less the deviation may be
    ax.spines[["top", "right"]].set_visible(False)
    inside = ax.get_legend()
    if inside is not None:  # it would hide what is behind it
        inside.remove()
        handles, names = ax.get_legend_handles_labels()
        names = [name if len(name) <= 30 else name[:29] + "…" for name in names]
        heading = inside.get_title().get_text()
        figure.legend(handles, names, title=heading, loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=150, format="png")
