"""Prepared corpora: lhotse reads them, the same utterances give the same bytes, damage is seen."""

from __future__ import annotations

import gzip
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mynah.tasks.corpora import manifest
from mynah.tasks.corpora.audio import BadAudioError, read
from mynah.tasks.corpora.corpus import PAGE, RECORDINGS, SUPERVISIONS, Corpus, write_corpus
from mynah.tasks.corpora.manifest import ManifestError
from mynah.tasks.corpora.utterance import Interval, Utterance


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Three utterances: two of one stereo file, one whole file of another rate."""
    wav = np.random.default_rng(0).integers(-9999, 9999, (16000, 2)).astype(np.int16)
    (tmp_path / "audio").mkdir()
    long, short = str(tmp_path / "audio" / "long.flac"), str(tmp_path / "audio" / "short.wav")
    soundfile.write(long, wav, 16000)
    soundfile.write(short, wav[:4000, 0], 8000)
    return [
        Utterance(
            id="b-1", path=long, start=0.25, duration=0.5, sample_rate=16000, channel=1,
            speaker="b", text="zwölf Möwen", split="dev",
            labels={"gender": "f", "language": "de", "emotion": "joy"},
            intervals={"words": (Interval("zwölf", 0.0, 0.2), Interval("Möwen", 0.2, 0.4999375))},
        ),
        Utterance(id="b-2", path=long, start=0.0, duration=0.1, sample_rate=16000, speaker="b"),
        Utterance(
            id="a-1", path=short, start=0.0, duration=0.5, sample_rate=8000, speaker="a",
            text="one", split="train", labels={"keyword": "one"},
        ),
    ]  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path, utterances: list[Utterance]) -> None:
    corpus = write_corpus(
        tmp_path / "c", utterances, name="three", source="made", skipped={"x": "silent"}
    )
    assert corpus.utterances() == sorted(utterances, key=lambda u: u.id)
    assert Corpus.open(tmp_path / "c") == corpus
    assert [u.id for u in corpus.utterances("dev")] == ["b-1"]
    with pytest.raises(LookupError, match="no split 'test'; it has: dev, train"):
        corpus.utterances("test")
    assert corpus.skipped == {"x": "silent"}
    assert (len(corpus), corpus.splits) == (3, ("dev", "train"))
    assert corpus.page["recordings"] == 2
    assert corpus.page["splits"]["dev"] == {"utterances": 1, "seconds": 0.5, "speakers": 1}
    assert corpus.page["labels"]["speaker"] == {"utterances": 3, "values": 2}
    assert set(corpus.labels) == {"emotion", "gender", "keyword", "language", "speaker", "text"}


def test_lhotse_reads_it(tmp_path: Path, utterances: list[Utterance]) -> None:
    from lhotse import CutSet, load_manifest

    write_corpus(tmp_path / "c", utterances, name="three")
    recordings = load_manifest(tmp_path / "c" / RECORDINGS)
    supervisions = load_manifest(tmp_path / "c" / SUPERVISIONS)
    by_id = {u.id: u for u in utterances}
    assert {s.id for s in supervisions} == set(by_id)
    for s in supervisions:
        u = by_id[s.id]
        assert (s.start, s.duration, s.channel) == (u.start, u.duration, u.channel)
        assert (s.text, s.speaker) == (u.text, u.speaker)
        assert (s.gender, s.language) == (u.label("gender"), u.label("language"))
        others = {k: v for k, v in u.labels.items() if k not in ("gender", "language")}
        assert (s.custom or {}) == others | ({"split": u.split} if u.split else {})
        recording = recordings[s.recording_id]
        assert recording.sources[0].source == u.path
        assert recording.sampling_rate == u.sample_rate
    words = supervisions["b-1"].alignment["words"]
    assert [(w.symbol, w.start, w.duration) for w in words] == [
        ("zwölf", 0.25, 0.2),
        ("Möwen", 0.45, 0.2999375),
    ]
    cuts = CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    cut = cuts.trim_to_supervisions(keep_overlapping=False)
    for one in cut:
        u = by_id[one.supervisions[0].id]
        assert np.array_equal(one.load_audio()[0], read(u, u.sample_rate))


def test_what_lhotse_writes_is_read(tmp_path: Path, utterances: list[Utterance]) -> None:
    from lhotse import load_manifest

    corpus = write_corpus(tmp_path / "c", utterances, name="three")
    (tmp_path / "d").mkdir()
    rows = {}
    for name in (RECORDINGS, SUPERVISIONS):
        load_manifest(tmp_path / "c" / name).to_file(tmp_path / "d" / name)
        data = gzip.decompress((tmp_path / "d" / name).read_bytes())
        rows[name] = list(manifest.parse(name, data))
    again = manifest.utterances(rows[RECORDINGS], rows[SUPERVISIONS], tmp_path / "d")
    assert again == corpus.utterances()


def test_bytes_and_version_follow_the_content(tmp_path: Path, utterances: list[Utterance]) -> None:
    files = (RECORDINGS, SUPERVISIONS, PAGE)
    first = write_corpus(tmp_path / "c", utterances, name="three")
    before = {name: (tmp_path / "c" / name).read_bytes() for name in files}
    again = write_corpus(tmp_path / "c", reversed(utterances), name="three")
    assert {name: (tmp_path / "c" / name).read_bytes() for name in files} == before
    assert again.version == first.version
    moved = tmp_path / "elsewhere"
    (tmp_path / "audio").rename(moved)
    there = [replace(u, path=str(moved / Path(u.path).name)) for u in utterances]
    assert write_corpus(tmp_path / "d", there, name="other").version == first.version
    other_text = [replace(u, text="two") for u in there]
    assert write_corpus(tmp_path / "d", other_text, name="three").version != first.version
    soundfile.write(moved / "short.wav", np.zeros(4000), 8000)
    assert write_corpus(tmp_path / "d", there, name="three").version != first.version


def test_a_folder_with_its_audio_can_move(tmp_path: Path, utterances: list[Utterance]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "audio").rename(home / "audio")
    inside = [replace(u, path=str(home / "audio" / Path(u.path).name)) for u in utterances]
    write_corpus(home, inside, name="three")
    away = tmp_path / "away"
    home.rename(away)
    found = Corpus.open(away).utterances()
    assert [u.path for u in found] == [
        str(away / "audio" / name) for name in ("short.wav", "long.flac", "long.flac")
    ]
    assert len(read(found[0])) == 8000


def test_times_move_to_the_sample_grid(tmp_path: Path, utterances: list[Utterance]) -> None:
    odd = replace(utterances[0], start=0.25001, duration=0.49999)
    (got,) = write_corpus(tmp_path / "c", [odd], name="one").utterances()
    assert (got.start, got.duration) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "b-2"}, "'b-2': the id is there twice"),
        ({"id": "b 1"}, "white space"),
        ({"id": ""}, "an empty id"),
        ({"text": "two\nlines"}, "text: .* control character"),
        ({"labels": {"emotion": "a\tb"}}, "emotion: .* control character"),
        ({"labels": {"split": "dev"}}, "'split'.* belong to the utterance itself"),
        ({"start": 0.9}, "leaves the file: samples 14400 to 22400 of 16000"),
        ({"start": -0.1}, "leaves the file"),
        ({"channel": 2}, "channel 2, the file has 16000 Hz and 2 channels"),
        ({"sample_rate": 8000}, "speaks of 8000 Hz"),
        ({"path": "/nowhere.wav"}, "/nowhere.wav.*cannot be opened"),
    ],
)
def test_refusals(
    tmp_path: Path, utterances: list[Utterance], change: dict[str, object], message: str
) -> None:
    utterances[0] = replace(utterances[0], **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        write_corpus(tmp_path / "c", utterances, name="three")
    assert not (tmp_path / "c" / PAGE).exists()


def test_no_utterances(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one utterance"):
        write_corpus(tmp_path / "c", [], name="none")


def test_damage_is_seen(tmp_path: Path, utterances: list[Utterance]) -> None:
    write_corpus(tmp_path / "c", utterances, name="three")
    path = tmp_path / "c" / SUPERVISIONS
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(ManifestError, match=r"supervisions.jsonl.gz is not the file that"):
        Corpus.open(tmp_path / "c").utterances()
    (tmp_path / "c" / PAGE).write_text('{"format": 1')
    with pytest.raises(ManifestError, match="is damaged"):
        Corpus.open(tmp_path / "c")
    (tmp_path / "c" / PAGE).write_text('{"format": 99}')
    with pytest.raises(ManifestError, match="format 99, this version reads 1"):
        Corpus.open(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="mynah prepare"):
        Corpus.open(tmp_path / "nowhere")


def test_a_failed_write_leaves_the_old_corpus(
    tmp_path: Path, utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_corpus(tmp_path / "c", utterances, name="three")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_corpus(tmp_path / "c", utterances[:1], name="one")
    monkeypatch.undo()
    assert Corpus.open(tmp_path / "c").utterances() == first.utterances()
    assert {p.name for p in (tmp_path / "c").iterdir()} == {RECORDINGS, SUPERVISIONS, PAGE}


def recording(**changes: object) -> dict[str, object]:
    source = {"type": "file", "channels": [0], "source": "a.wav"}
    return {"id": "r", "sources": [source], "sampling_rate": 16000, **changes}


def supervision(**changes: object) -> dict[str, object]:
    return {"id": "u", "recording_id": "r", "start": 0.0, "duration": 1.0, "channel": 0, **changes}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"sources": [{"type": "command", "channels": [0], "source": "touch canary"}]},
         "r:1: source type 'command' is refused"),
        ({"sources": [{"type": "url", "channels": [0], "source": "http://x"}]}, "'url' is refused"),
        ({"transforms": [{"name": "Speed", "kwargs": {"factor": 1.1}}]}, "has transforms"),
        ({"sources": None}, "of the wrong type"),
        ({"sampling_rate": "fast"}, "of the wrong type"),
    ],
)  # fmt: skip
def test_recordings_that_are_refused(row: dict[str, object], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        manifest.utterances([("r:1", recording(**row))], [("s:1", supervision())], Path("/c"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"recording_id": "other"}, "s:1: recording 'other' is not in the manifest"),
        ({"channel": [0, 1]}, "an utterance has one channel"),
        ({"channel": 1}, "channel 1 is not one of"),
        ({"duration": None}, "of the wrong type"),
        ({"alignment": {"phones": [["a"]]}}, "of the wrong type"),
    ],
)
def test_supervisions_that_are_refused(row: dict[str, object], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        manifest.utterances([("r:1", recording())], [("s:1", supervision(**row))], Path("/c"))


def test_one_source_per_channel() -> None:
    sources = [
        {"type": "file", "channels": [0], "source": "left.wav"},
        {"type": "file", "channels": [1], "source": "/abs/right.wav"},
    ]
    rows = [("s:1", supervision(channel=1)), ("s:2", supervision(id="v", channel=[0]))]
    right, left = manifest.utterances([("r:1", recording(sources=sources))], rows, Path("/c"))
    assert (right.path, right.channel) == ("/abs/right.wav", 0)
    assert (left.path, left.channel) == ("/c/left.wav", 0)


def test_ten_thousand_utterances_are_light(tmp_path: Path) -> None:
    """Reading them imports neither torch nor lhotse nor a decoder."""
    soundfile.write(tmp_path / "a.wav", np.zeros(16000, dtype=np.int16), 16000)
    one = {"path": str(tmp_path / "a.wav"), "start": 0.0, "duration": 1.0, "sample_rate": 16000}
    write_corpus(
        tmp_path / "c",
        [
            Utterance(id=f"u{n:05}", text="a few words", labels={"keyword": "x"}, **one)  # type: ignore[arg-type]
            for n in range(10_000)
        ],
        name="many",
    )
    code = (
        "import sys; from mynah.tasks.corpora.corpus import Corpus; "
        f"assert len(Corpus.open({str(tmp_path / 'c')!r}).utterances()) == 10000; "
        "assert not {'torch', 'lhotse', 'soundfile', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_errors_are_bad_data() -> None:
    from mynah.recipes.errors import exit_code

    assert exit_code(ManifestError("x")) == 3
    assert exit_code(BadAudioError("x")) == 3
    assert exit_code(ValueError("x")) == 2
