"""The losses against known values, slow oracles, finite differences, and the promises that every loss keeps.

`CASES` says how to call each function of `unitmass.losses`, with every option worth telling apart, and what it is held
against; a new export fails `test_every_export_is_listed` until it is there. All that is common is made from this table.

Where a tolerance comes from. A kernel rounds x - max x and the product with a scale s once each, eps s |x|, and its
sums of terms that are not negative a few times more. A loss moves by at most 2 s max |dx|, and its gradient by s times
a few of that; `slack` has these, with a factor of 8 for the rest. Where the map behind a loss is steep at its threshold
(alpha > 2), only the root of eps is left in the gradient.
"""

import math
import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

import unitmass as um
from reference import losses as ref
from unitmass import losses

try:
    import ml_dtypes
except ImportError:
    BFLOAT16 = []
else:
    BFLOAT16 = [np.dtype(ml_dtypes.bfloat16)]

X = [-2.0, 0.0, 0.5]
FLOATS = [*map(np.dtype, ("f2", "f4", "f8")), *BFLOAT16]
NATIVE = [np.float32, np.float64]


def eps(dtype):
    return np.finfo(dtype).eps


# --- the table --------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A function with options, the kind of its targets, and its oracles for one row of scores and targets."""

    name: str
    targets: str
    value: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    gradient: Callable[..., Any] | None = None  # by differences of the value, if there is none
    scale: float = 1.0  # what multiplies the scores
    most: int = 24  # scores in a row, for the oracle
    floor: float = 0.0  # an absolute error that the method has
    root: bool = False  # of eps, in the gradient

    def __str__(self):
        return " ".join([self.name, self.targets, *(f"{k}={v}" for k, v in self.options.items())])

    @property
    def core(self):
        """Dimensions of a row."""
        return 2 if self.targets in ("groups", "group labels") else 1

    def __call__(self, x, t, **more):
        """Value and gradient."""
        return self.function(x, t, value_and_grad=True, **self.options, **more)

    @property
    def function(self):
        return getattr(losses, self.name)


def of_labels(row, **options):
    """An oracle for dense targets, for labels."""
    return lambda x, t: row(x, ref.one_hot(t, len(x)), **options)


def labels_and_dense(name, row, gradient=None, **fields):
    options = fields.get("options", {})
    grad = gradient and (lambda x, t: gradient(x, t, **options))
    return [
        Case(name, "labels", of_labels(row, **options), gradient=grad and of_labels(grad), **fields),
        Case(name, "distribution", lambda x, t: row(x, t, **options), gradient=grad, **fields),
    ]


def margins(name, row, **options):
    return Case(
        name,
        "cosines",
        lambda x, t: row(x, t, **options)[0],
        options,
        lambda x, t: row(x, t, **options)[1],
        scale=options.get("scale", 64 if name == "arcface" else 30),
    )


def set_and_lists(name, row, fraction=True, **fields):
    options = fields.pop("options", {})
    value = lambda x, t: row(x, t, **options)  # noqa: E731
    of_lists = lambda x, t: row(x, ref.many_hot(t, len(x)), **options)  # noqa: E731
    cases = [
        Case(name, "set", value, options, **fields),
        Case(name, "lists", of_lists, {**options, "sparse_labels": True}, **fields),
    ]
    return [*cases, Case(name, "fractions", value, options, **fields)] if fraction else cases


def exact(**options):
    return Case(
        "exact_accuracy_loss",
        "labels",
        of_labels(ref.exact_accuracy_loss, **options),
        options,
        lambda x, t: ref.exact_accuracy_gradient(x, t, **options),
        scale=1 / options.get("temperature", 1),
        floor=1e-10,
    )


def cosent(scale):
    return Case("cosent", "order", lambda x, t: ref.cosent(x, t, scale), {"scale": scale}, scale=scale)


CASES = [
    *labels_and_dense("cross_entropy", ref.cross_entropy),
    *labels_and_dense("cross_entropy", ref.cross_entropy, options={"temperature": 0.3}, scale=1 / 0.3),
    *labels_and_dense("cross_entropy", ref.cross_entropy, options={"label_smoothing": 0.1}),
    *labels_and_dense(
        "cross_entropy", ref.cross_entropy, options={"temperature": 2.5, "label_smoothing": 1.0}, scale=1 / 2.5
    ),
    *[
        case
        for alpha in (1, 1.0001, 1.25, 1.5, 1.7, 2, 3)
        for case in labels_and_dense(
            "entmax_loss", ref.entmax_loss, ref.entmax_loss_gradient, options={"alpha": alpha}, root=alpha > 2
        )
    ],
    *[
        case
        for alpha in (1.3, 2, 5)
        for case in labels_and_dense(
            "normmax_loss", ref.normmax_loss, ref.normmax_loss_gradient, options={"alpha": alpha}, root=alpha > 2
        )
    ],
    *[
        case
        for k in (1, 3)
        for case in labels_and_dense(
            "topk_cross_entropy", ref.topk_cross_entropy, ref.topk_cross_entropy_gradient, options={"k": k}
        )
    ],
    margins("am_softmax", ref.am_softmax),
    margins("am_softmax", ref.am_softmax, margin=0.1, scale=5.0),
    margins("arcface", ref.arcface),
    margins("arcface", ref.arcface, margin=1.2, scale=5.0),
    margins("sphereface", ref.sphereface),
    margins("sphereface", ref.sphereface, margin=1, scale=5.0),
    margins("sphereface", ref.sphereface, margin=3, scale=2.0),
    exact(),
    exact(temperature=0.4),
    exact(margin=0.5, temperature=0.7),
    Case(
        "exact_accuracy_loss",
        "labels",
        lambda x, t: -ref.exact_probability(ref.standardised(x), t),
        {"normalize": True},
        ref.exact_accuracy_gradient_standardised,
        floor=1e-10,
        scale=4,
    ),
    *set_and_lists("zlpr", ref.zlpr),
    *set_and_lists("zlpr", ref.zlpr, options={"threshold": 0.7}),
    *set_and_lists("zlpr", ref.zlpr, options={"margin": 0.25, "scale": 8.0}, scale=8),
    *set_and_lists("zlpr", ref.zlpr, options={"margin": -1.0}),
    *set_and_lists("subset_softmax_loss", ref.subset_softmax_loss, fraction=False, most=8),
    Case("group_zlpr", "group labels", lambda x, t: ref.group_zlpr(x, np.eye(x.shape[1])[t])),
    Case("group_zlpr", "group labels", lambda x, t: ref.group_zlpr(x, np.eye(x.shape[1])[t], True), {"centred": True}),
    Case("group_zlpr", "groups", ref.group_zlpr),
    Case("group_zlpr", "groups", lambda x, t: ref.group_zlpr(x, t, True), {"centred": True}),
    cosent(20.0),
    cosent(3.0),
    *labels_and_dense("smooth_accuracy", ref.smooth_accuracy),
    *labels_and_dense("smooth_accuracy", ref.smooth_accuracy, options={"temperature": 0.3}, scale=1 / 0.3),
    *set_and_lists("smooth_f1", ref.smooth_f1),
    *set_and_lists("smooth_f1", ref.smooth_f1, options={"temperature": 0.3}, scale=1 / 0.3),
]
OTHERS = {"soft_argmax", "soft_top_k", "soft_top_k_vjp"}  # have no targets: below
cases = pytest.mark.parametrize("case", CASES, ids=str)
FIRST = list({case.name + case.targets: case for case in reversed(CASES)}.values())[::-1]
kinds = pytest.mark.parametrize("case", FIRST, ids=str)  # one for each function and kind of targets


def test_every_export_is_listed():
    assert sorted({*(case.name for case in CASES), *OTHERS}) == sorted(losses.__all__)
    assert list(losses.__all__) == sorted(losses.__all__)


def problem(case, shape, seed=0, spread=2.0):
    """Scores in float64 and targets; `shape` has the scores of a row last, and the groups before them."""
    rng = np.random.default_rng([seed, *shape])
    n, batch = shape[-1], shape[:-1]
    x = rng.normal(0, spread, shape)
    if case.targets == "cosines":
        x = np.tanh(x / 2)
    if case.targets in ("labels", "cosines", "group labels"):
        return x, rng.integers(0, n, batch)
    if case.targets == "lists":
        t = rng.permuted(np.broadcast_to(np.arange(n), shape), axis=-1)[..., : min(n, 3)]
        return x, np.where(rng.random(t.shape) < 0.7, t, -1)
    if case.targets == "set":
        share = min(1, 3 / n) * 0.7
        return x, (rng.random(shape) < share).astype(int)
    if case.targets == "order":
        return x, rng.integers(0, 4, shape)
    t = 0.99 * rng.random(shape) * (rng.random(shape) < 0.8) + 1e-3
    if case.targets == "distribution":
        t = t / t.sum(-1, keepdims=True)
    return x, t


def expected_gradient(case, x, t):
    if case.gradient is not None:
        return case.gradient(x, t)
    return ref.gradient(lambda z: case.value(z, t), x, 3e-4 / max(case.scale, 1))


def slack(case, x, dtype):
    """The errors of value and gradient: see the top of this file."""
    value = 16 * eps(dtype) * (1 + case.scale * np.abs(x).max()) + case.floor
    gradient = 2 * (1 + case.scale) * value
    return value, math.sqrt(gradient) if case.root else gradient + 1e-11 * case.scale


# --- known values -----------------------------------------------------------------------------------------------------


def test_known_fenchel_young():
    three = [X] * 3
    np.testing.assert_allclose(losses.entmax_loss(three, [0, 1, 2], alpha=2), [2.5625, 0.5625, 0.0625], rtol=1e-15)
    np.testing.assert_allclose(losses.entmax_loss(three, [0, 1, 2]), [2.68437138, 0.68437138, 0.18437138], atol=5e-9)
    p = um.entmax(X)
    for t in range(3):
        value = (1 - (p**1.5).sum()) / 0.75 + ((p - np.eye(3)[t]) * X).sum()
        np.testing.assert_allclose(losses.entmax_loss(X, t), value, rtol=1e-14)
        p2 = um.entmax(X, 2)
        np.testing.assert_allclose(
            losses.entmax_loss(X, t, 2), (1 - (p2**2).sum()) / 2 + ((p2 - np.eye(3)[t]) * X).sum(), rtol=1e-14
        )
    # normmax(2) of x is [0, .3110, .6890]
    _, gradient = losses.normmax_loss(X, 0, value_and_grad=True)
    np.testing.assert_allclose(gradient + np.eye(3)[0], [0, 0.3110, 0.6890], atol=5e-5)
    _, gradient = losses.normmax_loss(X, 0, alpha=1000, value_and_grad=True)
    np.testing.assert_allclose(gradient + np.eye(3)[0], [0, 0.4997, 0.5003], atol=5e-5)
    p = gradient + np.eye(3)[0]
    np.testing.assert_allclose(
        losses.normmax_loss(X, 1, 1000), 1 - (p**1000).sum() ** 1e-3 + ((p - np.eye(3)[1]) * X).sum(), rtol=1e-12
    )


def test_known_topk():
    np.testing.assert_allclose(losses.topk_cross_entropy(X, 2, 2), 0.474077, atol=5e-7)
    np.testing.assert_allclose(losses.topk_cross_entropy(X, 2, 2), math.log1p(math.exp(-0.5)), rtol=1e-15)


def test_known_zlpr():
    s = [2, -1, 0.5, -3]
    np.testing.assert_allclose(losses.zlpr(s, [1, 0, 1, 0]), 0.90396914, atol=5e-9)
    np.testing.assert_allclose(losses.zlpr(s, [True, False, True, False]), 0.90396914, atol=5e-9)
    np.testing.assert_allclose(losses.zlpr(s, [0, 2], sparse_labels=True), 0.90396914, atol=5e-9)
    np.testing.assert_allclose(losses.zlpr(s, [2, -1, 0, -1], sparse_labels=True), 0.90396914, atol=5e-9)


def test_the_optimum_of_soft_zlpr():
    t = np.array([0.9, 0.2, 0.5])
    s = np.log(t / (1 - t)) / 2
    np.testing.assert_allclose(s, [1.098612, -0.693147, 0], atol=5e-7)
    value, gradient = losses.zlpr(s, t, value_and_grad=True)
    np.testing.assert_allclose(value, 1.57691472, atol=5e-9)
    np.testing.assert_allclose(value, 2 * np.log1p(np.sqrt(t * (1 - t)).sum()), rtol=1e-14)
    np.testing.assert_allclose(gradient, 0, atol=1e-15)


def test_known_subsets():
    s = np.log([1.0, 2.0, 3.0])
    for t, share in (([0, 0, 1], 3 / 6), ([1, 0, 1], 3 / 11), ([1, 1, 1], 6 / 6), ([0, 0, 0], 1)):
        value = losses.subset_softmax_loss(s, t)
        np.testing.assert_allclose(np.exp(-value), share, rtol=1e-14)
    _, gradient = losses.subset_softmax_loss(s, [1, 0, 1], value_and_grad=True)
    np.testing.assert_allclose(gradient + np.array([1, 0, 1]), [5 / 11, 8 / 11, 9 / 11], rtol=1e-14)


def test_known_groups():
    s, t = [[1, 0, -1], [0, 2, 1]], [[1, 0, 0], [0, 1, 0]]
    np.testing.assert_allclose(losses.group_zlpr(s, t), 0.81521193, atol=5e-9)
    np.testing.assert_allclose(losses.group_zlpr(s, t, centred=True), 0.62652337, atol=5e-9)
    np.testing.assert_allclose(losses.group_zlpr(s, [0, 1]), 0.81521193, atol=5e-9)
    np.testing.assert_allclose(losses.group_zlpr(s, [0, 1], centred=True), 0.62652337, atol=5e-9)


def test_known_cosent():
    f, y = [0.9, 0.8, 0.3, -0.1, 0.5], [1, 0, 1, 0, 2]
    np.testing.assert_allclose(losses.cosent(f, y), 10.14297704, atol=5e-9)


def test_known_metrics():
    x = [2.0, 1, 4, 5, 3]
    np.testing.assert_allclose(losses.soft_argmax(x, start=1), 3.73363966, atol=5e-9)
    np.testing.assert_allclose(losses.soft_argmax(x), 2.73363966, atol=5e-9)
    p = losses.soft_top_k(x, 2)
    np.testing.assert_allclose(p, [0.1410237, 0.0531746, 0.64725527, 0.81418058, 0.34436585], atol=6e-9)
    np.testing.assert_allclose(losses.smooth_accuracy(X, 1), 0.3592, atol=5e-5)
    q = 1 / (1 + np.exp(-np.array(x)))
    t = np.array([0, 1, 1, 0, 0.5])
    np.testing.assert_allclose(losses.smooth_f1(x, t), 2 * (t @ q) / (t + q).sum(), rtol=1e-14)


def test_a_small_loss_keeps_its_digits():
    x = np.array([17, 0], np.float32)
    np.testing.assert_allclose(losses.cross_entropy(x, 0), math.log1p(math.exp(-17)), rtol=1e-6)
    np.testing.assert_allclose(losses.zlpr(np.array([30, -30], np.float32), [1, 0]), 2 * math.exp(-30), rtol=1e-5)
    np.testing.assert_allclose(losses.entmax_loss(x, 0, 1), math.log1p(math.exp(-17)), rtol=1e-5)


def test_the_toy_of_the_exact_paper():
    """Three points x with labels -1, -1, 1, and the score x - b: accuracy is 1 for b between 0 and .25."""
    points, labels = np.array([-0.25, 0, 0.25]), np.array([0, 0, 1])

    def scores(b):
        return np.stack([np.zeros(3), points - b], axis=-1)

    def cross_entropy(b):
        return losses.cross_entropy(scores(b), labels, reduction="sum")

    least = minimize_scalar(cross_entropy, bounds=(0, 2), method="bounded", options={"xatol": 1e-9})
    np.testing.assert_allclose(least.x, 0.7001, atol=5e-5)
    np.testing.assert_allclose(least.fun, 1.673391, atol=5e-7)
    signs = 2 * labels - 1
    hinge = [np.maximum(0, 1 - signs * (points - b)).sum() for b in (0.7, 0.75, 0.9, 1, 1.05)]
    np.testing.assert_allclose(hinge[1:4], 1.75)
    assert min(hinge[0], hinge[4]) > 1.75

    def exact(b):
        return losses.exact_accuracy_loss(scores(b), labels, 0.05, reduction="mean")

    least = minimize_scalar(exact, bounds=(0, 0.25), method="bounded", options={"xatol": 1e-9})
    np.testing.assert_allclose(least.x, 0.125, atol=1e-4)
    np.testing.assert_allclose(-least.fun, 0.97430002, atol=5e-9)
    assert exact(least.x) < exact(0.7001)


# --- against the oracles ----------------------------------------------------------------------------------------------


@cases
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 24),
    rows=st.integers(1, 3),
    spread=st.sampled_from([0.1, 1.0, 3.0]),
    dtype=st.sampled_from(NATIVE),
)
def test_agrees_with_the_oracle(case, seed, n, rows, spread, dtype):
    n = min(n, case.most)
    if case.options.get("k", 1) > n or (case.options.get("normalize") and n == 1):
        return
    x, t = problem(case, (rows, 3, n) if case.core == 2 else (rows, n), seed, spread)
    x = x.astype(dtype)
    if case.targets not in ("labels", "cosines", "lists", "group labels", "order"):
        t = t.astype(dtype)
    if case.targets == "cosines":  # the derivative of the angle has a limit at 1
        x = np.clip(x, -0.99, 0.99).astype(dtype)
    values, gradients = case(x, t)
    assert values.dtype == gradients.dtype == dtype
    assert values.shape == (rows,)
    assert gradients.shape == x.shape
    np.testing.assert_array_equal(case.function(x, t, **case.options), values)
    for i in range(rows):
        row = x[i].astype(ref.WIDE)
        value_slack, gradient_slack = slack(case, x[i], dtype)
        expected = float(case.value(row, t[i]))
        np.testing.assert_allclose(float(values[i]), expected, rtol=4 * eps(dtype), atol=value_slack)
        expected = expected_gradient(case, row, t[i]).astype(float)
        np.testing.assert_allclose(gradients[i].astype(float), expected, rtol=32 * eps(dtype), atol=gradient_slack)


@cases
def test_gradients_are_those_of_the_reduced_value(case):
    """Central differences of the function itself, through weights and reductions, in float64."""
    shape = (3, 2, 4) if case.core == 2 else (3, 6)
    x, t = problem(case, shape, 5, 0.4)
    weights = [0.5, 0, 2]
    scores = x.size // 3
    h = 1e-5 / max(1, case.scale)
    for reduction in ("none", "sum", "mean"):

        def value(z, reduction=reduction):
            return np.sum(case.function(z, t, reduction=reduction, weights=weights, **case.options))

        _, gradient = case(x, t, reduction=reduction, weights=weights)
        for at in [*range(0, scores), 2 * scores, 3 * scores - 1]:
            step = np.zeros(x.size)
            step[at] = h
            step = step.reshape(shape)
            slope = (value(x + step) - value(x - step)) / (2 * h)
            # Of order h^2 s^3, and what eps (and the method's own error) make of it.
            error = 10 * case.scale * (1e-10 + 1e-15 * case.scale / h) + case.floor / h
            np.testing.assert_allclose(gradient.flat[at], slope, rtol=1e-7, atol=error + 1e-8)
        assert not gradient[1].any()


@pytest.mark.parametrize("alpha", [1, 1 + 1e-9, 1.0001, 1.05, 1.3, 1.5, 1.9, 2, 2.5, 4])
def test_the_slope_in_alpha(alpha):
    for n in (1, 2, 5, 9):
        x, labels = problem(CASES[0], (4, n), n, 0.7)
        soft = np.random.default_rng(n).dirichlet(np.ones(n), 4)
        hard = np.eye(n)[labels]
        for targets, dense in ((labels, hard), (soft, soft)):
            value, slopes = losses.entmax_loss(x, targets, alpha, alpha_grad=True)
            np.testing.assert_array_equal(value, losses.entmax_loss(x, targets, alpha))
            expected = [ref.entmax_loss_slope(x[i], dense[i] / dense[i].sum(), alpha) for i in range(4)]
            np.testing.assert_allclose(slopes, expected, rtol=1e-9, atol=1e-12)
            h = 1e-6
            below = max(1, alpha - h)
            difference = losses.entmax_loss(x, targets, alpha + h) - losses.entmax_loss(x, targets, below)
            np.testing.assert_allclose(slopes, difference / (alpha + h - below), rtol=1e-5, atol=2e-6)


def test_the_slope_in_alpha_is_that_of_the_reduced_value():
    x, t = problem(CASES[0], (2, 3, 5), 1)
    alphas = np.array([[1.2, 1.5, 2.0], [1.0, 3.0, 1.7]])
    weights = np.array([1.0, 0.0, 3.0])
    plain = losses.entmax_loss(x, t, alphas, alpha_grad=True)[1]
    assert plain.shape == (2, 3)
    np.testing.assert_allclose(
        plain.ravel(),
        [ref.entmax_loss_slope(x[i], np.eye(5)[t[i]], alphas[i]) for i in np.ndindex(2, 3)],
        rtol=1e-9,
        atol=1e-12,
    )
    value, gradient, slopes = losses.entmax_loss(
        x, t, alphas, alpha_grad=True, value_and_grad=True, weights=weights, reduction="mean"
    )
    np.testing.assert_allclose(slopes, plain * weights / 8, rtol=1e-14)
    np.testing.assert_array_equal(
        gradient, losses.entmax_loss(x, t, alphas, value_and_grad=True, weights=weights, reduction="mean")[1]
    )
    np.testing.assert_allclose(value, losses.entmax_loss(x, t, alphas, weights=weights, reduction="mean"))
    for dtype in FLOATS:
        assert losses.entmax_loss(x.astype(dtype), t, alpha_grad=True)[1].dtype == dtype
    one = losses.entmax_loss(X, 1, alpha_grad=True)
    assert [np.ndim(v) for v in one] == [0, 0]


# --- what is the same as what -----------------------------------------------------------------------------------------


def assert_both_close(got, expected, tolerance=1e-13):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_relations(seed, n):
    x, t = problem(CASES[0], (3, n), seed)
    grad = {"value_and_grad": True}
    cross = losses.cross_entropy(x, t, **grad)
    assert_both_close(losses.entmax_loss(x, t, 1, **grad), cross)
    assert_both_close(losses.topk_cross_entropy(x, t, n, **grad), cross)
    assert_both_close(losses.am_softmax(x / 100, t, 0, 100, **grad), (cross[0], 100 * cross[1]), 1e-11)
    assert_both_close(losses.sphereface(np.tanh(x), t, 1, 3, **grad), losses.am_softmax(np.tanh(x), t, 0, 3, **grad))
    assert_both_close(losses.subset_softmax_loss(x, np.eye(n)[t], **grad), cross, 1e-12)
    assert_both_close(losses.subset_softmax_loss(x, t[:, None], sparse_labels=True, **grad), cross, 1e-12)
    assert_both_close(losses.cross_entropy(x, np.eye(n)[t], **grad), cross)
    np.testing.assert_allclose(cross[0], -np.take_along_axis(um.log_softmax(x), t[:, None], -1)[:, 0], rtol=1e-13)
    np.testing.assert_allclose(losses.smooth_accuracy(x, t), np.exp(-cross[0]), rtol=1e-13)
    many = np.random.default_rng(seed).random((3, n)) < 0.4
    moved = losses.zlpr(x - 0.7, many, **grad)
    assert_both_close(losses.zlpr(x, many, threshold=0.7, **grad), moved)
    assert_both_close(losses.zlpr(x, many, threshold=[0.7, 0.7, 0.7], **grad), moved)
    assert_both_close(losses.zlpr(x, ~many, **grad), (lambda v, g: (v, -g))(*losses.zlpr(-x, many, **grad)))
    pairs = np.stack([x, np.zeros_like(x)], -1)
    assert_both_close(losses.group_zlpr(pairs, 1 - many.astype(int)), losses.zlpr(x, many))


@given(st.integers(0, 2**32), st.integers(2, 20))
def test_an_exact_zero_beyond_the_margin(seed, n):
    x, t = problem(CASES[0], (1, n), seed)
    for alpha in (1.25, 1.5, 2, 3):
        for over, zero in ((1e-9, True), (-1e-3, False)):
            x[0, t[0]] = np.delete(x[0], t[0]).max() + 1 / (alpha - 1) + over
            value, gradient = losses.entmax_loss(x, t, alpha, value_and_grad=True)
            assert (value[0] == 0) == (not gradient.any()) == zero
            assert value[0] >= 0
    x[0, t[0]] = np.delete(x[0], t[0]).max() + 1 + 1e-9
    value, gradient = losses.normmax_loss(x, t, value_and_grad=True)
    assert value[0] == 0
    assert not gradient.any()


@pytest.mark.parametrize("dtype", NATIVE)
@pytest.mark.parametrize("name", ["cross_entropy", "entmax_loss", "normmax_loss", "smooth_accuracy"])
def test_a_constant_changes_nothing(name, dtype):
    rng = np.random.default_rng(1)
    offset = dtype(1e6)
    x = (rng.normal(0, 1, (5, 100)) / np.spacing(offset)).round() * np.spacing(offset)
    x, t = x.astype(dtype), rng.integers(0, 100, 5)
    for a, b in zip(
        getattr(losses, name)(x, t, value_and_grad=True),
        getattr(losses, name)(x + offset, t, value_and_grad=True),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=8 * eps(dtype))


# --- reductions, weights, rows that take no part ----------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("dtype", NATIVE)
def test_reductions(case, dtype):
    shape = (4, 5, 3, 6) if case.core == 2 else (4, 5, 7)
    x, t = problem(case, shape, 3)
    x = x.astype(dtype)
    rng = np.random.default_rng(0)
    value, gradient = case(x, t)
    assert value.shape == (4, 5)
    core = (...,) + (None,) * case.core
    close = {"rtol": 8 * eps(dtype), "atol": 8 * eps(dtype)}
    for weights in (None, 2.5, rng.random((4, 5)), rng.random(5), rng.random((4, 1)), np.arange(5) % 3, [[0.0]]):
        w = np.broadcast_to(1.0 if weights is None else np.asarray(weights, float), (4, 5))
        got, grad = case(x, t, weights=weights)
        np.testing.assert_allclose(got, w * value, **close)
        np.testing.assert_allclose(grad, w[core] * gradient, **close)
        assert not got[w == 0].any()
        got, grad = case(x, t, weights=weights, reduction="sum")
        assert np.ndim(got) == 0
        assert got.dtype == dtype
        np.testing.assert_allclose(got, (w * value.astype(float)).sum(), rtol=64 * eps(dtype))
        np.testing.assert_allclose(grad, w[core] * gradient, **close)
        got, grad = case(x, t, weights=weights, reduction="mean")
        if w.sum() == 0:
            assert np.isnan(got)
            assert not np.nan_to_num(grad).any()
            continue
        np.testing.assert_allclose(got, (w * value.astype(float)).sum() / w.sum(), rtol=64 * eps(dtype))
        np.testing.assert_allclose(grad, w[core] / w.sum() * gradient, **close)


@pytest.mark.parametrize("case", [c for c in FIRST if c.targets in ("labels", "cosines")], ids=str)
@pytest.mark.parametrize("ignore", [-100, -1, 2, 6])
def test_ignored_rows_take_no_part(case, ignore):
    x, t = problem(case, (20, 6), 4)
    t[::3] = ignore
    kept = t != ignore
    assert kept.any()
    value, gradient = case(x, t, ignore_index=ignore)
    plain, plain_gradient = case(x[kept], t[kept])
    np.testing.assert_array_equal(value[kept], plain)
    np.testing.assert_array_equal(gradient[kept], plain_gradient)
    assert not value[~kept].any()
    assert not gradient[~kept].any()
    mean, gradient = case(x, t, ignore_index=ignore, reduction="mean")
    np.testing.assert_allclose(mean, plain.mean(), rtol=1e-14)
    np.testing.assert_allclose(gradient[kept], plain_gradient / kept.sum(), rtol=1e-14, atol=1e-300)
    x[~kept] = np.nan  # what takes no part may be anything
    np.testing.assert_array_equal(case(x, t, ignore_index=ignore)[0], value)
    value, gradient = case(x, np.full(20, ignore), ignore_index=ignore, reduction="mean")
    assert np.isnan(value)


def test_ignored_groups_and_pairs_take_no_part():
    x, t = problem(next(c for c in CASES if c.targets == "group labels"), (6, 5, 4), 2)
    t[:, 1:3] = -100
    t[5] = -100
    for centred in (False, True):
        options = {"centred": centred, "value_and_grad": True}
        value, gradient = losses.group_zlpr(x, t, ignore_index=-100, **options)
        kept = [0, 3, 4]
        plain, plain_gradient = losses.group_zlpr(x[:5, kept], t[:5, kept], **options)
        np.testing.assert_allclose(value[:5], plain, rtol=1e-14)
        np.testing.assert_allclose(gradient[:5, kept], plain_gradient, rtol=1e-14, atol=1e-16)
        assert value[5] == 0
        assert not gradient[:, 1:3].any()
        mean = losses.group_zlpr(x, t, ignore_index=-100, centred=centred, reduction="mean")
        np.testing.assert_allclose(mean, plain.mean(), rtol=1e-14)

    f, y = problem(next(c for c in CASES if c.targets == "order"), (3, 9))
    y[:, ::4] = -1
    value, gradient = losses.cosent(f, y, ignore_index=-1, value_and_grad=True)
    kept = np.arange(9) % 4 > 0
    plain, plain_gradient = losses.cosent(f[:, kept], y[:, kept], value_and_grad=True)
    np.testing.assert_allclose(value, plain, rtol=1e-14)
    np.testing.assert_allclose(gradient[:, kept], plain_gradient, rtol=1e-13, atol=1e-15)
    assert not gradient[:, ~kept].any()


def test_what_fills_up_a_list():
    x = np.random.default_rng(0).normal(size=(2, 5))
    expected = losses.zlpr(x, [[1, 0, 0, 1, 0], [0, 0, 0, 0, 0]])
    for fill in (-1, -100, 99, 2):
        lists = [[0, fill, 3], [fill] * 3]
        np.testing.assert_array_equal(losses.zlpr(x, lists, sparse_labels=True, ignore_index=fill), expected)
    np.testing.assert_array_equal(losses.zlpr(x, [[0, 3, 0], [-1, -1, -1]], sparse_labels=True), expected)  # twice
    np.testing.assert_array_equal(
        losses.zlpr(x, np.empty((2, 0), int), sparse_labels=True), losses.zlpr(x, np.zeros((2, 5)))
    )


def test_what_takes_no_part_may_have_any_target():
    x, out = np.array([[1.0, 2], [3, 4]]), np.array([[True], [False]])
    first = losses.cross_entropy(x[:1], [1])[0]
    for rest in ({"weights": [1, 0]}, {"where": out}):
        for targets in ([1, -7], [[0, 1.0], [0, 0]], [[0, 1.0], [np.nan, -3]]):
            assert losses.cross_entropy(x, targets, reduction="mean", **rest) == first
        first_set = losses.subset_softmax_loss(x[:1], [[1, 0]])[0]
        for targets in ([[1, 0], [np.nan, 7]], [[1, 0], [0.5, 0]]):
            np.testing.assert_array_equal(losses.subset_softmax_loss(x, targets, **rest), [first_set, 0])
        value = losses.zlpr(x, [[0, -1], [9, -1]], sparse_labels=True, **rest)
        np.testing.assert_array_equal(value, [losses.zlpr(x[0], [1, 0]), 0])
    z, where = np.array([0.9, 0.8, 0.3]), np.array([True, False, True])
    for name in ("zlpr", "cosent", "smooth_f1"):
        f = getattr(losses, name)
        plain = f(z, [1, 0, 0], where=where, value_and_grad=True)
        for missing in (np.nan, -1.0):
            for got, expected in zip(f(z, [1, missing, 0], where=where, value_and_grad=True), plain, strict=True):
                np.testing.assert_array_equal(got, expected)


# --- special values ---------------------------------------------------------------------------------------------------


def test_standardised_scores_of_any_size():
    f = losses.exact_accuracy_loss
    for c, n in ((0.1, 3), (0.7, 3), (1.1, 6), (3.3, 100), (1000000.1, 10), (np.finfo(float).max, 4)):
        value, gradient = f(np.full(n, c), 0, normalize=True, value_and_grad=True)
        assert value == f(np.zeros(n), 0)
        assert not gradient.any()
    expected = f([1.0, 0, 0], 0, normalize=True)
    for size in (1e-300, 1e100, 1e200, 1.7e308):
        np.testing.assert_allclose(f([size, 0, 0], 0, normalize=True), expected, rtol=1e-14)
    least = np.finfo(float).min
    value, gradient = f([least, least, 1, 2], 2, normalize=True, value_and_grad=True)
    np.testing.assert_allclose(value, f([-1.0, -1, 1, 1], 2), rtol=1e-14)
    assert np.isfinite(gradient).all()


def test_no_score_at_all():
    for name in ("exact_accuracy_loss", "cross_entropy", "entmax_loss", "smooth_accuracy"):
        value, gradient = getattr(losses, name)([[-np.inf] * 3], [0], value_and_grad=True)
        assert np.isnan(value).all()
        assert np.isnan(gradient).all()


@pytest.mark.parametrize("dtype", NATIVE)
def test_smoothing_of_scores_out_of_reach(dtype):
    x = np.array([np.finfo(dtype).min, 1, 2], dtype)
    assert losses.cross_entropy(x, 2, 0.5, label_smoothing=0.1) == np.inf
    assert losses.cross_entropy(x, 2, 0.5) < 1
    assert losses.cross_entropy(x, 2, 0.5, label_smoothing=0.1, where=[False, True, True]) < 1


def test_a_centred_group_with_an_infinite_score():
    def f(v, where=True):
        return losses.group_zlpr([[v, 0, 1.0], [0, 0, 0]], [2, 0], centred=True, where=where)

    assert f(1e300) > 1e299
    assert f(np.inf) == np.inf
    left = np.array([[False, True, True], [True] * 3])
    np.testing.assert_array_equal(f(np.inf, left), f(5.0, left))


@pytest.mark.parametrize("dtype", FLOATS[:3])
def test_the_slope_of_an_angle_is_bounded(dtype):
    for scale, label in ((64.0, 0), (30.0, 1)):
        x = np.array([1, -1, 0.5], dtype)
        _, gradient = losses.arcface(x, label, scale=scale, value_and_grad=True)
        assert np.isfinite(gradient.astype(float)).all()
        assert abs(float(gradient[label])) <= scale * (1 + 1024)


def test_weights_that_overflow_are_refused():
    x = np.zeros((2, 2))
    with pytest.raises(ValueError, match=r"weights.*finite.*inf"):
        losses.cross_entropy(x, [0, 0], weights=1e308, reduction="mean")
    with pytest.raises(ValueError, match=r"weights.*1e39"):
        losses.cross_entropy(x.astype(np.float32), [0, 0], weights=1e39)
    np.testing.assert_allclose(losses.cross_entropy(x, [0, 0], weights=1e300, reduction="mean"), math.log(2))


def test_labels_in_a_column_are_told_what_would_fit():
    with pytest.raises(ValueError, match=r"^targets: expected labels of shape \(2,\) or .*\(2, 3\).*found \(2, 1\)$"):
        losses.cross_entropy(np.zeros((2, 3)), [[0], [1]])


def test_a_refused_label_is_shown_as_an_integer():
    for label in (-1, 3, 2**60 + 1):
        with pytest.raises(ValueError, match=rf"^targets: .*found {label}$"):
            losses.cross_entropy([0.0, 1, 2], label)
    with pytest.raises(ValueError, match=r"^k: .*found 4$"):
        losses.soft_top_k([0.0, 1, 2], 4)


IMPOSSIBLE = [c for c in CASES if c.core == 1 and c.targets != "cosines"]


@pytest.mark.parametrize("case", IMPOSSIBLE, ids=str)
@pytest.mark.parametrize("dtype", NATIVE)
def test_impossible_scores_take_no_part(case, dtype):
    x, t = problem(case, (5, 7), 8)
    x = x.astype(dtype)
    at = 3
    wide = np.insert(x, at, -np.inf, axis=1)
    moved = np.where(t >= at, t + 1, t) if case.targets in ("labels", "lists") else np.insert(t, at, 0, axis=1)
    value, gradient = case(x, t)
    wide_value, wide_gradient = case(wide, moved)
    value_slack, gradient_slack = slack(case, x, dtype)
    np.testing.assert_allclose(wide_value, value, rtol=0, atol=value_slack)
    np.testing.assert_allclose(np.delete(wide_gradient, at, axis=1), gradient, rtol=0, atol=gradient_slack)
    assert not wide_gradient[:, at].any()


@cases
@pytest.mark.parametrize("dtype", FLOATS[:3])
def test_where_is_minus_infinity(case, dtype):
    """An excluded score counts as -inf, and one that is excluded with all of its row takes no part."""
    shape = (6, 3, 5) if case.core == 2 else (6, 9)
    x, t = problem(case, shape, 2)
    x = x.astype(dtype)
    if case.targets == "cosines":
        return  # -inf is no cosine; test_impossible_targets has the mask
    where = np.random.default_rng(1).random(shape) < 0.7
    where[0] = False
    where[1:, ..., 0] = True
    if case.targets in ("distribution", "fractions", "groups"):  # else every row has some of it where it cannot be
        t = np.where(where, t, 0)
        t = t / t.sum(-1, keepdims=True, where=where, initial=1e-9) if case.targets == "distribution" else t
        t[0] = 1 / t.shape[-1]
    value, gradient = case(x, t, where=where)
    assert value[0] == 0
    assert not gradient[0].any()
    possible = np.isfinite(value).reshape(-1, *[1] * (x.ndim - 1))  # the target of the others is excluded
    assert not gradient[~where & possible].any()
    value_inf, gradient_inf = case(np.where(where, x, -np.inf).astype(dtype), t)
    np.testing.assert_array_equal(value[1:], value_inf[1:])
    np.testing.assert_array_equal(gradient[1:], gradient_inf[1:])
    np.testing.assert_array_equal(case(x, t, where=where, reduction="mean")[0].dtype, dtype)
    finite = np.isfinite(value[1:])
    assert finite.any()
    total = case(x, t, where=where[:1] & True, reduction="mean")[0]  # excludes all
    assert np.isnan(total)


def test_impossible_targets():
    x, inf = np.array([1.0, -np.inf, 0.5]), np.inf
    for name in ("cross_entropy", "entmax_loss", "normmax_loss"):
        f = getattr(losses, name)
        assert f(x, 1) == inf
        assert f(x, [0.5, 0.5, 0]) == inf
        assert f(x, [0.5, 0, 0.5]) < inf
        assert f([1.0, 2, 0.5], 1, where=[True, False, True]) == inf
        assert f([[1.0, 2, 0.5]] * 2, [0, 1], where=[True, False, True], reduction="mean") == inf
    assert losses.topk_cross_entropy(x, 1, 2) == inf
    assert losses.topk_cross_entropy([1.0, 2, 0.5], 1, 2, where=[True, False, True]) == inf
    for name in ("am_softmax", "arcface", "sphereface"):
        assert getattr(losses, name)([0.1, 0.2, 0.5], 1, where=[True, False, True]) == inf
    for name in ("zlpr", "subset_softmax_loss"):
        f = getattr(losses, name)
        assert f(x, [0, 1, 0]) == inf
        assert f(x, [0, 1], sparse_labels=True) == inf
        assert f(x, [0, 0, 1]) < inf
    assert losses.zlpr(x, [0, 1, 0], margin=0.1, scale=2) == inf
    assert losses.group_zlpr([[1.0, -inf], [0, 1]], [1, 0]) == inf
    assert losses.group_zlpr([[1.0, -inf], [0, 1]], [0, 0]) < inf
    assert losses.smooth_accuracy(x, 1) == 0
    assert losses.exact_accuracy_loss(x, 1) == 0


@cases
@pytest.mark.parametrize("dtype", FLOATS[:3])
def test_a_nan_is_never_lost(case, dtype):
    for n in (2, 7, 33, 150):
        shape = (3, 2, n) if case.core == 2 else (3, n)
        if n < case.options.get("k", 1):
            continue
        x, t = problem(case, shape, 1)
        x = x.astype(dtype)
        x[1, ..., n // 2] = np.nan
        value, gradient = case(x, t)
        assert np.isnan(value).tolist() == [False, True, False]
        assert np.isnan(gradient[1]).all()
        assert np.isfinite(gradient[[0, 2]]).all()
        where = np.ones(shape, bool)
        where[1, ..., n // 2] = False
        value, gradient = case(x, t, where=where)
        assert np.isnan(value).tolist() == [False, True, False]
        assert np.isnan(case(x, t, reduction="mean")[0])
        assert np.isfinite(case(x, t, reduction="mean", weights=[1, 0, 1])[0])


def test_cross_entropy_follows_log_softmax():
    inf, nan = np.inf, np.nan
    rows = np.array([[inf, 1, inf], [inf, 1, -inf], [-inf, -inf, -inf], [nan, 0, 1], [-inf, 2, 1], [1e308, 0, -1e308]])
    with np.errstate(invalid="ignore"):
        log_p = um.log_softmax(rows)
        for label in range(3):
            got = losses.cross_entropy(rows, np.full(6, label))
            np.testing.assert_allclose(got, -log_p[:, label], rtol=1e-15)


def test_cosines_at_and_beyond_one():
    for dtype in NATIVE:
        one = dtype(1)
        for c in (one, np.nextafter(one, dtype(2)), -one, np.nextafter(-one, dtype(-2))):
            x = np.array([0.1, c, 0.3], dtype)
            for name in ("arcface", "sphereface"):
                value, gradient = getattr(losses, name)(x, 1, value_and_grad=True)
                assert np.isfinite(value)
                assert np.isfinite(gradient).all()
                same = getattr(losses, name)(np.array([0.1, np.clip(c, -1, 1), 0.3], dtype), 1)
                np.testing.assert_allclose(value, same, rtol=4 * eps(dtype), atol=1e-30)


@pytest.mark.parametrize("dtype", NATIVE)
def test_large_scores_do_not_overflow(dtype):
    x = np.array([[500, -500, 300], [-800, 700, 0]], dtype)
    np.testing.assert_allclose(losses.zlpr(x, [[1, 0, 1], [0, 1, 0]]), [math.log(1), math.log(2)], atol=1e-30)
    np.testing.assert_allclose(losses.zlpr(x, [[0, 1, 0], [1, 0, 1]]), [1000, 1500 + 0], rtol=1e-6, atol=1)
    np.testing.assert_allclose(losses.cosent(x, [[1, 2, 3], [3, 2, 1]]), [20_000, 30_000], rtol=1e-6)
    np.testing.assert_allclose(losses.cross_entropy(x, [1, 0]), [1000, 1500], rtol=1e-6)
    np.testing.assert_allclose(losses.subset_softmax_loss(x, [[0, 1, 0], [1, 1, 0]]), [1000, 800], rtol=1e-6)
    np.testing.assert_allclose(losses.group_zlpr(x[:, None], [[1], [0]]), [1000, 1500], rtol=1e-6)


# --- soft_argmax and soft_top_k ---------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(1, 30), st.sampled_from([0.3, 1, 4]), st.sampled_from(NATIVE))
def test_soft_argmax_agrees_with_the_oracle(seed, n, temperature, dtype):
    x = np.random.default_rng(seed).normal(0, 2, (3, n)).astype(dtype)
    value, gradient = losses.soft_argmax(x, temperature, start=-2.5, value_and_grad=True)
    assert value.dtype == gradient.dtype == dtype
    for i in range(3):
        row = x[i].astype(ref.WIDE)
        tolerance = 16 * eps(dtype) * (1 + n) * (1 + np.abs(x).max() / temperature)
        np.testing.assert_allclose(value[i], float(ref.soft_argmax(row, temperature, -2.5)), rtol=0, atol=tolerance)
        expected = ref.gradient(lambda z: ref.soft_argmax(z, temperature), row)
        np.testing.assert_allclose(
            gradient[i], expected.astype(float), rtol=0, atol=(tolerance + 1e-11) * (1 + 1 / temperature)
        )
    np.testing.assert_array_equal(losses.soft_argmax(x, temperature, start=-2.5), value)


def test_soft_argmax_of_special_rows():
    inf, nan = np.inf, np.nan
    x = [[nan, 0, 1], [-inf, 3, -inf], [inf, 0, inf], [-inf, -inf, -inf], [1, 1, 1]]
    np.testing.assert_array_equal(losses.soft_argmax(x), [nan, 1, 1, nan, 1])
    where = [[True] * 3, [True] * 3, [True] * 3, [True] * 3, [False] * 3]
    np.testing.assert_array_equal(losses.soft_argmax(x, where=where, start=1), [nan, 2, 2, nan, 0])
    np.testing.assert_allclose(losses.soft_argmax([5.0, 1, 7], 1e-3), 2)
    np.testing.assert_allclose(losses.soft_argmax([5.0, 1, 7], where=[True, True, False], temperature=1e-3), 0)
    with pytest.raises(ValueError, match=r"temperature.*0\.0"):
        losses.soft_argmax(X, 0)
    with pytest.raises(ValueError, match="start"):
        losses.soft_argmax(X, start=nan)


@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 5), st.sampled_from(NATIVE))
def test_soft_top_k_agrees_with_the_oracle(seed, n, k, dtype):
    k = min(k, n)
    rng = np.random.default_rng(seed)
    x, g = rng.normal(0, 1, (2, n)).astype(dtype), rng.normal(0, 1, (2, n)).astype(dtype)
    p, back = losses.soft_top_k(x, k), losses.soft_top_k_vjp(x, g, k)
    assert p.dtype == back.dtype == dtype
    # An error of eps |x| in each of k turns, which the next may double and more.
    tolerance = 16 * eps(dtype) * (1 + np.ptp(x)) ** k
    np.testing.assert_allclose(p.sum(-1), k, rtol=16 * eps(dtype))
    for i in range(2):
        row = x[i].astype(ref.WIDE)
        np.testing.assert_allclose(p[i], ref.soft_top_k(row, k).astype(float), rtol=0, atol=tolerance)
        expected = ref.gradient(lambda z, i=i: (g[i] * ref.soft_top_k(z, k)).sum(), row, 1e-5)
        bound = (tolerance + 1e-9) * (1 + np.abs(g).sum()) * (1 + np.ptp(x)) ** k
        np.testing.assert_allclose(back[i], expected.astype(float), rtol=0, atol=bound)


def test_soft_top_k_of_special_rows():
    inf, nan = np.inf, np.nan
    p = losses.soft_top_k([[nan, 0, 1], [-inf, 3, 4], [-inf, -inf, -inf]], 1)
    assert np.isnan(p[[0, 2]]).all()
    np.testing.assert_allclose(p[1], [0, 1 / (1 + math.e), math.e / (1 + math.e)])
    x = np.array([2.0, 1, 4, 5, 3])
    for where in ([True, False, True, True, True], [False] * 5):
        p = losses.soft_top_k(x, 1, where=where)
        assert not p[~np.array(where)].any()
    np.testing.assert_allclose(losses.soft_top_k(x, 1), um.softmax(x - 1), rtol=1e-15 * 4)
    out = np.empty(5, np.float32)
    assert losses.soft_top_k(x, 2, out=out) is out
    np.testing.assert_array_equal(out, losses.soft_top_k(x, 2).astype(np.float32))
    expected = losses.soft_top_k(x, 2)
    assert losses.soft_top_k(x, 2, out=x) is x
    np.testing.assert_array_equal(x, expected)
    g = np.ones(5)
    expected = losses.soft_top_k_vjp(x, g, 2)
    assert losses.soft_top_k_vjp(x, g, 2, out=g) is g
    np.testing.assert_array_equal(g, expected)
    for k in (0, -1, 6):
        with pytest.raises(ValueError, match=rf"\bk\b.*{k}"):
            losses.soft_top_k(x, k)
    with pytest.raises(TypeError, match=r"\bk\b"):
        losses.soft_top_k(x, 1.5)


def test_functions_without_targets_keep_the_contract():
    rng = np.random.default_rng(3)
    for dtype in FLOATS:
        x = rng.normal(0, 2, (4, 3, 11)).astype(dtype)
        x[0, 0, 0] = np.nan
        g = rng.normal(0, 1, x.shape).astype(dtype)
        for call, core in (
            (lambda x, g, **kw: losses.soft_argmax(x, value_and_grad=True, **kw), 0),
            (lambda x, g, **kw: losses.soft_top_k(x, 3, **kw), 1),
            (lambda x, g, **kw: losses.soft_top_k_vjp(x, g, 3, **kw), 1),
        ):
            expected = call(x, g)
            rows = [call(np.array(x[i]), np.array(g[i]), workers=1) for i in np.ndindex(4, 3)]
            for workers in (1, 2, -1):
                assert_same(call(x, g, workers=workers), expected)
            assert_same(call(np.asfortranarray(x), g[::-1][::-1]), expected)
            if core:
                assert_same(np.array(rows).reshape(x.shape), expected)
            else:
                assert_same(np.array([r[0] for r in rows]).reshape(4, 3), expected[0])
            for axis in (0, 1, -2):
                got = call(np.moveaxis(x, -1, axis), np.moveaxis(g, -1, axis), axis=axis)
                if core:
                    assert_same(np.moveaxis(got, axis, -1), expected)
                else:
                    assert_same((got[0], np.moveaxis(got[1], axis, -1)), expected)
            empty = call(x[:0], g[:0])
            assert (empty if core else empty[0]).shape == (0, 3, 11)[: 2 + core]


# --- the contract -----------------------------------------------------------------------------------------------------


def assert_same(got, expected):
    """Same bits; a NaN is a NaN whatever its payload."""
    if isinstance(expected, tuple):
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            assert_same(a, b)
        return
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    a, b = got.astype(np.float64), expected.astype(np.float64)
    differ = ~((a == b) | ((a != a) & (b != b)))
    assert not differ.any(), f"{np.count_nonzero(differ)} of {a.size} differ: {a[differ][0]!r} for {b[differ][0]!r}"


def row_by_row(case, x, t, **options):
    """The plainest calls there are: each row alone, in C order, one worker."""
    batch = x.shape[: x.ndim - case.core]
    rows = [case(np.array(x[i]), np.array(t[i]), workers=1, **options) for i in np.ndindex(batch)]
    dtype = x.dtype if x.dtype in FLOATS else np.dtype("f8")
    return (
        np.array([v for v, _ in rows], dtype).reshape(batch),
        np.array([g for _, g in rows], dtype).reshape(x.shape),
    )


def inputs(case, dtype, shape, special=True):
    """Scores with rows of NaN, inf and -inf, and targets."""
    x, t = problem(case, shape, 1)
    if case.targets not in ("labels", "cosines", "lists", "group labels", "order", "set"):
        t = t.astype(np.float32)
    x = x.round(2)
    if special and dtype in FLOATS and len(x) >= 8 and case.targets != "cosines":
        x[1, ..., 0] = np.nan
        x[2, ..., -1] = np.inf
        x[3] = np.inf
        x[4, ..., :-1] = -np.inf
        x[5] = -np.inf
    return x.astype(dtype), t


def reversed_(a):
    return np.array(a[::-1, ::-1])[::-1, ::-1]


def strided(a):
    wide = np.zeros((a.shape[0] * 2, a.shape[1] * 3, *a.shape[2:]), a.dtype)
    wide[::2, 1::3] = a
    return wide[::2, 1::3]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    buffer = np.zeros(a.nbytes + 1, np.uint8)
    view = buffer[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def swapped(a):
    return a if a.dtype in BFLOAT16 else a.astype(a.dtype.newbyteorder())


LAYOUTS = [np.asfortranarray, reversed_, strided, read_only, unaligned, swapped]


def moved(layout, a):
    return layout(a) if a.ndim > 1 or layout not in (reversed_, strided) else a[::-1].copy()[::-1]


@pytest.mark.parametrize("dtype", [*FLOATS, *map(np.dtype, ("i1", "i8", "?"))], ids=str)
@kinds
def test_layouts_and_workers(case, dtype):
    for shape in [(9, 4, 6), (8, 2, 17)] if case.core == 2 else [(23, 10), (9, 33), (8, 150)]:
        x, t = inputs(case, dtype, shape)
        expected = row_by_row(case, x, t)
        for workers in (1, 2, -1):
            assert_same(case(x, t, workers=workers), expected)
        for layout in LAYOUTS:
            assert_same(case(moved(layout, x), moved(layout, t), workers=2), expected)
        assert_same(case(x.tolist(), t.tolist()), case(x.astype(float), t)) if dtype not in BFLOAT16 else None


@kinds
def test_every_axis(case):
    for dtype in map(np.dtype, ("f2", "f4", "f8")):
        x, t = inputs(case, dtype, (3, 4, 2, 5) if case.core == 2 else (8, 5, 11))
        value, gradient = case(x, t, workers=1)
        of_scores, of_classes = x.ndim, case.core == 2
        for axis in range(-of_scores, of_scores):
            place = axis % of_scores
            if of_classes:
                if place == 0:
                    continue

                def move(a, place=place):
                    return np.moveaxis(a, (-2, -1), (place - 1, place))

                t_moved = move(t) if t.ndim == x.ndim else np.moveaxis(t, -1, place - 1)
            else:

                def move(a, place=place):
                    return np.moveaxis(a, -1, place)

                t_moved = move(t) if t.ndim == x.ndim else t
            for scores in (move(x), np.ascontiguousarray(move(x))):
                assert_same(case(scores, t_moved, axis=axis), (value, move(gradient)))
        assert_same(case(x, t, axis=np.int64(-1)), (value, gradient))


@pytest.mark.parametrize("shape", [(4000, 10), (40, 1025), (2, 200_001)], ids=str)
@kinds
def test_large_batches(case, shape):
    """Enough work to be shared out, and rows long enough to be split."""
    if case.core == 2:
        shape = (*shape[:1], 2, shape[1] // 2)
    for dtype in (np.dtype("f4"), np.dtype("f8")):
        x, t = inputs(case, dtype, shape, special=False)
        expected = case(x, t, workers=1)
        assert np.isfinite(expected[0]).all()
        for workers in (2, 3, None):
            assert_same(case(x, t, workers=workers), expected)
        some = np.linspace(0, shape[0] - 1, 5).astype(int)
        assert_same(row_by_row(case, x[some], t[some]), tuple(e[some] for e in expected))
        sums = [case(x, t, workers=w, reduction="sum") for w in (1, 2)]
        assert_same(*sums)


@kinds
def test_shapes(case):
    for batch in [(0,), (3, 0), (1,), (), (7,), (2, 3)]:
        for n in (1, 2, 5):
            if n < case.options.get("k", 1):
                continue
            shape = (*batch, 2, n) if case.core == 2 else (*batch, n)
            x, t = problem(case, shape)
            value, gradient = case(x, t)
            assert np.shape(value) == batch
            assert gradient.shape == shape
            assert isinstance(value, np.float64 if batch == () else np.ndarray)
            assert np.isfinite(value).all()
            total = case(x, t, reduction="sum")[0]
            np.testing.assert_allclose(total, value.sum(), rtol=1e-14, atol=1e-300)
            mean = case(x, t, reduction="mean")[0]
            np.testing.assert_allclose(mean, value.mean() if value.size else np.nan, rtol=1e-14, atol=1e-300)
            if case.core == 1 and 0 not in shape and case.targets in ("labels", "distribution") and n == 1:
                certain = -1 if case.name == "exact_accuracy_loss" else case.name == "smooth_accuracy"
                np.testing.assert_allclose(value, certain, atol=1e-12)


@kinds
def test_small_floats_are_stored_small_and_computed_in_float32(case):
    for dtype in FLOATS:
        if dtype.itemsize == 2:
            x, t = inputs(case, dtype, (9, 3, 7) if case.core == 2 else (9, 20))
            if t.dtype.kind == "f":
                t = t.astype(dtype).astype(np.float32)
            wide = case(x.astype(np.float32), t)
            with np.errstate(over="ignore"):
                assert_same(case(x, t), tuple(v.astype(dtype) for v in wide))
            assert case(x, t, reduction="mean")[0].dtype == dtype


@kinds
def test_a_neighbour_changes_nothing(case):
    x, t = inputs(case, np.dtype("f4"), (33, 2, 5) if case.core == 2 else (33, 10), special=False)
    expected = case(x, t)
    noisy = x.copy()
    noisy[::2] = np.nan
    value, gradient = case(noisy, t)
    assert_same((value[1::2], gradient[1::2]), (expected[0][1::2], expected[1][1::2]))
    assert np.isnan(value[::2]).all()


@kinds
def test_where_broadcasts(case):
    shape = (6, 3, 5) if case.core == 2 else (6, 9)
    x, t = inputs(case, np.dtype("f4"), shape, special=False)
    full = np.random.default_rng(1).random(shape) < 0.8
    for where in (full, full[:1], full[0], full[..., :1], np.True_, True, np.asfortranarray(full), full.tolist()):
        spread = np.ascontiguousarray(np.broadcast_to(where, shape))
        assert_same(case(x, t, where=where, workers=2), case(x, t, where=spread))
    assert_same(case(x, t, where=True), case(x, t))
    rows = [case(x[i], t[i], where=full[i]) for i in range(6)]
    value, gradient = case(x, t, where=full)
    assert_same((np.array([v for v, _ in rows]), np.array([g for _, g in rows])), (value, gradient))


class HasArray:
    """Only `__array__`, as older containers have."""

    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return self.a if dtype is None else self.a.astype(dtype)


class HasDlpack:
    """Only DLPack, as tensors have."""

    def __init__(self, a):
        self.a = a

    def __dlpack__(self, **options):
        return self.a.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()


@kinds
def test_array_likes(case):
    x, t = inputs(case, np.dtype("f4"), (3, 2, 5) if case.core == 2 else (3, 6))
    expected = case(x, t)
    for kind in (HasArray, HasDlpack):
        assert_same(case(kind(x), kind(t)), expected)
        assert_same(case.function(kind(x), kind(t), weights=np.ones(3, np.float32), **case.options), expected[0])


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_labels_of_every_integer_type(dtype):
    x = np.random.default_rng(0).normal(size=(4, 5))
    t = np.array([0, 4, 2, 1])
    np.testing.assert_array_equal(losses.cross_entropy(x, t.astype(dtype)), losses.cross_entropy(x, t))
    np.testing.assert_array_equal(
        losses.zlpr(x, t[:, None].astype(dtype), sparse_labels=True), losses.zlpr(x, np.eye(5)[t])
    )


# --- cosent -----------------------------------------------------------------------------------------------------------


def test_cosent_takes_many_pairs_and_little_memory():
    rng = np.random.default_rng(0)
    f, y = rng.uniform(-1, 1, 100_000), rng.integers(0, 2, 100_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value, gradient = losses.cosent(f, y, value_and_grad=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # kB; all pairs of pairs would take 80 GB
    low, high = ref.lse(20 * f[y == 0]), ref.lse(-20 * f[y == 1])
    np.testing.assert_allclose(value, float(np.logaddexp(0, low + high)), rtol=1e-12)
    expected = np.where(y == 0, np.exp(20 * f - float(low)), -np.exp(-20 * f - float(high))) * 20
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-13)
    many = rng.normal(size=100_000)
    value, gradient = losses.cosent(f, many, value_and_grad=True)
    assert value > 0
    assert abs(gradient.sum()) < 1e-9 * np.abs(gradient).sum()


def test_cosent_sees_only_the_order_of_the_labels():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 5, (3, 40))
    for dtype in FLOATS:
        f = rng.uniform(-1, 1, (3, 40)).astype(dtype)
        expected = losses.cosent(f, y)
        assert_same(losses.cosent(f, np.exp(y)), expected)
        assert_same(losses.cosent(f, y.astype(np.uint8)), expected)
        wide = f.astype(np.float64)  # labels that only float64, or only integers, tell apart
        for labels in (y + 2**30, y.astype(np.uint64) + 2**63, 1e6 + y * 1e-4, y * 1e300 / 4):
            assert_same(losses.cosent(f, labels), losses.cosent(wide, y).astype(dtype))


def test_equal_labels_are_not_compared():
    assert losses.cosent([0.3, 0.9, -0.5], [1, 1, 1]) == 0
    assert losses.cosent([0.3], [1]) == 0


# --- what is refused --------------------------------------------------------------------------------------------------


@kinds
def test_refused_arguments(case):
    shape = (3, 2, 4) if case.core == 2 else (3, 4)
    x, t = problem(case, shape)

    def refuses(error, match, x=x, t=t, **more):
        with pytest.raises(error, match=match):
            case.function(x, t, **{**case.options, **more})

    name = "labels" if case.name == "cosent" else "targets"
    refuses(ValueError, r"reduction.*'median'", reduction="median")
    refuses(ValueError, r"weights.*-1\.0", weights=[1, -1, 1])
    refuses(ValueError, r"weights.*nan", weights=[1, np.nan, 1])
    refuses(ValueError, r"weights.*inf", weights=np.inf)
    refuses(ValueError, r"weights.*\(4,\).*\(3,\)", weights=[1, 2, 3, 4])
    refuses(TypeError, "weights", weights=["a", "b", "c"])
    refuses((TypeError, ValueError), r"ignore_index.*1\.5", ignore_index=1.5)
    refuses(ValueError, "axis", axis=7)
    refuses(TypeError, "axis", axis=1.5)
    refuses(ValueError, "workers", workers=0)
    refuses(TypeError, "where", where=np.ones(shape))
    refuses(ValueError, r"where.*\(5,\).*of scores", where=np.ones(5, bool))
    refuses(TypeError, "scores.*complex", x=x + 1j)
    refuses(TypeError, "scores.*object", x=x.astype(object))
    refuses(TypeError, r"scores.*mask.*where=~np.ma.getmaskarray\(scores\)", x=np.ma.masked_array(x, x > 9))
    refuses(TypeError, f"{name}.*mask", t=np.ma.masked_array(t, t > 9))
    refuses(ValueError, "scores.*scalar", x=1.0)
    refuses(ValueError, "axis is empty|no groups", x=x[..., :0], t=t[..., :0])
    refuses(ValueError, name, t=t[:2])
    refuses(ValueError, name, t=t[None])
    refuses(TypeError, f"{name}.*complex|{name}.*integer", t=t + 1j)
    if case.targets in ("labels", "cosines", "group labels"):
        for wrong in (-1, x.shape[-1], 2**40):
            bad = t.copy()
            bad[1] = wrong
            refuses(ValueError, rf"targets.*{wrong}", t=bad)
            refuses(ValueError, rf"targets.*{wrong}", t=bad, ignore_index=-100)
        refuses(TypeError, "targets.*integer.*float64", t=t.astype(float))
        refuses(TypeError, "targets.*integer.*bool", t=t.astype(bool))
        refuses(ValueError, "targets.*9223372036854775808", t=np.full(t.shape, 2**63, np.uint64))
        refuses(ValueError, "ignore_index.*9223372036854775808", ignore_index=2**63)
    elif case.targets == "lists":
        refuses(ValueError, r"targets.*9", t=np.full((3, 2), 9))
        refuses(ValueError, r"targets.*-1", t=np.full((3, 2), -1), ignore_index=-5)
        refuses(TypeError, "targets.*integer", t=t.astype(float))
    elif case.targets != "order":
        refuses(ValueError, r"ignore_index.*-1", ignore_index=-1)
    if case.targets in ("set", "fractions", "groups", "distribution"):
        for wrong in (-0.5, np.inf):
            bad = t.astype(float)
            bad[1, ..., 0] = wrong
            refuses(ValueError, rf"targets.*{wrong}", t=bad)
    if case.targets in ("set", "fractions", "groups"):
        refuses(ValueError, r"targets.*1\.5", t=np.full(shape, 1.5))
    if case.targets == "distribution":
        refuses(ValueError, r"targets.*2\.0", t=np.full(shape, 0.5))


@pytest.mark.parametrize(
    ("name", "targets", "argument", "wrong"),
    [
        ("cross_entropy", 1, "temperature", [0, -1, math.nan, math.inf]),
        ("cross_entropy", 1, "label_smoothing", [-0.1, 1.1, math.nan]),
        ("entmax_loss", 1, "alpha", [0.9, math.nan, math.inf]),
        ("normmax_loss", 1, "alpha", [1, 0.5, math.nan]),
        ("topk_cross_entropy", 1, "k", [0, -2]),
        ("am_softmax", 1, "margin", [math.nan, math.inf]),
        ("am_softmax", 1, "scale", [0, -1, math.nan, math.inf]),
        ("arcface", 1, "margin", [-0.1, 2, math.nan]),
        ("arcface", 1, "scale", [0, math.inf]),
        ("sphereface", 1, "margin", [0, -1, 65]),
        ("sphereface", 1, "scale", [0, math.nan]),
        ("exact_accuracy_loss", 1, "temperature", [0, -1, math.nan]),
        ("exact_accuracy_loss", 1, "margin", [-1, math.nan]),
        ("zlpr", [0, 1, 0], "threshold", [math.nan, math.inf]),
        ("zlpr", [0, 1, 0], "margin", [math.nan, math.inf]),
        ("zlpr", [0, 1, 0], "scale", [0, -1, math.nan, 3]),
        ("cosent", [0, 1, 0], "scale", [0, -1, math.nan, math.inf]),
        ("smooth_accuracy", 1, "temperature", [0, math.inf]),
        ("smooth_f1", [0, 1, 0], "temperature", [0, math.inf]),
    ],
)
def test_refused_options(name, targets, argument, wrong):
    extra = {"k": 2} if name == "topk_cross_entropy" else {}
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^{argument}: .*{value}"):
            getattr(losses, name)([0.1, 0.2, 0.3], targets, **{**extra, argument: value})
    for value in ("a", None if argument != "margin" or name not in ("zlpr", "exact_accuracy_loss") else "b", [[1, 2]]):
        with pytest.raises((TypeError, ValueError), match=argument):
            getattr(losses, name)([0.1, 0.2, 0.3], targets, **{**extra, argument: value})


def test_refused_combinations():
    x = [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match="threshold: has no part"):
        losses.zlpr(x, [0, 1, 0], threshold=0.5, margin=0.1)
    with pytest.raises(ValueError, match=r"scale: belongs to.*margin.*2\.0"):
        losses.zlpr(x, [0, 1, 0], scale=2)
    with pytest.raises(ValueError, match=r"margin.*nan|scale.*0"):
        losses.zlpr(x, [0, 1, 0], margin=0.1, scale=0)
    with pytest.raises(ValueError, match=r"targets: must be 0 or 1, found 0\.5"):
        losses.subset_softmax_loss(x, [0.5, 0, 1])
    with pytest.raises(ValueError, match="axis: the groups"):
        losses.group_zlpr(np.zeros((2, 3)), np.zeros((2, 3)), axis=0)
    with pytest.raises(ValueError, match="axis"):
        losses.group_zlpr(x, [0, 1, 0])
    with pytest.raises(ValueError, match=r"scores: there are no groups \(axis 1 of shape \(2, 0, 3\)\)"):
        losses.group_zlpr(np.zeros((2, 0, 3)), np.zeros((2, 0), int))
    with pytest.raises(TypeError, match="margin"):
        losses.sphereface(x, 1, margin=2.5)
    for name in ("am_softmax", "arcface", "sphereface", "exact_accuracy_loss"):
        with pytest.raises((TypeError, ValueError), match="targets"):
            getattr(losses, name)(x, [0.0, 1.0, 0.0])
