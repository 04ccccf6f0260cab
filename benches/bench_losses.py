"""Time the losses, the younger maps and the smooth functions beside what people use for them, and check the aims.

One process, one thread, float32. All contestants of a case are interleaved: every round times each of them once, and a
ratio is the median over rounds of the ratios within a round. Times are medians. Where torch computes a gradient, that
is its forward and backward pass.

    python benches/bench_losses.py                     everything (minutes)
    python benches/bench_losses.py --quick --work zlpr
    python benches/bench_losses.py --markdown docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from _bench import Aim, Clock, optional, progress, publish, ratio, section, verdicts

import unitmass as um

Array = np.ndarray
Call = Callable[[], object]
ROWS, N = 4000, 1000
PAIRS = 100_000
PACKAGES = ("numpy", "scipy", "torch", "entmax")
TITLE = "## Losses, the younger maps, smooth functions"

torch, scipy_special, entmax = map(optional, ("torch", "scipy.special", "entmax"))
if torch is not None:
    torch.set_num_threads(1)


def scores(n: int = N, rows: int = ROWS) -> Array:
    return np.random.default_rng(0).normal(0, 2, (rows, n)).astype(np.float32)


def labels(n: int = N, rows: int = ROWS) -> Array:
    return np.random.default_rng(1).integers(0, n, rows)


# --- what people use --------------------------------------------------------------------------------------------------


def backward(loss, x: Array) -> Call:
    """Make a call of torch that computes the values and the gradient of their sum."""
    tensor = torch.from_numpy(x).requires_grad_()

    def call() -> object:
        tensor.grad = None
        value = loss(tensor)
        value.sum().backward()
        return tensor.grad

    return call


def zlpr_of_torch(x, t):
    """Add a score of 0 and take logsumexp twice, with what is on the other side pushed to -1e12."""
    x = (1 - 2 * t) * x
    zeros = torch.zeros_like(x[..., :1])
    negative = torch.logsumexp(torch.cat([x - t * 1e12, zeros], -1), -1)
    positive = torch.logsumexp(torch.cat([x - (1 - t) * 1e12, zeros], -1), -1)
    return negative + positive


def cosent_of_torch(f, y, scale=20.0):
    """Take the differences of all pairs of pairs."""
    differences = (f[:, None] - f[None, :]) * scale
    below = (y[:, None] < y[None, :]).float()
    differences = differences - (1 - below) * 1e12
    return torch.logsumexp(torch.cat([torch.zeros(1), differences.reshape(-1)]), 0)


# --- what is measured -------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Runs the works and gathers their pages and aims."""

    clock: Clock
    aims: dict[str, Aim] = field(default_factory=dict)
    pages: list[str] = field(default_factory=list)

    def aim(self, text: str, figure: float, limit: float, where: str, *, least: bool = True, unit: str = "x") -> None:
        """Note a figure beside its limit."""
        self.aims.setdefault(text, Aim(text, least, unit=unit)).add(figure, limit, where)

    def compare(self, values: int, cases: dict[str, dict[str, Call]], unit: str = "ns per element") -> dict[str, dict]:
        """Time the contestants of each case, the first being ours, and make a table."""
        page = [f"| {unit} | contestant | time | beside ours |", "|---|---|---|---|"]
        found = {}
        for name, calls in cases.items():
            progress(name)
            found[name] = times = self.clock.interleave(calls, list(calls)[1:])
            mine = next(iter(calls))
            for who, seconds in times.items():
                time = statistics.median(seconds) * 1e9 / values
                beside = "" if who == mine else f"{ratio(seconds, times[mine]):.2f}x"
                page.append(f"| {name} | {who} | {time:.3g} | {beside} |")
        progress()
        print("\n".join(page))
        self.pages += [*page, ""]
        return found

    def cross_entropy(self) -> None:
        """Compare with torch."""
        x, t = scores(), labels()
        cases: dict[str, dict[str, Call]] = {
            "cross_entropy": {"unitmass": lambda: um.losses.cross_entropy(x, t, workers=1)},
            "cross_entropy with gradient": {
                "unitmass": lambda: um.losses.cross_entropy(x, t, value_and_grad=True, workers=1)
            },
        }
        if torch is not None:
            function, tensor, target = torch.nn.functional.cross_entropy, torch.from_numpy(x), torch.from_numpy(t)
            value, gradient = cases.values()
            value["torch"] = lambda: function(tensor, target, reduction="none")
            gradient["torch"] = backward(lambda x: function(x, target, reduction="none"), x)
        self.pages += [f"### cross_entropy, {ROWS} x {N}", ""]
        for name, times in self.compare(x.size, cases).items():
            if "torch" in times:
                text = "cross_entropy beside torch: 1.5x"
                self.aim(text, ratio(times["torch"], times["unitmass"]), 1.5, name)

    def entmax_loss(self) -> None:
        """Compare with deep-spin's package."""
        x, t = scores(), labels()
        mine = um.losses.entmax_loss
        cases: dict[str, dict[str, Call]] = {}
        for alpha, other in ((2.0, "sparsemax_loss"), (1.5, "entmax15_loss")):
            value, both = f"entmax_loss, alpha {alpha:g}", f"entmax_loss, alpha {alpha:g}, with gradient"
            cases[value] = {"unitmass": lambda a=alpha: mine(x, t, a, workers=1)}
            cases[both] = {"unitmass": lambda a=alpha: mine(x, t, a, value_and_grad=True, workers=1)}
            if entmax is not None and torch is not None:
                theirs, tensor, target = getattr(entmax, other), torch.from_numpy(x), torch.from_numpy(t)
                cases[value]["entmax"] = lambda f=theirs, x=tensor, t=target: f(x, t)
                cases[both]["entmax"] = backward(lambda x, f=theirs, t=target: f(x, t), x)
        cases["entmax_loss, alpha 1.3"] = {"unitmass": lambda: um.losses.entmax_loss(x, t, 1.3, workers=1)}
        if entmax is not None and torch is not None:
            tensor, target = torch.from_numpy(x), torch.from_numpy(t)
            cases["entmax_loss, alpha 1.3"]["entmax"] = lambda: entmax.entmax_bisect_loss(tensor, target, alpha=1.3)
        self.pages += [f"### entmax_loss, {ROWS} x {N}", ""]
        for name, times in self.compare(x.size, cases).items():
            if "entmax" in times:
                text = "entmax_loss beside deep-spin's entmax: 60x"
                self.aim(text, ratio(times["entmax"], times["unitmass"]), 60, name)

    def zlpr(self) -> None:
        """Compare with the usual lines of torch."""
        x = scores()
        t = (np.random.default_rng(1).random(x.shape) < 0.01).astype(np.float32)
        cases: dict[str, dict[str, Call]] = {
            "zlpr": {"unitmass": lambda: um.losses.zlpr(x, t, workers=1)},
            "zlpr with gradient": {"unitmass": lambda: um.losses.zlpr(x, t, value_and_grad=True, workers=1)},
        }
        if torch is not None:
            tensor, target = torch.from_numpy(x), torch.from_numpy(t)
            value, gradient = cases.values()
            value["torch"] = lambda: zlpr_of_torch(tensor, target)
            gradient["torch"] = backward(lambda x: zlpr_of_torch(x, target), x)
        self.pages += [f"### zlpr, {ROWS} x {N}, one label in a hundred", ""]
        for name, times in self.compare(x.size, cases).items():
            if "torch" in times:
                text = "zlpr beside the usual formulation in torch: 5x"
                self.aim(text, ratio(times["torch"], times["unitmass"]), 5, name)

    def cosent(self) -> None:
        """Compare where the usual lines find memory, and go on."""
        rng = np.random.default_rng(2)
        cases: dict[str, dict[str, Call]] = {}
        for n in (4000, PAIRS):
            f, y = rng.uniform(-1, 1, n).astype(np.float32), rng.integers(0, 6, n).astype(np.float32)
            calls: dict[str, Call] = {
                "unitmass": lambda f=f, y=y: um.losses.cosent(f, y, value_and_grad=True, workers=1)
            }
            if torch is not None and n <= 4000:  # of 1e5 pairs the differences would take 40 GB, several times
                target = torch.from_numpy(y)
                calls["torch"] = backward(lambda f, y=target: cosent_of_torch(f, y), f)
            cases[f"cosent with gradient, {n:,} pairs"] = calls
        self.pages += ["### cosent", ""]
        found = self.compare(1_000_000, cases, "ms")
        *_, (name, times) = found.items()
        text = "cosent of 1e5 pairs, with gradient: at most 50 ms"
        self.aim(text, statistics.median(times["unitmass"]) * 1e3, 50, name, least=False, unit=" ms")

    def losses(self) -> None:
        """Time the other losses by themselves."""
        x, t = scores(), labels()
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        groups = x.reshape(ROWS, 125, 8)
        one_hot = (np.random.default_rng(1).integers(0, 8, (ROWS, 125, 1)) == np.arange(8)).astype(np.float32)
        some = x[:200]
        subset = np.argsort(some, axis=1)[:, -10:]
        f = um.losses
        cases: dict[str, tuple[int, Call]] = {
            "normmax_loss, alpha 2": (x.size, lambda: f.normmax_loss(x, t, value_and_grad=True, workers=1)),
            "topk_cross_entropy, k = 10": (
                x.size,
                lambda: f.topk_cross_entropy(x, t, 10, value_and_grad=True, workers=1),
            ),
            "arcface": (x.size, lambda: f.arcface(unit, t, value_and_grad=True, workers=1)),
            "group_zlpr, 125 groups of 8": (
                x.size,
                lambda: f.group_zlpr(groups, one_hot, value_and_grad=True, workers=1),
            ),
            "subset_softmax_loss, k = 10": (
                some.size,
                lambda: f.subset_softmax_loss(some, subset, sparse_labels=True, value_and_grad=True, workers=1),
            ),
            "exact_accuracy_loss": (
                some.size,
                lambda: f.exact_accuracy_loss(some, t[:200], value_and_grad=True, workers=1),
            ),
        }
        page = [f"### Other losses with their gradients, rows of {N}", "", "| loss | ns per element |", "|---|---|"]
        for name, (values, call) in cases.items():
            progress(name)
            seconds = statistics.median(self.clock.interleave({"unitmass": call})["unitmass"])
            page.append(f"| {name} | {seconds * 1e9 / values:.3g} |")
        progress()
        print("\n".join(page))
        self.pages += [*page, ""]

    def maps(self) -> None:
        """Compare the younger maps with a copy of their scores."""
        x = scores()
        out = np.zeros_like(x)

        def copy() -> None:
            np.copyto(out, x)

        def mine(function, *arguments, **options) -> Call:
            return lambda: function(x, *arguments, out=out, workers=1, **options)

        cases: dict[str, dict[str, Call]] = {
            "taylor_softmax, order 2": {"unitmass": mine(um.taylor_softmax), "np.copyto": copy},
            "topk_softmax, k = 10": {"unitmass": mine(um.topk_softmax, 10), "np.copyto": copy},
            "topk_softmax, k = 50": {"unitmass": mine(um.topk_softmax, 50), "np.copyto": copy},
            "topk_softmax, top_p = .9": {"unitmass": mine(um.topk_softmax, top_p=0.9), "np.copyto": copy},
            "ev_softmax": {"unitmass": mine(um.ev_softmax), "np.copyto": copy},
            "normmax, alpha 2": {"unitmass": mine(um.normmax), "np.copyto": copy},
            "budget, k = 10": {"unitmass": mine(um.budget, 10), "np.copyto": copy},
            "csoftmax, upper .01": {"unitmass": mine(um.csoftmax, 0.01), "np.copyto": copy},
            "csparsemax, upper .1": {"unitmass": mine(um.csparsemax, 0.1), "np.copyto": copy},
            "project_l1_ball": {"unitmass": mine(um.project_l1_ball), "np.copyto": copy},
        }
        for noise in ("normal", "logistic", "exponential", "uniform"):
            cases[f"noisy_argmax, {noise}"] = {"unitmass": mine(um.noisy_argmax, noise), "np.copyto": copy}
        if torch is not None:
            tensor = torch.from_numpy(x)

            def topk(k: int) -> object:
                values, indices = torch.topk(tensor, k, -1)
                return torch.zeros_like(tensor).scatter_(-1, indices, torch.softmax(values, -1))

            def taylor() -> object:
                f = 1 + tensor + tensor * tensor / 2
                return f / f.sum(-1, keepdim=True)

            cases["taylor_softmax, order 2"]["torch"] = taylor
            cases["topk_softmax, k = 10"]["torch"] = lambda: topk(10)
            cases["topk_softmax, k = 50"]["torch"] = lambda: topk(50)
            if entmax is not None:
                cases["normmax, alpha 2"]["entmax"] = lambda: entmax.normmax_bisect(tensor, 2)
                cases["budget, k = 10"]["entmax"] = lambda: entmax.budget_bisect(tensor, budget=10)
        self.pages += [f"### The younger maps, {ROWS} x {N}", ""]
        for name, times in self.compare(x.size, cases).items():
            if name.startswith(("taylor", "topk_softmax, k")):
                text = "taylor_softmax and topk_softmax beside np.copyto: at most 2.5x its time"
                self.aim(text, ratio(times["unitmass"], times["np.copyto"]), 2.5, name, least=False)
            if name == "noisy_argmax, normal":
                text = "noisy_argmax, normal noise, n = 1000: at most 60 ns per element"
                figure = statistics.median(times["unitmass"]) * 1e9 / x.size
                self.aim(text, figure, 60, name, least=False, unit=" ns")

    def smooth(self) -> None:
        """Compare with the functions that NumPy, SciPy and torch have."""
        x = scores()
        out = np.zeros_like(x)

        def softplus() -> object:
            return np.logaddexp(0, x)

        cases: dict[str, dict[str, Call]] = {
            "relu, logistic": {"unitmass": lambda: um.smooth.relu(x, out=out, workers=1), "np.logaddexp": softplus},
            "relu, gaussian": {"unitmass": lambda: um.smooth.relu(x, kernel="gaussian", out=out, workers=1)},
            "relu, uniform": {"unitmass": lambda: um.smooth.relu(x, kernel="uniform", out=out, workers=1)},
            "step, gaussian": {"unitmass": lambda: um.smooth.step(x, kernel="gaussian", out=out, workers=1)},
            "round, logistic, width .1": {"unitmass": lambda: um.smooth.round(x, 0.1, out=out, workers=1)},
            "smooth_max": {"unitmass": lambda: um.smooth.smooth_max(x, workers=1)},
        }
        if torch is not None:
            tensor = torch.from_numpy(x)
            cases["relu, logistic"]["torch"] = lambda: torch.nn.functional.softplus(tensor)
            cases["smooth_max"]["torch"] = lambda: torch.logsumexp(tensor, -1)
        if scipy_special is not None:
            cases["step, gaussian"]["scipy"] = lambda: scipy_special.ndtr(x)
            cases["smooth_max"]["scipy"] = lambda: scipy_special.logsumexp(x, axis=-1)
        self.pages += [f"### Smooth functions, {ROWS} x {N}", ""]
        self.compare(x.size, cases)


WORKS = ("cross_entropy", "entmax_loss", "zlpr", "cosent", "losses", "maps", "smooth")

HOW = """\
float32, one thread; contestants interleaved in one process, ratios taken within a round, then their median: how many
times longer the other takes. With a gradient, torch runs forward and backward. The usual formulations of zlpr and
cosent in torch are those that their users pass around: they stand in the script."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="three short rounds: a look, not a measurement")
    parser.add_argument("--work", nargs="+", choices=WORKS, help="some of the works; all by default")
    parser.add_argument("--markdown", metavar="FILE", help="write the section of FILE with tables, machine and command")
    args = parser.parse_args(argv)
    bench = Bench(Clock(3, 1, 0.01) if args.quick else Clock(11, 3, 0.03))
    for work in args.work or WORKS:
        getattr(bench, work)()
    aims = verdicts(bench.aims.values())
    print("\n".join(aims))
    if args.markdown:
        aims = ["### Aims of losses and younger maps", "", *aims]
        publish(args.markdown, TITLE, section("bench_losses.py", HOW, PACKAGES, aims, bench.pages))
    return 0


if __name__ == "__main__":
    sys.exit(main())
