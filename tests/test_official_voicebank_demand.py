"""VoiceBank-DEMAND: noisy and clean pairs, dev by speaker."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, read, sound

from mynah.tasks.corpora.utterance import Utterance

NAMES = {
    "trainset_28spk": ["p226_001", "p227_001", "p227_002", "p287_003"],
    "testset": ["p232_001"],
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    home = tmp_path / "noisy-vctk-16k"
    for part, names in NAMES.items():
        for name in names:
            for seed, kind in enumerate(("noisy", "clean")):
                sound(home / f"{kind}_{part}_wav_16k/{name}.wav", seed=seed)
            lines(home / f"{part}_txt/{name}.txt", "Please call  Stella.")
    return home


def test_what_is_read(source: Path) -> None:
    got = read("voicebank_demand", source)
    assert got.messages == []
    assert got.of("train") == ["p227_001", "p227_002"]
    assert (got.of("dev"), got.of("test")) == (["p226_001", "p287_003"], ["p232_001"])
    assert got.by_id["p226_001"] == Utterance(
        id="p226_001", path=str(source / "noisy_trainset_28spk_wav_16k/p226_001.wav"), start=0.0,
        duration=0.1, sample_rate=16000, speaker="p226", text="Please call Stella.", split="dev",
        labels={"clean": str(source / "clean_trainset_28spk_wav_16k/p226_001.wav")},
    )  # fmt: skip


def test_the_published_files_at_48_khz_and_without_texts(tmp_path: Path) -> None:
    for part, names in NAMES.items():
        for name in names:
            for kind in ("noisy", "clean"):
                sound(tmp_path / f"{kind}_{part}_wav/{name}.wav", rate=48000)
    got = read("voicebank_demand", tmp_path)
    assert got.messages == []
    assert got.by_id["p232_001"].sample_rate == 48000
    assert got.by_id["p232_001"].text is None


def test_a_relative_source(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    got = read("voicebank_demand", Path(source.name))
    assert got.messages == []
    assert got.by_id["p232_001"].path == str(source / "noisy_testset_wav_16k/p232_001.wav")
    assert got.by_id["p232_001"].labels["clean"] == str(
        source / "clean_testset_wav_16k/p232_001.wav"
    )


def test_faults(source: Path) -> None:
    (source / "clean_trainset_28spk_wav_16k/p227_001.wav").unlink()
    (source / "noisy_trainset_28spk_wav_16k/p287_003.wav").unlink()
    sound(source / "clean_trainset_28spk_wav_16k/p227_002.wav", 0.05)
    for kind in ("noisy", "clean"):
        sound(source / f"{kind}_testset_wav_16k/speech.wav")
    (source / "testset_txt/p232_001.txt").write_bytes(b"\xff")
    got = read("voicebank_demand", source)
    shown = "\n".join(got.messages)
    assert "clean_trainset_28spk_wav_16k/p227_001.wav': cannot be opened" in shown
    assert (
        "noisy_trainset_28spk_wav_16k/p227_002.wav: error: clean has 16000 Hz, 800 samples" in shown
    )
    assert (
        "clean_trainset_28spk_wav_16k/p287_003.wav: error: noisy_trainset_28spk_wav_16k lacks this "
        "file"
    ) in got.messages
    assert (
        "noisy_testset_wav_16k/speech.wav: error: wanted a name SPEAKER_NUMBER.wav, got 'speech.wav'"
    ) in got.messages
    assert "p232_001.txt is not UTF-8" in shown
    assert list(got.by_id) == ["p226_001"]
    assert got.problems.skipped.keys() == {
        "p227_001", "p227_002", "p232_001", "p287_003", "speech",
    }  # fmt: skip


def test_what_is_missing_is_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "clean_testset_wav_16k").rename(source / "clean")
    assert prepare("voicebank_demand", source, source / "out") == 2
    shown = capsys.readouterr().err
    assert "missing: clean_testset_wav_16k/ or clean_testset_wav/. It comes from" in shown
