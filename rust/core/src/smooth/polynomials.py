"""Print the polynomials of `tails.rs`, by t = (a - 4)/(a + 4) on 0 <= a <= top.

Run with `python polynomials.py` (needs mpmath). Chebyshev interpolation in 45 digits, written in powers of t, of

* MILLS: (a + 4) m(a),             m(a) = Φ(-a)/φ(a)
* RAMP:  (a + 4)² (1 - a m(a))
"""

from mpmath import chebyt, cos, erfc, exp, mp, mpf, pi, polyval, sqrt

mp.dps = 45
C = mpf(4)


def mills(a):
    return sqrt(pi / 2) * exp(a * a / 2) * erfc(a / sqrt(2))


def interpolate(f, degree, top):
    """Coefficients in t, lowest power first, and the largest relative error."""
    n = degree + 1
    high = (top - C) / (top + C)
    middle, half = (high - 1) / 2, (high + 1) / 2
    nodes = [cos(pi * (k + mpf(1) / 2) / n) for k in range(n)]
    values = [f(C * (1 + middle + half * u) / (1 - middle - half * u)) for u in nodes]
    weights = [2 * sum(v * chebyt(j, u) for u, v in zip(nodes, values, strict=True)) / n for j in range(n)]
    weights[0] /= 2

    coefficients = expand(weights, middle, half)
    error = 0
    for k in range(400):
        a = top * (mpf(k) / 400) ** 2
        error = max(error, abs(polyval(coefficients[::-1], (a - C) / (a + C)) / f(a) - 1))
    return coefficients, error


def expand(weights, middle, half):
    """Write Σ w_j T_j((t - middle)/half) in powers of t."""
    powers = [mpf(0)] * len(weights)
    chebyshev, following = [mpf(1)], [mpf(0), mpf(1)]
    for w in weights:
        for i, c in enumerate(chebyshev):
            powers[i] += w * c
        after = [mpf(0), *(2 * c for c in following)]
        for i, c in enumerate(chebyshev):
            after[i] -= c
        chebyshev, following = following, after
    sums = []
    for c in reversed(powers):
        longer = [mpf(0)] * (len(sums) + 1)
        for i, s in enumerate(sums):
            longer[i + 1] += s / half
            longer[i] -= s * middle / half
        longer[0] += c
        sums = longer
    return sums


for name, f, degree, top in [
    ("MILLS_LONG", lambda a: (a + C) * mills(a), 23, 40),
    ("MILLS_SHORT", lambda a: (a + C) * mills(a), 10, 15),
    ("RAMP_LONG", lambda a: (a + C) ** 2 * (1 - a * mills(a)), 25, 40),
    ("RAMP_SHORT", lambda a: (a + C) ** 2 * (1 - a * mills(a)), 12, 15),
]:
    coefficients, error = interpolate(f, degree, mpf(top))
    print(f"{name}: within {float(error):.2e}")
    for c in coefficients:
        print(f"    {float(c)!r},")
