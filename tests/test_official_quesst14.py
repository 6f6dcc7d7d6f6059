"""QUESST 2014: the subset in non-native English, and the documents that hold a query."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, read, sound

from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.utterance import Utterance


def truth(document: str, query: str) -> str:
    return f"LEXEME {document} 1 0.00 1.00 {query} lex unknown 0.5 <NA>"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four documents, one of them in another language; two queries to each part."""
    home = tmp_path / "quesst14Database"
    docs = [f"quesst14_0000{i}" for i in range(1, 5)]
    for name in docs:
        sound(home / "Audio" / f"{name}.wav", rate=8000)
    lines(
        home / "scoring/language_key_utterances.lst",
        *(f"quesst14Database/Audio/{name}.wav nnenglish" for name in docs[:3]),
        f"quesst14Database/Audio/{docs[3]}.wav albanian",
    )
    for part in ("dev", "eval"):
        names = [f"quesst14_{part}_000{i}" for i in (1, 2)]
        for name in names:
            sound(home / f"{part}_queries/{name}.wav", rate=8000)
        lines(
            home / f"scoring/language_key_{part}.lst",
            f"quesst14Database/{part}_queries/{names[0]}.wav nnenglish",
            f"quesst14Database/{part}_queries/{names[1]}.wav czech",
        )
        lines(
            home / f"scoring/groundtruth_quesst14_{part}/quesst14_{part}.rttm",
            "SPKR-INFO quesst14_00001 1 <NA> <NA> <NA> unknown speaker <NA>",
            truth(docs[2], names[0]),
            truth(docs[0], names[0]),
            truth(docs[0], names[0]),
            truth(docs[3], names[0]),  # of another language: not among the documents
            truth(docs[1], "NO_KEYWORD"),
        )
    return home


def test_what_is_read(source: Path) -> None:
    got = read("quesst14", source)
    assert got.messages == []
    assert got.of("docs") == ["quesst14_00001", "quesst14_00002", "quesst14_00003"]
    assert (got.of("dev"), got.of("test")) == (["quesst14_dev_0001"], ["quesst14_eval_0001"])
    assert got.found.left_out == {"language albanian": 1, "language czech": 2}
    assert got.by_id["quesst14_dev_0001"] == Utterance(
        id="quesst14_dev_0001", path=str(source / "dev_queries/quesst14_dev_0001.wav"), start=0.0,
        duration=0.1, sample_rate=8000, split="dev",
        labels={"subset": "queries", "language": "nnenglish",
                "documents": "quesst14_00001 quesst14_00003"},
    )  # fmt: skip
    assert got.by_id["quesst14_00001"].labels == {"subset": "documents", "language": "nnenglish"}


def test_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("quesst14", source, tmp_path / "out") == 0
    shown = capsys.readouterr()
    assert "all: 5, published 2714; docs: 3, published 2438 (recalled)" in shown.err
    assert "left out: 2 (language czech)" in shown.out
    assert Corpus.open(tmp_path / "out").splits == ("dev", "docs", "test")


def test_faults(source: Path) -> None:
    (source / "Audio/quesst14_00002.wav").unlink()
    with (source / "scoring/language_key_dev.lst").open("a") as file:
        file.write("quesst14_dev_0003.wav\n")
        file.write("quesst14Database/dev_queries/quesst14_dev_0001.wav nnenglish\n")
    with (source / "scoring/groundtruth_quesst14_eval/quesst14_eval.rttm").open("a") as file:
        file.write(truth("quesst14_00001", "quesst14_eval_0009") + "\n")
        file.write(truth("quesst14_99999", "quesst14_eval_0001") + "\n")
        file.write("LEXEME quesst14_00001 1 0\n")
    got = read("quesst14", source)
    for message in (
        "language_key_dev.lst:3: error: wanted quesst14Database/PATH and a language, got "
        "'quesst14_dev_0003.wav'",
        "language_key_dev.lst:4: error: 'quesst14_dev_0001' is there twice, first at "
        "language_key_dev.lst:1",
        "quesst14_eval.rttm:7: error: no list names the query 'quesst14_eval_0009'",
        "quesst14_eval.rttm:8: error: no list names the document 'quesst14_99999'",
        "quesst14_eval.rttm:9: error: wanted LEXEME, document, 1, start, seconds, query, got "
        "'LEXEME quesst14_00001 1 0'",
    ):
        assert message in got.messages, got.messages
    assert [m for m in got.messages if "quesst14_00002.wav': cannot be opened" in m]
    assert list(got.by_id) == ["quesst14_00001", "quesst14_00003", "quesst14_eval_0001"]


def test_documents_that_cannot_be_used_are_taken_out_of_queries(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "Audio/quesst14_00003.wav").unlink()
    assert prepare("quesst14", source, tmp_path / "out", "--max-bad", "0.3") == 0
    lost = "documents that hold it cannot be used: quesst14_00003"
    assert f"quesst14_dev_0001: warning: {lost}" in capsys.readouterr().err
    holding = {u.id: u.label("documents") for u in Corpus.open(tmp_path / "out").utterances()}
    assert holding == {
        "quesst14_00001": None, "quesst14_00002": None,
        "quesst14_dev_0001": "quesst14_00001", "quesst14_eval_0001": "quesst14_00001",
    }  # fmt: skip


def test_a_query_that_nothing_holds(source: Path) -> None:
    lines(
        source / "scoring/groundtruth_quesst14_dev/quesst14_dev.rttm",
        truth("quesst14_00001", "NO_KEYWORD"),
    )
    got = read("quesst14", source)
    assert got.messages == [
        "language_key_dev.lst:1: warning: no document in nnenglish holds 'quesst14_dev_0001'"
    ]
    assert "documents" not in got.by_id["quesst14_dev_0001"].labels


def test_missing_ground_truth_is_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "scoring/groundtruth_quesst14_dev/quesst14_dev.rttm").unlink()
    assert prepare("quesst14", source, source / "out") == 2
    shown = capsys.readouterr().err
    assert "missing: scoring/groundtruth_quesst14_dev/quesst14_dev.rttm. It comes from" in shown
