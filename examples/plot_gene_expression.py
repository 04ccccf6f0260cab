"""
Noise in gene expression
========================

A gene is read into messengers, and messengers into proteins. Both come and go one by one, at random times.
"""

# %%
# Messengers m are made at a constant rate, and each of them makes proteins n. A reaction a line: ``@`` gives a rate
# constant, and the propensity is that of mass action.

import matplotlib.pyplot as plt
import numpy as np

import unitmass as um

gene = um.ReactionNetwork("""
    transcription = 20
    translation = 2.5

      -> m       @ transcription
    m -> m + n   @ translation
    m ->         @ 1
    n ->         @ 1
""")
gene

# %%
# One call simulates ten thousand cells. ``plot`` draws a few of them, the means, and a standard deviation on either
# side. The means have closed forms, which the dotted lines show.

t = np.linspace(0, 10, 201)
cells = gene.simulate(t=t, n=10_000, rng=1)

figure, ax = plt.subplots(figsize=(9, 4.5), layout="constrained")
cells.plot(ax=ax, trajectories=5)
for mean in (20 * (1 - np.exp(-t)), 50 * (1 - np.exp(-t) - t * np.exp(-t))):
    ax.plot(t, mean, color="black", linestyle=":")
ax.set_xlabel("time, in lifetimes of a messenger")
ax.set_ylabel("molecules in a cell")
plt.show()

# %%
# A messenger makes a burst of proteins, so that these vary more than those of a Poisson distribution, whose variance
# is its mean. The Fano factor, variance over mean, is 1 + k/2 for the rate k of translation, when both kinds of
# molecules live equally long. A parameter may be an array with a value for each trajectory, so that one call goes
# through all rates; transcription falls as translation grows, which leaves the mean at 50.

k = np.repeat(np.linspace(0.25, 10, 14), 4_000)
proteins = gene.simulate(t=[12], n=k.size, rng=2, params={"translation": k, "transcription": 50 / k})["n"][:, 0]
rates, groups = np.unique(k), proteins.reshape(14, -1)
fano = groups.var(axis=1, ddof=1) / groups.mean(axis=1)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for i in (0, 4, 13):
    share = np.bincount(groups[i], minlength=160)[:160] / groups.shape[1]
    left.fill_between(range(160), share, step="mid", alpha=0.5, label=f"k = {rates[i]:g}")
left.set_xlabel("proteins in a cell")
left.set_ylabel("share of the cells")
left.set_title("The same mean, other noise")
left.legend(frameon=False)
right.plot(rates, 1 + rates / 2, color="black", linestyle=":", label="exact: 1 + k/2")
right.plot(rates, fano, "o", label="measured")
right.set_xlabel("rate of translation k")
right.set_ylabel("variance / mean")
right.set_title("The Fano factor")
right.legend(frameon=False)
plt.show()

# %%
# How long until a cell first has 80 proteins? ``first_passage`` stops each trajectory there; those that do not get so
# far have an infinite time.

passages = gene.first_passage("n >= 80", t_max=100, n=10_000, rng=3)
reached = np.isfinite(passages.time)
print(f"{reached.mean():.1%} of the cells reach 80 proteins by t = 100; half of them by {np.median(passages.time):.1f}")
