"""``mynah prepare tsv``: columns, faults, headers, timed labels, what is counted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from preparing import edit, run, write_words

from mynah.tasks.corpora import tsv
from mynah.tasks.corpora.audio import num_samples, read
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.rows import Problems
from mynah.tasks.corpora.utterance import Utterance


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_words(tmp_path / "words")


def test_tsv(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tsv", source, tmp_path / "out", "--rename", "official=part") == 0
    corpus = Corpus.open(tmp_path / "out")
    assert (corpus.name, len(corpus), corpus.splits) == ("words", 12, ())
    first = corpus.utterances()[0]
    assert first == Utterance(
        id="ann-no", path=str(source / "audio/ann/no.flac"), start=0.0, duration=0.5125,
        sample_rate=8000, speaker="ann", text="NO", labels={"keyword": "no", "part": "train"},
    )  # fmt: skip
    assert len(read(first)) == num_samples(first) == 8200
    shown = capsys.readouterr().out
    for text in ("12 utterances", "4 speakers", "keyword (3 values)", "skipped: 0"):
        assert text in shown


def test_a_tsv_without_ids_and_with_segments(source: Path) -> None:
    (source / "m.tsv").write_text(
        "path\tstart\tduration\tend\tchannel\n"
        "audio/ann/no.flac\t\t\t\t\n"
        "audio/bob/no.flac\t0.1\t0.2\t\t0\n"
        "audio/dan/no.flac\t0.1\t\t0.5\t\n"
    )
    problems = Problems()
    rows = tsv.read(source / "m.tsv", problems)
    assert problems.found == []
    assert [r.id for r in rows] == ["audio-ann-no", "audio-bob-no", "audio-dan-no"]
    assert [(r.start, r.end, r.channel) for r in rows] == [
        (0.0, None, None), (0.1, pytest.approx(0.3), 0), (0.1, 0.5, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.500", "0.900", "manifest.tsv:2: error: .*0.5000 s, but 0.9 s are declared"),
        ("0.500", "half", "manifest.tsv:2: error: duration must be a number, got 'half'"),
        ("0.500", "inf", "manifest.tsv:2: error: duration must be finite"),
        ("0.500", "-0.5", "manifest.tsv:2: error: duration must be positive"),
        ("8000", "16000", "manifest.tsv:2: error: .*8000 Hz, but 16000 are declared"),
        ("audio/ann", "../ann", "manifest.tsv:2: error: ../ann/yes.flac leads outside"),
        ("audio/ann/yes.flac", "touch x |", "manifest.tsv:2: error: a pipe is refused"),
        ("audio/ann/yes.flac", "", "manifest.tsv:2: error: no path"),
        ("audio/ann/yes", "audio/ann/maybe", "manifest.tsv:2: error: .*cannot be opened"),
        ("ann-yes", "bob-yes", "manifest.tsv:5: error: id 'bob-yes' is there twice, first at manifest.tsv:2"),
        ("ann-yes", "ann yes", "manifest.tsv:2: error: id 'ann yes' holds white space"),
        ("\tYES", "", "manifest.tsv:2: error: 7 cells, the header has 8"),
    ],
)  # fmt: skip
def test_faults_of_a_tsv(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    message: str,
) -> None:
    import re

    edit(source, 2, old, new)
    assert run("tsv", source, tmp_path / "out") == 3
    shown = capsys.readouterr().err
    assert re.search(message, shown), shown
    assert "1 errors" in shown
    assert not (tmp_path / "out").exists()


def test_some_may_be_bad_and_are_counted(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holes = np.full(4000, np.nan)
    (source / "audio/ann/yes.flac").unlink()
    soundfile.write(source / "audio/ann/yes.wav", holes, 8000, subtype="FLOAT")
    edit(source, 2, "yes.flac", "yes.wav")
    assert run("tsv", source, tmp_path / "out", "--max-bad", "0.08") == 3  # 1 of 12 is 8.3 %
    assert "8.33 % bad, --max-bad allows 8 %" in capsys.readouterr().err
    assert run("tsv", source, tmp_path / "out", "--max-bad", "0.09") == 0
    corpus = Corpus.open(tmp_path / "out")
    assert len(corpus) == 11
    reason = corpus.skipped["ann-yes"]
    assert reason.startswith("manifest.tsv:2: ")
    assert "sample 0 is not a finite number" in reason
    assert corpus.page["validation"] == {
        "decoded": True, "seen": 12, "skipped": 1, "errors": 1, "warnings": 0, "max_bad": 0.09,
    }  # fmt: skip
    assert run("tsv", source, tmp_path / "quick", "--quick") == 0  # the header is in order
    assert Corpus.open(tmp_path / "quick").page["validation"]["decoded"] is False


def test_validate_writes_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert run("tsv", source, "--validate") == 0
    assert "12 good, 0 bad; 0 errors" in capsys.readouterr().out
    edit(source, 3, "0.512", "0.600")
    edit(source, 9, "8000", "4000")
    assert run("tsv", source, "--validate") == 3
    shown = capsys.readouterr().err
    assert "manifest.tsv:3: error" in shown
    assert "manifest.tsv:9: error" in shown
    assert sorted(tmp_path.rglob("*")) == before


def test_headers_that_are_refused(source: Path) -> None:
    manifest = source / "m.tsv"
    for text, message in (
        ("id\tfile\n", "no column `path`"),
        ("path\tpath\n", "'path' is there twice"),
        ("path\t\tx\n", "has no name"),
        ("", "is empty"),
    ):
        manifest.write_text(text)
        with pytest.raises(ValueError, match=message):
            tsv.read(manifest, Problems())
    with pytest.raises(ValueError, match="has no column 'nope'"):
        tsv.read(source, Problems(), rename={"nope": "x"})
    with pytest.raises(FileNotFoundError, match=r"manifest\.tsv does not exist"):
        tsv.read(source / "audio", Problems())


def test_timed_labels_of_a_tsv(source: Path, tmp_path: Path) -> None:
    rows = tsv.read(source, Problems())
    folder = source / "marks"
    folder.mkdir()
    (folder / f"{rows[0].id}.tsv").write_text(
        "start\tend\tlabel\n0.0\t0.1\ta\n0.1\t0.1\tb\n0.1\t0.25\tc 2\n"
    )
    assert run("tsv", source, tmp_path / "out", "--intervals", "phones=marks") == 0
    found = {u.id: u for u in Corpus.open(tmp_path / "out").utterances()}
    stretches = found[rows[0].id].intervals["phones"]
    assert [(i.symbol, round(i.start, 3), round(i.end, 3)) for i in stretches] == [
        ("a", 0.0, 0.1),
        ("c 2", 0.1, 0.25),
    ]
    assert not found[rows[1].id].intervals


def test_turns_of_speakers_may_overlap(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tsv.read(source, Problems())
    folder = source / "rttm"
    folder.mkdir()
    name = rows[0].id
    line = "SPEAKER {} 1 {} {} <NA> <NA> {} <NA> <NA>\n"
    (folder / f"{name}.rttm").write_text(
        line.format(name, 0.0, 0.2, "ann") + line.format(name, 0.1, 0.1, "bob")
    )
    assert run("tsv", source, tmp_path / "out", "--intervals", "speakers=rttm") == 0
    assert "  timed: speakers (2 values in 1)\n" in capsys.readouterr().out
    found = {u.id: u for u in Corpus.open(tmp_path / "out").utterances()}
    assert [(i.symbol, i.start, round(i.end, 6)) for i in found[name].intervals["speakers"]] == [
        ("ann", 0.0, 0.2),
        ("bob", 0.1, 0.2),
    ]
    for text, message in (
        (line.format("other", 0.0, 0.2, "ann"), f"no line of the recording '{name}'"),
        (line.format(name, "x", 0.2, "ann"), "a number of seconds"),
    ):
        (folder / f"{name}.rttm").write_text(text)
        assert run("tsv", source, tmp_path / "bad", "--intervals", "speakers=rttm") == 3
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.0\tx\ta\n", "wanted start, end and label"),
        ("0.2\t0.3\ta\n0.1\t0.2\tb\n", "must follow one another"),
        ("0.0\t0.1\t\n", "need a label"),
    ],
)
def test_bad_timed_labels_cost_their_utterance(source: Path, text: str, message: str) -> None:
    rows = tsv.read(source, Problems())
    (source / "marks").mkdir()
    (source / "marks" / f"{rows[0].id}.tsv").write_text(text)
    problems = Problems()
    left = tsv.read(source, problems, intervals={"phones": "marks"})
    assert rows[0].id not in {row.id for row in left}
    assert message in problems.errors[0].message
    with pytest.raises(FileNotFoundError, match="no folder of timed labels"):
        tsv.read(source, Problems(), intervals={"phones": "nowhere"})
