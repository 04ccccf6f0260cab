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
from fractions import Fraction
from itertools import pairwise

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


# --- with bounds ------------------------------------------------------------------------------------------------------

ROUNDING = 1e-6  # bounds such as 1/n in float32 are taken to hold a sum that they miss by their rounding


def capped_row(x, upper=1.0, total=1.0, temperature=1.0):
    """clip(z - tau, 0, upper) with the given sum: f(tau) is linear between the break points z and z - upper."""
    u = np.broadcast_to(np.asarray(upper, WIDE), np.shape(x))
    if u.sum() < total * (1 - ROUNDING):
        return np.full(np.shape(x), np.nan, WIDE)
    total = min(u.sum(), WIDE(total))
    z, u, t = np.asarray(x, WIDE), np.minimum(u, total), WIDE(temperature)
    if np.ptp(z) <= 1e3 * t:  # beyond, u would vanish beside z
        found = _clipped((z - z.max()) / t, u, total)
        if found is not None:
            return found
    z, u, total, t = _exact(z), _exact(u), _exact(total)[()], _exact(t)[()]
    return _clipped((z - z.max()) / t, u, total)


def _clipped(z, u, total):
    """Where the linear piece is that reaches the sum; nothing if rounding hides it."""

    def p(tau):
        return np.maximum(np.minimum(z - tau, u), 0)

    breaks = np.unique(np.concatenate([z, z - u]))
    low, high = 0, breaks.size - 1  # f(breaks[low]) >= total > f(breaks[high])
    while high - low > 1:
        mid = (low + high) // 2
        low, high = (mid, high) if p(breaks[mid]).sum() >= total else (low, mid)
    full = z - u >= breaks[high]
    inside = (z >= breaks[high]) & (z - u <= breaks[low])  # these meet no bound between the two
    if not inside.any():
        return None
    # Measured from the least of them, so that tau needs no more digits than the sum.
    above = z - z[inside].min()
    rest = (total - u[full].sum() - above[inside].sum()) / np.count_nonzero(inside)
    return np.where(inside, np.maximum(np.minimum(above + rest, u), 0), np.where(full, u, 0)).astype(WIDE)


_exact = np.vectorize(lambda v: Fraction(*v.as_integer_ratio()), otypes=[object])


def csoftmax_row(x, upper=1.0, total=1.0, temperature=1.0):
    """min(u, e^z / Z): what exceeds its bound is set to it, and the others share the rest, until none does."""
    u = np.broadcast_to(np.asarray(upper, WIDE), np.shape(x))
    z = np.asarray(x, WIDE) / WIDE(temperature)
    p, free = np.zeros_like(z), np.ones(z.shape, bool)
    if u.sum() < total * (1 - ROUNDING):
        return np.full_like(z, np.nan)
    while free.any():
        p[~free] = u[~free]
        p[free] = max(total - u[~free].sum(), 0) * softmax_row(z[free])
        over = free & (p > u)
        if not over.any():
            break
        free &= ~over
    return np.minimum(p, u)


def with_bounds(row, x, upper, total=1.0, where=None):
    """Apply `row(x, upper, total)` to each row under the rule of special values for bounds.

    As `rowwise`, but entries at +inf share the total up to their bounds and what these cannot hold goes to the others;
    a row that cannot hold the total is NaN.
    """
    x = np.asarray(x)
    keep = np.broadcast_to(True if where is None else np.asarray(where), x.shape)
    upper, out = np.broadcast_to(np.asarray(upper, WIDE), x.shape), np.zeros(x.shape, WIDE)
    total = np.broadcast_to(np.asarray(total, WIDE), x.shape[:-1])
    for i in np.ndindex(x.shape[:-1]):
        r, u = np.asarray(x[i], WIDE), upper[i]
        top, body = keep[i] & (r == np.inf), keep[i] & np.isfinite(r)
        rest = total[i] - u[top].sum()
        if np.isnan(r).any():
            out[i] = np.nan
        elif not keep[i].any():
            pass
        elif u[top | body].sum() < total[i] * (1 - ROUNDING):
            out[i] = np.nan
        elif rest <= 0:
            out[i][top] = capped_row(np.zeros(np.count_nonzero(top)), u[top], total[i])
        else:
            out[i][top] = u[top]
            if body.any():
                out[i][body] = row(r[body], u[body], rest)
    return out


def bounded_jacobian(p, upper, slope=lambda p: np.ones_like(p)):
    """Dense Jacobian of a map with bounds from its result: w = slope(p) strictly inside the bounds."""
    p = np.asarray(p, WIDE)
    w = np.where((p > 0) & (p < upper), slope(p), 0)
    return np.diag(w) - np.outer(w, w) / w.sum() if w.any() else np.zeros((p.size, p.size), WIDE)


# --- by norms ---------------------------------------------------------------------------------------------------------


def normmax_top(z, alpha):
    """The largest of u = [z - tau]_+ with sum u^q = 1, q = alpha/(alpha - 1), by bisection; z has its maximum at 0."""
    q, z = 1 + 1 / (WIDE(alpha) - 1), z[z > -1]
    low, high = WIDE(0), WIDE(1)
    while low < (mid := (low + high) / 2) < high:
        low, high = (mid, high) if (np.maximum(z + mid, 0) ** q).sum() < 1 else (low, mid)
    return high


def normmax_row(x, alpha=2.0, temperature=1.0):
    """p is u^(1/(alpha - 1)), normalised."""
    z = np.asarray(x, WIDE) / WIDE(temperature)
    z = z - z.max()
    u = np.maximum(z + normmax_top(z, alpha), 0)
    p = np.where(u > 0, u, 1) ** (1 / (WIDE(alpha) - 1)) * (u > 0)
    return p / p.sum()


def normmax_mp(x, alpha):
    """One row, as mpf numbers good to about 50 digits."""
    with mp.workdps(60 + int(10 / min(1.0, float(alpha) - 1))):
        z = [mp.mpf(float(v)) - mp.mpf(float(max(x))) for v in x]
        alpha = mp.mpf(float(alpha))
        q = alpha / (alpha - 1)
        low, high = mp.mpf(0), mp.mpf(1)
        for _ in range(mp.mp.prec + 4):
            mid = (low + high) / 2
            low, high = (mid, high) if mp.fsum((v + mid) ** q for v in z if v + mid > 0) < 1 else (low, mid)
        p = [(v + high) ** (q - 1) if v + high > 0 else mp.mpf(0) for v in z]
        return [v / mp.fsum(p) for v in p]


def normmax_jacobian(p, alpha):
    p, alpha = np.asarray(p, WIDE), WIDE(alpha)
    b = weights(p, alpha)
    inner = np.diag(b) - np.outer(p, b) - np.outer(b, p) + b.sum() * np.outer(p, p)
    return (p**alpha).sum() ** ((alpha - 1) / alpha) / (alpha - 1) * inner


def l1_row(x, radius=1.0):
    x = np.asarray(x, WIDE)
    return x if np.abs(x).sum() <= radius else np.sign(x) * simplex_row(np.abs(x), radius)


def l1_ball(x, radius=1.0, where=None):
    """The rule of special values for the ball: infinite coordinates share the radius with their signs."""
    x = np.asarray(x)
    keep = np.broadcast_to(True if where is None else np.asarray(where), x.shape)
    radius, out = np.broadcast_to(np.asarray(radius, float), x.shape[:-1]), np.zeros(x.shape, WIDE)
    for i in np.ndindex(x.shape[:-1]):
        r, k = np.asarray(x[i], WIDE), keep[i]
        infinite = k & np.isinf(r)
        if np.isnan(r).any():
            out[i] = np.nan
        elif infinite.any():
            out[i][infinite] = np.sign(r[infinite]) * radius[i] / np.count_nonzero(infinite)
        elif k.any():
            out[i][k] = l1_row(r[k], radius[i])
    return out


# --- softmax of some scores, or of another function -------------------------------------------------------------------


def taylor_row(x, order=2, temperature=1.0):
    u = np.asarray(x, WIDE) / WIDE(temperature)
    f = sum(u**m / math.factorial(m) for m in range(order + 1))
    return f / f.sum()


def taylor_jacobian(x, order, temperature=1.0):
    """Of one row: (f'/Z)(delta - p)."""
    u = np.asarray(x, WIDE) / WIDE(temperature)
    f, slope = (sum(u**m / math.factorial(m) for m in range(last + 1)) for last in (order, order - 1))
    return (np.diag(slope) - np.outer(f / f.sum(), slope)) / f.sum() / WIDE(temperature)


def topk_row(x, k=None, top_p=None, temperature=1.0):
    x = np.asarray(x, WIDE)
    order = np.argsort(-x, kind="stable")
    if top_p == 1:
        return softmax_row(x, temperature)
    if k is None:
        mass = np.cumsum(softmax_row(x, temperature)[order])
        k = 1 + np.count_nonzero(mass < top_p)
    chosen, p = order[: int(k)], np.zeros_like(x)
    p[chosen] = softmax_row(x[chosen], temperature)
    return p


def ev_row(x, temperature=1.0):
    x = np.asarray(x, WIDE)
    z = x - x.max()
    kept = z >= z.mean()
    p = np.zeros_like(x)
    p[kept] = softmax_row(z[kept], temperature)
    return p


# --- noise ------------------------------------------------------------------------------------------------------------


class Law:
    """Density, distribution function, where the density is positive to 1e-22, and where it has kinks."""

    def __init__(self, pdf, cdf, low, high, kinks=()):
        self.pdf, self.cdf, self.low, self.high, self.kinks = pdf, cdf, low, high, kinks


LAWS = {
    "gumbel": Law(lambda u: math.exp(-u - math.exp(-u)), lambda u: math.exp(-math.exp(min(-u, 700))), -4.0, 52.0),
    "normal": Law(
        lambda u: math.exp(-u * u / 2) / math.sqrt(2 * math.pi), lambda u: math.erfc(-u / math.sqrt(2)) / 2, -10, 10
    ),
    "exponential": Law(
        lambda u: math.exp(-u) if u >= 0 else 0.0, lambda u: -math.expm1(-u) if u > 0 else 0.0, 0, 52, (0,)
    ),
    "uniform": Law(lambda u: float(0 <= u <= 1), lambda u: min(max(u, 0.0), 1.0), 0, 1, (0, 1)),
    "logistic": Law(
        lambda u: math.exp(-abs(u)) / (1 + math.exp(-abs(u))) ** 2,
        lambda u: 1 / (1 + math.exp(-u)) if u > -700 else 0.0,
        -52,
        52,
    ),
}


def noisy_argmax_row(x, noise="gumbel", scale=1.0):
    """P[argmax(x + scale eps) = i] by adaptive quadrature of f(u - x_i) prod F(u - x_j), from kink to kink."""
    from scipy.integrate import quad

    law = LAWS[noise]
    y = [float(v) / scale for v in x]
    kinks = sorted({v + k for v in y for k in law.kinks})

    def part(i):
        def integrand(u):
            value = law.pdf(u - y[i])
            for j, v in enumerate(y):
                if j != i and value:
                    value *= law.cdf(u - v)
            return value

        low, high = y[i] + law.low, y[i] + law.high
        between = [*kinks, *range(math.ceil(low), math.ceil(high), 2)]  # every other integer, to miss no peak
        steps = sorted({low, *(u for u in between if low < u < high), high})
        return math.fsum(quad(integrand, a, b, epsabs=1e-14, epsrel=1e-12, limit=200)[0] for a, b in pairwise(steps))

    return np.array([part(i) for i in range(len(y))])


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
