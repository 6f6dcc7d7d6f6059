"""``mynah prepare``: folders, lhotse manifests, Kaldi directories, wrong usage, exit codes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from preparing import run, write_words

from mynah.recipes import cli, prepare
from mynah.recipes.errors import BadDataError
from mynah.tasks.corpora import folder
from mynah.tasks.corpora.audio import num_samples, read
from mynah.tasks.corpora.corpus import PAGE, Corpus, write_corpus
from mynah.tasks.corpora.rows import Problems


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_words(tmp_path / "words")


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


def test_a_hundred_problems_are_printed_or_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    rows = "".join(f"u{i:03d} /elsewhere/{i}.wav\n" for i in range(120))
    (tmp_path / "data" / "wav.scp").write_text(rows)
    (tmp_path / "data" / "utt2spk").write_text("".join(f"u{i:03d} s\n" for i in range(120)))
    for more, shown in ((), 100), (("--list-all",), 120):
        assert cli.main(["prepare", "kaldi", str(tmp_path / "data"), "--validate", *more]) == 3
        said = capsys.readouterr().err
        assert said.count("leads outside the data folder") == shown
        assert ("... and 20 more problems: --list-all prints them" in said) == (shown == 100)
        assert "wav.scp:100: error" in said  # and no picture of a hundred
