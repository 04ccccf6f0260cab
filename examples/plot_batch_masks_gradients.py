"""
A batch with masks and gradients
================================

Rows of different lengths in one array, scored in one call, and a gradient step through the map.
"""

# %%
# Twelve rows of scores, padded to 16 columns. ``where`` marks what is real. Excluded entries get exactly zero and take
# no part, so each row sums to 1 over its own length; a row of length 0 is all zeros.

import matplotlib.pyplot as plt
import numpy as np

import unitmass as um

rng = np.random.default_rng(3)
scores = rng.normal(0, 1.5, (12, 16))
lengths = np.array([16, 14, 12, 11, 9, 8, 6, 5, 3, 2, 1, 0])
real = np.arange(16) < lengths[:, None]

p = um.entmax(scores, alpha=1.5, where=real)
print("row sums:", p.sum(axis=-1).round(12))
print("entries that keep mass:", np.count_nonzero(p, axis=-1))

# %%
# Suppose that each row should put its mass on its first column. The squared distance to that target has the gradient
# 2 (p - target) in the probabilities; ``entmax_vjp`` takes it to the scores. It needs the result of the forward call,
# and neither the scores nor the mask: where a probability is zero, so is the gradient.

target = np.zeros_like(p)
target[lengths > 0, 0] = 1


def loss(p):
    return np.square(p - target).sum(axis=-1)


gradient = um.entmax_vjp(p, 2 * (p - target), alpha=1.5)

# %%
# Does it agree with finite differences? Every score is moved by a small step, up and down, in one batch of 3 axes.

step = 1e-6
moves = step * np.eye(16)[:, None, :]
up, down = (loss(um.entmax(scores + sign * moves, alpha=1.5, where=real)) for sign in (1, -1))
differences = (up - down).T / (2 * step)
print(f"largest disagreement: {np.abs(gradient - differences).max():.1e}")

# %%
# Two hundred steps downhill, and the mass moves. A row whose first column is outside the support has no gradient there,
# so under this loss it is stuck: its mass only spreads evenly over the support. Softmax has no such rows.

descended = {}
for name in ("softmax", "entmax"):
    x, losses = scores.copy(), []
    for _ in range(200):
        if name == "softmax":
            q = um.softmax(x, where=real)
            x -= 0.5 * um.softmax_vjp(q, 2 * (q - target))
        else:
            q = um.entmax(x, alpha=1.5, where=real)
            x -= 0.5 * um.entmax_vjp(q, 2 * (q - target), alpha=1.5)
        losses.append(loss(q)[lengths > 0].mean())
    descended[name] = q, losses

figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained")
masked = np.ma.masked_where(~real, p)
for ax, image, title in (
    (axes[0], masked, "entmax 1.5, padding in grey"),
    (axes[1], np.ma.masked_where(~real, gradient), "gradient in the scores"),
    (axes[2], np.ma.masked_where(~real, descended["entmax"][0]), "after 200 steps"),
):
    signed = image is not masked and image.min() < -0.1
    limit = np.abs(image).max()
    colours = plt.colormaps["RdBu_r" if signed else "viridis"].with_extremes(bad="0.85")
    shown = ax.imshow(image, cmap=colours, vmin=-limit if signed else 0, vmax=limit, interpolation="nearest")
    ax.set(title=title, xlabel="column", ylabel="row")
    figure.colorbar(shown, ax=ax, shrink=0.8)
for name, (_, losses) in descended.items():
    axes[3].plot(losses, label=name)
axes[3].set(title="mean loss", xlabel="step", ylim=(0, None))
axes[3].legend()
plt.show()
