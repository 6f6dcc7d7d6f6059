"""IEMOCAP: the raters' files, excitement as happiness, who speaks, and what is left out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, read, sound

from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.official.iemocap import PUBLISHED
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.er import EmotionRecognition


def rating(name: str, emotion: str) -> list[str]:
    return [
        f"[6.2901 - 8.2357]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]",
        "C-E2:\tNeutral;\t()",
        "A-E3:\tval 3; act 2; dom  2;\t()",
        "",
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five sessions, one dialog with both speakers, every emotion of the task and one other."""
    home = tmp_path / "IEMOCAP_full_release"
    for session in range(1, 6):
        dialog = f"Ses0{session}F_impro01"
        rows = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for number, emotion in enumerate(("neu", "hap", "exc", "ang", "sad", "fru")):
            for who in "FM":
                name = f"{dialog}_{who}{number:03d}"
                sound(home / f"Session{session}/sentences/wav/{dialog}/{name}.wav")
                rows += rating(name, emotion)
        lines(home / f"Session{session}/dialog/EmoEvaluation/{dialog}.txt", *rows)
        lines(home / f"Session{session}/dialog/EmoEvaluation/Categorical/{dialog}_e1.txt", "x")
        (home / f"Session{session}/dialog/EmoEvaluation/._{dialog}.txt").write_bytes(b"\x00\xff[")
        (home / f"Session{session}/sentences/wav/{dialog}/._{dialog}.wav").write_bytes(b"\x00")
    return home


def test_what_is_read(source: Path) -> None:
    got = read("iemocap", source)
    assert got.messages == []
    assert len(got.by_id) == 5 * 5 * 2
    assert got.found.left_out == {"emotion fru": 10}
    assert got.by_id["Ses02F_impro01_M002"] == Utterance(
        id="Ses02F_impro01_M002",
        path=str(source / "Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_M002.wav"),
        start=0.0, duration=0.1, sample_rate=16000, speaker="Ses02M",
        labels={"emotion": "hap", "session": "Session2", "gender": "m"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "speaker"),
    [("Ses03M_script01_1_F004", "Ses03F"), ("Ses03F_script02_2_MXX1", "Ses03M")],
)
def test_the_speaker_is_who_speaks(source: Path, name: str, speaker: str) -> None:
    dialog = name.rpartition("_")[0]
    sound(source / f"Session3/sentences/wav/{dialog}/{name}.wav")
    lines(source / f"Session3/dialog/EmoEvaluation/{dialog}.txt", *rating(name, "neu"))
    assert read("iemocap", source).by_id[name].speaker == speaker


def test_faults(source: Path) -> None:
    home = source / "Session1"
    audio = home / "sentences/wav/Ses01F_impro01"
    (audio / "Ses01F_impro01_F000.wav").unlink()
    sound(audio / "Ses01F_impro01_F009.wav")
    rows = [
        *rating("Ses01F_impro01_M000", "neu"),  # rated in the other file too
        *rating("Ses01F_impro01_M010", "glad"),
        *rating("Ses02F_impro01_M000", "neu"),
        "[1.0 - 2.0]\tSes01F_impro01_F011",
    ]
    lines(home / "dialog/EmoEvaluation/zzz.txt", *rows)
    got = read("iemocap", source)
    for message in (
        "Ses01F_impro01.txt:3: error: no audio Ses01F_impro01_F000.wav for this rating",
        "zzz.txt:1: error: 'Ses01F_impro01_M000' is rated twice, first at Ses01F_impro01.txt:7",
        "zzz.txt:5: error: 'glad' is no emotion of IEMOCAP",
        "zzz.txt:9: error: 'Ses02F_impro01_M000' is no utterance of Session1",
        "zzz.txt:13: error: wanted times, utterance and emotion, got "
        "'[1.0 - 2.0]\\tSes01F_impro01_F011'",
        "Session1: warning: 1 audio files are not rated, first 'Ses01F_impro01_F009'",
    ):
        assert message in got.messages, got.messages
    assert "Ses01F_impro01_M000" not in got.by_id


def test_a_missing_session_is_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "Session4").rename(source / "Session6")
    assert prepare("iemocap", source, source / "out") == 2
    shown = capsys.readouterr().err
    assert (
        "missing: Session4/dialog/EmoEvaluation/, Session4/sentences/wav/. It comes from" in shown
    )


def test_published_sizes_add_up() -> None:
    for label in ("session", "emotion"):
        assert sum(size.count for size in PUBLISHED[""] if size.label == label) == 5531


def test_the_task_takes_it(source: Path, tmp_path: Path) -> None:
    assert prepare("iemocap", source, tmp_path / "out") == 0
    data = EmotionRecognition("superb").load(Corpus.open(tmp_path / "out").utterances())
    assert len(data.folds) == 5
    assert data.classes == ("ang", "hap", "neu", "sad")
