"""Turns on frames, chunks, median filters, choices of settings: by hand, and against s3prl and scipy."""

import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mynah.tasks.core.activities import (
    best_setting,
    frame_error,
    lowest_setting,
    mark,
)
from mynah.tasks.core.turns import (
    Grid,
    Setting,
    cut,
    labels,
    smooth,
    to_hundredths,
    to_turns,
)
from mynah.tasks.corpora.utterance import Interval, Utterance
from mynah.tasks.metrics.diarization import errors
from mynah.tasks.metrics.rttm import Turn

GRID = Grid(160, 16000)


def recording(seconds: float, *turns: tuple[str, float, float], name: str = "r") -> Utterance:
    return Utterance(
        id=name, path="/nowhere.wav", start=2.0, duration=seconds, sample_rate=16000,
        intervals={"speakers": tuple(Interval(*turn) for turn in turns)},
    )  # fmt: skip


def test_labels_by_hand() -> None:
    one = recording(0.06, ("b", 0.0, 0.014), ("a", 0.016, 0.04), ("b", 0.05, 0.07))
    assert labels(one, 3, GRID).astype(int).tolist() == [
        [0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]]  # fmt: skip
    with pytest.raises(ValueError, match="r has 2 speakers, the labels 1"):
        labels(one, 1, GRID)


def test_grid_rounds_halves_to_even_as_numpy_does() -> None:
    grid = Grid(320, 16000)
    for n in range(500):
        assert grid.frame(n / 100) == int(np.rint(n / 100 * 16000 / 320))
    assert grid.shift == 0.02
    assert grid.whole(0.059) == 2
    assert grid.whole(0.06) == 3
    assert grid.whole(0.001) == 1


def kaldi(folder: Path, recordings: list[Utterance]) -> None:
    """Write what s3prl reads."""
    lines: dict[str, list[str]] = {n: [] for n in ("wav.scp", "segments", "utt2spk", "reco2dur")}
    spoken: dict[str, list[str]] = {}
    for u in recordings:
        wav = folder / f"{u.id}.wav"
        soundfile.write(wav, np.zeros(round(u.duration * 16000), np.int16), 16000)
        lines["wav.scp"].append(f"{u.id} {wav}")
        lines["reco2dur"].append(f"{u.id} {u.duration!r}")
        for i, turn in enumerate(u.intervals["speakers"]):
            name = f"{u.id}-{i}"
            lines["segments"].append(f"{name} {u.id} {turn.start!r} {turn.end!r}")
            lines["utt2spk"].append(f"{name} {turn.symbol}")
            spoken.setdefault(turn.symbol, []).append(name)
    lines["spk2utt"] = [f"{s} {' '.join(names)}" for s, names in spoken.items()]
    for file, rows in lines.items():
        (folder / file).write_text("".join(f"{row}\n" for row in rows))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files left open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("stride", [160, 320])
def test_chunks_and_their_labels_are_s3prls(tmp_path: Path, stride: int) -> None:
    from s3prl.downstream.diarization.dataset import DiarizationDataset

    rng = random.Random(0)
    recordings = []
    for r in range(6):
        seconds = rng.randint(30, 250) / 100
        turns = []
        for _ in range(5):
            start = rng.randint(0, round(100 * seconds) - 10)
            end = rng.randint(start + 5, round(100 * seconds))
            turns.append((rng.choice("ab"), start / 100, end / 100))
        turns += [("a", 0.0, 0.05), ("b", 0.05, 0.1)]
        recordings.append(recording(seconds, *turns, name=f"r{r}"))
    kaldi(tmp_path, recordings)
    theirs = DiarizationDataset(
        "train", tmp_path, chunk_size=20, frame_shift=stride, num_speakers=2
    )
    grid = Grid(stride, 16000)
    ours = [c for u in recordings for c in cut(u, grid, 20, even=False, hole=True)]
    assert len(ours) == len(theirs) > 12
    for chunk, (wav, wanted) in zip(ours, theirs, strict=True):
        got = labels(chunk, 2, grid)
        assert got.shape == wanted.shape
        assert sorted(got.T.tolist()) == sorted(wanted.astype(bool).T.tolist())
        if "@" in chunk.id:
            assert round(chunk.duration * 16000) == len(wav)
    whole = [c for u in recordings for c in cut(u, grid, 20, even=False, hole=False)]
    lost = [a.id for a, b in zip(ours, whole, strict=True) if a.intervals != b.intervals]
    assert lost  # the hole was there to be repeated


def test_chunks_by_hand() -> None:
    one = recording(0.05, ("a", 0.0, 0.05), ("b", 0.01, 0.02))
    full, rest = cut(one, GRID, 3, even=False, hole=False)
    assert (full.id, rest.id) == ("r@0-3", "r@3-5")
    assert (full.start, full.duration) == (2.0, 0.03)
    assert (rest.start, rest.duration) == (2.03, 0.02)
    assert rest.intervals["speakers"] == (Interval("a", 0.0, 0.02),)
    assert full.intervals["speakers"] == (Interval("a", 0.0, 0.03), Interval("b", 0.01, 0.02))
    assert cut(one, GRID, 5, even=False, hole=True) == [one]
    ids = [c.id for c in cut(one, GRID, 2, even=True, hole=False)]
    assert ids == ["r@0-1", "r@1-3", "r@3-5"]
    spanning = cut(recording(0.06, ("a", 0.0, 0.06)), GRID, 2, even=False, hole=True)
    assert [len(c.intervals["speakers"]) for c in spanning] == [1, 0, 1]


@pytest.mark.filterwarnings("ignore:kernel_size exceeds")
@pytest.mark.parametrize("median", [1, 3, 11, 21])
def test_smoothing_is_scipys(median: int) -> None:
    from scipy.signal import medfilt

    active = np.random.RandomState(median).rand(60, 3) > 0.5
    expected = medfilt(active.astype(float), (median, 1)) > 0
    assert np.array_equal(smooth(active, median), expected)
    assert np.array_equal(smooth(active[:4], median), medfilt(active[:4].astype(float), (median, 1)) > 0)  # fmt: skip


def test_an_even_median_is_refused() -> None:
    for median in (0, 2):
        with pytest.raises(ValueError, match=f"odd number of frames, got {median}"):
            smooth(np.ones((3, 1), dtype=bool), median)


def test_turns_by_hand() -> None:
    activity = np.array([[0.9, 0.1], [0.9, 0.6], [0.2, 0.6], [0.9, 0.6]], np.float32)
    assert to_turns(activity, Setting(0.5, 1), GRID) == [
        Turn(0.0, 0.02, "speaker1"),
        Turn(0.01, 0.03, "speaker2"),
        Turn(0.03, 0.01, "speaker1"),
    ]
    assert to_turns(activity, Setting(0.5, 3), GRID) == [
        Turn(0.0, 0.03, "speaker1"),
        Turn(0.01, 0.03, "speaker2"),
    ]
    assert to_turns(activity, Setting(0.9, 1), GRID) == []  # above, not at


def test_labels_and_back() -> None:
    one = recording(1.0, ("a", 0.1, 0.5), ("b", 0.4, 0.9))
    back = to_turns(labels(one, 2, GRID).astype(np.float32), Setting(0.5, 1), GRID)
    assert [(round(t.start, 9), round(t.end, 9), t.speaker) for t in back] == [
        (0.1, 0.5, "speaker1"), (0.4, 0.9, "speaker2")]  # fmt: skip


def test_times_to_hundredths() -> None:
    assert to_hundredths([Turn(0.016, 0.048, "a"), Turn(0.1, 0.004, "b")]) == [
        Turn(0.02, 0.05, "a")
    ]


def activities(seed: int, count: int = 5) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return noisy activities of random talk, outputs in a random order."""
    rng = np.random.RandomState(seed)
    given, truth = [], []
    for _ in range(count):
        talks = smooth(rng.rand(int(rng.randint(40, 90)), 2) > 0.5, 9)
        shown = talks[:, :: rng.choice([-1, 1])]
        noisy = 0.25 + 0.3 * shown + 0.3 * rng.rand(*talks.shape)
        truth.append(talks)
        given.append(noisy.astype(np.float32))
    return given, truth


@pytest.mark.parametrize("seed", range(4))
def test_the_best_setting_has_the_lowest_error_of_all(seed: int) -> None:
    given, truth = activities(seed)
    settings = [Setting(t, m) for t in (0.3, 0.4, 0.5, 0.6, 0.7) for m in (1, 3, 7)]
    turns = [to_turns(t.astype(np.float32), Setting(0.5, 1), GRID) for t in truth]

    def wrong(setting: Setting) -> float:
        said = [to_turns(a, setting, GRID) for a in given]
        return sum(sum(errors(t, s)[:3]) for t, s in zip(turns, said, strict=True))

    totals = {s: round(wrong(s), 9) for s in settings}
    assert len(set(totals.values())) > 5
    assert totals[best_setting(given, truth, settings)] == min(totals.values())
    assert totals[lowest_setting(given, turns, settings, GRID)] == min(totals.values())


def test_between_equal_settings_the_plainest_is_taken() -> None:
    talks = np.array([[1], [1], [1], [1], [0], [0], [0], [0]], dtype=bool)
    settings = [Setting(t, m) for m in (3, 1) for t in (0.3, 0.5, 0.7)]
    assert best_setting([talks.astype(np.float32)], [talks], settings) == Setting(0.5, 1)


@pytest.mark.parametrize("seed", range(4))
def test_frame_error_is_s3prls_accuracy(seed: int) -> None:
    from s3prl.downstream.diarization.utils import (
        calc_diarization_error,
        get_label_perm,
        pit_loss,
    )

    (activity,), (talks,) = activities(seed, 1)
    logits = torch.from_numpy(activity).logit()[None]
    label, length = torch.from_numpy(talks).float()[None], torch.tensor([len(talks)])
    _, index, orders = pit_loss(logits, label, length)
    counted = calc_diarization_error(logits, get_label_perm(label, index, orders), length)
    assert frame_error(activity, talks) == pytest.approx(1 - counted[0] / counted[1])


def test_frame_error_where_nobody_speaks() -> None:
    assert frame_error(np.zeros((4, 2), np.float32), np.zeros((4, 2), dtype=bool)) == 1.0


def test_an_update_changes_the_mark_of_a_head() -> None:
    from mynah.downstream.core.featurizer import Featurizer, Probe
    from mynah.downstream.diarizer import Diarizer

    torch.manual_seed(0)
    probe = Probe(Featurizer(2), Diarizer(3, hidden=4))
    before = mark(probe)
    assert mark(probe) == before
    with torch.no_grad():
        probe.get_submodule("head").classifier.bias.add_(1e-7)  # type: ignore[union-attr,operator]
    assert mark(probe) != before
