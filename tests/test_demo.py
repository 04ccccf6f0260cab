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
    picture = (folder / "maps.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000
    assert re.search(r"Picture: .*maps\.png\n", said.out)
    assert "Scored files: " in said.out.splitlines()[-1]
    assert main(["demo", "--out", str(folder), "--data", str(DATA)]) == 0  # over its own results


def test_data_that_is_not_there(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path), "--data", str(tmp_path / "no")]) == 1
    assert capsys.readouterr().err.startswith("unitmass: error: digits_logits.npy is not in")
