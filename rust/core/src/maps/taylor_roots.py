"""Print `ROOTS` of `taylor.rs`: the complex roots a ± bi of the truncated exponentials of even order.

Run with `python taylor_roots.py` (needs mpmath). With all roots,

    sum_{m <= k} x^m/m! = 1/k! · prod_j ((x - a_j)² + b_j²),

of which every factor is positive. Printed are a and b², to the last place of a float64.
"""

from mpmath import factorial, mp, polyroots

mp.dps = 60

for order in range(2, 17, 2):
    coefficients = [1 / factorial(m) for m in range(order, -1, -1)]
    roots = polyroots(coefficients, maxsteps=500, extraprec=500)
    pairs = sorted((root.real, root.imag**2) for root in roots if root.imag > 0)
    print("    &[")
    for a, square in pairs:
        print(f"        ({float(a)!r}, {float(square)!r}),")
    print("    ],")
