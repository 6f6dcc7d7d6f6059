"""Speech Commands: twelve classes, the split by hash with its discarded band, seconds of silence."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import prepare, read, sound

from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.official import speech_commands
from mynah.tasks.corpora.official.speech_commands import PUBLISHED, percentage, split_of
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.ks import KeywordSpotting

# Speakers by the band that their hash falls in, found by trying.
TRAIN, DEV, LEFT_OUT = "00000001", "00000000", "00000002"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    home = tmp_path / "gsc"
    train, test = home / "speech_commands_v0.01", home / "speech_commands_test_set_v0.01"
    for word in ("yes", "no", "bed"):
        for speaker in (TRAIN, DEV, LEFT_OUT):
            sound(train / word / f"{speaker}_nohash_0.wav")
    sound(train / "yes" / f"{TRAIN}_nohash_1.wav")
    sound(train / "_background_noise_" / "running_tap.wav", 12.5)
    sound(train / "_background_noise_" / "pink_noise.wav", 2.0)
    (train / "_background_noise_" / "README.md").write_text("noise")
    for label in ("yes", "_unknown_"):
        sound(test / label / f"{LEFT_OUT}_nohash_0.wav")
    sound(test / "_silence_" / "0.wav")
    return home


def test_the_bands_are_those_of_the_rule() -> None:
    for speaker in [f"{i:08x}" for i in range(2000)]:
        digest = int.from_bytes(hashlib.sha1(speaker.encode()).digest(), "big") & (2**27 - 1)
        share = 100 * digest / (2**27 - 1)
        assert percentage(f"{speaker}_nohash_3.wav") == pytest.approx(share, rel=1e-12)
        wanted = "dev" if share < 10 else None if share < 20 else "train"
        assert split_of(f"{speaker}_nohash_0.wav") == wanted
    shares = [split_of(f"{i:08x}_nohash_0.wav") for i in range(2000)]
    assert shares.count("dev") / 2000 == pytest.approx(0.1, abs=0.02)
    assert shares.count(None) / 2000 == pytest.approx(0.1, abs=0.02)
    assert [split_of(f"{s}_nohash_0.wav") for s in (TRAIN, DEV, LEFT_OUT)] == ["train", "dev", None]


def test_a_name_without_a_speaker_is_hashed_whole() -> None:
    digest = int(hashlib.sha1(b"noise.wav").hexdigest(), 16) % 2**27
    assert percentage("noise.wav") == pytest.approx(digest * 100 / (2**27 - 1))


def test_what_is_read(source: Path) -> None:
    got = read("speech_commands", source)
    assert got.messages == []
    assert got.found.left_out == {"the training archive's own test part, by hash": 3}
    assert got.by_id[f"bed-{DEV}_nohash_0"] == Utterance(
        id=f"bed-{DEV}_nohash_0",
        path=str(source / f"speech_commands_v0.01/bed/{DEV}_nohash_0.wav"),
        start=0.0, duration=0.1, sample_rate=16000, speaker=DEV, split="dev",
        labels={"keyword": "_unknown_", "word": "bed"},
    )  # fmt: skip
    words = {n: u for n, u in got.by_id.items() if "recording" not in u.labels}
    assert sorted(n for n, u in words.items() if u.split == "train") == [
        f"bed-{TRAIN}_nohash_0", f"no-{TRAIN}_nohash_0", f"yes-{TRAIN}_nohash_0",
        f"yes-{TRAIN}_nohash_1",
    ]  # fmt: skip
    assert {n: u.labels["keyword"] for n, u in words.items() if u.split == "test"} == {
        f"yes-{LEFT_OUT}_nohash_0": "yes",
        f"_unknown_-{LEFT_OUT}_nohash_0": "_unknown_",
        "_silence_-0": "_silence_",
    }


def test_silence_is_seconds_of_every_recording_and_no_second_is_shared(source: Path) -> None:
    got = read("speech_commands", source)
    quiet = [u for u in got.by_id.values() if "recording" in u.labels]
    assert all(u.duration == 1.0 and u.labels["keyword"] == "_silence_" for u in quiet)
    tap = {s: [u.start for u in quiet if u.labels["recording"] == "running_tap" and u.split == s]
           for s in ("train", "dev")}  # fmt: skip
    assert tap == {"train": [float(i) for i in range(11)], "dev": [11.0]}
    pink = {u.split: u.start for u in quiet if u.labels["recording"] == "pink_noise"}
    assert pink == {"train": 0.0, "dev": 1.0}


def test_faults(source: Path) -> None:
    sound(source / "speech_commands_test_set_v0.01" / "bed" / "0a_nohash_0.wav")
    sound(source / "speech_commands_v0.01" / "_background_noise_" / "blip.wav", 1.5)
    (source / "speech_commands_v0.01/yes" / f"{TRAIN}_nohash_1.wav").write_bytes(b"")
    got = read("speech_commands", source)
    assert got.messages[:2] == [
        "speech_commands_v0.01/_background_noise_/blip.wav: error: a recording of noise needs two "
        "seconds, one for train and one for dev",
        "speech_commands_test_set_v0.01/bed/0a_nohash_0.wav: error: 'bed' is not one of the twelve "
        "classes",
    ]
    assert got.messages[2].endswith("the file is empty")
    assert got.problems.skipped.keys() == {
        "_background_noise_-blip", "bed-0a_nohash_0", f"yes-{TRAIN}_nohash_1",
    }  # fmt: skip


def test_both_archives_are_needed(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("speech_commands", source, source / "out", "--variant", "v0.02") == 2
    shown = capsys.readouterr().err
    assert "missing: speech_commands_v0.02/, speech_commands_v0.02/_background_noise_/" in shown
    assert "speech_commands_test_set_v0.02.tar.gz" in shown
    assert prepare("speech_commands", source, source / "out", "--variant", "v3") == 2
    assert "has no variant 'v3'; it has: v0.01, v0.02" in capsys.readouterr().err


def test_the_published_sizes_add_up() -> None:
    total = {split: sum(s.count for s in PUBLISHED["v0.01"] if s.split == split and s.unit != "values")
             for split in ("train", "dev", "test")}  # fmt: skip
    # 51 094 counts the six recordings of noise, 6 798 does not.
    assert total == {"train": 51094 - 6, "dev": 6798, "test": 3081}


def test_the_task_takes_it(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all ten commands, under both protocols: parts disjoint, every class in all of them."""
    for number, word in enumerate(speech_commands.COMMANDS):
        for speaker in (TRAIN, DEV):
            sound(source / "speech_commands_v0.01" / word / f"{speaker}_nohash_{number}.wav")
        sound(source / "speech_commands_test_set_v0.01" / word / f"{LEFT_OUT}_nohash_5.wav")
    assert prepare("speech_commands", source, tmp_path / "out") == 0
    told = re.search(r"(\d+) of 36 sizes are not .*; and (\d+) more", capsys.readouterr().err)
    assert told is not None
    assert int(told[1]) - int(told[2]) == 8  # are named
    utterances = Corpus.open(tmp_path / "out").utterances()
    for protocol in ("fixed", "superb"):
        data = KeywordSpotting(protocol).load(utterances)
        assert len(data.classes) == 12
