"""Slow, obvious definitions of the smooth functions, in 30 digits of mpmath: what `unitmass.smooth` is held against.

- `step_mp`, `ramp_mp`, `density_mp`: a kernel's distribution function, the integral of that, and its density, in closed
  form. `convolved` knows none of them: it integrates the exact function against the density, and the tests set the two
  against each other.
- Stairs are sums of steps, as many as the kernel reaches.
- `smooth_max_mp` and `power_mean_mp` take a row by its formula.
"""

import mpmath as mp

DIGITS = 30
REACH = {"logistic": 48, "gaussian": 9.5, "uniform": 1}
"""Beyond this many widths, a kernel has less than 1e-20 of its mass."""


def density_mp(x, width, kernel):
    z = mp.mpf(x) / width
    if kernel == "logistic":
        return mp.sech(z / 2) ** 2 / (4 * width)
    if kernel == "gaussian":
        return mp.npdf(z) / width
    return (mp.mpf(1) / 2 if abs(z) < 1 else mp.mpf(0)) / width


def step_mp(x, width, kernel):
    z = mp.mpf(x) / width
    if kernel == "logistic":
        return 1 / (1 + mp.exp(-z))
    if kernel == "gaussian":
        return mp.erfc(-z / mp.sqrt(2)) / 2
    return min(max((1 + z) / 2, mp.mpf(0)), mp.mpf(1))


def ramp_mp(x, width, kernel):
    x = mp.mpf(x)
    z = x / width
    if kernel == "logistic":
        return width * mp.log1p(mp.exp(z))
    if kernel == "gaussian":
        with mp.extradps(DIGITS):  # far below 0, the two cancel
            return x * mp.erfc(-z / mp.sqrt(2)) / 2 + width * mp.npdf(z)
    return max(x, mp.mpf(0)) if abs(z) > 1 else width * (1 + z) ** 2 / 4


def pieces_mp(x, breaks, slopes, jumps, value, width, kernel):
    """Value and derivative of a smoothed piecewise-linear function."""
    x = mp.mpf(x)
    with mp.extradps(DIGITS):
        f, d = value + slopes[0] * (x - mp.mpf(breaks[0])), mp.mpf(slopes[0])
        for b, s, t, j in zip(breaks, slopes, slopes[1:], jumps, strict=False):
            bend, u = mp.mpf(t) - mp.mpf(s), x - mp.mpf(b)
            f += bend * ramp_mp(u, width, kernel) + j * step_mp(u, width, kernel)
            d += bend * step_mp(u, width, kernel) + j * density_mp(u, width, kernel)
        return f, d


def stairs_mp(x, width, kernel, shift):
    """Value and derivative of smoothed floor(x + shift)."""
    x = mp.mpf(x) + shift
    reach = int(REACH[kernel] * width) + 2
    n = int(mp.floor(x))
    f, d = mp.mpf(n - reach - 1), mp.mpf(0)
    for j in range(n - reach, n + reach + 1):  # below these, all steps are taken
        f += step_mp(x - j, width, kernel)
        d += density_mp(x - j, width, kernel)
    return f, d


def exact(x, breaks, slopes, jumps, value):
    """The piecewise-linear function itself; at a break, its value from the right."""
    x, f, at = mp.mpf(x), mp.mpf(value), mp.mpf(breaks[0])
    if x < at:
        return f + slopes[0] * (x - at)
    for i, b in enumerate(breaks):
        f += (mp.mpf(b) - at) * slopes[i] + jumps[i]
        at = mp.mpf(b)
        if i + 1 == len(breaks) or x < breaks[i + 1]:
            return f + slopes[i + 1] * (x - at)
    raise AssertionError


def convolved(x, breaks, slopes, jumps, value, width, kernel):
    """The integral of f(x - u) K(u), from break to break."""
    x = mp.mpf(x)
    reach = REACH[kernel] * mp.mpf(width)
    cuts = {-reach, reach, *(c for b in breaks if abs(c := x - mp.mpf(b)) < reach)}
    cuts |= {k * reach / 8 for k in range(-7, 8)}

    def integrand(u):
        return exact(x - u, breaks, slopes, jumps, value) * density_mp(u, width, kernel)

    return mp.quad(integrand, sorted(cuts))


def smooth_max_mp(row, k):
    """Value and gradient of log Σ exp(k x) / k."""
    terms = [mp.exp(mp.mpf(k) * mp.mpf(float(x))) for x in row]
    total = mp.fsum(terms)
    return mp.log(total) / mp.mpf(k), [t / total for t in terms]


def power_mean_mp(row, p):
    """Value and gradient of (Σ x^p / n)^(1/p), of positive values."""
    row, n = [mp.mpf(float(x)) for x in row], len(row)
    if p == 0:
        mean = mp.exp(mp.fsum(map(mp.log, row)) / n)
    elif mp.isinf(p):
        mean = max(row) if p > 0 else min(row)
        top = [x == mean for x in row]
        return mean, [mp.mpf(t) / sum(top) for t in top]
    else:
        mean = (mp.fsum(x ** mp.mpf(p) for x in row) / n) ** (1 / mp.mpf(p))
    return mean, [(x / mean) ** (mp.mpf(p) - 1) / n for x in row]
