"""`unitmass demo`: runs, tells the truth about its figures and draws a picture."""

import re
from pathlib import Path

import numpy as np
import pytest

import unitmass as um
from unitmass._cli import main

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

DATA = Path(__file__).parents[1] / "examples" / "data"


def test_data():
    logits, labels, images = (np.load(DATA / f"digits_{name}.npy") for name in ("logits", "labels", "images"))
    assert (logits.shape, logits.dtype) == ((1797, 10), np.float32)
    assert (labels.shape, labels.dtype) == ((1797,), np.uint8)
    assert (images.shape, images.dtype, images.max()) == ((1797, 8, 8), np.uint8, 16)
    assert (logits.argmax(axis=1) == labels)[1::2].mean() > 0.95


def test_demo(tmp_path, capsys):
    folder = tmp_path / "the démo"
    assert main(["demo", "--out", str(folder), "--data", str(DATA)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    logits, labels = np.load(DATA / "digits_logits.npy"), np.load(DATA / "digits_labels.npy")
    for name in ("softmax", "entmax", "sparsemax"):
        p = getattr(um, name)(logits)
        np.testing.assert_array_equal(np.load(folder / f"digits_{name}.npy"), p)
        line = next(line for line in said.out.splitlines() if name in line and "%" in line)
        accuracy = (p.argmax(axis=1) == labels)[1::2].mean()
        assert f"{accuracy:.1%}" in line
        assert f"{(p > 0).sum(axis=1).mean():.2f}" in line
        assert f"{(p == 0).mean():.1%}" in line
    for name in ("maps", "gillespie"):
        picture = (folder / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 20_000
    assert f"Pictures: {folder / 'maps.png'}, {folder / 'gillespie.png'}\n" in said.out
    assert "Scored files: " in said.out.splitlines()[-1]
    check_moments(said.out)
    assert main(["demo", "--out", str(folder), "--data", str(DATA)]) == 0  # over its own results


def check_moments(said):
    """The table of the gene shows what its ensemble has, and that it is near the exact moments."""
    net = um.ReactionNetwork.from_text(DATA.parent / "models" / "gene.txt")
    cells = net.simulate(t=np.linspace(0, 20, 101), n=10_000, rng=1)
    assert f" {cells.n_events.sum():,} " in said
    m, n = cells["m"][:, -1], cells["n"][:, -1]
    rows = [re.split(r"\s*│\s*", line)[1:-1] for line in said.splitlines() if "│" in line]
    found = {row[0]: [float(text) for text in row[1:]] for row in rows if row[0][:3] in ("E m", "E n", "Var", "Cov")}
    expected = {"E m": m.mean(), "E n": n.mean(), "Var m": m.var(), "Var n": n.var(), "Cov(m, n)": np.cov(m, n)[0, 1]}
    assert list(found) == list(expected)
    for name, (value, error, exact, z) in found.items():
        assert value == pytest.approx(expected[name], rel=2e-4)
        assert z == pytest.approx((value - exact) / error, abs=0.02)
        assert abs(z) < 4


@pytest.mark.parametrize("name", ["m", "n"])
def test_the_exact_curves_of_the_gene(name):
    """The moment equations, by small steps."""
    from unitmass._demo_gillespie import _exact

    x, step = np.zeros(5), 1e-4  # E m, E n, Var m, Var n, Cov
    for _ in range(round(3 / step)):
        m, n, vm, vn, c = x
        x = x + step * np.array([20 - m, 2.5 * m - n, 20 + m - 2 * vm, 2.5 * m + n + 5 * c - 2 * vn, 2.5 * vm - 2 * c])
    mean, sd = _exact(np.array([3.0]))[name]
    i = "mn".index(name)
    assert mean[0] == pytest.approx(x[i], rel=1e-3)
    assert sd[0] ** 2 == pytest.approx(x[2 + i], rel=1e-3)


def test_data_that_is_not_there(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path), "--data", str(tmp_path / "no")]) == 1
    assert capsys.readouterr().err.startswith("unitmass: error: digits_logits.npy is not in")
