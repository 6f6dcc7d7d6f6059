"""VoxCeleb1: two splits in one corpus, the list of trials, and lists that do not fit the audio."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, read, sound

from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.official.core import trials
from mynah.tasks.corpora.official.core.trials import Trial
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.sid import TASK

SPEAKERS = {"id10001": "dev", "id10002": "dev", "id10270": "test", "id10271": "test"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four speakers with three videos of one file each; the last two are in the trials."""
    home = tmp_path / "VoxCeleb1"
    rows = []
    for speaker, part in SPEAKERS.items():
        for usage, video in enumerate(("1-_abc", "x2", "y3"), 1):
            sound(home / part / "wav" / speaker / video / "00001.wav")
            rows.append(f"{usage} {speaker}/{video}/00001.wav")
    lines(home / "veri_test_class.txt", *rows)
    lines(
        home / "voxceleb1_test_v2.txt",
        "1 id10270/x2/00001.wav id10270/y3/00001.wav",
        "0 id10270/x2/00001.wav id10271/1-_abc/00001.wav",
    )
    return home


def test_what_is_read(source: Path) -> None:
    got = read("voxceleb1", source)
    assert got.messages == []
    assert got.by_id["id10001-1-_abc-00001"] == Utterance(
        id="id10001-1-_abc-00001",
        path=str(source / "dev/wav/id10001/1-_abc/00001.wav"),
        start=0.0, duration=0.1, sample_rate=16000, speaker="id10001", split="train",
        labels={"sid_split": "train", "session": "1-_abc"},
    )  # fmt: skip
    assert {got.by_id[name].speaker for name in got.of("train")} == {"id10001", "id10002"}
    assert {got.by_id[name].speaker for name in got.of("test")} == {"id10270", "id10271"}
    assert got.by_id["id10271-x2-00001"].labels["sid_split"] == "dev"
    assert got.found.trials == [
        Trial(True, "id10270-x2-00001", "id10270-y3-00001"),
        Trial(False, "id10270-x2-00001", "id10271-1-_abc-00001"),
    ]


def test_lists_in_meta_by_their_other_name(source: Path) -> None:
    (source / "meta").mkdir()
    (source / "veri_test_class.txt").rename(source / "meta" / "iden_split.txt")
    (source / "voxceleb1_test_v2.txt").rename(source / "meta" / "voxceleb1_test_v2.txt")
    assert len(read("voxceleb1", source).by_id) == 12


def test_trials_are_kept_beside_the_manifests(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert prepare("voxceleb1", source, out) == 0
    assert (out / "trials.tsv").read_text().splitlines() == [
        "target\tenrolment\ttest",
        "1\tid10270-x2-00001\tid10270-y3-00001",
        "0\tid10270-x2-00001\tid10271-1-_abc-00001",
    ]
    assert trials.load(out) == read("voxceleb1", source).found.trials
    assert Corpus.open(out).page["extra"]["trials"]["count"] == 2
    shown = capsys.readouterr()
    assert "sid_split=train: 4, published 138361" in shown.err
    assert "speakers of train: 2, published 1211" in shown.err
    assert "trials: 2 in trials.tsv" in shown.out


def test_trials_of_utterances_that_cannot_be_used_are_counted(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "test/wav/id10271/1-_abc/00001.wav").write_bytes(b"RIFF")
    assert prepare("voxceleb1", source, tmp_path / "out", "--max-bad", "0.1") == 0
    assert "1 of 2 trials lack an utterance: left out" in capsys.readouterr().err
    assert len(trials.load(tmp_path / "out")) == 1


def test_faults(source: Path) -> None:
    (source / "dev/wav/id10001/x2/00001.wav").unlink()
    sound(source / "dev/wav/id10001/x2/00009.wav")
    with (source / "veri_test_class.txt").open("a") as file:
        file.write("4 id10001/x2/00009.wav\n1 id10002/00001.wav\n2 id10002/x2/00001.wav\n")
    with (source / "voxceleb1_test_v2.txt").open("a") as file:
        file.write("2 id10270/x2/00001.wav id10270/y3/00001.wav\n")
        file.write("1 id10270/x2/00001.wav id10271/x2/00001.wav\n")
        file.write("0 id10270/x2/00001.wav id10299/x2/00001.wav\n")
    got = read("voxceleb1", source)
    for message in (
        "veri_test_class.txt:2: error: neither dev/wav nor test/wav holds id10001/x2/00001.wav",
        "veri_test_class.txt:13: error: wanted 1, 2 or 3 and a path, got '4 id10001/x2/00009.wav'",
        "veri_test_class.txt:14: error: wanted SPEAKER/VIDEO/NUMBER.wav, got 'id10002/00001.wav'",
        "veri_test_class.txt:15: error: id10002/x2/00001.wav is there twice, first at "
        "veri_test_class.txt:5",
        "veri_test_class.txt: warning: 1 audio files are not in this list and are left out, first "
        "id10001/x2/00009.wav",
        "voxceleb1_test_v2.txt:3: error: wanted 0 or 1 and two paths, got '2 id10270/x2/00001.wav "
        "id10270/y3/00001.wav'",
        "voxceleb1_test_v2.txt:4: error: 1 contradicts the speakers: '1 id10270/x2/00001.wav "
        "id10271/x2/00001.wav'",
        "voxceleb1_test_v2.txt:5: error: the split file does not name 'id10299-x2-00001'",
    ):
        assert message in got.messages
    assert len(got.found.trials) == 2
    assert {"id10001-x2-00001", "id10002-x2-00001"} <= got.problems.skipped.keys()


def test_missing_lists_are_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "voxceleb1_test_v2.txt").unlink()
    assert prepare("voxceleb1", source, source / "out") == 2
    shown = capsys.readouterr().err
    assert "missing: voxceleb1_test_v2.txt or meta/voxceleb1_test_v2.txt" in shown


def test_a_file_of_trials_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no list of trials"):
        trials.load(tmp_path)
    lines(tmp_path / "trials.tsv", "target\tenrolment\ttest", "1\ta")
    with pytest.raises(ValueError, match=r"trials\.tsv:2: wanted 0 or 1 and two ids"):
        trials.load(tmp_path)
    lines(tmp_path / "trials.tsv", "1\ta\tb")
    with pytest.raises(ValueError, match="wanted the header target enrolment test"):
        trials.load(tmp_path)


def test_the_sid_task_takes_its_own_split(source: Path, tmp_path: Path) -> None:
    assert prepare("voxceleb1", source, tmp_path / "out") == 0
    data = TASK("fixed").load(Corpus.open(tmp_path / "out").utterances())
    sizes = [len(part.utterances) for part in data.folds[""]]
    assert (sizes, len(data.classes)) == ([4, 4, 4], 4)
