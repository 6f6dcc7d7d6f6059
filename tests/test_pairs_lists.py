"""``mynah pairs``: lists that ``mynah convert`` and ``mynah judge vc`` read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mynah.recipes import cli, convert
from mynah.recipes.conversion_list import read_list

RATE = 16000
ROWS = [
    # id, speaker, role, sentence
    ("s1-a", "s1", "source", "a"),
    ("s1-b", "s1", "source", "b"),
    ("s2-a", "s2", "source", "a"),
    ("t1-a", "t1", "reference", "a"),
    ("t1-b", "t1", "reference", "b"),
    ("t2-b", "t2", "reference", "b"),
    ("t1-x", "t1", "target", "x"),
    ("t1-y", "t1", "target", "y"),
    ("t2-x", "t2", "target", "x"),
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    time = np.arange(RATE) / RATE
    lines = ["id\tpath\tspeaker\trole\tsentence\ttext"]
    for i, (name, speaker, role, sentence) in enumerate(ROWS):
        wave = 0.2 * np.sin(2 * np.pi * (120 + 20 * i) * time)
        soundfile.write(source / f"{name}.wav", wave, RATE)
        lines.append(f"{name}\t{name}.wav\t{speaker}\t{role}\t{sentence}\tsay {sentence}")
    (source / "manifest.tsv").write_text("\n".join(lines) + "\n")
    assert cli.main(["prepare", "tsv", str(source), str(tmp_path / "corpus"), "--jobs", "1"]) == 0
    return tmp_path / "corpus"


def pairs(corpus: Path, out: Path, *options: str) -> int:
    roles = ["--sources", "role=source", "--references", "role=reference"]
    given = [*roles, "--voices", "role=target", "--sentence", "sentence"]
    return cli.main(["pairs", str(corpus), str(out), *given, *options])


def test_every_sentence_to_every_target_who_has_it(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    assert pairs(corpus, out) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "convert-t1.tsv",
        "convert-t2.tsv",
        "judge.tsv",
    ]
    source = tmp_path / "source"
    first = convert.read_list(out / "convert-t1.tsv")
    heard = (source / "t1-x.wav", source / "t1-y.wav")
    assert first == [
        (source / f"{name}.wav", heard, out / f"converted/t1/{name}.wav")
        for name in ("s1-a", "s1-b", "s2-a")
    ]
    assert [row[0].name for row in convert.read_list(out / "convert-t2.tsv")] == ["s1-b.wav"]
    judged = {row.id: row for row in read_list(out / "judge.tsv")}
    assert list(judged) == ["t1/s1-a", "t1/s1-b", "t1/s2-a", "t2/s1-b"]
    one = judged["t2/s1-b"]
    assert (one.source, one.target, one.text) == ("s1", "t2", "say b")
    assert (one.reference, one.source_audio) == (source / "t2-b.wav", source / "s1-b.wav")


def test_what_was_converted_can_be_judged(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    assert pairs(corpus, out, "--heard", "1") == 0
    for target in ("t1", "t2"):
        listed = ["--list", str(out / f"convert-{target}.tsv")]
        assert cli.main(["convert", "--method", "copy", "--vocoder", "griffin_lim", *listed]) == 0
    scores = tmp_path / "scores.json"
    assert cli.main(["judge", "vc", str(out / "judge.tsv"), "--out", str(scores)]) == 0
    assert scores.exists()


def test_a_converter_never_hears_what_it_is_compared_with(corpus: Path, tmp_path: Path) -> None:
    assert pairs(corpus, tmp_path / "a", "--voices", "role=reference") == 3
    assert not (tmp_path / "a").exists()


def test_bad_arguments(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pairs(corpus, tmp_path / "a", "--heard", "0") == 2
    assert pairs(corpus, tmp_path / "a", "--sources", "role") == 2
    assert "must be LABEL=VALUE" in capsys.readouterr().err
    assert pairs(corpus, tmp_path / "a", "--sources", "role=talker") == 2
    assert "role is one of reference, source, target" in capsys.readouterr().err
    assert pairs(corpus, tmp_path / "a", "--sentence", "wording") == 3
    assert "lacks a speaker or the label 'wording'" in capsys.readouterr().err


def test_parts_of_files_are_refused(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wave, rate = soundfile.read(tmp_path / "source/s1-a.wav")
    soundfile.write(tmp_path / "source/s1-a.wav", np.tile(wave, 2), rate)
    assert pairs(corpus, tmp_path / "a") == 3
    assert "s1-a: lists name whole files" in capsys.readouterr().err
