"""Submissions held against prepared corpora, without any results."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "doubles"))
from official import lines, prepare, sound
from submitting import P
from tones import write_tones

from mynah.recipes import cli, kept, probe
from mynah.recipes.probing.settings import Settings
from mynah.recipes.submission import keys, pack, safezip
from mynah.tasks.corpora.corpus import Corpus, write_corpus

ASR = f"{P}asr_public/predict.ark"
TESTS = [f"61-70968-{i:04d}" for i in range(8)]
PROBED = ("ks", "sid", "er", "pr", "asv", "qbe")


@pytest.fixture(scope="module")
def librispeech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of LibriSpeech, prepared as the whole one is."""
    home = tmp_path_factory.mktemp("official") / "LibriSpeech"
    chapters = {
        "train-clean-100/103/1240": [f"103-1240-{i:04d}" for i in range(3)],
        "dev-clean/84/121123": ["84-121123-0000"],
        "test-clean/61/70968": TESTS,
    }
    for folder, names in chapters.items():
        for name in names:
            sound(home / folder / f"{name}.flac")
        stem = names[0].rpartition("-")[0]
        lines(home / folder / f"{stem}.trans.txt", *(f"{name} GO DO" for name in names))
    lines(
        home / "SPEAKERS.TXT",
        "61   | M | test-clean       | 8.08  | Paul-Gabriel Wiener",
        "84   | F | dev-clean        | 8.02  | Christie Nowak",
        "103  | F | train-clean-100  | 25.12 | Karen Savage",
    )
    out = home.parent / "prepared"
    assert prepare("librispeech", home, out) == 0
    return out


def zipped(path: Path, names: list[str]) -> Path:
    path.write_bytes(pack.as_zip({ASR: "".join(f"{name} GO\n" for name in names).encode()}))
    return path


def verdict(out: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.main(["validate", str(out), *options])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_an_official_corpus_says_which_ids_there_are(
    librispeech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, given = tmp_path / "x.zip", ("--keys", str(librispeech))
    code, said = verdict(zipped(out, TESTS), capsys, *given)
    assert code == 0, said
    assert "asr: 8 ids of the corpus librispeech" in said
    assert f"{out} is valid: asr" in said
    assert "note: not the leaderboard's test sets: asr (8 rows of librispeech" in said
    code, said = verdict(out, capsys, *given, "--official")
    assert code == 1
    assert "8 rows of librispeech, the leaderboard has 2620" in said
    strange = [f"103-1240-{i:04d}" for i in range(6)]  # of train, and of nothing
    code, said = verdict(zipped(out, [*TESTS[6:], *TESTS[6:], *strange]), capsys, *given)
    assert code == 1
    assert f"{ASR}: missing id (6): {'; '.join(TESTS[:5])} and 1 more\n" in said
    assert f"id that the test set has not (6): {'; '.join(strange[:5])} and 1 more\n" in said
    assert f"{ASR}: id twice (2): {TESTS[6]} (2 times); {TESTS[7]} (2 times)\n" in said


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A corpus, results of six tasks on it, and the submission made of them."""
    folder = tmp_path_factory.mktemp("probed")
    corpus = write_tones(folder / "tones", speakers=5, takes=2, seconds=2.2).folder
    settings = Settings(protocol="superb", steps=2, learning_rates=(1e-2,))
    for task in PROBED:
        probe.run("fbank", task, corpus, folder / "results", settings=settings)
    out = folder / "x.zip"
    assert cli.main(["submit", str(folder / "results"), "--out", str(out)]) == 0
    return corpus, folder / "results", out


def test_keys_are_what_a_probe_scores(probed: tuple[Path, Path, Path]) -> None:
    """Ids, folds and references, to the letter."""
    corpus, results, _ = probed
    found = {r.task: (kept.read(path, r), r) for path, r in kept.pairs(results)}
    assert found.keys() == set(PROBED)
    for task, (rows, result) in found.items():
        test_set = keys.test_set(task, corpus, protocol="superb", lexicon=None)
        assert test_set.rows.digest() == rows.digest(), task
        assert test_set.classes in (result.classes, ()), task
        assert test_set.labels() >= set(result.classes if task in ("ks", "sid", "er") else ())
    assert len(set(found["er"][0].folds)) == 5


def test_all_tasks_of_a_submission_without_results(
    probed: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, results, out = probed
    suite = tmp_path / "suite.yaml"
    lines(suite, *(f"{task}: [{corpus}]" for task in (*PROBED, "st")))  # st is not submitted
    code, said = verdict(out, capsys, "--keys", str(suite))
    assert code == 0, said
    assert f"is valid: {', '.join(sorted(PROBED))}" in said
    single = [word for task in PROBED for word in ("--keys", f"{task}={corpus}")]
    assert verdict(out, capsys, *single)[1] == said
    members = safezip.read(out)
    third = f"{P}er_fold3_public/predict.txt"
    members[third] = b"".join(members[third].splitlines(keepends=True)[1:])
    detected = f"{P}qbe_public/benchmark.stdlist.xml"
    members[detected] = members[detected].replace(b'file="s', b'file="x', 1)
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(pack.as_zip(members))
    code, said = verdict(damaged, capsys, "--keys", str(suite))
    assert code == 1
    assert f"{third}: missing id (1): " in said
    assert f"{detected}: missing document (1): " in said
    assert f"{detected}: document that the test set has not (1): " in said
    # a task without a corpus is held against results where there are some, else it is said
    some = ("--keys", f"er={corpus}")
    assert verdict(out, capsys, *some, "--against", str(results))[0] == 0
    code, said = verdict(out, capsys, *some)
    assert code == 1
    assert "task pr: no test set to hold it against (1): give --against a folder" in said


def test_what_cannot_say_which_ids_there_are(
    probed: tuple[Path, Path, Path],
    librispeech: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus, _, out = probed
    code, said = verdict(out, capsys)
    assert (code, "--against RESULTS or --keys CORPUS" in said) == (2, True)
    code, said = verdict(out, capsys, "--keys", str(corpus))
    assert (code, "are not known by its name, tones: give --keys TASK=" in said) == (2, True)
    code, said = verdict(out, capsys, "--keys", f"vc={corpus}")
    assert (code, "there is no task 'vc' in a submission; there are: pr, asr" in said) == (2, True)
    code, said = verdict(out, capsys, "--keys", f"ks={tmp_path}")
    assert (code, "holds no corpus.json" in said) == (2, True)
    twice = lines(tmp_path / "twice.yaml", f"ks: [{corpus}, {librispeech}]")
    code, said = verdict(out, capsys, "--keys", str(twice))
    assert (code, "has 2 corpora for ks: say which, --keys ks=FOLDER" in said) == (2, True)
    code, said = verdict(out, capsys, "--keys", f"ks={librispeech}")
    assert (code, "ks needs the label keyword" in said) == (3, True)
    tests = [dataclasses.replace(u, split="test") for u in Corpus.open(corpus).utterances()]
    write_corpus(tmp_path / "tests", tests, name="speech_commands")
    code, said = verdict(out, capsys, "--keys", str(tmp_path / "tests"))
    assert (code, "has a test part and no train part" in said) == (3, True)
