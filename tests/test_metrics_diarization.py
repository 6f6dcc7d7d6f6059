"""DER: by hand, against pyannote.metrics, against a brute force on a grid, and RTTM files."""

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mynah.tasks.metrics.bootstrap import bootstrap
from mynah.tasks.metrics.diarization import (
    Errors,
    decode,
    der,
    der_parts,
    encode,
    errors,
)
from mynah.tasks.metrics.rttm import Turn, read_rttm, write_rttm

Turns = Sequence[Turn]


def turns(*parts: tuple[float, float, str]) -> tuple[Turn, ...]:
    """Return turns of (start, end, speaker)."""
    return tuple(Turn(start, end - start, speaker) for start, end, speaker in parts)


def near(found: Errors, miss: float, false_alarm: float, confusion: float, total: float) -> None:
    assert tuple(found) == pytest.approx((miss, false_alarm, confusion, total), abs=1e-9)


def random_turns(rng: np.random.Generator, names: str, *, step: float = 0.0) -> tuple[Turn, ...]:
    """Return turns of some speakers that overlap each other but not themselves."""
    found = []
    for name in names[: rng.integers(0, len(names) + 1)]:
        edges = np.sort(rng.uniform(0, 20, 2 * rng.integers(1, 5)))
        if step:
            edges = np.unique(np.round(edges / step)) * step
        edges = edges[: len(edges) // 2 * 2]
        found += [Turn(a, b - a, name) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return tuple(found)


def recordings(count: int, *, step: float = 0.0) -> list[tuple[tuple[Turn, ...], tuple[Turn, ...]]]:
    rng = np.random.default_rng(0)
    return [
        (random_turns(rng, "ABCD", step=step), random_turns(rng, "wxyz", step=step))
        for _ in range(count)
    ]


def brute_force(reference: Turns, hypothesis: Turns, *, collar: float, step: float) -> list[Errors]:
    """Return the errors counted on a grid, of each of the best assignments."""
    frames = round(30 / step)
    middle = (np.arange(frames) + 0.5) * step

    def grid(side: Turns) -> np.ndarray:
        names = sorted({turn.speaker for turn in side})
        table = np.zeros((len(names), frames), dtype=bool)
        for turn in side:
            table[names.index(turn.speaker)] |= (middle > turn.start) & (middle < turn.end)
        return table

    ref, hyp = grid(reference), grid(hypothesis)
    scored = np.ones(frames, dtype=bool)
    for turn in reference:
        for edge in (turn.start, turn.end):
            scored &= np.abs(middle - edge) > collar
    counterparts = max(len(ref), len(hyp))  # silence for those who have none
    padded = np.concatenate([hyp, np.zeros((counterparts - len(hyp), frames), dtype=bool)])
    ways = itertools.permutations(range(counterparts), len(ref))
    rights = [ref & padded[list(way)] for way in ways]
    best = max(int(right.sum()) for right in rights)
    found = []
    for right in rights:
        if right.sum() == best:
            r, h, c = (side[:, scored].sum(axis=0) for side in (ref, hyp, right))
            parts = np.maximum(r - h, 0), np.maximum(h - r, 0), np.minimum(r, h) - c, r
            found.append(Errors(*(float(part.sum() * step) for part in parts)))
    return found


def test_by_hand() -> None:
    reference = turns((0, 10, "a"), (10, 20, "b"))
    near(errors(reference, turns((0, 10, "1"), (10, 20, "2"))), 0, 0, 0, 20)
    # b is said to begin 2 s late and to go on for 1 s: 2 s are given to a's counterpart
    near(errors(reference, turns((0, 12, "1"), (12, 21, "2"))), 0, 1, 2, 20)
    # nothing after 15 s, and nobody else found: b has no counterpart
    near(errors(reference, turns((0, 15, "1"))), 5, 0, 5, 20)
    # a third speaker in the hypothesis has no counterpart
    near(errors(reference, turns((0, 10, "1"), (10, 13, "3"), (13, 20, "2"))), 0, 0, 3, 20)


def test_overlaps_are_scored_by_hand() -> None:
    reference = turns((0, 10, "a"), (6, 16, "b"))  # both from 6 to 10
    near(errors(reference, turns((0, 10, "1"), (10, 16, "2"))), 4, 0, 0, 20)
    near(errors(reference, turns((0, 16, "1"), (0, 16, "2"))), 0, 12, 0, 20)
    # three at once where two talk
    near(errors(reference, turns((0, 10, "1"), (6, 16, "2"), (6, 10, "3"))), 0, 4, 0, 20)


def test_the_best_mapping_is_global() -> None:
    """Taking the longest overlap first would pair a with 1 and leave b nothing."""
    reference = turns((0, 10, "a"), (10, 16, "b"))
    hypothesis = turns((0, 6, "1"), (6, 10, "2"), (10, 15, "1"))
    # a-1 is 6 s and b-2 is 0; a-2 and b-1 are 4 + 5
    near(errors(reference, hypothesis), 1, 0, 6, 16)


def test_collar_by_hand() -> None:
    reference, hypothesis = turns((1, 5, "a")), turns((0.9, 5.5, "1"))
    near(errors(reference, hypothesis), 0, 0.6, 0, 4)
    # unscored: 0.75 to 1.25 and 4.75 to 5.25
    near(errors(reference, hypothesis, collar=0.25), 0, 0.25, 0, 3.5)
    # joined turns of one speaker have no boundary between them
    joined = turns((1, 3, "a"), (3, 5, "a"))
    assert errors(joined, hypothesis, collar=0.25) == errors(reference, hypothesis, collar=0.25)
    # a collar does not change who is whose counterpart: found over all time
    reference = turns((0, 1, "a"), (1, 1.8, "b"))
    hypothesis = turns((0, 0.55, "1"), (0.55, 0.7, "2"), (1, 1.8, "2"))
    near(errors(reference, hypothesis, collar=0.4), 0, 0, 0.05, 0.2)


def test_silence() -> None:
    speech = turns((1, 3, "a"))
    near(errors((), ()), 0, 0, 0, 0)
    near(errors((), speech), 0, 2, 0, 0)
    near(errors(speech, ()), 2, 0, 0, 2)
    near(errors((), speech, collar=0.25), 0, 2, 0, 0)
    empty, said = encode(()), encode(speech)
    assert (empty, said) == ("", "1 2 a")
    # a false alarm in a silent recording counts in the corpus
    assert der().score([empty, said], [said, said]) == pytest.approx(2 / 2)
    assert der().score([empty, said], [empty, said]) == 0
    for hypothesis in (empty, said):
        with pytest.raises(ValueError, match="der is not defined"):
            der().score([empty], [hypothesis])


def test_turns_of_one_speaker_are_joined() -> None:
    apart = turns((0, 4, "a"), (3, 6, "a"), (6, 8, "a"))
    near(errors(apart, turns((0, 8, "1"))), 0, 0, 0, 8)
    near(errors(turns((0, 8, "a")), apart), 0, 0, 0, 8)


@pytest.mark.parametrize("collar", [0.0, 0.25])
def test_equals_brute_force(collar: float) -> None:
    pairs = recordings(200, step=0.05)
    assert sum(bool(ref) and bool(hyp) for ref, hyp in pairs) > 100
    for index, (reference, hypothesis) in enumerate(pairs):
        found = tuple(errors(reference, hypothesis, collar=collar))
        slow = brute_force(reference, hypothesis, collar=collar, step=0.05)
        assert any(found == pytest.approx(tuple(way), abs=1e-6) for way in slow), index
        assert collar or max(slow) == pytest.approx(min(slow))  # then all of the best are equal


def test_equals_pyannote() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        core = pytest.importorskip("pyannote.core")
        diarization = pytest.importorskip("pyannote.metrics.diarization")

    def annotation(side: Turns) -> object:
        found = core.Annotation()
        for index, turn in enumerate(side):
            found[core.Segment(turn.start, turn.end), index] = turn.speaker
        return found

    theirs = diarization.DiarizationErrorRate(collar=0.0, skip_overlap=False)
    pairs = recordings(250)
    for index, (reference, hypothesis) in enumerate(pairs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has no evaluation map, and says so
            parts = theirs(annotation(reference), annotation(hypothesis), detailed=True)
        expected = [parts[key] for key in ("missed detection", "false alarm", "confusion", "total")]
        assert tuple(errors(reference, hypothesis)) == pytest.approx(expected, abs=1e-6), index
    refs, hyps = ([encode(pair[side]) for pair in pairs] for side in (0, 1))
    assert der().score(refs, hyps) == pytest.approx(abs(theirs))
    assert 0.5 < abs(theirs) < 1.5


def test_parts_add_up_and_can_be_resampled() -> None:
    pairs = recordings(40)
    refs, hyps = ([encode(pair[side]) for pair in pairs] for side in (0, 1))
    parts = der_parts()
    assert [part.name for part in parts] == ["miss", "false_alarm", "confusion"]
    assert sum(part.score(refs, hyps) for part in parts) == pytest.approx(der().score(refs, hyps))
    units = [f"r{i}" for i in range(40)]
    found = bootstrap(der(), refs, hyps, units, unit="recording", resamples=50)
    assert found.low < found.value < found.high
    assert found.signature == "der|collar:0.00|overlap:yes|v1|ci:recording-bootstrap-50"
    assert der(collar=0.25).signature == "der|collar:0.25|overlap:yes|v1"
    assert len({der(collar=c).signature for c in (0, 0.25, 0.251)}) == 3
    assert not der().higher_is_better


def test_text_is_reversible() -> None:
    for reference, _ in recordings(50):
        assert decode(encode(reference)) == reference
    odd = (Turn(0.1 + 0.2, 1e-9, "a:b,c"), Turn(123456789.125, 1e6, "é"))
    assert decode(encode(odd)) == odd
    assert encode(odd) == "0.30000000000000004 0.000000001 a:b,c;123456789.125 1000000 é"
    assert decode(" ") == ()
    with pytest.raises(ValueError, match="expected 'start duration speaker', got '1 2'"):
        decode("0 1 a;1 2")
    with pytest.raises(ValueError, match="expected 'start duration speaker', got ''"):
        decode("0 1 a;")
    with pytest.raises(ValueError, match="duration must be a number of seconds, got 'x'"):
        decode("0 x a")


def test_bad_turns_and_collars_are_refused() -> None:
    for start, duration, message in (
        (0, 0, "a duration must be positive, got 0"),
        (0, -1, "a duration must be positive, got -1"),
        (-0.5, 1, "cannot start before 0 s, got -0.5"),
        (float("nan"), 1, "must be finite"),
        (0, float("inf"), "must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            Turn(start, duration, "a")
    for speaker in ("", "a b", "a;b"):
        with pytest.raises(ValueError, match="without white space and semicolons"):
            Turn(0, 1, speaker)
    for collar in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="a collar must be"):
            errors((), (), collar=collar)


def test_rttm_is_reversible(tmp_path: Path) -> None:
    path = tmp_path / "a.rttm"
    written = {f"rec{i}": ref for i, (ref, _) in enumerate(recordings(20)) if ref}
    write_rttm(path, written)
    found = read_rttm(path)
    assert found.keys() == written.keys()
    for name, reference in written.items():
        assert sorted(found[name], key=str) == sorted(reference, key=str)
        assert [turn.start for turn in found[name]] == sorted(turn.start for turn in reference)
    first = path.read_text().splitlines()[0].split()
    assert len(first) == 10
    assert first[0] == "SPEAKER"
    for name in ("", "a b", ";;a"):
        with pytest.raises(ValueError, match="name of a recording"):
            write_rttm(path, {name: ()})


def test_rttm_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "a.rttm"
    path.write_text(
        ";; nine fields as s3prl writes, ten as Kaldi does\n\n"
        "SPEAKER rec 1    1.50    0.25 <NA> <NA> rec_1 <NA>\n"
        "SPEAKER rec 1 0.00 2.00 <NA> <NA> rec_0 <NA> <NA>\n"
    )
    expected = (Turn(0, 2, "rec_0"), Turn(1.5, 0.25, "rec_1"))
    assert read_rttm(path) == {"rec": expected}
    assert read_rttm(path, lengths={"rec": 2, "silent": 5}) == {"rec": expected, "silent": ()}
    assert read_rttm(path, lengths={"rec": 1.996}, tolerance=0.005) == {"rec": expected}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("SPEAKER rec 1 0 -1 <NA> <NA> a <NA> <NA>", "a duration must be positive, got -1"),
        ("SPEAKER rec 1 0 0 <NA> <NA> a <NA> <NA>", "a duration must be positive, got 0"),
        ("SPEAKER rec 1 -1 2 <NA> <NA> a <NA> <NA>", "cannot start before 0 s"),
        ("SPEAKER rec 1 0 x <NA> <NA> a <NA> <NA>", "duration must be a number.* got 'x'"),
        ("SPEAKER rec 1 nan 1 <NA> <NA> a <NA> <NA>", "must be finite"),
        ("SPEAKER rec 1 0 1 <NA> <NA> a", "expected 9 or 10 fields, got 8"),
        ("SPEAKER rec 1 0 1 <NA> <NA> a b <NA> <NA>", "expected 9 or 10 fields, got 11"),
        ("NOSCORE rec 1 0 1 <NA> <NA> a <NA> <NA>", "expected a SPEAKER line, got 'NOSCORE'"),
        ("SPEAKER rec 1 9 1.5 <NA> <NA> a <NA> <NA>", "ends at 10.5 s, after the end of 'rec' at 10"),
        ("SPEAKER new 1 0 1 <NA> <NA> a <NA> <NA>", "'new' is not one of the 1 known recordings"),
        ("SPEAKER rec 2 0 1 <NA> <NA> a <NA> <NA>", "turns on channels 1 and 2"),
    ],
)  # fmt: skip
def test_bad_rttm_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.rttm"
    path.write_text(f"SPEAKER rec 1 0 1 <NA> <NA> a <NA> <NA>\n\n{line}\n")
    with pytest.raises(ValueError, match=f"bad.rttm, line 3: .*{message}"):
        read_rttm(path, lengths={"rec": 10})
