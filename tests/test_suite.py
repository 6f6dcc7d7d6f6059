"""Suites say which corpora serve which task."""

from pathlib import Path

import pytest

from mynah import tasks
from mynah.recipes import bench, suite
from mynah.tasks.corpora.corpus import Corpus


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("suite") / "mini"
    args = suite.Args(out=out, size="tiny", backend="formant", mixtures=9)
    assert suite.main(args) == 0
    return out


def test_the_embedded_suite_serves_every_task(made: Path) -> None:
    found = suite.read_suite(made / "suite.yaml")
    assert set(found) == set(bench.all_tasks())
    for folders in found.values():
        for folder in folders:
            assert Corpus.open(folder).utterances()
    for name, folders in found.items():
        task = tasks.get(name).TASK("fixed", heads="small")
        assert task.load(Corpus.open(folders[0]).utterances()).folds, name


def test_separation_has_the_most_mixtures(made: Path) -> None:
    """With 51 mixtures to train on its head learned them by heart and bettered nothing on test."""
    counts = {k: len(Corpus.open(made / k)) for k in ("separation", "enhancement", "diarization")}
    assert counts == {"separation": 72, "enhancement": 9, "diarization": 3}


def test_what_is_there_is_kept(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = {p: p.stat().st_mtime_ns for p in made.rglob("corpus.json")}
    suite.main(suite.Args(out=made, size="tiny", backend="formant", mixtures=9))
    assert {p: p.stat().st_mtime_ns for p in made.rglob("corpus.json")} == pages


def test_bench_takes_tasks_of_a_suite(made: Path, tmp_path: Path) -> None:
    args = bench.Args(specs=("fbank",), suite=made / "suite.yaml", out=tmp_path)
    assert [t for t, _ in bench.pairs(args)] == list(suite.read_suite(made / "suite.yaml"))
    some = bench.Args(specs=("fbank",), suite=made / "suite.yaml", out=tmp_path, tasks=("sd,pr",))
    assert bench.pairs(some) == [("sd", made / "diarization"), ("pr", made / "mini")]
    both = bench.Args(specs=("fbank",), suite=made / "suite.yaml", corpus=(made,), out=tmp_path)
    with pytest.raises(ValueError, match="either --corpus"):
        bench.pairs(both)


def test_mini_is_made_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[suite.Args] = []
    monkeypatch.setattr(suite, "main", asked.append)
    args = bench.Args(specs=("fbank",), corpus=(Path("mini"),), out=tmp_path / "out")
    done = bench.with_embedded(args)
    assert [a.out for a in asked] == [tmp_path / "out" / "mini"]
    assert (done.corpus, done.suite) == ((), tmp_path / "out" / "mini" / "suite.yaml")
    (tmp_path / "mini").mkdir()  # a folder of that name is a corpus like any other
    assert bench.with_embedded(args) == args


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("karaoke: [a]", "unknown task 'karaoke'"),
        ("pr: 3", "must be a list of folders"),
        ("pr: []", r"s\.yaml: pr names no corpus"),
        ("- pr", "must map tasks"),
        ("pr: [", "is not YAML"),
    ],
)
def test_a_suite_that_makes_no_sense(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises((ValueError, LookupError), match=said):
        suite.read_suite(tmp_path / "s.yaml")


def test_a_task_that_the_suite_lacks(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("pr: [a]")
    args = bench.Args(specs=("fbank",), suite=tmp_path / "s.yaml", out=tmp_path, tasks=("ks",))
    with pytest.raises(ValueError, match="names no corpus for ks; it has pr"):
        bench.pairs(args)
    every = bench.Args(specs=("fbank",), suite=tmp_path / "s.yaml", out=tmp_path, tasks=("all",))
    assert bench.pairs(every) == [("pr", tmp_path / "a")]
