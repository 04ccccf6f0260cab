"""
Do turtles share a direction?
=============================

Directions are points on a circle. If the shortest arc that holds all of them is short, or most of them lie in one half,
that may be chance, or it may not be.
"""

# %%
# These are the directions that 76 turtles took, in degrees (Stephens, 1969; Fisher, Statistical Analysis of Circular
# Data, 1993, data set B.3).

import matplotlib.pyplot as plt
import numpy as np

import unitmass as um

degrees = """
    8 9 13 13 14 18 22 27 30 34 38 38 40 44 45 47 48 48 48 48 50 53 56 57 58 58 61 63 64 64 64 65 65 68 70 73 78
    78 78 83 83 88 88 88 90 92 92 93 95 96 98 100 103 106 113 118 138 153 153 155 204 215 223 226 237 238 243 244
    250 251 257 268 285 319 343 350
"""
turtles = np.radians(np.array(degrees.split(), dtype=float))

# %%
# Only one gap matters for the arc that holds them all: the largest. The test by Hodges and Ajne looks for the half
# circle with most of the turtles instead. Both p-values are exact.

together = um.circular_range_test(turtles)
one_half = um.hodges_ajne_test(turtles)
print(f"all in an arc of {np.degrees(together.statistic):.0f}°:        p = {together.pvalue:.2g}")
print(f"all but {one_half.statistic:.0f} on one side of a line: p = {one_half.pvalue:.2g}")

gaps = np.diff(turtles, append=turtles[0] + 2 * np.pi)
end = gaps.argmax()  # the turtle before the largest gap; the arc starts with the one after it
arc = turtles[end] - together.statistic + np.linspace(0, together.statistic, 200)

starts = np.append(turtles, turtles + 2 * np.pi)
in_half = [np.count_nonzero((starts >= a) & (starts < a + np.pi)) for a in turtles]
half = turtles[np.argmax(in_half)] + np.linspace(0, np.pi, 200)

figure, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained", subplot_kw={"projection": "polar"})
for ax, span, title in zip(
    axes,
    (arc, half),
    (
        f"The shortest arc: {np.degrees(together.statistic):.0f}°",
        f"The fullest half: {max(in_half)} of {turtles.size}",
    ),
    strict=True,
):
    ax.fill_between(span, 0, 1.2, alpha=0.15)
    for i, angle in enumerate(turtles):  # turtles of one direction stand behind each other
        ax.plot(angle, 1 + 0.06 * np.count_nonzero(turtles[:i] == angle), "o", color="C0", markersize=4)
    ax.set_ylim(0, 1.35)
    ax.set_yticks([])
    ax.set_title(title)
plt.show()

# %%
# What is a short arc? The law of the shortest arc around n random directions is known (Fisher, 1929). Points are a
# million trials each; one run gives all of a curve. In the lower picture they are where they belong: within a few
# standard errors of the curve. For 76 directions the arc of the turtles, dotted, is unusual, though it is most of the
# circle.

angles = np.linspace(0.05, 2 * np.pi, 300)
marks = np.linspace(0.6, 5.9, 22)

figure, (above, below) = plt.subplots(2, 1, figsize=(9, 6), layout="constrained", sharex=True, height_ratios=[3, 1])
for color, n in enumerate((2, 3, 4, 8, 16, 76)):
    above.plot(np.degrees(angles), um.CommonSector(n).cdf(angles), color=f"C{color}", label=f"n = {n}")
    run = um.common_sector(n, marks, trials=1_000_000, rng=n)
    above.plot(np.degrees(marks), run.estimate, "o", color=f"C{color}", markersize=4)
    seen = (run.exact * run.trials > 10) & ((1 - run.exact) * run.trials > 10)  # enough hits for a normal law
    below.plot(np.degrees(marks[seen]), run.z_score[seen], "o", color=f"C{color}", markersize=4)
above.axvline(np.degrees(together.statistic), color="black", linestyle=":")
above.set_ylabel("probability that n random\ndirections lie in the arc")
above.legend(frameon=False)
below.axhspan(-2, 2, alpha=0.15)
below.set_ylim(-4.5, 4.5)
below.set_ylabel("standard\nerrors off")
below.set_xlabel("arc, in degrees")
plt.show()

# %%
# How many turtles are needed to notice a preference? Let directions follow von Mises's law of concentration kappa, and
# call them uneven if all n lie in an arc so short that this happens to 5% of uniform ones. There is no formula for how
# often that is beyond half a turn, but 20,000 trials a point draw the curve.

kappas = np.linspace(0, 4, 13)
figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
for n in (5, 10, 20, 76):
    critical = um.CommonSector(n).ppf(0.05)
    runs = [um.common_sector(n, critical, density=f"vonmises:{kappa}", trials=20_000, rng=1) for kappa in kappas]
    ax.plot(
        kappas,
        [run.estimate for run in runs],
        "o-",
        markersize=4,
        label=f"n = {n}: arcs up to {np.degrees(critical):.0f}°",
    )
ax.axhline(0.05, color="black", linestyle=":")
ax.set_xlabel("kappa")
ax.set_ylabel("probability that the test notices")
ax.legend(frameon=False)
plt.show()

# %%
# One turtle that goes astray spoils the arc of all others. The scan statistic asks for most of them instead: how
# likely is it that some arc of 90° holds as many as it does here? Not one of a million trials has it, so the answer is
# a bound. It is fair if the width was chosen before the data were seen.

width = np.radians(90)
most = max(np.count_nonzero((starts >= angle) & (starts <= angle + width + 1e-9)) for angle in turtles)
scan = um.scan_circle(most, turtles.size, width, trials=1_000_000, rng=1)
_, bound = scan.ci()
print(f"{most} of {turtles.size} turtles in 90°: {scan.hits} hits in {scan.trials:,} trials, p < {bound:.0g} (95%)")
