"""Gain and cutting of silences: by hand, against what sox wrote, against a walk sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mynah.tasks.corpora.shape import cut_silence, gain, sounds

RATE = 16000
Pieces = list[tuple[float, float]]


def square(pieces: Pieces, rate: int = RATE) -> NDArray[np.float32]:
    """Return a square wave of 400 Hz; pieces are (level, seconds)."""
    level_S = np.concatenate([np.full(round(seconds * rate), level) for level, seconds in pieces])
    sign_S = np.where(np.arange(len(level_S)) % 40 < 20, 1, -1)
    return (level_S * sign_S).astype(np.float32)


# -- gain ---------------------------------------------------------------------------------------


def test_gain() -> None:
    wav = np.array([0.5, -0.25, 0.0], np.float32)
    assert gain(wav, 20 * np.log10(2)).tolist() == pytest.approx([1.0, -0.5, 0.0])
    assert gain(wav, 0.0).tolist() == wav.tolist()
    assert gain(wav, -3.0).tolist() == pytest.approx([0.353973, -0.176986, 0.0], abs=1e-6)
    assert gain(wav, -3.0).dtype == np.float32
    assert wav.tolist() == [0.5, -0.25, 0.0]  # the argument stays


def test_what_exceeds_full_scale_is_cut_there() -> None:
    wav = np.array([0.5, -0.9, 0.1], np.float32)
    assert gain(wav, 12.0).tolist() == pytest.approx([1.0, -1.0, 0.398107], abs=1e-6)


# -- silences -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pieces", "kept"),
    [
        ("leading", [(0, 0.5), (0.1, 0.5)], [(8000, 16000)]),
        # 20 ms (less a sample) of a sound's end still count to it, then 0.1 s end it
        ("trailing", [(0.1, 0.5), (0, 0.5)], [(0, 8319)]),
        ("inner", [(0.1, 0.3), (0, 0.4), (0.1, 0.3)], [(0, 5119), (11200, 16000)]),
        ("a pause under 0.12 s stays", [(0.1, 0.3), (0, 0.119), (0.1, 0.3)], [(0, 11504)]),
        ("a pause of 0.12 s goes", [(0.1, 0.3), (0, 0.12), (0.1, 0.3)], [(0, 5119), (6720, 11520)]),
        ("a burst goes", [(0, 0.2), (0.1, 0.05), (0, 0.3), (0.1, 0.2)], [(8800, 12000)]),
        ("a short end stays", [(0.1, 0.3), (0, 0.07)], [(0, 5920)]),
        ("below the threshold", [(0.0009, 0.5)], []),
        # the level reaches 0.001 when 320 * (1 / 1.1)^2 = 264.46 samples are heard
        ("above the threshold", [(0.0011, 0.5)], [(264, 8000)]),
        ("silence", [(0, 0.5)], []),
        ("too short to be loud for 0.1 s", [(0.5, 0.05)], []),
        ("nothing", [(0.5, 0.0)], []),
    ],
)
def test_by_hand(name: str, pieces: Pieces, kept: list[tuple[int, int]]) -> None:
    wav = square(pieces)
    assert sounds(wav, RATE) == kept, name
    wanted = np.concatenate([np.zeros(0, np.float32), *(wav[a:b] for a, b in kept)])
    got = cut_silence(wav, RATE)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, wanted)


MIXED: Pieces = [
    (0, 0.31), (0.1, 0.2), (0.0005, 0.15), (0.02, 0.04), (0, 0.12), (0.3, 0.5), (0, 0.11),
    (0.0023, 0.09), (0, 0.2), (0.05, 0.25), (0, 0.09),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pieces", "rate", "samples"),
    [
        # what sox 14.4.2 writes: silence 1 0.1 0.1% -1 0.1 0.1%
        ([(0, 0.5), (0.1, 0.5)], 16000, 8000),
        ([(0.1, 0.5), (0, 0.5)], 16000, 8319),
        ([(0.1, 0.3), (0, 0.4), (0.1, 0.3)], 16000, 9919),
        ([(0.1, 0.3), (0, 0.119), (0.1, 0.3)], 16000, 11504),
        ([(0, 0.2), (0.1, 0.05), (0, 0.3), (0.1, 0.2)], 16000, 3200),
        ([(0.0011, 0.5)], 16000, 7736),
        (MIXED, 16000, 20418),
        (MIXED, 22050, 28138),
    ],
)
def test_as_sox_does_it(pieces: Pieces, rate: int, samples: int) -> None:
    assert len(cut_silence(square(pieces, rate), rate)) == samples


def walk(wav_S: NDArray[np.float32], rate: int, threshold: float, seconds: float) -> list[int]:
    """Return which samples are kept, one sample after the other."""
    window, run = rate // 50, max(1, round(seconds * rate))
    kept: list[int] = []
    memory: list[float] = []
    held: list[int] = []
    copying = False
    for at, sample in enumerate(wav_S.astype(np.float64)):
        memory = [*memory, sample**2][-window:]
        loud = sum(memory) > threshold**2 * window
        if loud == copying:  # nothing changes: what was held back is kept or dropped
            kept += [*held, at] if copying else []
            held = []
            continue
        held.append(at)
        if len(held) == run:
            copying = not copying
            kept += held if copying else []
            memory = memory if copying else []
            held = []
    return kept + (held if copying else [])


piece = st.tuples(st.sampled_from([0.0, 1e-4, 7e-4, 0.0013, 0.03, 0.9]), st.integers(1, 90))


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(piece, max_size=12), seed=st.integers(0, 99))
def test_against_a_walk_sample_by_sample(pieces: list[tuple[float, int]], seed: int) -> None:
    noise = np.random.RandomState(seed)
    parts = [level * noise.standard_normal(count) for level, count in pieces]
    wav = np.concatenate([np.zeros(0), *parts]).astype(np.float32)
    kept = [i for first, last in sounds(wav, 500, seconds=0.05) for i in range(first, last)]
    assert kept == walk(wav, 500, 0.001, 0.05)


def test_long_audio_is_searched_in_pieces() -> None:
    wav = square([(0, 3.0), (0.1, 4.0), (0, 3.0), (0.1, 4.0)])
    assert sounds(wav, RATE) == [(48000, 112319), (160000, 224000)]


@pytest.mark.parametrize(
    ("wav", "options", "message"),
    [
        (np.zeros((2, 9), np.float32), {}, r"one channel of samples is wanted, got .* \(2, 9\)"),
        (np.array([np.nan], np.float32), {}, "must be finite"),
        (np.zeros(9, np.float32), {"threshold": 1.5}, "threshold must be in 0..1"),
        (np.zeros(9, np.float32), {"threshold": np.nan}, "threshold must be in 0..1"),
        (np.zeros(9, np.float32), {"seconds": 0.0}, "seconds must be positive"),
        (np.zeros(9, np.float32), {"sample_rate": 40}, "the rate at least 50 Hz"),
    ],
)
def test_refusals(wav: NDArray[np.float32], options: dict[str, float], message: str) -> None:
    arguments = {"sample_rate": RATE, **options}
    with pytest.raises(ValueError, match=message):
        cut_silence(wav, **arguments)  # type: ignore[arg-type]
    if not options:
        with pytest.raises(ValueError, match=message):
            gain(wav, -3.0)


def test_a_gain_must_be_a_number() -> None:
    with pytest.raises(ValueError, match="finite number of dB, got inf"):
        gain(np.zeros(3, np.float32), float("inf"))
