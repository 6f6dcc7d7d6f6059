"""``mynah bench --launcher slurm``: parts of a matrix as jobs; here processes stand for Slurm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from tones import write_tones

from mynah.recipes import bench, cli, launch, results

pytest.importorskip("submitit")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("corpora")
    one, two = (write_tones(home / name, seconds=0.5) for name in ("one", "two"))
    return one.folder, two.folder


def test_a_job_per_upstream_and_corpus(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = corpora
    args = bench.Args(
        specs=("fbank", "apc/tiny"),
        corpus=(one, two),
        out=Path("results"),
        launcher="slurm",
        slurm=("timeout_min=5",),
    )
    wanted = [("ks", one), ("sid", one), ("ks", two)]
    jobs = launch.parts(args, ["fbank", f"hf:{tmp_path}"], wanted)
    assert [(j.specs, j.corpus, j.tasks) for j in jobs] == [
        (("fbank",), (one,), ("ks", "sid")),
        (("fbank",), (two,), ("ks",)),
        ((f"hf:{tmp_path}",), (one,), ("ks", "sid")),
        ((f"hf:{tmp_path}",), (two,), ("ks",)),
    ]
    assert {(j.launcher, j.slurm, j.table) for j in jobs} == {("here", (), False)}
    assert {j.out for j in jobs} == {Path("results").absolute()}


def test_specs_that_are_paths_do_not_depend_on_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    assert launch.absolute("run") == str(tmp_path / "run")
    assert launch.absolute("hf:run") == f"hf:{tmp_path / 'run'}"
    assert launch.absolute("apc/tiny") == "apc/tiny"
    assert launch.absolute("s3prl:apc") == "s3prl:apc"


def test_options() -> None:
    given = ("slurm_partition=gpu", "timeout_min=120", "mem_gb=8")
    assert launch.parse(given) == {"slurm_partition": "gpu", "timeout_min": 120, "mem_gb": 8}
    with pytest.raises(ValueError, match="KEY=VALUE"):
        launch.parse(["gpu"])


def test_jobs_write_what_a_bench_here_writes(
    corpora: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(launch.run, "__kwdefaults__", {"cluster": "local"})
    one, two = map(str, corpora)
    command = ["bench", "fbank", "--corpus", one, two, "--tasks", "ks", "sf", "--steps", "4"]
    made = tmp_path / "jobs"
    assert cli.main([*command, "--out", str(made), "--launcher", "slurm"]) == 1
    shown = capsys.readouterr().out
    for name in ("one", "two"):  # tones have no slots
        assert f"fbank on {name}: cells are missing, see its log" in shown
    assert cli.main([*command, "--out", str(tmp_path / "here")]) == 1
    found, wanted = results.load_all(made), results.load_all(tmp_path / "here")
    assert [(r.corpus, r.main.value) for r in found] == [(r.corpus, r.main.value) for r in wanted]
    assert len(found) == 2


def test_without_slurm(
    corpora: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", "fbank", "--corpus", str(corpora[0]), "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--launcher", "slurm"]) == 2
    assert "jobs cannot be submitted" in capsys.readouterr().err
    assert cli.main([*command, "--slurm", "timeout_min=5"]) == 2
    assert "--slurm is for --launcher slurm" in capsys.readouterr().err
