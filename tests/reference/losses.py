"""Slow, obvious definitions of the losses: what `unitmass.losses` is held against.

Every function takes one row of scores and one row of dense targets, in long double, and returns the value. Scores of
-inf take no part, and a target on one of them makes the value infinite; `one_hot` and `many_hot` turn labels into
targets. Gradients have two oracles: `gradient` differentiates any of these functions by central differences of order 4
in long double (good to about 1e-13 where the loss is smooth), and the losses of sparse maps have `p - y`.
"""

import itertools
import math

import mpmath as mp
import numpy as np
from scipy.special import ndtr

from reference.maps import WIDE, _digits, _entmax_mp, entmax_row

# --- targets ----------------------------------------------------------------------------------------------------------


def one_hot(label, n):
    return np.eye(n, dtype=WIDE)[label]


def many_hot(labels, n, ignore=-1):
    y = np.zeros(n, WIDE)
    for label in labels:
        if label != ignore:
            y[label] = 1
    return y


def _possible(x, y):
    """Scores and targets without the impossible; no targets if one of them is."""
    x, y = np.asarray(x, WIDE), np.asarray(y, WIDE)
    on = x > -np.inf
    return x[on], None if (y[~on] > 0).any() else y[on]


def lse(x):
    """log sum exp."""
    x = np.asarray(x, WIDE)
    if not x.size or x.max() == -np.inf:
        return -WIDE(np.inf)
    return x.max() + np.log(np.exp(x - x.max()).sum())


# --- gradients --------------------------------------------------------------------------------------------------------


def gradient(f, x, h=3e-4):
    """The derivatives of f at a row of scores; those at -inf are 0."""
    x, h = np.asarray(x, WIDE), WIDE(h)
    out = np.zeros(x.shape, WIDE)
    for i in np.ndindex(x.shape):
        if x[i] > -np.inf:

            def at(step, i=i):
                moved = x.copy()
                moved[i] += step
                return f(moved)

            out[i] = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    return out


# --- one label, or a distribution over labels -------------------------------------------------------------------------


def cross_entropy(x, y, temperature=1.0, label_smoothing=0.0):
    x, y = _possible(x, y)
    if y is None:
        return WIDE(np.inf)
    x, smoothing = x / WIDE(temperature), WIDE(label_smoothing)
    y = (1 - smoothing) * y + smoothing / x.size
    return (y * (lse(x) - x)).sum()


def _tsallis(p, alpha):
    """(sum p^alpha - sum p) / (alpha (alpha - 1)), and its limit sum p log p; nothing cancels."""
    p, a = np.asarray(p, WIDE), WIDE(alpha) - 1
    logs = np.log(p[p > 0])
    terms = logs if a == 0 else np.expm1(a * logs) / a
    return (p[p > 0] * terms).sum() / WIDE(alpha)


def _fenchel_young(x, y, p, omega):
    """Omega*(x) + Omega(y) - <x, y> for the p that attains the conjugate."""
    z = x - x.max()
    return ((p - y) * z).sum() - omega(p) + omega(y)


def entmax_loss(x, y, alpha=1.5):
    x, y = _possible(x, y)
    if y is None:
        return WIDE(np.inf)
    return _fenchel_young(x, y, entmax_row(x, alpha), lambda p: _tsallis(p, alpha))


def entmax_loss_gradient(x, y, alpha=1.5):
    return _gradient_of_map(x, y, lambda x: entmax_row(x, alpha))


def _gradient_of_map(x, y, row):
    x, y = np.asarray(x, WIDE), np.asarray(y, WIDE)
    on = x > -np.inf
    out = np.zeros(x.shape, WIDE)
    out[on] = row(x[on]) - y[on]
    return out


def entmax_loss_slope(x, y, alpha):
    """The derivative of entmax_loss in alpha at finite scores: d Omega(y) - d Omega(p), in many digits."""
    with mp.workdps(_digits(len(x), float(alpha)) + 40):
        alpha = mp.mpf(float(alpha))
        p = _entmax_mp([mp.mpf(float(v)) for v in x], alpha)

        def slope(p):
            logs = [(v, mp.log(v)) for v in p if v > 0]
            if alpha == 1:  # Omega = sum p (l + a l^2 / 2) / (1 + a) + O(a^2)
                return mp.fsum(v * (u * u / 2 - u) for v, u in logs)
            a = alpha - 1
            total = mp.fsum(v * mp.power(v, a) for v, _ in logs) - mp.fsum(v for v, _ in logs)
            return (
                mp.fsum(v * mp.power(v, a) * u for v, u in logs) / (alpha * a)
                - total * (2 * alpha - 1) / (alpha * a) ** 2
            )

        return float(slope([mp.mpf(float(v)) for v in y]) - slope(p))


def normmax_row(x, alpha):
    """argmax <x, p> - |p|_alpha: u = [x - tau]_+^(1/(alpha-1)) has the norm 1, and p = u / sum u."""
    x, a = np.asarray(x, WIDE), WIDE(alpha) - 1
    z = x - x.max()
    low, high = WIDE(-1), WIDE(0)  # the largest alone has the norm 1 at tau = -1
    while True:
        mid = (low + high) / 2
        if mid in (low, high):
            break
        u = np.maximum(z - mid, 0) ** (1 / a)
        low, high = (mid, high) if (u**alpha).sum() >= 1 else (low, mid)
    u = np.maximum(z - low, 0) ** (1 / a)
    return u / u.sum()


def normmax_loss(x, y, alpha=2.0):
    x, y = _possible(x, y)
    if y is None:
        return WIDE(np.inf)
    return _fenchel_young(x, y, normmax_row(x, alpha), lambda p: (p ** WIDE(alpha)).sum() ** (1 / WIDE(alpha)))


def normmax_loss_gradient(x, y, alpha=2.0):
    return _gradient_of_map(x, y, lambda x: normmax_row(x, alpha))


def topk_row(x, k):
    """The softmax over the k largest; of equal ones the first."""
    x = np.asarray(x, WIDE)
    top = np.argsort(-x, kind="stable")[:k]
    out = np.zeros_like(x)
    out[top] = softmax(x[top])
    return out


def topk_cross_entropy(x, y, k):
    x, y = _possible(x, y)
    if y is None:
        return WIDE(np.inf)
    return (y * (lse(np.sort(x)[::-1][:k]) - x)).sum()


def topk_cross_entropy_gradient(x, y, k):
    return _gradient_of_map(x, y, lambda x: topk_row(x, k))


def _with_margin(x, label, cosine, slope, scale):
    """The cross entropy of scale z, z the cosines but for the label's, and the gradient, given the slope there."""
    z = np.asarray(x, WIDE).copy()
    z[label] = cosine
    y = one_hot(label, z.size)
    out = WIDE(scale) * _gradient_of_map(WIDE(scale) * z, y, softmax)
    out[label] *= slope
    return cross_entropy(WIDE(scale) * z, y), out


def am_softmax(x, label, margin=0.35, scale=30.0):
    return _with_margin(x, label, WIDE(x[label]) - WIDE(margin), 1, scale)


def arcface(x, label, margin=0.5, scale=64.0):
    c, m = WIDE(x[label]), WIDE(margin)
    theta = np.arccos(c)
    if theta + m > np.pi:
        return _with_margin(x, label, c - m * np.sin(m), 1, scale)
    return _with_margin(x, label, np.cos(theta + m), np.sin(theta + m) / np.sin(theta), scale)


def sphereface(x, label, margin=4, scale=30.0):
    theta = np.arccos(WIDE(x[label]))
    k = int(theta * margin / WIDE(np.pi))
    sign = (-1) ** k
    slope = sign * margin * np.sin(margin * theta) / np.sin(theta)
    return _with_margin(x, label, sign * np.cos(margin * theta) - 2 * k, slope, scale)


def exact_probability(x, label):
    """P(argmax(x + eps) = label), eps normal: the trapezoid rule over the noise of the winner."""
    x = np.asarray(x, float)
    others = np.delete(x, label)
    u = np.linspace(-9, 9, 721)  # the spacing 1/40 leaves an error far below 1e-16
    density = np.exp(-u * u / 2) / math.sqrt(2 * math.pi)
    with np.errstate(under="ignore"):
        return (density * ndtr(x[label] + u[:, None] - others).prod(axis=1)).sum() * (u[1] - u[0])


def _led(x, label, margin):
    """Raise the others to where the lead of the label is no more than the margin; and tell which were raised."""
    x = np.asarray(x, float).copy()
    others = (np.arange(x.size) != label) & (x[label] - x > (np.inf if margin is None else margin))
    x[others] = x[label] - (margin or 0)
    return x, others


def standardised(x):
    x = np.asarray(x, WIDE)
    on = x > -np.inf
    return (x - x[on].mean()) / x[on].std()


def exact_accuracy_loss(x, y, temperature=1.0, margin=None):
    x, y = _possible(x, y)
    if y is None:
        return WIDE(0)  # never right
    return -sum(y[i] * exact_probability(_led(x, i, margin)[0] / temperature, i) for i in range(x.size) if y[i])


def exact_accuracy_gradient(x, label, temperature=1.0, margin=None):
    """By the derivative under the integral, at finite scores."""
    z, raised = _led(x, label, margin)
    z = z / temperature
    u = np.linspace(-9, 9, 721)
    density = np.exp(-u * u / 2) / math.sqrt(2 * math.pi)
    out = np.zeros(z.size)
    for j in range(z.size):
        if j != label and not raised[j]:
            others = np.delete(z, [label, j])
            slope = np.exp(-((z[label] + u - z[j]) ** 2) / 2) / math.sqrt(2 * math.pi)
            out[j] = (density * slope * ndtr(z[label] + u[:, None] - others).prod(axis=1)).sum() * (u[1] - u[0])
    out[label] = -out.sum()
    return out / temperature


def exact_accuracy_gradient_standardised(x, label):
    """The chain through (x - mean) / sd."""
    x, z = np.asarray(x, float), standardised(x).astype(float)
    g = exact_accuracy_gradient(z, label)
    return (g - g.mean() - z * (g * z).mean()) / x.std()


# --- sets of labels ---------------------------------------------------------------------------------------------------


def zlpr(x, t, threshold=0.0, margin=None, scale=1.0):
    x, t = _possible(x, t)
    if t is None:
        return WIDE(np.inf)
    scale, threshold = WIDE(scale), WIDE(threshold)
    with np.errstate(divide="ignore"):
        for_targets, against = np.log(t), np.log(1 - t)
    if margin is not None:
        pairs = lse(against + scale * (x + WIDE(margin))) + lse(for_targets - scale * x)
        return lse([0, pairs])
    return lse([scale * threshold, *(against + scale * x)]) + lse([-scale * threshold, *(for_targets - scale * x)])


def subset_softmax_loss(x, t):
    """Over all subsets, one by one: for up to about ten scores."""
    x, t = _possible(x, t)
    if t is None:
        return WIDE(np.inf)
    return log_z(x, round(float(t.sum()))) - (t * x).sum()


def log_z(x, k):
    """The logarithm of the elementary symmetric polynomial of degree k of e^x."""
    return lse([sum(subset, WIDE(0)) for subset in itertools.combinations(np.asarray(x, WIDE), k)])


def subset_marginals(x, k):
    """The share of the subsets, by weight, that hold each entry."""
    x = np.asarray(x, WIDE)
    others = [np.delete(x, i) for i in range(x.size)]
    return np.array([np.exp(x[i] + log_z(others[i], k - 1) - log_z(x, k)) for i in range(x.size)])


def group_zlpr(s, t, centred=False):
    """s and t of shape (groups, classes)."""
    s, t = np.asarray(s, WIDE), np.asarray(t, WIDE)
    groups, classes = s.shape
    total = WIDE(0)
    for j in range(classes):
        terms = [WIDE(0)]
        for i in range(groups):
            if t[i, j] > 0:
                against = [np.mean(s[i])] if centred else [s[i, k] for k in range(classes) if k != j]
                terms += [np.log(t[i, j]) + a - s[i, j] for a in against]
        total += lse(terms)
    return total


def cosent(f, y, scale=20.0):
    """Over all pairs of pairs."""
    f, y = np.asarray(f, WIDE), np.asarray(y)
    ordered = (y[:, None] < y) & (f[:, None] > -np.inf) & (f > -np.inf)
    i, j = np.nonzero(ordered)
    return lse([0, *(WIDE(scale) * (f[i] - f[j]))])


# --- smooth metrics ---------------------------------------------------------------------------------------------------


def softmax(x, temperature=1.0):
    z = np.asarray(x, WIDE) / WIDE(temperature)
    e = np.exp(z - z.max())
    return e / e.sum()


def smooth_accuracy(x, y, temperature=1.0):
    return (np.asarray(y, WIDE) * softmax(x, temperature)).sum()


def smooth_f1(x, t, temperature=1.0):
    on = np.asarray(x) > -np.inf
    x, t = np.asarray(x, WIDE)[on], np.asarray(t, WIDE)[on]
    p = 1 / (1 + np.exp(-x / WIDE(temperature)))
    return 2 * (t * p).sum() / (t + p).sum()


def soft_argmax(x, temperature=1.0, start=0):
    p = softmax(x, temperature)
    return (p * np.arange(start, start + p.size)).sum()


def soft_top_k(x, k):
    x = np.asarray(x, WIDE)
    on = x > -np.inf
    z = x[on] - x[on].min()
    p = np.zeros(z.size, WIDE)
    for _ in range(k):
        p = p + softmax((1 - p) * z)
    out = np.zeros(x.size, WIDE)
    out[on] = p
    return out
