"""
Alpha and temperature
=====================

One vector of scores, and what becomes of it as alpha grows from 1 to 3 and as the temperature falls.
"""

# %%
# Eight scores, best first. Softmax gives mass to every one of them, sparsemax only to those near the top; entmax with
# an alpha between 1 and 2 lies between the two.

import matplotlib.pyplot as plt
import numpy as np

import unitmass as um

scores = np.array([2.0, 1.7, 1.2, 0.9, 0.3, -0.4, -1.0, -2.2])

for alpha in (1.0, 1.5, 2.0, 3.0):
    print(f"alpha {alpha}:", um.entmax(scores, alpha=alpha).round(3))

# %%
# Alpha may differ from row to row. So one call computes the whole path: the scores are repeated, without being copied,
# once for each alpha.

alphas = np.linspace(1, 3, 401)
by_alpha = um.entmax(np.broadcast_to(scores, (alphas.size, scores.size)), alpha=alphas)

# %%
# A temperature is a scale of the scores. Softmax concentrates as it falls, but never reaches zero; sparsemax drops one
# entry after the other, until the best is left alone.

temperatures = np.geomspace(4, 0.1, 401)
scaled = scores / temperatures[:, None]
by_temperature = {"softmax": um.softmax(scaled), "sparsemax": um.sparsemax(scaled)}

colours = plt.colormaps["viridis"](np.linspace(0, 0.92, scores.size))
figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharey=True, layout="constrained")
panels = [
    (axes[0], alphas, by_alpha, "entmax", "alpha"),
    (axes[1], temperatures, by_temperature["softmax"], "softmax", "temperature"),
    (axes[2], temperatures, by_temperature["sparsemax"], "sparsemax", "temperature"),
]
for ax, horizontal, p, title, label in panels:
    ax.stackplot(horizontal, p.T, colors=colours)
    ax.set(title=title, xlabel=label, xlim=(horizontal[0], horizontal[-1]), ylim=(0, 1))
for ax in axes[1:]:
    ax.set_xscale("log")
    ax.set_xticks([4, 2, 1, 0.5, 0.2, 0.1], ["4", "2", "1", "0.5", "0.2", "0.1"])
    ax.minorticks_off()
for alpha, name in ((1, " softmax"), (2, " sparsemax")):
    axes[0].axvline(alpha, color="white", linestyle=":")
    axes[0].text(alpha, 0.02, name, color="white")
axes[0].set_ylabel("probability, stacked from the best score up")
plt.show()

# %%
# Where does a score stop to count? An entry that lies 1/(alpha - 1) or more below the best is exactly zero whatever the
# others are; competition raises the threshold further. ``threshold`` finds it, in units of (alpha - 1) x.

steps = np.array([1.25, 1.5, 2.0, 3.0])
tau, support = um.threshold(np.broadcast_to(scores, (steps.size, scores.size)), alpha=steps)
for alpha, cut, kept in zip(steps, tau / (steps - 1), support, strict=True):
    print(
        f"alpha {alpha}: scores above {cut:+.3f} count, {kept} of them; the window ends at {2 - 1 / (alpha - 1):+.1f}"
    )
