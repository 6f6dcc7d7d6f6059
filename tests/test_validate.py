"""Validation: rows held against their audio, the same from one thread and from many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mynah.tasks.corpora.rows import Problems, Row, text_lines
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.corpora.validate import validate


@pytest.fixture
def wav(tmp_path: Path) -> str:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.sin(np.arange(16000) / 9) * 0.3, 16000)
    return str(path)


def judge(*rows: Row, **options: object) -> tuple[list[Utterance], list[str], Problems]:
    problems = Problems()
    utterances = validate(rows, problems, **options)  # type: ignore[arg-type]
    return utterances, [str(p) for p in problems.found], problems


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"declared_seconds": 1.1, "tolerance": 0.05}, "1.0000 s, but 1.1 s are declared"),
        ({"declared_seconds": float("nan")}, "1.0000 s, but nan s are declared"),
        ({"declared_rate": 8000}, "16000 Hz, but 8000 are declared"),
        ({"channel": 1}, "no channel 1, it has 1 from 0 on"),
        ({"channel": -1}, "no channel -1"),
        ({"start": -0.5}, "starts before the file, at -0.5 s"),
        ({"start": 1.0}, "the segment 1.0-None s leaves the file, which lasts 1.000 s"),
        ({"start": 0.2, "end": 1.011}, "the segment 0.2-1.011 s leaves the file"),
        ({"start": 0.5, "end": 0.5}, "holds no sample"),
        ({"start": 0.5, "end": 0.4}, "holds no sample"),
        ({"path": "/nowhere/a.wav"}, "'/nowhere/a.wav': cannot be opened"),
    ],
)
def test_faults(wav: str, facts: dict[str, object], message: str) -> None:
    row = Row(**{"id": "u", "where": "m.tsv:7", "path": wav, **facts})  # type: ignore[arg-type]
    utterances, found, problems = judge(row)
    assert utterances == []
    assert len(found) == 1
    assert found[0].startswith("m.tsv:7: error: ")
    assert message in found[0]
    assert problems.bad_fraction == 1


def test_duplicates_cost_both(wav: str) -> None:
    rows = [Row(id=i, where=f"m:{n}", path=wav) for n, i in enumerate("aba", 1)]
    utterances, found, problems = judge(*rows)
    assert [u.id for u in utterances] == ["b"]
    assert found == ["m:3: error: id 'a' is there twice, first at m:1"]
    assert problems.bad_fraction == 0.5


def test_decoding_finds_what_headers_hide(tmp_path: Path) -> None:
    wavs = {"good": np.full(800, 0.1), "nan": np.full(800, np.nan), "loud": np.full(800, 3.0)}
    wavs["silent"] = np.zeros(800)
    for name, wav in wavs.items():
        soundfile.write(tmp_path / f"{name}.wav", wav, 16000, subtype="FLOAT")
    rows = [Row(id=n, where=n, path=str(tmp_path / f"{n}.wav")) for n in wavs]
    quick, found, _ = judge(*rows, decode=False)
    assert (len(quick), found) == (4, [])
    utterances, found, problems = judge(*rows, jobs=3)
    assert [u.id for u in utterances] == ["good", "loud", "silent"]
    assert problems.skipped.keys() == {"nan"}
    assert [p.where for p in problems.warnings] == ["loud", "silent"]
    assert judge(*rows, jobs=1)[:2] == (utterances, found)


def test_what_the_importer_refused_stays_out(wav: str) -> None:
    problems = Problems()
    problems.error("text:3", "not UTF-8", "a")
    rows = [Row(id=i, where=f"wav.scp:{i}", path=wav) for i in "ab"]
    assert [u.id for u in validate(rows, problems)] == ["b"]
    assert problems.skipped == {"a": "text:3: not UTF-8"}


def test_lines(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbfa 1\r\n\n  \nb \xff\nc\0 3\nd\x0b\xe2\x80\xa8 4")
    problems = Problems()
    lines = list(text_lines(tmp_path / "f", problems))
    assert lines == [("f:1", "a 1"), ("f:6", "d\x0b\u2028 4")]
    assert [(p.where, p.level, p.ids) for p in problems.found] == [
        ("f:1", "warning", ()),
        ("f:4", "error", ("b",)),
        ("f:5", "error", ("c\\x00",)),
        ("f:1", "warning", ()),
    ]
