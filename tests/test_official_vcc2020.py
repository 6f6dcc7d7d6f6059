"""VCC 2020: who is target, source and reference, in both layouts."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, read, sound

from mynah.tasks.corpora.official.vcc2020 import DEV, SOURCES, TARGETS, TEST, TRAIN
from mynah.tasks.corpora.utterance import Utterance

NAMES = {"target": ["E10051", "E20001", *DEV], "source": list(TEST), "reference": list(TEST)}


def build(home: Path, folders: dict[str, str]) -> Path:
    """Write every speaker's files; ``folders``: role -> where his folder lies."""
    first = sound(home / "first.wav", 0.05, rate=24000)
    for role, names in NAMES.items():
        for speaker in SOURCES if role == "source" else TARGETS:
            for name in names:
                path = home / folders[role] / speaker / f"{name}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(first.read_bytes())
    first.unlink()
    return home


@pytest.fixture
def source(tmp_path: Path) -> Path:
    home = build(tmp_path / "vcc2020", {"target": "", "source": "", "reference": ""})
    told = [f"{name[1:]} Sentence {name[1:]}." for name in (*TRAIN, *DEV, *TEST)]
    lines(home / "prompts/Eng_transcriptions.txt", *told)
    return home


def test_what_is_read(source: Path) -> None:
    got = read("vcc2020", source)
    assert got.messages == []
    roles = Counter((u.labels["role"], u.split) for u in got.by_id.values())
    assert roles == {
        ("target", "train"): 8, ("target", "dev"): 40, ("source", "test"): 100,
        ("reference", "test"): 100,
    }  # fmt: skip
    assert got.found.left_out == {"training sentences that a target did not read": 4 * 108}
    assert got.by_id["TEF2-E20001"] == Utterance(
        id="TEF2-E20001", path=str(source / "TEF2/E20001.wav"), start=0.0, duration=0.05,
        sample_rate=24000, speaker="TEF2", text="Sentence 20001.", split="train",
        labels={"role": "target", "parallel": "E20001", "gender": "f"},
    )  # fmt: skip


def test_as_it_is_unpacked(tmp_path: Path) -> None:
    home = build(
        tmp_path,
        {
            "target": "target_task1",
            "source": "vcc2020_database_evaluation",
            "reference": "vcc2020_database_groundtruth",
        },
    )
    texts = home / "vcc2020_database_transcriptions"
    lines(
        texts / "transcriptions_training/vcc2020_database_training_Eng_transcriptions.txt",
        "10051 One.",
    )
    lines(
        texts / "transcriptions_evaluation/vcc2020_database_evaluation_transcriptions.txt",
        "30001 Two.",
    )
    got = read("vcc2020", home)
    assert len(got.by_id) == 248
    assert got.by_id["SEM1-E30001"].text == got.by_id["TEM1-E30001"].text == "Two."
    assert got.messages == [
        "transcriptions: warning: 35 sentences have no transcript, first E10061"
    ]


def test_faults(source: Path) -> None:
    (source / "SEF1/E30007.wav").unlink()
    (source / "TEM2/E10065.wav").unlink()
    for name in ("E10051", "E20001"):
        (source / f"TEF1/{name}.wav").unlink()
    (source / "TEF1/E30001.wav").write_bytes(b"no audio")
    with (source / "prompts/Eng_transcriptions.txt").open("a") as file:
        file.write("E30001 Something else.\n")
    got = read("vcc2020", source)
    for message in (
        "SEF1/E30007.wav: error: the source lacks this file",
        "TEM2/E10065.wav: error: the target lacks this file",
        "TEF1: error: no training sentence of this target is there",
        "Eng_transcriptions.txt:146: error: E30001 has another transcript already",
    ):
        assert message in got.messages, got.messages
    assert {"SEF1-E30007", "TEM2-E10065", "TEF1-E30001"} == got.problems.skipped.keys()


def test_a_missing_speaker_is_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "SEM2").rename(source / "SEM3")
    assert prepare("vcc2020", source, source / "out") == 2
    shown = capsys.readouterr().err
    assert "missing: SEM2/ or vcc2020_database_evaluation/SEM2/. It comes from" in shown
