"""Distances of converted speech: alignments, distortion by hand, and what identical signals give."""

import builtins
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mynah.tasks.metrics.align import align, distances, fast_align
from mynah.tasks.metrics.conversion import (
    Conversion,
    Voice,
    analyse,
    compare,
    duration_metric,
    f0_corr_metric,
    f0_rmse_metric,
    mcd_metric,
    mel_cepstral_distortion,
)
from mynah.tasks.metrics.mean import as_text

RATE = 24000


def smooth(rng: np.random.Generator, frames: int, width: int = 3) -> np.ndarray:
    return rng.normal(size=(frames, width)).cumsum(axis=0)


def slow_dtw(
    cost: np.ndarray, window: set[tuple[int, int]] | None = None
) -> tuple[float, list[tuple[int, int]]]:
    """The recursion cell by cell, over the cells of a window."""
    total = {(-1, -1): 0.0}
    back = {}
    for i in range(cost.shape[0]):
        for j in range(cost.shape[1]):
            if window is None or (i, j) in window:
                before = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
                best = min(before, key=lambda cell: total.get(cell, np.inf))
                total[i, j] = total.get(best, np.inf) + cost[i, j]
                back[i, j] = best
    cell = (cost.shape[0] - 1, cost.shape[1] - 1)
    value, path = total[cell], []
    while cell != (-1, -1):
        path.append(cell)
        cell = back[cell]
    return value, path[::-1]


def slow_fastdtw(x: np.ndarray, y: np.ndarray) -> tuple[float, list[tuple[int, int]]]:
    """Salvador and Chan's algorithm 1 with radius 1, on sets of cells."""
    cost = np.linalg.norm(x[:, None] - y[None], axis=-1)
    if min(cost.shape) < 3:
        return slow_dtw(cost)
    halves = [np.array([(z[i] + z[i + 1]) / 2 for i in range(0, len(z) - 1, 2)]) for z in (x, y)]
    _, path = slow_fastdtw(*halves)
    around = {(i + a, j + b) for i, j in path for a in (-1, 0, 1) for b in (-1, 0, 1)}
    window = {(2 * i + a, 2 * j + b) for i, j in around for a in (0, 1) for b in (0, 1)}
    return slow_dtw(cost, window)


def test_alignment_by_hand() -> None:
    """1 2 3 against 1 1 2 3 3: free, along repeats."""
    x, y = np.array([[1.0], [2], [3]]), np.array([[1.0], [1], [2], [3], [3]])
    found = align(distances(x, y))
    assert found.cost == 0
    assert list(zip(found.x_P, found.y_P, strict=True)) == [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4)]
    # one frame against three costs all three; the middle one is 5 away
    assert align(distances(np.array([[0.0]]), np.array([[0.0], [5], [0]]))).cost == 5
    assert align(np.array([[7.0]])).cost == 7
    # what is forbidden is gone round: 1 2 4 5
    inf = np.inf
    around = align(np.array([[1.0, inf, inf], [2, inf, inf], [3, 4, 5]]))
    assert around.cost == 12
    assert around.x_P.tolist() == [0, 1, 2, 2]


def test_cost_equals_librosa_and_the_recursion_written_out() -> None:
    import librosa

    rng = np.random.default_rng(0)
    for index in range(200):
        shape = (1, 1) if index == 0 else rng.integers(1, 25, size=2)
        cost = (
            rng.uniform(size=shape)
            if index % 2
            else distances(smooth(rng, shape[0]), smooth(rng, shape[1]))
        )
        ours = align(cost)
        theirs = librosa.sequence.dtw(C=cost, backtrack=False)
        assert ours.cost == pytest.approx(theirs[-1, -1], rel=1e-12)
        assert ours.cost == pytest.approx(cost[ours.x_P, ours.y_P].sum(), rel=1e-12)
        if index < 40:
            value, path = slow_dtw(cost)
            assert ours.cost == value
            assert list(zip(ours.x_P.tolist(), ours.y_P.tolist(), strict=True)) == path


def test_fast_alignment_equals_its_algorithm_on_sets() -> None:
    rng = np.random.default_rng(1)
    worse = 0
    for _ in range(60):
        x, y = (smooth(rng, int(n)) for n in rng.integers(1, 60, size=2))
        ours = fast_align(x, y)
        value, path = slow_fastdtw(x, y)
        assert ours.cost == pytest.approx(value, rel=1e-12)
        assert list(zip(ours.x_P.tolist(), ours.y_P.tolist(), strict=True)) == path
        exact = align(distances(x, y)).cost
        assert ours.cost >= exact - 1e-9
        worse += ours.cost > exact * 1.001
        assert fast_align(x, y, radius=100).cost == pytest.approx(exact)
    assert worse > 5  # it is an approximation


def test_bad_alignments() -> None:
    with pytest.raises(ValueError, match="frames on both sides"):
        align(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="NaN"):
        align(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="no path of finite cost"):
        align(np.array([[0.0, np.inf], [np.inf, np.inf]]))
    with pytest.raises(ValueError, match="x has width 2 but y 3"):
        distances(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="y must be frames x width"):
        distances(np.zeros((4, 2)), np.zeros((0, 2)))
    with pytest.raises(ValueError, match="radius must be at least 1"):
        fast_align(np.zeros((4, 2)), np.zeros((4, 2)), radius=0)


def test_distortion_by_hand() -> None:
    """Frames that differ by 1 in two coefficients: 10 / ln 10 * sqrt(2 * 2) = 8.686 dB."""
    x = np.arange(12.0).reshape(6, 2) * 10
    assert mel_cepstral_distortion(x, x) == 0
    assert mel_cepstral_distortion(x, x[[0, 0, 1, 2, 2, 2, 3, 4, 5]]) == 0  # slower, the same
    assert mel_cepstral_distortion(x, x + 1) == pytest.approx(20 / np.log(10))
    rng = np.random.default_rng(3)
    a, b = smooth(rng, 70, 5), smooth(rng, 90, 5)
    path = align(distances(a, b))
    pairs = np.sqrt(2 * ((a[path.x_P] - b[path.y_P]) ** 2).sum(1))
    assert mel_cepstral_distortion(a, b) == pytest.approx(10 / np.log(10) * pairs.mean())
    path = fast_align(a, b)
    pairs = np.sqrt(2 * ((a[path.x_P] - b[path.y_P]) ** 2).sum(1))
    assert mel_cepstral_distortion(a, b, exact=False) == pytest.approx(
        10 / np.log(10) * pairs.mean()
    )


def made(f0: list[float], power: list[float], seconds: float = 1.0) -> Voice:
    frames = np.arange(float(len(f0)))[:, None] * np.array([[100.0, 10.0]])
    return Voice(
        sample_rate=RATE,
        cepstra_TM=frames,
        f0_T=np.array(f0),
        power_T=np.array(power),
        seconds=seconds,
    )


def test_comparison_by_hand() -> None:
    """Equal cepstra, so frames pair with themselves; the quiet frame does not count for MCD."""
    one = made([100, 120, 0, 110], [0, 0, -30, 0])
    other = made([110, 130, 0, 140], [0, 0, -30, 0], seconds=0.75)
    other.cepstra_TM[2] += 500
    found = compare(one, other)
    assert found.mcd == 0
    assert found.f0_rmse == pytest.approx(np.sqrt((100 + 100 + 900) / 3))
    assert found.f0_corr == pytest.approx(np.corrcoef([100, 120, 110], [110, 130, 140])[0, 1])
    assert found.duration_difference == 0.25
    other.cepstra_TM[:, 0] += 5  # the level
    assert compare(one, other).mcd == pytest.approx(10 / np.log(10) * np.sqrt(2) * 5)
    assert compare(one, other, with_c0=False).mcd == 0


def test_pitch_that_is_not_defined() -> None:
    voiced = made([100, 120, 110], [0, 0, 0])
    found = compare(made([0, 0, 0], [0, 0, 0]), voiced)
    assert (found.f0_rmse, found.f0_corr) == (None, None)
    flat = compare(made([100, 100, 100], [0, 0, 0]), voiced)
    assert flat.f0_rmse == pytest.approx(np.sqrt(500 / 3))
    assert flat.f0_corr is None
    with pytest.raises(ValueError, match="24000 Hz but the target 16000"):
        compare(
            voiced,
            Voice(
                sample_rate=16000,
                cepstra_TM=voiced.cepstra_TM,
                f0_T=voiced.f0_T,
                power_T=voiced.power_T,
                seconds=1.0,
            ),
        )


def sung(pitch: float, seconds: float, *, tilt: float = 1.0, rate: int = RATE) -> np.ndarray:
    """A voice with vibrato that swells and fades, with silence around."""
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * 2 * time))) / rate
    x = sum(np.sin(k * phase) / k**tilt * (1.2 + np.sin(k + 5 * time)) for k in range(1, 20))
    x = 0.05 * x * np.sin(np.pi * time / seconds)
    x = x + 1e-3 * np.random.default_rng(0).normal(size=len(x))  # breath: no empty bands
    quiet = np.zeros(rate // 10)
    return np.asarray(np.concatenate([quiet, x, quiet]))


def test_identical_signals_have_no_distance() -> None:
    pytest.importorskip("pyworld")
    wav = sung(150, 0.8)
    for exact in (True, False):
        found = compare(
            analyse(wav, sample_rate=RATE, f0_range=(80, 300)),
            analyse(wav.astype(np.float32), sample_rate=RATE, f0_range=(80, 300)),
            exact=exact,
        )
        assert found.mcd == pytest.approx(0, abs=1e-3)  # of single precision
        assert found.f0_rmse == pytest.approx(0, abs=1e-3)
        assert found.f0_corr == pytest.approx(1)
        assert found.duration_difference == 0
    voice = analyse(wav, sample_rate=RATE, f0_range=(80, 300))
    assert compare(voice, voice) == Conversion(
        mcd=0.0, f0_rmse=0.0, f0_corr=pytest.approx(1), duration_difference=0.0
    )
    again = compare(voice, analyse(wav, sample_rate=RATE, f0_range=(80, 300)))
    assert again.mcd == 0
    assert again.f0_rmse == 0


def test_analysis_measures_what_is_there() -> None:
    pytest.importorskip("pyworld")
    low = analyse(sung(150, 0.8), sample_rate=RATE, f0_range=(80, 400))
    high = analyse(sung(210, 1.0), sample_rate=RATE, f0_range=(80, 400))
    assert low.cepstra_TM.shape == (201, 40)
    assert low.f0_T.shape == low.power_T.shape == (201,)
    assert np.median(low.f0_T[low.f0_T > 0]) == pytest.approx(150, abs=8)
    assert np.median(high.f0_T[high.f0_T > 0]) == pytest.approx(210, abs=10)
    assert 10 * np.log10(np.mean(10 ** (low.power_T / 10))) == pytest.approx(0)
    assert (low.power_T[:10] < -20).all()  # the silence
    found = compare(high, low)
    assert found.f0_rmse == pytest.approx(60, abs=12)
    assert found.duration_difference == pytest.approx(0.2, abs=0.05)
    assert 0.5 < found.mcd < 15
    louder = analyse(2 * sung(150, 0.8), sample_rate=RATE, f0_range=(80, 400))
    with_level, without = compare(louder, low), compare(louder, low, with_c0=False)
    # twice the amplitude adds log 2 to c(0) alone
    assert with_level.mcd == pytest.approx(10 / np.log(10) * np.sqrt(2) * np.log(2), rel=0.02)
    assert without.mcd == pytest.approx(0, abs=0.02)


def test_usual_alpha_follows_the_rate() -> None:
    pytest.importorskip("pyworld")
    wav = sung(150, 0.3, rate=16000)
    usual = analyse(wav, sample_rate=16000)
    given = analyse(wav, sample_rate=16000, alpha=0.41, order=12)
    np.testing.assert_allclose(given.cepstra_TM, usual.cepstra_TM[:, :13], atol=1e-9)


def test_bad_audio_is_refused() -> None:
    good = sung(150, 0.3)
    broken = good.copy()
    broken[3] = np.inf
    for wav, options, message in (
        (good * 0, {}, "silence"),
        (good[:2000], {}, "audio of 0.083 s is too short"),
        (broken, {}, "NaN or infinite"),
        (good[None], {}, "one channel"),
        (good * 32768, {}, "divide integers by 32768"),
        (good, {"f0_range": (300.0, 80.0)}, "f0_range must be"),
        (good, {"f0_range": (80.0, 13000.0)}, "f0_range must be"),
        (good, {"sample_rate": 11025}, "no usual alpha"),
    ):
        settings: dict[str, Any] = {"sample_rate": RATE} | options
        with pytest.raises(ValueError, match=message):
            analyse(wav, **settings)


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name == "pyworld":
            raise ModuleNotFoundError("No module named 'pyworld'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match="pyworld-prebuilt, which is not installed: pip install"):
        analyse(sung(150, 0.3), sample_rate=RATE)


def test_metrics_are_means_and_name_the_alignment() -> None:
    assert mcd_metric().score(["a", "b"], [as_text(6.5), as_text(7.5)]) == 7
    assert f0_rmse_metric().score(["a", "b"], [as_text(None), as_text(30.0)]) == 30
    assert f0_corr_metric().higher_is_better
    assert not duration_metric().higher_is_better
    assert mcd_metric().signature == (
        "mcd|analysis:world|order:39|c0:yes|gate:-20dB|dtw:exact|unit:dB|average:utterance|v1"
    )
    assert "dtw:fastdtw-1" in mcd_metric(exact=False).signature
    assert "c0:no" in mcd_metric(with_c0=False).signature
