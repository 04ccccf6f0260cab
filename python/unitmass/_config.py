"""What this installation is made of and runs with."""

from __future__ import annotations

import json
import platform
import sys
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from unitmass import _core
from unitmass._workers import resolve

if TYPE_CHECKING:
    from typing import TypeAlias

    Config: TypeAlias = dict[str, Any]

__all__ = ["show_config"]


@overload
def show_config(mode: Literal["stdout"] = ...) -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> Config: ...
def show_config(mode: Literal["stdout", "dicts"] = "stdout") -> Config | None:
    """Show versions, the SIMD level in use, and the number of threads.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, default "stdout"
        Print, or return a dictionary.

    Returns
    -------
    dict or None
        With ``mode="dicts"``: ``unitmass``, ``python``, ``numpy``, ``machine``; ``simd`` with the ``level`` in use and
        those ``available``; ``workers``, the default number of threads.

    Raises
    ------
    ValueError
        If `mode` is neither of the two.

    Notes
    -----
    The environment variable ``UNITMASS_SIMD`` forces one of the levels, ``UNITMASS_NUM_THREADS`` sets the default
    number of threads. Neither changes any result.

    Examples
    --------
    >>> import unitmass as um
    >>> config = um.show_config(mode="dicts")
    >>> config["simd"]["level"] in config["simd"]["available"]
    True
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode: expected 'stdout' or 'dicts', found {mode!r}")
    config: Config = {
        "unitmass": _core.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.machine()} {sys.platform}",
        "simd": {"level": _core.simd_level(), "available": _core.simd_levels()},
        "workers": resolve(None),
    }
    if mode == "dicts":
        return config
    print(json.dumps(config, indent=2))
    return None
