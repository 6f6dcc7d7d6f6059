"""Kaldi data folders: what is read, every fault with file and line, and nothing is ever run."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.tasks.corpora import kaldi
from mynah.tasks.corpora.rows import Problems, Row
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.corpora.validate import validate


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with two recordings of 2 s and three segments."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("r1", "r2"):
        wav = np.random.default_rng(ord(name[1])).integers(-9999, 9999, 32000).astype(np.int16)
        soundfile.write(folder / f"{name}.wav", wav, 16000)
    (folder / "wav.scp").write_text("r1 r1.wav\nr2 r2.wav\n")
    (folder / "segments").write_text("s1-a r1 0.00 1.00\ns1-b r1 1.00 2.00\ns2-a r2 0.5 1.25\n")
    (folder / "text").write_text("s1-a hello  world\ns1-b zwölf\ns2-a well\n")
    (folder / "utt2spk").write_text("s1-a s1\ns1-b s1\ns2-a s2\n")
    (folder / "spk2utt").write_text("s1 s1-a s1-b\ns2 s2-a\n")
    (folder / "spk2gender").write_text("s1 f\ns2 m\n")
    (folder / "utt2emotion").write_text("s1-a joy\ns1-b anger\ns2-a joy\n")
    (folder / "phones").write_text("s1-a HH AH L OW\ns1-b T S\ns2-a W EH L\n")
    (folder / "README.md").write_text("s1-a is not a label\n")
    (folder / "notes").write_text("Some words about the corpus\n")
    return folder


def unsegmented(data: Path) -> None:
    """Turn the folder into one whose recordings are its utterances."""
    (data / "segments").unlink()
    for name in ("spk2utt", "utt2emotion", "phones"):
        (data / name).unlink()
    (data / "text").write_text("r1 one\nr2 two\n")
    (data / "utt2spk").write_text("r1 s1\nr2 s2\n")


def read(data: Path, **options: object) -> tuple[list[Utterance], list[str], Problems]:
    problems = Problems()
    rows = kaldi.read(data, problems, **options)  # type: ignore[arg-type]
    utterances = validate(rows, problems, jobs=1)
    return utterances, [str(p) for p in problems.found], problems


def test_a_good_folder(data: Path) -> None:
    utterances, found, problems = read(data)
    assert found == []
    assert problems.seen == {"s1-a", "s1-b", "s2-a"}
    assert utterances[1] == Utterance(
        id="s1-b",
        path=str(data / "r1.wav"),
        start=1.0,
        duration=1.0,
        sample_rate=16000,
        speaker="s1",
        text="zwölf",
        labels={"gender": "f", "emotion": "anger", "phones": "T S"},
    )
    assert utterances[0].text == "hello world"


def test_without_segments(data: Path) -> None:
    unsegmented(data)
    (data / "utt2split").write_text("r1 train\nr2 test\n")
    (data / "utt2dur").write_text("r1 2.0\nr2 1.98\n")
    utterances, found, _ = read(data)
    assert found == []
    assert [(u.id, u.start, u.duration, u.split) for u in utterances] == [
        ("r1", 0.0, 2.0, "train"),
        ("r2", 0.0, 2.0, "test"),
    ]


def test_channels_of_segments(data: Path) -> None:
    soundfile.write(data / "r2.wav", np.full((32000, 2), 0.1), 16000)
    utterances, found, _ = read(data)
    assert found == [
        f"segments:3: error: {data / 'r2.wav'}: 2 channels; say which to use "
        "(--channel N, counted from 0)"
    ]
    (data / "segments").write_text("s1-a r1 0.00 1.00\ns1-b r1 1.00 2.00\ns2-a r2 0.5 1.25 1\n")
    utterances, found, _ = read(data)
    assert (found, utterances[2].channel) == ([], 1)
    (data / "segments").write_text("s1-a r1 0.00 1.00\ns1-b r1 1.00 2.00\ns2-a r2 0.5 -1\n")
    utterances, found, _ = read(data, channel=0)
    assert (found, utterances[2].channel, utterances[2].duration) == ([], 0, 1.5)


FAULTS = [
    ("wav.scp", b"r1 r1.wav\nr2 gone.wav\n", r"segments:3: error: .*gone.wav': cannot be opened", 1),
    ("wav.scp", b"r1 r1.wav\nr2\n", r"wav.scp:2: error: no audio file is named for 'r2'", 1),
    ("wav.scp", b"r1 r1.wav\nr2 -\n", r"wav.scp:2: error: standard input is refused", 1),
    ("wav.scp", b"r1 r1.wav\nr2 raw.ark:17\n", r"wav.scp:2: error: an offset into an archive", 1),
    ("wav.scp", b"r1 r1.wav\nr2 ../x.wav\n", r"wav.scp:2: error: ../x.wav leads outside", 1),
    ("wav.scp", b"r1 r1.wav\nr2 /etc/passwd\n", r"wav.scp:2: error: /etc/passwd leads outside", 1),
    ("wav.scp", b"r1 r1.wav\nr2 r1.wav\nr2 r2.wav\n", r"wav.scp:3: error: 'r2' is there twice, first at wav.scp:2", 1),
    ("wav.scp", b"r1 r1.wav\n", r"segments:3: error: recording 'r2' is not in wav.scp", 1),
    ("wav.scp", b"r1 r1.wav\nr2 r2\0.wav\n", r"wav.scp:2: error: the line holds a NUL", 1),
    ("wav.scp", b"r1 r1.wav\nr2 r2\xff.wav\n", r"wav.scp:2: error: the line is not UTF-8 \(byte 6\)", 1),
    ("segments", b"s1-a r1 0 1\ns1-b r1 1 2.02\ns2-a r2 0 1\n", r"segments:2: error: .*1.0-2.02 s leaves the file, which lasts 2.000 s", 1),
    ("segments", b"s1-a r1 -1 1\ns1-b r1 1 2\ns2-a r2 0 1\n", r"segments:1: error: the segment starts before the recording", 1),
    ("segments", b"s1-a r1 1 1\ns1-b r1 1 2\ns2-a r2 0 1\n", r"segments:1: error: the segment ends at 1.0 s, not after", 1),
    ("segments", b"s1-a r1 1.00001 1.00002\ns1-b r1 1 2\ns2-a r2 0 1\n", r"segments:1: error: .*holds no sample", 1),
    ("segments", b"s1-a r1 0 nan\ns1-b r1 1 2\ns2-a r2 0 1\n", r"segments:1: error: times must be finite", 1),
    ("segments", b"s1-a r1 0 one\ns1-b r1 1 2\ns2-a r2 0 1\n", r"segments:1: error: times and channel must be numbers", 1),
    ("segments", b"s1-a r1 0\ns1-b r1 1 2\ns2-a r2 0 1\n", r"segments:1: error: wanted: utterance recording start end", 1),
    ("segments", b"s1-a r1 0 1\ns1-a r1 1 2\ns1-b r1 1 2\ns2-a r2 0 1\n", r"segments:2: error: 's1-a' is there twice, first at segments:1", 1),
    ("segments", b"s1-a r1 0 1\ns1-b r1 1 2 3\ns2-a r2 0 1\n", r"segments:2: error: .*no channel 3", 1),
    ("text", b"s1-a a\ns1-b b\ns2-a c\ns3-x d\n", r"text:4: error: utterance 's3-x' is not in segments", 1),
    ("text", b"s1-a a\ns1-b b\ns1-b b2\ns2-a c\n", r"text:3: error: 's1-b' is there twice, first at text:2", 1),
    ("text", b"s1-a a\ns1-b \xe4\ns2-a c\n", r"text:2: error: the line is not UTF-8 \(byte 6\)", 1),
    ("text", b"s1-a a\ns1-b b\0\ns2-a c\n", r"text:2: error: the line holds a NUL", 1),
    ("text", b"s1-a a\ns1-b b\x07\ns2-a c\n", r"text:2: error: .*control character", 1),
    ("utt2dur", b"s1-a 1.0\ns1-b 1.2\ns2-a 0.75\n", r"segments:2: error: .*1.0000 s, but 1.2 s are declared", 1),
    ("utt2dur", b"s1-a 1.0\ns1-b long\ns2-a 0.75\n", r"utt2dur:2: error: a duration must be a number", 1),
    ("spk2utt", b"s1 s1-a\ns2 s1-b s2-a\n", r"spk2utt:2: error: utterance 's1-b' is given to speaker 's2', utt2spk says 's1'", 1),
    ("spk2gender", b"s1 f\ns1 m\ns2 m\n", r"spk2gender:2: error: 's1' is there twice", 0),
    ("text", b"s1-b b\ns1-a a\ns2-a c\n", r"text:2: warning: not sorted", 0),
    ("text", b"s1-a a\r\ns1-b b\r\ns2-a c\r\n", r"text:1: warning: lines end in CRLF", 0),
    ("wav.scp", b"\xef\xbb\xbfr1 r1.wav\nr2 r2.wav\n", r"wav.scp:1: warning: starts with a byte-order mark", 0),
    ("text", b"s1-a a\ns1-b b\n", r"text: warning: 1 of 3 utterances are missing, first 's2-a'", 0),
    ("spk2gender", b"s1 f\ns2 m\ns3 m\n", r"spk2gender:3: warning: speaker 's3' is not in utt2spk", 0),
    ("segments", b"s1-a r1 0 1\ns1-b r1 1 2.01\ns2-a r2 0 1\n", r"segments:2: warning: 's1-b' ends 0.0100 s after its file", 0),
]  # fmt: skip


@pytest.mark.parametrize(("file", "content", "message", "lost"), FAULTS)
def test_faults_name_file_and_line(
    data: Path, file: str, content: bytes, message: str, lost: int
) -> None:
    (data / file).write_bytes(content)
    utterances, found, problems = read(data)
    assert [text for text in found if re.match(message, text)], found
    assert len(problems.skipped) == lost, problems.skipped
    assert len(utterances) == len(problems.seen) - lost
    assert {u.id for u in utterances}.isdisjoint(problems.skipped)


def test_all_faults_are_listed_at_once(data: Path) -> None:
    (data / "wav.scp").write_text("r1 r1.wav\nr2 cat x |\n")
    (data / "text").write_bytes(b"s1-a \xff\ns1-b b\ns9 c\n")
    _, found, problems = read(data)
    places = {(p.where, p.level) for p in problems.found}
    assert places == {
        ("wav.scp:2", "error"), ("segments:3", "error"), ("text:1", "error"), ("text:3", "error"),
    }  # fmt: skip
    assert problems.skipped.keys() == {"s1-a", "s2-a", "s9"}
    assert problems.skipped["s1-a"] == "text:1: the line is not UTF-8 (byte 6)"
    assert problems.bad_fraction == 3 / 4
    assert len(found) == 4


@pytest.mark.parametrize(
    "pipe",
    ["touch {0} |", "| touch {0}", "cat r1.wav; touch {0} |", "$(touch {0}) |", "touch {0}|"],
)
def test_pipes_are_never_run(data: Path, tmp_path: Path, pipe: str) -> None:
    canary = tmp_path / "canary"
    (data / "wav.scp").write_text(f"r1 {pipe.format(canary)}\nr2 r2.wav\n")
    utterances, found, _ = read(data, audio_root=[tmp_path])
    assert not canary.exists()
    assert found[0].startswith("wav.scp:1: error: a pipe is refused")
    assert [u.id for u in utterances] == ["s2-a"]


def test_audio_elsewhere_needs_a_root(data: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (disk / "a").mkdir(parents=True)
    (disk / "b").mkdir()
    (data / "r1.wav").rename(disk / "a" / "r1.wav")
    (data / "r2.wav").rename(disk / "b" / "r2.wav")
    (data / "r2.wav").symlink_to(disk / "b" / "r2.wav")  # links are followed before judging
    (data / "wav.scp").write_text(f"r1 {disk / 'a' / 'r1.wav'}\nr2 r2.wav\n")
    utterances, found, problems = read(data)
    assert utterances == []
    assert sum("leads outside" in text for text in found) == 2
    assert problems.hint().endswith(f"--audio-root {disk}")
    utterances, found, problems = read(data, audio_root=[disk])
    assert (len(utterances), found, problems.hint()) == (3, [], "")
    utterances, found, _ = read(data, audio_root=[disk / "a"])
    assert [u.id for u in utterances] == ["s1-a", "s1-b"]
    with pytest.raises(NotADirectoryError, match="audio root"):
        read(data, audio_root=[tmp_path / "nowhere"])


def test_a_folder_that_is_a_link(data: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(data)
    assert len(read(tmp_path / "link")[0]) == 3


def test_not_a_kaldi_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no wav\.scp"):
        kaldi.read(tmp_path, Problems())


words = st.text(st.characters(exclude_characters=" \t\n\r\0"), max_size=8)
line = st.lists(
    st.one_of(
        words,
        st.sampled_from(
            ["r1", "r2", "u1", "u2", "r1.wav", "../r1.wav", "/dev/zero", "touch canary |", "|", "0",
             "1.5", "-1", "1e9", "nan", "\ufeff", "\0", "-", "a.ark:3"]
        ),
    ),
    max_size=5,
).map(" ".join)  # fmt: skip
text_file = st.lists(line, max_size=6).map(
    lambda lines: "\n".join(lines).encode("utf-8", "replace")
)
contents = st.one_of(text_file, st.binary(max_size=80))


@settings(max_examples=150, deadline=None)
@given(files=st.dictionaries(
    st.sampled_from(["segments", "text", "utt2spk", "spk2utt", "spk2gender", "utt2dur", "phones"]),
    contents, max_size=5), scp=contents)  # fmt: skip
def test_any_bytes_are_survived(files: dict[str, bytes], scp: bytes) -> None:
    """Whatever the files hold: no exception, every fault has a place, good and bad are disjoint."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        folder.mkdir()
        soundfile.write(folder / "r1.wav", np.zeros(16000) + 0.1, 16000)
        before = {"data"}
        for file, content in {**files, "wav.scp": b"r1 r1.wav\n" + scp}.items():
            (folder / file).write_bytes(content)
        known = {p.name for p in folder.iterdir()}
        problems = Problems()
        rows: list[Row] = kaldi.read(folder, problems)
        utterances = validate(rows, problems, jobs=1)
        good = {u.id for u in utterances}
        assert len(good) == len(utterances)
        assert good.isdisjoint(problems.skipped)
        assert good | problems.skipped.keys() == problems.seen
        assert all(re.match(r"[a-z0-9.]+(:\d+)?$", p.where) for p in problems.found)
        assert {Path(u.path).name for u in utterances} <= {"r1.wav"}
        assert {p.name for p in folder.iterdir()} == known  # nothing was run
        assert {p.name for p in Path(name).iterdir()} == before


name = st.text("abcdefghijklmnop0123456789-_äß", min_size=1, max_size=10)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.dictionaries(name, st.lists(words.filter(str.isprintable), max_size=4), min_size=1,
                          max_size=8),
    starts=st.lists(st.integers(0, 15000), min_size=8, max_size=8),
)  # fmt: skip
def test_a_good_folder_is_read_back(texts: dict[str, list[str]], starts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        soundfile.write(folder / "rec.wav", np.zeros(16000) + 0.1, 16000)
        ids = sorted(texts, key=str.encode)
        (folder / "wav.scp").write_text("rec rec.wav\n")
        spans = {u: (s / 16000, (s + 500) / 16000) for u, s in zip(ids, starts, strict=False)}
        (folder / "segments").write_text(
            "".join(f"{u} rec {a} {b}\n" for u, (a, b) in spans.items())
        )
        (folder / "text").write_text("".join(f"{u} {' '.join(texts[u])}\n" for u in ids))
        problems = Problems()
        utterances = validate(kaldi.read(folder, problems), problems, jobs=1)
        assert [str(p) for p in problems.found] == []
        assert [u.id for u in utterances] == sorted(texts)
        for u in utterances:
            assert u.text == " ".join(w for w in texts[u.id] if w)
            assert (u.start, u.duration) == (spans[u.id][0], 500 / 16000)
