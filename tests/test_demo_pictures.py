"""``mynah demo``: its measures by hand, and its pictures."""

from __future__ import annotations

import dataclasses
import io
import math
import struct
import zlib
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest

from mynah.recipes.demo_page import measures, pictures

SVG = "{http://www.w3.org/2000/svg}"


# -- measures ---------------------------------------------------------------------------------------


def test_the_spectral_distance_is_wasserstein_of_diagonal_gaussians() -> None:
    rng = np.random.default_rng(0)
    one = 0.3 * rng.standard_normal((400, 5))
    other = 0.5 * rng.standard_normal((300, 5)) + rng.standard_normal(5)
    found = measures.spectral_distance(one, other)
    scale = 20 / np.log(10)
    parts = [(x.mean(0) - x.mean(), x.std(0)) for x in (one * scale, other * scale)]
    gaps = np.concatenate([a - b for a, b in zip(*parts, strict=True)])
    assert found == pytest.approx(np.sqrt((gaps**2).sum() / 5))
    assert measures.spectral_distance(one, one + 2.0) == pytest.approx(0), "level plays no part"
    assert measures.spectral_distance(one, one * 2) > measures.spectral_distance(one, one * 1.5)


def test_silence_is_not_part_of_a_voice() -> None:
    rng = np.random.default_rng(0)
    speech = rng.standard_normal((200, 4))
    silent = np.concatenate([speech, np.full((500, 4), -11.0)])
    assert measures.spectral_distance(speech, silent) == pytest.approx(0)


def test_semitones_and_medians() -> None:
    assert measures.semitones(220.0, 110.0) == pytest.approx(12)
    assert measures.semitones(None, 110.0) is None
    assert measures.median_f0(np.array([0, 100, 0, 120, 300])) == 120
    assert measures.median_f0(np.zeros(3)) is None


def test_there_is_no_minus_zero() -> None:
    from mynah.recipes.demo_page.render import signed

    assert [signed(x) for x in (-0.04, 0.0, 0.04, -0.06, 2.0)] == ["+0.0"] * 3 + ["-0.1", "+2.0"]


def test_nearness_knows_its_direction() -> None:
    near = measures.Nearness(target=0.3, source=0.7, verified=True)
    assert near.leaks
    assert not dataclasses.replace(near, verified=False).leaks


# -- pictures ---------------------------------------------------------------------------------------


def test_a_palette_png_holds_its_levels() -> None:
    level = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    data = pictures.palette_png(level, (1, 2, 3))
    size = struct.unpack(">II", data[16:24])
    body = data[data.index(b"IDAT") + 4 : data.index(b"IEND") - 8]
    rows = np.frombuffer(zlib.decompress(body), np.uint8).reshape(3, 5)
    assert size == (4, 3)
    np.testing.assert_array_equal(rows[:, 1:], level)
    assert not rows[:, 0].any()
    seen = matplotlib.image.imread(io.BytesIO(data))
    np.testing.assert_allclose(seen[..., 3] * 255, level, atol=1e-4)
    np.testing.assert_allclose(
        seen[..., :3] * 255, np.broadcast_to([1, 2, 3], (3, 4, 3)), atol=1e-4
    )


def test_pictures_share_one_time_axis() -> None:
    mel = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    half = pictures.Drawn(mel_TM=mel, f0_T=np.full(50, 100, np.float32), seconds=1.0)
    tree = ElementTree.fromstring(pictures.picture(half, axis=2.0, alt='a "<b>'))
    inner = pictures.WIDTH - pictures.LEFT
    assert float(tree.find(f"{SVG}image").get("width")) == pytest.approx(inner / 2)
    assert tree.get("aria-label") == 'a "<b>'
    path = tree.find(f"{SVG}path").get("d")
    first, last = path.removeprefix("M").split("L")[0], path.split("L")[-1]
    assert float(first.split()[0]) == pytest.approx(pictures.LEFT + inner / 200, abs=0.1)
    assert float(last.split()[0]) == pytest.approx(pictures.LEFT + inner / 2 - inner / 200, abs=0.1)
    y = (
        pictures.TALL
        + pictures.GAP
        + pictures.STRIP * (1 - math.log(100 / 60) / math.log(500 / 60))
    )
    assert float(first.split()[1]) == pytest.approx(y, abs=0.1)


def test_unvoiced_stretches_break_the_curve() -> None:
    f0 = np.array([0, 100, 100, 0, 200, 0], np.float32)
    path = pictures.f0_path(f0, x=0, width=6, y=0)
    assert path.count("M") == 2
    assert path.count("L") == 1
    assert pictures.f0_path(np.zeros(5), x=0, width=6, y=0) == ""


@pytest.mark.parametrize(
    ("seconds", "marks"), [(2.6, [0, 0.5, 1, 1.5, 2, 2.5]), (0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5])]
)
def test_ticks_are_round(seconds: float, marks: list[float]) -> None:
    assert pictures.ticks(seconds) == pytest.approx(marks)
