"""`unitmass demo`: runs, tells the truth about its figures and draws pictures."""

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
    for name in ("maps", "gillespie", "sectors", "survey"):
        picture = (folder / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 20_000
    pictures = ", ".join(str(folder / f"{name}.png") for name in ("maps", "gillespie", "sectors", "survey"))
    assert f"Pictures: {pictures}\n" in said.out
    assert "Scored files: " in said.out.splitlines()[-1]
    check_moments(said.out)
    check_sectors(said.out)
    check_survey(said.out)
    assert main(["demo", "--out", str(folder), "--data", str(DATA)]) == 0  # over its own results


def rows_of(said):
    return [re.split(r"\s*│\s*", line)[1:-1] for line in said.splitlines() if "│" in line]


def check_moments(said):
    """The table of the gene shows what its ensemble has, and that it is near the exact moments."""
    net = um.ReactionNetwork.from_text(DATA.parent / "models" / "gene.txt")
    cells = net.simulate(t=np.linspace(0, 20, 101), n=10_000, rng=1)
    assert f" {cells.n_events.sum():,} " in said
    m, n = cells["m"][:, -1], cells["n"][:, -1]
    found = {
        row[0]: [float(text) for text in row[1:]] for row in rows_of(said) if row[0][:3] in ("E m", "E n", "Var", "Cov")
    }
    expected = {"E m": m.mean(), "E n": n.mean(), "Var m": m.var(), "Var n": n.var(), "Cov(m, n)": np.cov(m, n)[0, 1]}
    assert list(found) == list(expected)
    for name, (value, error, exact, z) in found.items():
        assert value == pytest.approx(expected[name], rel=2e-4)
        assert z == pytest.approx((value - exact) / error, abs=0.02)
        assert abs(z) < 4


def check_sectors(said):
    """The tables of ducks show what the functions find, and that it is near the exact law."""
    rows = rows_of(said)
    flocks = {row[0]: row[1:] for row in rows if row[0].isdigit() or row[0] == "all"}
    assert list(flocks) == ["2", "3", "4", "6", "8", "12", "16", "all"]
    for n, (exact, found, largest, *_) in list(flocks.items())[:-1]:
        assert float(exact) == pytest.approx(um.CommonSector(int(n)).cdf(np.pi), abs=1e-6)
        trials = um.common_sector(int(n), np.arange(15, 360, 15) / 360 * 2 * np.pi, trials=4000, rng=2022 + int(n))
        assert float(found) == pytest.approx(trials.estimate[11], abs=1e-6)
        assert float(largest) < 4.5
    chi, freedom = (np.array([float(row[k]) for row in flocks.values()]) for k in (-2, -1))
    assert chi[-1] == pytest.approx(chi[:-1].sum(), abs=0.5)
    assert freedom[-1] == freedom[:-1].sum()
    assert np.all(np.abs(chi - freedom) < 5 * np.sqrt(2 * freedom))
    answers = [row for row in rows if re.fullmatch(r"[\d,]+ in \d+°", row[0])]
    assert [row[:2] for row in answers] == [
        ["4 in 180°", "1e8"],
        ["4 in 180°", "1e6"],
        ["16 in 240°", "1e7"],
        ["1,000 in 324°", "4e3"],
    ]
    for (*_, estimate, exact, z), trials in zip(answers, (10**8, 10**6, 10**7), strict=False):
        value, error = map(float, estimate.split(" ± "))
        p = float(exact)
        assert error == pytest.approx(np.sqrt(p * (1 - p) / trials), rel=0.06)  # two digits
        assert value == pytest.approx(p + float(z) * error, abs=error / 8)
        assert abs(float(z)) < 4
    assert answers[-1][-3:] == ["1.9421e-43", "1.9421e-43", "+0.00"]


@pytest.mark.parametrize("n", [4, 12])
def test_chi_square_is_of_what_is_independent_in_the_z_scores(n):
    """z' R^-1 z with the correlations of the hits at rising angles, which are those of an empirical law."""
    from unitmass._demo_sectors import _chi_square

    p = np.array([0.05, 0.2, 0.5, 0.6, 0.9])  # no cell has few hits
    found = um.common_sector(n, um.CommonSector(n).ppf(p), trials=1000, rng=3)
    low, high = np.minimum.outer(p, p), np.maximum.outer(p, p)
    correlations = np.sqrt(low * (1 - high) / (high * (1 - low)))
    chi, freedom = _chi_square(found)
    assert freedom == p.size
    assert chi == pytest.approx(found.z_score @ np.linalg.solve(correlations, found.z_score), rel=1e-9)


def test_chi_square_joins_what_is_rare():
    from unitmass._demo_sectors import _chi_square

    found = um.common_sector(12, np.linspace(0.1, 2 * np.pi, 200), trials=50, rng=3)
    assert 1 <= _chi_square(found)[1] <= 9  # 5 hits for each cell at least, of 50


@pytest.mark.parametrize(("ducks", "degrees"), [(4, 240), (16, 300), (100, 340)])
def test_the_expected_errors_of_the_demo(ducks, degrees):
    """Those of a run, whose own standard error has itself one of about a hundredth here."""
    from unitmass._demo_sectors import _spread

    angle = degrees / 180 * np.pi
    for method in ("mc", "karp-luby"):
        run = um.common_sector(ducks, angle, method=method, trials=20_000, rng=5)
        assert _spread(ducks, angle, method) == pytest.approx(run.standard_error * 20_000**0.5 / run.exact, rel=0.06)


def test_the_smallest_sectors_of_the_demo():
    from unitmass._demo_sectors import _smallest_sector

    assert _smallest_sector(np.array([350.0, 20, 5])) == (350, 30)
    assert _smallest_sector(np.array([10.0, 200, 100])) == (10, 190)
    rng = np.random.default_rng(1)
    for _ in range(50):
        degrees = rng.uniform(0, 360, 4)
        start, size = _smallest_sector(degrees)
        assert start in degrees
        assert size == pytest.approx(min((((degrees - begin) % 360).max()) for begin in degrees))
        assert ((degrees - start) % 360).max() == pytest.approx(size)


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


def check_survey(said):
    """The tables list every map, and where each loss of three points is least."""
    assert str(um.maps.table()) in said
    best = {row[0]: row[1:] for row in rows_of(said) if len(row) == 4}
    assert best["cross entropy"] == ["0.700", "1.673391", "67%"]
    assert best["hinge"] == ["0.750 to 1.000", "1.750000", "67%"]
    assert best["EXACT, σ = .05"] == ["0.125", "-0.974300", "100%"]


def test_the_survey_shows_every_map():
    from unitmass._demo_survey import _panels

    scores = np.array([[1.5, 1.2, 0.4, -0.3, -1.1]])
    shown = {title.split(",")[0]: function(scores) for title, function in _panels().items()}
    assert sorted(shown) == sorted(row.name for row in um.maps.table())
    for p in shown.values():
        assert p.shape == scores.shape
        assert np.isfinite(p).all()


def test_data_that_is_not_there(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path), "--data", str(tmp_path / "no")]) == 1
    assert capsys.readouterr().err.startswith("unitmass: error: digits_logits.npy is not in")
