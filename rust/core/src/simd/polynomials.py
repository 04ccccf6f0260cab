"""Print the polynomial tails of `elementary.rs`: minimax in the relative error of the whole function.

Run with `python polynomials.py` (needs mpmath). Remez exchange in 60 digits on

* exp:  exp(r) = 1 + r + r² q(r),                 |r| <= ln(2)/2
* ln:   ln((1+s)/(1-s)) = 2s + s z l(z), z = s²,  |s| <= (√2 - 1)/(√2 + 1)
* roughly: log2(1+f) = f l(f), √½ - 1 <= f <= √2 - 1;  2^r, |r| <= ½
* Mills (`normal.rs`): (x + 5) Φ(-x)/φ(x) = m(t), t = (x - 5)/(x + 5),  x >= 0
"""

from mpmath import cos, erfc, exp, fac2, linspace, log, lu_solve, matrix, mp, mpf, pi, sqrt

mp.dps = 60


def remez(target, weight, low, high, degree):
    """Coefficients c of the polynomial that minimises max |weight · (target - c)|, and that maximum."""
    n = degree + 2
    nodes = [(low + high) / 2 - (high - low) / 2 * cos(pi * i / (n - 1)) for i in range(n)]
    for _ in range(12):
        system = matrix(n, n)
        right = matrix(n, 1)
        for i, x in enumerate(nodes):
            for j in range(degree + 1):
                system[i, j] = x**j
            system[i, degree + 1] = (-1) ** i / weight(x)
            right[i] = target(x)
        solution = lu_solve(system, right)
        c = list(solution)[: degree + 1]

        def error(x, c=c):
            return weight(x) * (target(x) - sum(a * x**j for j, a in enumerate(c)))

        grid = linspace(low, high, 2000)
        values = [error(x) for x in grid]
        peaks = [0]
        for i in range(1, len(grid)):
            if values[i] * values[peaks[-1]] > 0:
                if abs(values[i]) > abs(values[peaks[-1]]):
                    peaks[-1] = i
            else:
                peaks.append(i)
        if len(peaks) != n:
            break
        nodes = [grid[i] for i in peaks]
    return c, max(abs(v) for v in values)


def exp_tail(r):
    return (exp(r) - 1 - r) / r**2 if abs(r) > mpf(10) ** -15 else mpf(1) / 2 + r / 6


def ln_tail(z):
    s = sqrt(z)
    return (log((1 + s) / (1 - s)) - 2 * s) / (s * z) if z > mpf(10) ** -20 else mpf(2) / 3 + 2 * z / 5


def log2_slope(f):
    return log(1 + f, 2) / f if abs(f) > mpf(10) ** -15 else 1 / log(2)


def mills(t):
    if t == 1:
        return mpf(1)
    x = 5 * (1 + t) / (1 - t)
    if x > 60:  # there exp and erfc leave their range, and the asymptotic series has 60 digits
        return (x + 5) * sum((-1) ** k * fac2(2 * k - 1) / x ** (2 * k + 1) for k in range(30))
    return (x + 5) * sqrt(pi / 2) * exp(x**2 / 2) * erfc(x / sqrt(2))


def show(name, c, error):
    print(f"{name}: 2^{float(log(error, 2)):.1f}")
    for a in c:
        print(f"    {float(a)!r},")


half_ln2 = log(2) / 2
widest = ((sqrt(2) - 1) / (sqrt(2) + 1)) ** 2
for name, degree in (("exp f32", 4), ("exp f64", 9)):
    show(name, *remez(exp_tail, lambda r: (r**2 + mpf(10) ** -30) * exp(-r), -half_ln2, half_ln2, degree))
for name, degree in (("ln f32", 2), ("ln f64", 6)):
    show(name, *remez(ln_tail, lambda z: z + mpf(10) ** -30, mpf(0), widest, degree))
show("rough log2", *remez(log2_slope, lambda f: mpf(1), 1 / sqrt(2) - 1, sqrt(2) - 1, 4))
show("rough exp2", *remez(lambda r: mpf(2) ** r, lambda r: mpf(2) ** -r, -mpf(1) / 2, mpf(1) / 2, 3))
show("mills f64", *remez(mills, lambda t: 1 / mills(t), mpf(-1), mpf(1), 24))
