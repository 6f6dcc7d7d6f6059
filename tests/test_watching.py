"""Scores by step of pretraining and by hidden state: the same probes, told apart and resumable."""

import dataclasses
import json
import logging
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from tones import write_tones

from mynah import upstream
from mynah.recipes import bench, cli, errors, pretrain, probe, results, table
from mynah.recipes.probing.checkpoints import specs_of, untrained
from mynah.recipes.probing.layers import run_each
from mynah.recipes.probing.settings import Settings
from mynah.upstream.core import modelfolder, spec

DEEP = "mockingjay/tiny"  # four hidden states
FAST = Settings(steps=12, learning_rates=(1e-2,))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("data") / "tones").folder


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 5 steps with checkpoints of 2 and 4, of a model that is no variant."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    args = pretrain.Args(
        model="autoencoder/tiny", corpus=(corpus,), split="all", out=out, seed=3, steps=5,
        overrides=(
            "train.save_every=2", "train.keep=10", "train.crop_seconds=0.3", "train.batch_seconds=2",
            "train.min_seconds=0.1", "train.workers=0", "model.dim=48", "model.layers=1",
        ),
    )  # fmt: skip
    assert pretrain.main(args) == errors.DONE
    return out


def outcomes(found: list[list[results.Result] | Exception]) -> list[results.Result]:
    out = []
    for one in found:
        assert not isinstance(one, Exception)
        out += one
    return out


# -- layers -------------------------------------------------------------------------------------


def test_each_layer_is_the_probe_of_that_layer(corpus: Path, tmp_path: Path) -> None:
    each = outcomes(run_each(DEEP, "ks", corpus, tmp_path / "each", settings=FAST))
    assert [r.layer for r in each] == [0, 1, 2, 3]
    assert [r.forwards for r in each] == [54, 0, 0, 0]  # no second pass over the audio
    assert [r.layer_weights for r in each] == [
        tuple(float(i == k) for i in range(4)) for k in range(4)
    ]
    for layer, result in enumerate(each):
        settings = dataclasses.replace(FAST, layer=layer)
        (alone,) = probe.run(DEEP, "ks", corpus, tmp_path / "alone", settings=settings)
        assert result.main == alone.main
        assert result.sweep == alone.sweep
    assert len({r.sweep for r in each}) == 4
    assert len(results.load_all(tmp_path / "each")) == 4


def test_layers_are_kept_and_only_what_is_missing_is_made(corpus: Path, tmp_path: Path) -> None:
    (summed,) = probe.run(DEEP, "ks", corpus, tmp_path, settings=FAST)
    args = probe.Args(
        spec=DEEP,
        task="ks",
        corpus=corpus,
        out=tmp_path,
        steps=12,
        lrs=(1e-2,),
        layers="each",
    )
    assert probe.main(args) == 0
    files = {p.name: p for p in results.walk(tmp_path)}
    assert sorted(files) == [
        "ks-fixed-tones-seed0.json", *(f"ks-layer{k}-fixed-tones-seed0.json" for k in range(4))
    ]  # fmt: skip
    files["ks-layer1-fixed-tones-seed0.json"].unlink()
    before = {name: p.stat().st_mtime_ns for name, p in files.items() if p.exists()}
    assert probe.main(args) == 0
    assert before == {name: files[name].stat().st_mtime_ns for name in before}
    assert files["ks-layer1-fixed-tones-seed0.json"].exists()
    assert results.load(files["ks-fixed-tones-seed0.json"]) == summed
    heads = sorted(p.name for p in tmp_path.rglob("*.head.safetensors"))
    assert len(heads) == 5  # mynah predict takes each


def test_layers_share_forwards_where_nothing_is_kept(corpus: Path, tmp_path: Path) -> None:
    stream = dataclasses.replace(FAST, features="stream")
    each = outcomes(run_each(DEEP, "pr", corpus, tmp_path, settings=stream))
    assert [r.forwards for r in each] == [54] * 4  # memory holds the small corpus: one pass
    assert [r.features for r in each] == ["stream"] * 4
    kept = outcomes(run_each(DEEP, "pr", corpus, tmp_path / "kept", settings=FAST))
    for one, other in zip(each, kept, strict=True):
        assert one.main.value == pytest.approx(other.main.value, abs=0.02)


def test_bench_has_a_cell_for_each_layer(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = bench.Args(
        specs=("fbank", DEEP, f"hf:{tmp_path}/gone"), corpus=(corpus,), out=tmp_path, tasks=("ks",),
        steps=4, lrs=(1e-2,), layers="each",
    )  # fmt: skip
    assert bench.main(args) == 1
    said = capsys.readouterr().out
    assert "[4/6] mockingjay/tiny ks tones layer 2" in said
    assert f"missing: hf:{tmp_path}/gone ks tones: " in said
    made = table.collect(results.load_all(tmp_path))
    assert list(made.rows) == [
        "fbank-base layer 0", *(f"mockingjay-tiny-untrained layer {k}" for k in range(4)),
    ]  # fmt: skip
    assert len(made.columns) == 1
    assert made.mixed == ()  # the layer is the row's, no reason not to compare
    probe.run(DEEP, "ks", corpus, tmp_path,
              settings=Settings(steps=5, learning_rates=(1e-2,)))  # fmt: skip
    made = table.collect(results.load_all(tmp_path))
    assert list(made.rows)[1] == "mockingjay-tiny-untrained"  # the weighted sum first
    assert made.mixed == (0,)  # but other steps are


def test_one_layer_and_each_do_not_go_together(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"either one layer \(got 1\) or --layers each"):
        run_each("fbank", "ks", corpus, tmp_path, settings=dataclasses.replace(FAST, layer=1))


def test_a_layer_that_fails_does_not_stop_the_others(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mynah.recipes.probing import job

    right = job.run

    def run(*where: object, settings: Settings, **options: object) -> list[results.Result]:
        if settings.layer == 1:
            raise errors.DivergedError("every head diverged")
        return right(*where, settings=settings, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "run", run)
    args = probe.Args(
        spec=DEEP, task="ks", corpus=corpus, out=tmp_path, steps=4, lrs=(1e-2,), layers="each"
    )
    assert probe.main(args) == 1
    said = capsys.readouterr().out
    assert "layer 1 failed: every head diverged" in said
    assert "1 results are missing" in said
    assert [r.layer for r in results.load_all(tmp_path)] == [0, 2, 3]


# -- checkpoints --------------------------------------------------------------------------------


def test_a_run_may_be_called_as_a_family_is(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apc").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    specs = specs_of(Path("apc"), tmp_path)
    assert [spec.training(s) for s in specs] == [
        ("autoencoder-custom@mine", n) for n in (0, 2, 4, 5)
    ]


def test_a_run_is_untrained_checkpoints_and_final(run: Path, tmp_path: Path) -> None:
    specs = specs_of(run, tmp_path)
    assert [spec.training(s) for s in specs] == [
        ("autoencoder-custom@mine", n) for n in (0, 2, 4, 5)
    ]
    assert [Path(s).name for s in specs] == [
        "step-00000000",
        "step-00000002",
        "step-00000004",
        "final",
    ]
    assert Path(specs[0]).is_relative_to(tmp_path / "untrained")
    family = upstream.get("autoencoder")
    config = dataclasses.replace(family.CONFIGS["tiny"], dim=48, layers=1)
    recorded = json.loads((run / "run.json").read_text())["identity"]["recipe"]
    assert recorded["train"]["seed"] == 3
    torch.manual_seed(3)
    expected = family.MODEL(config)
    assert spec.load(specs[0]).fingerprint() == expected.fingerprint()
    assert specs_of(run, tmp_path) == specs
    names = [spec.describe(s) for s in specs]
    assert [n.rpartition("-")[0] for n in names] == [
        f"autoencoder-custom@mine-{part}"
        for part in ("step-00000000", "step-00000002", "step-00000004", "final")
    ]
    assert names[-1] == spec.describe(str(run))


def test_scores_by_step(
    run: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["bench", "fbank", "--checkpoints", str(run), "--corpus", str(corpus), "--tasks", "ks",
            "--steps", "12", "--lrs", "0.01", "--out", str(tmp_path)]  # fmt: skip
    assert cli.main(argv) == errors.DONE
    found = {r.upstream_step: r for r in results.load_all(tmp_path)}
    assert set(found) == {None, 0, 2, 4, 5}
    assert {r.upstream_run for r in found.values()} == {None, "autoencoder-custom@mine"}
    assert len({r.fingerprint for r in found.values()}) == 5
    made = table.collect(list(found.values()))
    assert [row.step for row in made.origins.values()] == [0, 2, 4, 5, None]
    capsys.readouterr()
    assert cli.main(["table", str(tmp_path), "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| upstream | step | ks tones accuracy↑ fixed |")
    assert [line.split("|")[2].strip() for line in lines[2:7]] == ["0", "2", "4", "5", "–"]
    assert cli.main(["table", str(tmp_path), "--format", "json"]) == 0
    cells = json.loads(capsys.readouterr().out)
    assert [(c["run"], c["step"], c["layer"]) for c in cells[:2]] == [
        ("autoencoder-custom@mine", 0, None), ("autoencoder-custom@mine", 2, None),
    ]  # fmt: skip
    before = {p: p.stat().st_mtime_ns for p in results.walk(tmp_path)}
    assert cli.main(argv) == errors.DONE
    # the run folder itself is its final model: nothing is made again
    assert probe.main(
        probe.Args(spec=str(run), task="ks", corpus=corpus, out=tmp_path, steps=12, lrs=(0.01,))
    ) == 0  # fmt: skip
    assert before == {p: p.stat().st_mtime_ns for p in results.walk(tmp_path)}


def copied(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder)
    return folder


def test_what_is_damaged_is_left_out_and_named(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = copied(run, tmp_path / "mine")
    weights = mine / "checkpoints" / "step-00000002" / modelfolder.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        specs = specs_of(mine, tmp_path / "out")
    assert [Path(s).name for s in specs] == ["step-00000000", "step-00000004", "final"]
    assert "left out" in caplog.text
    assert "step-00000002" in caplog.text
    for folder in ("final", "checkpoints/step-00000004"):
        (mine / folder / modelfolder.CONFIG).write_text("{}")
    with pytest.raises(ValueError, match=r"no model of .*mine is whole"):
        specs_of(mine, tmp_path / "out")


def test_a_checkpoint_that_is_the_final_model_is_asked_once(run: Path, tmp_path: Path) -> None:
    mine = copied(run, tmp_path / "mine")
    last = mine / "checkpoints" / "step-00000005"
    modelfolder.save(modelfolder.load(mine / "final"), last, extra={"step": 5})
    assert [Path(s).name for s in specs_of(mine, tmp_path / "out")][-1] == "final"
    assert len(specs_of(mine, tmp_path / "out")) == 4


def test_no_untrained_model_where_it_is_not_known(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = copied(run, tmp_path / "mine")
    record = json.loads((mine / "run.json").read_text())
    record["identity"]["data"]["teacher"] = "abc"
    (mine / "run.json").write_text(json.dumps(record))
    with caplog.at_level(logging.WARNING):
        assert untrained(mine, tmp_path / "out") is None
    assert "it may have started from its teacher's weights" in caplog.text
    del record["identity"]["recipe"]["model"]
    record["identity"]["data"].pop("teacher")
    (mine / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"run.json is damaged: KeyError\('model'\)"):
        untrained(mine, tmp_path / "out")
    (mine / "run.json").unlink()
    assert Path(specs_of(mine, tmp_path / "out")[0]).name == "step-00000002"
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        specs_of(tmp_path / "none", tmp_path)
    for folder in (tmp_path, run / "final"):
        with pytest.raises(ValueError, match="is not the folder of a pretraining run"):
            specs_of(folder, tmp_path)
    (tmp_path / "two" / "iteration-1" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"several iterations.*give one of .*iteration-1"):
        specs_of(tmp_path / "two", tmp_path)
    with pytest.raises(ValueError, match=r"give upstreams .* or --checkpoints RUN"):
        bench.upstreams(bench.Args(out=tmp_path))
