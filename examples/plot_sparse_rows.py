"""
Long rows that are mostly zero
==============================

Rows of 10,000 scores, of which entmax keeps a handful: how many, and what storing only those saves.
"""

# %%
# ``threshold`` tells how many entries each row will keep, without computing or storing the distribution.

import matplotlib.pyplot as plt
import numpy as np

import unitmass as um

rng = np.random.default_rng(1)
rows = rng.normal(0, 2, (200, 10_000)).astype(np.float32)

alphas = np.linspace(1.1, 2.5, 29)
supports = np.array([um.threshold(rows, alpha=alpha)[1] for alpha in alphas])
for alpha in (1.25, 1.5, 2.0):
    print(f"alpha {alpha}: {um.threshold(rows, alpha=alpha)[1].mean():.1f} of 10,000 entries keep mass")

# %%
# With ``sparse=True`` only those are returned: their values, their columns, and where each row starts. SciPy's
# ``csr_array((data, indices, indptr), shape=rows.shape)`` takes the three as they are.

data, indices, indptr = um.entmax(rows, alpha=1.5, sparse=True)
dense = um.entmax(rows, alpha=1.5)
stored = data.nbytes + indices.nbytes + indptr.nbytes
print(f"dense {dense.nbytes:,} bytes, sparse {stored:,} bytes: {dense.nbytes / stored:.0f} times less")

first = slice(indptr[0], indptr[1])
print("the same numbers:", np.array_equal(dense[0, indices[first]], data[first]))

# %%
# The gradient has the same columns, and takes the triple in the place of the distribution.

g = rng.normal(size=rows.shape).astype(np.float32)
sparse_gradient, columns, _ = um.entmax_vjp((data, indices, indptr), g, alpha=1.5)
print("columns of the gradient are those of the result:", np.array_equal(columns, indices))

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
low, middle, high = np.quantile(supports, (0.05, 0.5, 0.95), axis=1)
axes[0].fill_between(alphas, low, high, alpha=0.3, label="90 % of the rows")
axes[0].plot(alphas, middle, label="median row")
axes[0].set(yscale="log", xlabel="alpha", ylabel="entries that keep mass", title="support of a row of 10,000 scores")
axes[0].legend()

for alpha in (1.25, 1.5, 2.0):
    p = np.sort(um.entmax(rows[0], alpha=alpha))[::-1]
    kept = p[p > 0]
    axes[1].plot(np.arange(1, kept.size + 1), kept, marker=".", label=f"alpha {alpha}")
p = np.sort(um.softmax(rows[0]))[::-1]
axes[1].plot(np.arange(1, p.size + 1), p, color="0.5", label="softmax")
axes[1].set(xscale="log", yscale="log", ylim=(1e-7, 1), xlabel="rank", ylabel="probability", title="one row, sorted")
axes[1].legend()
plt.show()
