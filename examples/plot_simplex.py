"""
Maps as a way to the triangle
=============================

With three classes the distributions form a triangle, and a map is a way from the plane of scores into it.
"""

# %%
# Scores that differ by a constant give the same result, so three scores have two directions that matter. The points of
# a square grid in that plane are sent through each map. Softmax keeps all of them inside the triangle. Entmax pushes
# the outer ones onto the edges, where one class has exactly zero, and into the corners, where one has everything.
# Sparsemax takes each to the nearest point of the triangle.

import matplotlib.pyplot as plt
import numpy as np

import unitmass as um

corners = np.array([[0.0, 1.0], [-np.sqrt(3) / 2, -0.5], [np.sqrt(3) / 2, -0.5]])
plane = corners * np.sqrt(2 / 3) / np.linalg.norm(corners[0])  # orthogonal to (1, 1, 1), with orthonormal columns

side = np.linspace(-1.6, 1.6, 33)
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
scores = grid @ plane.T

maps = {
    "softmax": um.softmax(scores),
    "entmax 1.5": um.entmax(scores, alpha=1.5),
    "sparsemax": um.sparsemax(scores),
    "entmax 4": um.entmax(scores, alpha=4.0),
}

figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained", sharex=True, sharey=True)
for ax, (name, p) in zip(axes, maps.items(), strict=True):
    points = p @ corners
    support = np.count_nonzero(p, axis=-1)
    ax.fill(*corners.T, facecolor="0.96", edgecolor="0.6")
    ax.scatter(*points.T, c=support, cmap="viridis_r", vmin=1, vmax=3, s=7)
    shares = [f"{np.mean(support == k):.0%}" for k in (3, 2, 1)]
    ax.set_title(f"{name}\ninside {shares[0]}, edge {shares[1]}, corner {shares[2]}", fontsize=10)
    ax.set_aspect("equal")
    ax.set_axis_off()
plt.show()

# %%
# Sparsemax is the projection: no other point of the triangle is nearer to the scores. And a point that is a
# distribution already stays where it is.

rng = np.random.default_rng(0)
others = rng.dirichlet(np.ones(3), 10_000)
distance = np.square(maps["sparsemax"] - scores).sum(axis=-1)
nearest_other = np.square(others[None] - scores[:, None]).sum(axis=-1).min(axis=-1)
print("a nearer point was found for", np.count_nonzero(nearest_other < distance - 1e-12), "of", len(scores), "scores")
print("largest move of a distribution:", f"{np.abs(um.sparsemax(others) - others).max():.1e}")
