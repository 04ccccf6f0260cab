"""Run cases of the Discrete Stochastic Models Test Suite: python tests/dsmts.py FOLDER.

The folder has a folder for each case: NNNNN-sbml-lLvV.xml, the model; NNNNN-results.csv, the exact means and standard
deviations; NNNNN-settings.txt. The suite is part of the SBML Test Suite (cases/stochastic).

With means m and variances S² of n trajectories about the true means μ, Z = sqrt(n)(m - μ)/σ and
Y = sqrt(n/2)(S²/σ² - 1). A point outside the ranges of the settings, (-3, 3) and (-5, 5), is a miss; where σ is 0, the
mean must be μ and S² be 0. The digits that a file leaves out are allowed for.

Chance makes misses, and those of a case come in bunches, for its points are correlated: no number of them is rare
enough. So a case fails by its farthest point: if one of its p points misses by more standard errors than chance gives
any of p points with probability 1e-3, however they are correlated (Bonferroni; 4.4 of them for 50 means and 50
deviations). Where σ is 0, chance makes no miss, and one is a failure. The standard error of S² is that of the sample,
by its fourth moment; that of Y is for a normal law.

The exit code is 0 if all cases pass, 1 if one fails, 2 if there is none.
"""

import argparse
import csv
import math
import sys
import time
from decimal import Decimal
from pathlib import Path
from statistics import NormalDist

import libsbml
import numpy as np

import unitmass as um

FALSE_ALARM = 1e-3
PART = 20_000
"""Trajectories that are held at a time."""


def main(argv=None):
    parser = argparse.ArgumentParser(prog="dsmts.py", description="Run the cases of the DSMTS in a folder.")
    parser.add_argument("folder", metavar="DIR", type=Path, help="has a folder for each case")
    parser.add_argument("--n", type=int, default=100_000, help="trajectories for a case (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="threads (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    args = parser.parse_args(argv)
    if args.n < 2:
        parser.error(f"--n: must be at least 2, found {args.n}")
    cases = sorted(path.parent for path in args.folder.glob("*/*-settings.txt"))
    if not cases:
        print(f"{args.folder}: there are no cases", file=sys.stderr)
        return 2
    passed = sum(run(case, args.n, args.workers, args.seed) for case in cases)
    print(
        f"{passed} of {len(cases)} cases pass; n = {args.n}, and chance fails one at most once in {1 / FALSE_ALARM:g}"
    )
    return 0 if passed == len(cases) else 1


def run(case, n, workers, seed):
    """Print the line of a case; tell whether it passes."""
    path = sorted(case.glob(f"{case.name}-sbml-l*v*.xml"))[-1]
    setting = settings(case / f"{case.name}-settings.txt")
    t, exact, half = results(case / f"{case.name}-results.csv")
    network = um.ReactionNetwork.from_sbml(path)
    model = libsbml.readSBMLFromFile(str(path)).getModel()
    names = sorted({column.rsplit("-", 1)[0] for column in words(setting["output"])})
    concentrations = words(setting["concentration"])
    sums = {name: np.zeros((3, t.size)) for name in names}
    events, began = 0, time.perf_counter()
    for first in range(0, n, PART):
        ens = network.simulate(t=t, first=first, n=min(PART, n - first), rng=seed, workers=workers)
        events += int(ens.n_events.sum())
        for name in names:
            size = network.params[model.getSpecies(name).getCompartment()] if name in concentrations else 1.0
            off = ens[name] / size - exact[f"{name}-mean"]
            sums[name] += [(off**power).sum(axis=0) for power in (1, 2, 4)]
    seconds = time.perf_counter() - began
    points = t.size * len(words(setting["output"]))
    limit = NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * points))
    misses, far, counted = {"mean": 0, "sd": 0}, {"mean": 0.0, "sd": 0.0}, {"mean": 0, "sd": 0}
    good = True
    for column in words(setting["output"]):
        name, kind = column.rsplit("-", 1)
        off, square, fourth = sums[name] / n
        sigma, slack = exact[f"{name}-sd"], half[f"{name}-mean"]
        if kind == "mean":
            left, scale, error = beyond(off, slack), sigma, sigma
        else:
            # (σ + h)² - σ², where not 0; and what an error of μ adds.
            slack = slack * (2 * abs(off) + slack) + (sigma > 0) * half[column] * (2 * sigma + half[column])
            left, scale = beyond(square - sigma**2, slack), math.sqrt(2) * sigma**2
            error = np.sqrt(np.maximum(fourth - square**2, 0))
        score = math.sqrt(n) * ratio(left, scale)
        low, high = (float(word) for word in words(setting[f"{kind}Range"].strip("()")))
        missed = (score <= low) | (score >= high)
        good &= not (missed & ((sigma == 0) | (math.sqrt(n) * abs(ratio(left, error)) > limit))).any()
        misses[kind] += int(missed.sum())
        counted[kind] += t.size
        far[kind] = max(far[kind], abs(score).max())
    print(
        f"{case.name} {model.getId():24} {events / seconds:8.2e} events/s"
        f"  mean: {misses['mean']:2} of {counted['mean']:3} miss, |Z| to {far['mean']:5.2f}"
        f"  sd: {misses['sd']:2} of {counted['sd']:3} miss, |Y| to {far['sd']:5.2f}"
        f"  {'PASS' if good else 'FAIL'} (at {limit:.2f} standard errors)",
        flush=True,
    )
    return good


def beyond(off, slack):
    """What is left of a difference when so much is allowed."""
    return np.sign(off) * np.maximum(abs(off) - slack, 0)


def ratio(left, scale):
    """Divide; nothing is nothing, and anything else without a scale is infinite."""
    return np.divide(left, scale, out=np.where(left == 0, 0, np.copysign(np.inf, left)), where=(scale > 0))


def words(text):
    return [word.strip() for word in text.split(",") if word.strip()]


def settings(path):
    pairs = (line.partition(":") for line in path.read_text().splitlines())
    return {"concentration": ""} | {key.strip(): value.strip() for key, _, value in pairs}


def results(path):
    """Give the times, the columns, and half a unit of the last digits that are printed of each number."""
    with path.open(newline="") as file:
        rows = [{key.strip(): Decimal(value.strip()) for key, value in row.items()} for row in csv.DictReader(file)]
    # A file leaves out trailing zeros, so its longest numbers tell how many decimals and how many digits it prints.
    numbers = [value for row in rows for key, value in row.items() if key != "time"]
    decimals = max(-value.as_tuple().exponent for value in numbers)
    digits = max(len(value.as_tuple().digits) for value in numbers)

    def half(value):
        place = max(-decimals, value.adjusted() + 1 - digits if value else -decimals)
        return 0.5 * 10.0**place if decimals > 0 else 0.0

    columns = {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
    return columns.pop("time"), columns, {key: np.array([half(row[key]) for row in rows]) for key in columns}


if __name__ == "__main__":
    sys.exit(main())
