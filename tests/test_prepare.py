"""``mynah prepare``: TSV, folders, lhotse manifests, splits, exit codes, what is counted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mynah.recipes import cli, prepare
from mynah.recipes.errors import BadDataError
from mynah.tasks.corpora import folder, splits, stretches, tsv
from mynah.tasks.corpora.audio import num_samples, read
from mynah.tasks.corpora.corpus import PAGE, Corpus, write_corpus
from mynah.tasks.corpora.rows import Problems
from mynah.tasks.corpora.utterance import Interval, Utterance

HEADER = "id\tpath\tspeaker\ttext\tkeyword\tofficial\tduration\tsample_rate"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four speakers, three words each, 8 kHz, with a manifest."""
    home = tmp_path / "words"
    lines = [HEADER]
    for speaker in ("ann", "bob", "cleo", "dan"):
        (home / "audio" / speaker).mkdir(parents=True)
        for take, word in enumerate(("yes", "no", "stop")):
            path = f"audio/{speaker}/{word}.flac"
            samples = 4000 + 100 * take
            soundfile.write(home / path, np.sin(np.arange(samples) / 9) * 0.2, 8000)
            part = "test" if take == 2 else "train"
            lines.append(
                f"{speaker}-{word}\t{path}\t{speaker}\t{word.upper()}\t{word}\t{part}\t"
                f"{samples / 8000:.3f}\t8000"
            )
    (home / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return home


def edit(source: Path, line: int, old: str, new: str) -> None:
    lines = (source / "manifest.tsv").read_text().split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    (source / "manifest.tsv").write_text("\n".join(lines))


def run(*arguments: object) -> int:
    return cli.main(["prepare", *map(str, arguments)])


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


def test_folder(source: Path, tmp_path: Path) -> None:
    (source / "audio/ann/two words.wav").write_bytes((source / "audio/ann/no.flac").read_bytes())
    (source / "audio/ann/notes.txt").write_text("not audio")
    (source / "audio/.hidden").mkdir()
    (source / "audio/.hidden/x.wav").write_text("not audio")
    args = ["--from-path", "speaker=parent", "--from-path", r"keyword=([a-z]+)\.flac$"]
    assert run("folder", source / "audio", tmp_path / "out", *args) == 0
    found = {u.id: u for u in Corpus.open(tmp_path / "out").utterances()}
    assert len(found) == 13
    assert found["dan-stop"].speaker == "dan"
    assert found["dan-stop"].labels == {"keyword": "stop"}
    assert found["ann-two_words"].labels == {}


def test_folder_faults(source: Path) -> None:
    (source / "out.wav").symlink_to("/etc/hostname")
    (source / "audio" / "yes").mkdir()
    (source / "audio/yes-no.wav").write_text("x")
    (source / "audio/yes/no.wav").write_text("x")
    Path(os.fsdecode(os.fsencode(source) + b"/\xff")).mkdir()
    Path(os.fsdecode(os.fsencode(source) + b"/\xff/a.wav")).write_text("x")
    problems = Problems()
    rows = folder.read(source, problems)
    found = [str(p) for p in problems.found]
    assert sum("leads outside" in text for text in found) == 1
    assert sum("not UTF-8" in text for text in found) == 1
    assert sorted(r.where for r in rows if r.id == "audio-yes-no") == [
        "audio/yes-no.wav",
        "audio/yes/no.wav",
    ]
    assert all(text.isprintable() for text in found)


def test_folder_refusals(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no audio file"):
        folder.read(tmp_path, Problems())
    with pytest.raises(NotADirectoryError):
        folder.read(tmp_path / "x", Problems())
    for rule, message in (("x", "LABEL="), ("x=(", "regular expression"), ("x=a", "no group")):
        with pytest.raises(ValueError, match=message):
            folder.read(tmp_path, Problems(), from_path=[rule])


def test_files_that_a_rule_does_not_fit_are_told(source: Path) -> None:
    problems = Problems()
    rows = folder.read(source / "audio", problems, from_path=["keyword=/(yes)"])
    with_keyword = [r for r in rows if r.labels.get("keyword") == "yes"]
    assert 0 < len(with_keyword) < len(rows)
    without = [r.where for r in rows if r not in with_keyword]
    assert [str(p) for p in problems.found if p.level == "warning"] == [
        f"{source / 'audio'}: warning: {len(without)} files have no keyword by this rule, "
        f"as {without[0]}"
    ]


def test_lhotse_of_somebody_else(source: Path, tmp_path: Path) -> None:
    run("tsv", source, tmp_path / "one", "--split-by", "official")
    assert run("lhotse", tmp_path / "one", tmp_path / "two", "--audio-root", source) == 0
    one, two = Corpus.open(tmp_path / "one"), Corpus.open(tmp_path / "two")
    assert (two.utterances(), two.version) == (one.utterances(), one.version)


def test_lhotse_commands_are_never_run(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "manifests"
    home.mkdir()
    canary = tmp_path / "canary"
    rows = [
        {"id": "r1", "sources": [{"type": "command", "channels": [0], "source": f"touch {canary}"}],
         "sampling_rate": 8000},
        {"id": "r2", "sources": [{"type": "file", "channels": [0],
         "source": str(source / "audio/ann/no.flac")}], "sampling_rate": 8000},
    ]  # fmt: skip
    (home / "recordings.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (home / "supervisions.jsonl").write_text(
        "\n".join(
            json.dumps({"id": f"u{n}", "recording_id": f"r{n}", "start": 0, "duration": 0.5})
            for n in (1, 2, 3)
        )
    )
    assert run("lhotse", home, tmp_path / "out", "--audio-root", source, "--max-bad", "0.7") == 0
    shown = capsys.readouterr().err
    assert "recordings.jsonl:1: error: source type 'command' is refused" in shown
    assert "supervisions.jsonl:1: error: recording 'r1' is faulty" in shown
    assert "supervisions.jsonl:3: error: recording 'r3' is not in the manifest" in shown
    assert not canary.exists()
    assert [u.id for u in Corpus.open(tmp_path / "out").utterances()] == ["u2"]


def test_kaldi_by_command_line(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "data"
    home.mkdir()
    (home / "wav.scp").write_text(f"u1 {source}/audio/ann/no.flac\n")
    assert run("kaldi", home, tmp_path / "out") == 3
    shown = capsys.readouterr().err
    assert "wav.scp:1: error" in shown
    assert f"--audio-root {source}/audio/ann" in shown
    assert run("kaldi", home, tmp_path / "out", "--audio-root", source) == 0
    assert len(Corpus.open(tmp_path / "out")) == 1


# -- splits -------------------------------------------------------------------------------------


def parts(corpus: Corpus) -> dict[str, set[str]]:
    return {s: {u.speaker or "" for u in corpus.utterances(s)} for s in corpus.splits}


def test_split_by_a_column(source: Path, tmp_path: Path) -> None:
    assert run("tsv", source, tmp_path / "out", "--split-by", "official") == 0
    corpus = Corpus.open(tmp_path / "out")
    assert {s: len(corpus.utterances(s)) for s in corpus.splits} == {"test": 4, "train": 8}
    assert run("tsv", source, tmp_path / "out", "--rename", "official=split") == 0
    assert Corpus.open(tmp_path / "out").splits == ("test", "train")


def test_split_by_who_is_held_out(source: Path, tmp_path: Path) -> None:
    args = ["--held-out", "speaker=ann,bob", "--dev-held-out", "speaker=dan"]
    assert run("tsv", source, tmp_path / "out", *args) == 0
    assert parts(Corpus.open(tmp_path / "out")) == {
        "train": {"cleo"}, "dev": {"dan"}, "test": {"ann", "bob"},
    }  # fmt: skip


def test_split_by_proportion(source: Path, tmp_path: Path) -> None:
    assert run("tsv", source, tmp_path / "out", "--splits", "0.5,0.25,0.25", "--seed", "1") == 0
    found = parts(Corpus.open(tmp_path / "out"))
    assert {name: len(speakers) for name, speakers in found.items()} == {
        "train": 2, "dev": 1, "test": 1,
    }  # fmt: skip
    assert set.union(*found.values()) == {"ann", "bob", "cleo", "dan"}
    seen = set()
    for seed in range(8):
        run("tsv", source, tmp_path / "out", "--splits", "0.5,0.25,0.25", "--seed", seed)
        seen.add(str(sorted(Corpus.open(tmp_path / "out").utterances("test"), key=lambda u: u.id)))
    assert len(seen) > 1  # the seed draws


def crowd(count: int) -> list[Utterance]:
    stream = np.random.default_rng(0)
    return [
        Utterance(id=f"u{n}", path="/x.wav", start=0.0, duration=float(stream.uniform(1, 15)),
                  sample_rate=16000, speaker=f"s{stream.integers(count // 10)}")
        for n in range(count)
    ]  # fmt: skip


def test_proportions_are_kept_and_speakers_too() -> None:
    people = crowd(1000)
    shared = splits.by_proportion(people, [0.8, 0.1, 0.1])
    total = sum(u.duration for u in people)
    speakers: dict[str, set[str | None]] = {}
    for name, share in zip(splits.SPLITS, (0.8, 0.1, 0.1), strict=True):
        mine = [u for u in shared if u.split == name]
        assert sum(u.duration for u in mine) / total == pytest.approx(share, abs=0.02)
        speakers[name] = {u.speaker for u in mine}
    assert not speakers["train"] & speakers["test"]
    assert not speakers["train"] & speakers["dev"]
    assert not speakers["dev"] & speakers["test"]
    assert splits.by_proportion(people, [0.8, 0.1, 0.1]) == shared
    shuffled = splits.by_proportion(people[::-1], [0.8, 0.1, 0.1])
    assert {u.id: u.split for u in shuffled} == {u.id: u.split for u in shared}
    two = splits.by_proportion(people, [0.9, 0, 0.1], unit="utterance")
    assert {u.split for u in two} == {"train", "test"}


def test_parts_within_speakers() -> None:
    people = sorted(crowd(300), key=lambda u: u.id)
    shared = splits.by_order(people, [0.5, 0.1, 0.4])
    for name in {u.speaker for u in people}:
        mine = [u.split for u in shared if u.speaker == name]
        order = [splits.SPLITS.index(str(part)) for part in mine]
        assert order == sorted(order)  # in the corpus' order
        assert set(mine) == set(splits.SPLITS)
        assert mine.count("train") == pytest.approx(0.5 * len(mine), abs=1)
        assert mine.count("test") == pytest.approx(0.4 * len(mine), abs=1)
    assert [u.split for u in splits.by_order(people[:1], [0.5, 0.1, 0.4])] == ["train"]
    few = [replace(u, speaker="s") for u in people[:2]]
    assert [u.split for u in splits.by_order(few, [0.5, 0.1, 0.4])] == ["train", "dev"]
    assert {u.split for u in splits.by_order(people, [0.5, 0, 0.5])} == {"train", "test"}
    with pytest.raises(ValueError, match="has no 'session', within which"):
        splits.by_order(people, [0.5, 0.1, 0.4], label="session")


def test_stretches() -> None:
    whole = Utterance(
        id="u", path="/x.wav", start=0.5, duration=3.0 - 1e-9, sample_rate=16000, speaker="s",
        text="words", labels={"gender": "f", "phones": "a b", "phones_cmudict": "A B", "slot_size": "big"},
        intervals={"phones": (Interval("a", 0.0, 0.4), Interval("b", 0.4, 1.6), Interval("c", 1.6, 3.0))},
    )  # fmt: skip
    short = replace(whole, id="v", duration=0.9, intervals={})
    first, second, third = stretches.cut([whole, short], 1.0)
    assert [u.id for u in (first, second, third)] == ["u-0000", "u-0001", "u-0002"]
    assert [u.start for u in (first, second, third)] == [0.5, 1.5, 2.5]
    assert third.start + third.duration <= whole.start + whole.duration
    assert first.text is None
    assert dict(first.labels) == {"gender": "f"}
    assert first.intervals["phones"] == (Interval("a", 0.0, 0.4), Interval("b", 0.4, 1.0))
    assert second.intervals["phones"][0] == pytest.approx(("b", 0.0, 0.6))
    with pytest.raises(ValueError, match=r"stretches of 4 s were asked for, the longest.*3\.000 s"):
        stretches.cut([whole, short], 4.0)
    with pytest.raises(ValueError, match="longer than 0 seconds"):
        stretches.cut([whole], 0.0)


def test_stretches_by_command_line(source: Path, tmp_path: Path) -> None:
    more = ("--stretch", "0.1", "--splits", "0.5,0.1,0.4", "--split-within", "speaker")
    assert run("tsv", source, tmp_path / "out", *more) == 0
    corpus = Corpus.open(tmp_path / "out")
    assert set(corpus.splits) == set(splits.SPLITS)
    assert {u.duration for u in corpus.utterances("train")} == {0.1}
    everyone = {u.speaker for u in corpus.utterances()}
    assert all({u.speaker for u in corpus.utterances(part)} == everyone for part in splits.SPLITS)


def test_split_refusals() -> None:
    people = crowd(30)
    with pytest.raises(ValueError, match="shares of train, dev, test"):
        splits.by_proportion(people, [0.9, 0.1])
    with pytest.raises(ValueError, match="has no 'session'"):
        splits.by_proportion(people, [0.8, 0.1, 0.1], unit="session")
    with pytest.raises(ValueError, match="1 values of 'speaker' cannot fill 3"):
        splits.by_proportion(people[:1], [0.8, 0.1, 0.1])
    with pytest.raises(LookupError, match="no utterance has speaker='zoe'; there are: s0"):
        splits.by_holding_out(people, {"speaker": ["zoe"]}, {})
    with pytest.raises(ValueError, match="held out for both"):
        splits.by_holding_out(people, {"speaker": ["s0"]}, {"speaker": ["s0"]})
    with pytest.raises(LookupError, match="no utterance carries 'fold'; labels are: speaker"):
        splits.by_label(people, "fold")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tsv", "SRC"], "give a folder to write"),
        (["tsv", "SRC", "OUT", "--validate"], "leave out the folder"),
        (["tsv", "SRC", "OUT", "--max-bad", "2"], "--max-bad must be in 0..1"),
        (["tsv", "SRC", "OUT", "--max-bad", "nan"], "--max-bad must be in 0..1"),
        (["tsv", "SRC", "OUT", "--jobs", "0"], "--jobs must be at least 1"),
        (["tsv", "SRC", "OUT", "--size", "tiny"], "--size is for mini"),
        (["kaldi", "SRC", "OUT", "--rename", "a=b"], "--rename is for tsv"),
        (["mini", "OUT", "--quick"], "--quick is for kaldi, folder, tsv"),
        (["mini", "SRC", "OUT"], "needs no source"),
        (["tsv", "SRC", "OUT", "--seed", "1"], "--seed needs --splits"),
        (["tsv", "SRC", "OUT", "--split-unit", "text"], "--split-unit needs --splits"),
        (["tsv", "SRC", "OUT", "--split-within", "speaker"], "--split-within needs --splits"),
        (
            ["tsv", "SRC", "OUT", "--splits", "1,0,0", "--split-within", "a", "--split-unit", "b"],
            "contradict one another",
        ),
        (
            ["tsv", "SRC", "OUT", "--splits", "1,0,0", "--split-within", "a", "--seed", "1"],
            "nothing for --seed",
        ),
        (["mini", "OUT", "--stretch", "2"], "--stretch is for"),
        (["tsv", "SRC", "OUT", "--splits", "1,0,0", "--split-by", "text"], "different ways"),
        (["tsv", "SRC", "OUT", "--splits", "most"], "--splits wants numbers"),
        (["tsv", "SRC", "OUT", "--held-out", "ann"], "wanted LABEL=VALUE"),
        (["tsv", "SRC/nowhere", "OUT"], "nowhere does not exist"),
        (["folder", "SRC/nowhere", "OUT"], "nowhere is not a folder"),
        (["lhotse", "SRC", "OUT"], "holds no recordings"),
    ],
)
def test_wrong_usage(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    filled = [
        a.replace("SRC", str(source)).replace("OUT", str(tmp_path / "out")) for a in arguments
    ]
    assert run(*filled) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_mini_needs_no_source(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mynah.tasks.corpora import mini

    asked: dict[str, object] = {}

    def build(out: str, *, progress: Callable[[int, int], None], **options: object) -> Corpus:
        asked.update(options)
        progress(1, 2)
        run("tsv", source, tmp_path / "built")
        return write_corpus(out, Corpus.open(tmp_path / "built").utterances(), name="mini")

    monkeypatch.setattr(mini, "build", build)
    assert run("mini", tmp_path / "out", "--size", "tiny", "--seed", "3", "--level", "2") == 0
    assert asked == {
        "size": "tiny", "seed": 3, "level": 2, "backend": "espeak", "workers": None,
    }  # fmt: skip
    assert "corpus mini in" in capsys.readouterr().out


def test_nothing_good_is_bad_data(source: Path, tmp_path: Path) -> None:
    for path in source.rglob("*.flac"):
        path.write_text("not audio")
    args = prepare.Args(name="tsv", source=str(source), out=str(tmp_path / "out"), max_bad=0.99)
    with pytest.raises(BadDataError, match="12 utterances seen, 0 good, 12 bad"):
        prepare.main(args)
    assert not (tmp_path / "out" / PAGE).exists()


@pytest.mark.real
@pytest.mark.parametrize("name", ["digits_fsdd", "read_libri", "emotion_emodb", "l2_speechocean"])
def test_real_sets(real_speech: Path, tmp_path: Path, name: str) -> None:
    assert run("tsv", real_speech / name, tmp_path / "out") == 0
    corpus = Corpus.open(tmp_path / "out")
    lines = (real_speech / name / "manifest.tsv").read_text().splitlines()
    assert len(corpus) == len(lines) - 1
    for utterance in corpus.utterances()[::50]:
        assert len(read(utterance)) == num_samples(utterance)


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
