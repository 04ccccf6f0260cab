"""Slow, obvious definitions of the maps: what `unitmass` is held against.

Two independent oracles of entmax, which the tests also set against each other:

- `entmax_mp`: bisection on tau in arbitrary precision, straight from the definition. Any alpha >= 1, small rows.
- `entmax_row`: NumPy's long double, for rows up to a million. alpha <= 2 by Newton from the left on m, where
  p = [1 + (alpha-1)(x - max - m)]_+^(1/(alpha-1)) is written with log1p so that alpha = 1 + 1e-9 (and 1 itself) loses
  nothing; alpha > 2 by bisection on the smallest positive probability, because tau then needs more digits than any
  floating type has.

Everything takes float or int arrays and works on the last axis; `rowwise` adds the rule of special values.
"""

import math

import mpmath as mp
import numpy as np

WIDE = np.longdouble

# --- one row of finite scores -----------------------------------------------------------------------------------------


def softmax_row(x, temperature=1.0):
    x = np.asarray(x, WIDE)
    with np.errstate(over="ignore", under="ignore"):
        e = np.exp((x - x.max()) / WIDE(temperature))
    return e / e.sum()


def log_softmax_row(x, temperature=1.0):
    x = np.asarray(x, WIDE)
    with np.errstate(over="ignore", under="ignore"):
        y = (x - x.max()) / WIDE(temperature)
        top = int(np.argmax(y))
        rest = np.exp(np.delete(y, top)).sum()  # the top itself is exp(0): log1p keeps what is far below 1
        return y - np.log1p(rest)


def simplex_row(x, total=1.0):
    """Euclidean projection on the simplex by sorting."""
    x, total = np.asarray(x, WIDE), WIDE(total)
    z = x - x.max()
    s = np.sort(z)[::-1]
    s = s[s > -total]  # what lies `total` below the top is outside the support; it would swamp the running sum
    k = np.arange(1, s.size + 1)
    # Support size: the largest k with k s_k > (s_1 + ... + s_k) - total.
    size = int(k[k * s > np.cumsum(s) - total][-1])
    # Measured from the smallest of them: with a million on the support, tau itself has too few digits.
    above = z - s[size - 1]
    least = (total - above[above >= 0].sum()) / np.count_nonzero(above >= 0)
    return np.where(above >= 0, np.maximum(above + least, 0), 0)


def sparsemax_row(x):
    return simplex_row(x, 1.0)


def entmax15_row(x):
    """alpha = 1.5, exactly, by sorting: sum over the support of (z - tau)^2 = 1 is a quadratic in tau."""
    x = np.asarray(x, WIDE)
    z = (x - x.max()) / 2
    s = np.sort(z)[::-1]
    s = s[s >= -1]
    k = np.arange(1, s.size + 1)
    mean = np.cumsum(s) / k
    square = np.cumsum(s * s) / k - mean * mean  # variance of the k largest
    tau = mean - np.sqrt(np.maximum(1 / k.astype(WIDE) - square, 0))
    size = int(k[tau <= s][-1])
    top = s[:size] - s[:size].mean()  # once more for the support found, centred: nothing cancels
    tau = s[:size].mean() - np.sqrt((1 - (top * top).sum()) / size)
    return np.maximum(z - tau, 0) ** 2


def entmax_row(x, alpha):
    x = np.asarray(x, WIDE)
    a = WIDE(alpha) - 1
    return _entmax_by_newton(x, a) if alpha <= 2 else _entmax_by_anchor(x, a)


def _entmax_by_newton(x, a):
    with np.errstate(over="ignore"):
        y = x - x.max()

    def log_p(y, m):
        with np.errstate(divide="ignore"):
            return y - m if a == 0 else np.log1p(np.maximum(a * (y - m), -1)) / a

    # sum p - 1 is convex and decreasing in m and not negative at m = 0, so Newton rises to the root and stops there.
    # What has dropped out on the way stays out.
    m, active = WIDE(0), y
    for _ in range(500):
        active = active[a * (active - m) > -1]
        logs = log_p(active, m)
        step = (np.exp(logs).sum() - 1) / np.exp((1 - a) * logs).sum()
        if not m + step > m:
            break
        m += step
    p = np.exp(log_p(y, m))
    return p / p.sum()


def _entmax_by_anchor(x, a):
    order = np.argsort(-x, kind="stable")
    s = x[order]
    with np.errstate(over="ignore"):
        s = s[a * (s - s[0]) > -1]

    def mass(k, r):
        """Probabilities of the k largest when the smallest of them has probability r."""
        return (a * (s[:k] - s[k - 1]) + WIDE(r) ** a) ** (1 / a)

    # The k-th largest has mass if the k largest do not already sum to 1 when it has none: monotone in k.
    low, high = 1, s.size
    while low < high:
        k = (low + high + 1) // 2
        low, high = (k, high) if mass(k, 0).sum() < 1 else (low, k - 1)
    k = low
    r, hi = WIDE(0), WIDE(1) / k
    while True:
        mid = (r + hi) / 2
        if mid in (r, hi):
            break
        r, hi = (mid, hi) if mass(k, mid).sum() < 1 else (r, mid)
    out = np.zeros_like(x)
    p = mass(k, hi)
    out[order[:k]] = p / p.sum()
    return out


# --- arbitrary precision ----------------------------------------------------------------------------------------------


def _digits(n, alpha):
    """Enough for (1/n)^(alpha-1), the smallest z - tau there is, and for 1/(alpha-1)."""
    return 60 + int((alpha - 1) * math.log10(n + 1)) + (0 if alpha == 1 else max(0, -int(mp.log10(alpha - 1))))


def _entmax_mp(x, alpha):
    """Entmax of mpf scores at an mpf alpha, in the precision now in force. Bisection on tau."""
    top = max(x)
    if alpha == 1:
        e = [mp.exp(v - top) for v in x]
        return [v / mp.fsum(e) for v in e]
    a = alpha - 1
    z = [a * (v - top) for v in x]
    low, high = mp.mpf(-1), -mp.power(len(x), -a)

    def p(tau):
        return [mp.power(v - tau, 1 / a) if v > tau else mp.mpf(0) for v in z]

    for _ in range(int(mp.mp.prec) + 4):
        mid = (low + high) / 2
        low, high = (mid, high) if mp.fsum(p(mid)) >= 1 else (low, mid)
    w = p(low)
    return [v / mp.fsum(w) for v in w]


def entmax_mp(x, alpha):
    """One row, as mpf numbers good to about 50 digits."""
    with mp.workdps(_digits(len(x), alpha)):
        return _entmax_mp([mp.mpf(float(v)) for v in x], mp.mpf(float(alpha)))


def entmax_alpha_grad_mp(x, g, alpha):
    """<g, dp/dalpha> of one row of scores, by central differences in many digits (a forward one at alpha = 1)."""
    with mp.workdps(_digits(len(x), 1e-25 + max(float(alpha), 1.5)) + 60):
        xs, gs, alpha = [mp.mpf(float(v)) for v in x], [mp.mpf(float(v)) for v in g], mp.mpf(float(alpha))
        h = mp.mpf("1e-25")

        def value(at):
            return mp.fsum(u * v for u, v in zip(gs, _entmax_mp(xs, at), strict=True))

        if alpha - h < 1:
            return float((value(alpha + h) - value(alpha)) / h)
        return float((value(alpha + h) - value(alpha - h)) / (2 * h))


# --- gradients --------------------------------------------------------------------------------------------------------


def weights(p, alpha):
    """w in J = diag(w) - w w^T / sum w: p^(2-alpha) on the support."""
    p = np.asarray(p, WIDE)
    return np.where(p > 0, np.power(np.where(p > 0, p, 1), 2 - WIDE(alpha)), 0)


def jacobian(p, alpha):
    """Dense Jacobian of one row of entmax from its result: alpha = 1 softmax, 2 sparsemax and project_simplex."""
    w = weights(p, alpha)
    return np.diag(w) - np.outer(w, w) / w.sum()


def entmax_vjp_row(p, g, alpha):
    """J^T g. g is measured from its value at the heaviest weight: w spans many decades where alpha > 2."""
    w, g = weights(p, alpha), np.asarray(g, WIDE)
    if not w.any():
        return w
    g = g - g[np.argmax(w)]
    return w * (g - (w * g).sum() / w.sum())


def log_softmax_vjp_row(logp, g, temperature=1.0):
    g = np.asarray(g, WIDE)
    return (g - np.exp(np.asarray(logp, WIDE)) * g.sum()) / WIDE(temperature)


# --- thresholds -------------------------------------------------------------------------------------------------------


def threshold_row(x, alpha):
    """(tau, support) with p = [(alpha-1) x - tau]_+^(1/(alpha-1))."""
    p = entmax_row(x, alpha)
    a = WIDE(alpha) - 1
    return a * np.asarray(x, WIDE).max() - p.max() ** a, int(np.count_nonzero(p))


# --- special values ---------------------------------------------------------------------------------------------------


def rowwise(row, x, *params, where=None, nothing=0.0, total=1.0):
    """Apply `row` to each row of x under the one rule of special values.

    A NaN makes the row NaN, also under the mask; what `where` excludes and -inf get `nothing` (0, or -inf for
    logarithms); a row of only -inf is NaN; entries at +inf share `total`. `params` have one value per row, or for all.
    """
    x = np.asarray(x)
    keep = np.broadcast_to(True if where is None else np.asarray(where), x.shape)
    params = [np.broadcast_to(np.asarray(v, float), x.shape[:-1]) for v in params]
    total = np.broadcast_to(np.asarray(total, float), x.shape[:-1])
    out = np.full(x.shape, nothing, WIDE)
    for i in np.ndindex(x.shape[:-1]):
        r, k = np.asarray(x[i], WIDE), keep[i]
        top = k & (r == np.inf)
        body = k & np.isfinite(r)
        if np.isnan(r).any():
            out[i] = np.nan
        elif not k.any():
            pass
        elif top.any():
            share = WIDE(total[i]) / np.count_nonzero(top)
            out[i][top] = np.log(share) if nothing else share
        elif body.any():
            out[i][body] = row(r[body], *(v[i] for v in params))
        else:
            out[i] = np.nan
    return out


def softmax(x, temperature=1.0, **kw):
    return rowwise(softmax_row, x, temperature, **kw)


def log_softmax(x, temperature=1.0, **kw):
    return rowwise(log_softmax_row, x, temperature, nothing=-np.inf, **kw)


def project_simplex(x, total=1.0, **kw):
    return rowwise(simplex_row, x, total, total=total, **kw)


def sparsemax(x, **kw):
    return rowwise(sparsemax_row, x, **kw)


def entmax(x, alpha=1.5, **kw):
    return rowwise(entmax_row, x, alpha, **kw)
