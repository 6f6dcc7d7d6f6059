"""``mynah pretrain`` in this process: what a run leaves, and what it refuses."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
import runs
from runs import run, sha

from mynah import upstream
from mynah.recipes import cli, errors, pretrain
from mynah.recipes.errors import BadDataError, DivergedError
from mynah.recipes.training import checkpoint, config, metrics_log, optim
from mynah.recipes.training.data import AudioStream
from mynah.recipes.training.kernels import cpu_kernels
from mynah.recipes.training.material import gather
from mynah.recipes.training.optim import finish_gradients
from mynah.recipes.training.window import Window
from mynah.tasks.corpora.corpus import Corpus
from mynah.upstream.core import modelfolder, packed_linear


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.noise_corpus(tmp_path_factory.mktemp("corpora") / "noise").folder


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "__path__", runs.with_toy())


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_and_leaves_its_record(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(corpus, out, steps=40) == 0
    lines = metrics(out)
    assert [line["step"] for line in lines] == sorted({*range(4, 41, 4), *range(5, 41, 5)})
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert lines[-1]["parts"].keys() == {"mse", "peak"}
    assert lines[-1]["audio_hours"] > lines[0]["audio_hours"] > 0
    for line in lines:
        assert 0 <= line["data_share"] <= 1
        assert 0 <= line["padding_share"] < 0.2
        assert line["audio_hours_per_second"] > 0
        assert "collapsed" not in line
    assert lines[-1]["epoch"] > 0
    assert checkpoint.names(out / "checkpoints") == ["step-00000035", "step-00000030"]
    page = json.loads((out / "run.json").read_text())
    assert page["data"]["corpora"][0]["utterances"] == 13
    assert page["identity"]["data"]["0"]["version"] == Corpus.open(corpus).version
    assert page["sessions"][0]["versions"]["torch"] == torch.__version__.partition("+")[0]
    trained = modelfolder.verify(out / "final")["trained"]
    assert trained["steps"] == 40
    assert trained["collapsed"] == []
    model = modelfolder.load(out / "final")
    assert float(model.state_dict()["temperature"]) == 1.0  # after_step saw the last step
    events = list((out / "tensorboard").iterdir())
    assert len(events) == 1
    assert events[0].stat().st_size > 1000
    assert (out / "lock").read_text() == ""


def test_tensorboard_reads_what_was_written(corpus: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(corpus, tmp_path / "run", steps=8)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"loss", "lr", "grad_norm", "parts/mse"} <= set(events.Tags()["scalars"])
    written = {line["step"]: line["loss"] for line in metrics(tmp_path / "run")}
    read = {e.step: e.value for e in events.Scalars("loss")}
    assert read == pytest.approx(written)


def test_the_resolved_recipe_gives_the_same_run(corpus: Path, tmp_path: Path) -> None:
    assert run(corpus, tmp_path / "a", "model.width=5") == 0
    args = pretrain.Args(
        model="toy/tiny",
        corpus=(corpus,),
        out=tmp_path / "b",
        config=tmp_path / "a" / "recipe.yaml",
        device="cpu",
    )
    assert pretrain.main(args) == 0
    assert sha(tmp_path / "a") == sha(tmp_path / "b")
    assert run(corpus, tmp_path / "c", "model.width=5", seed=1) == 0
    assert sha(tmp_path / "a") != sha(tmp_path / "c")


def test_a_batch_that_is_not_finite_is_written_down_and_skipped(tmp_path: Path) -> None:
    folder = runs.noise_corpus(tmp_path / "noise", bad=(3,)).folder
    out = tmp_path / "run"
    assert run(folder, out, steps=20) == 0
    dumps = sorted((out / "nonfinite").iterdir())
    skipped = modelfolder.verify(out / "final")["trained"]["skipped_steps"]
    assert len(dumps) == skipped == sum(line["skipped"] for line in metrics(out)) > 0
    content = json.loads(dumps[0].read_text())
    (batch,) = content["batches"]
    assert batch["loss"] == "nan"
    assert batch["parts"]["mse"] == "nan"
    assert "bad03" in [u["id"] for u in batch["utterances"]]
    assert all(u["samples"] > 0 for u in batch["utterances"])
    model = modelfolder.load(out / "final")
    assert all(v.isfinite().all() for v in model.state_dict().values())


def test_a_step_in_which_nothing_counts_is_skipped(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = upstream.get("toy").MODEL
    loss = model.loss
    monkeypatch.setattr(
        model,
        "loss",
        lambda self, batch: replace(
            loss(self, batch),
            weight=0.0 if "u03" in batch.ids else 1.0,
            parts={"rare": torch.ones(())} if "u03" in batch.ids else {},
        ),
    )
    out = tmp_path / "run"
    assert run(corpus, out, steps=20) == 0
    skipped = modelfolder.verify(out / "final")["trained"]["skipped_steps"]
    dumps = sorted((out / "nonfinite").iterdir())
    assert 0 < len(dumps) == skipped < 20
    assert json.loads(dumps[0].read_text())["batches"][0]["weight"] == 0.0
    # in a step that counts, a batch that does not may have a part of its own
    assert run(corpus, tmp_path / "two", "train.accumulate=13", steps=8) == 0
    assert modelfolder.verify(tmp_path / "two" / "final")["trained"]["skipped_steps"] == 0


def test_a_run_that_stays_non_finite_has_diverged(tmp_path: Path) -> None:
    folder = runs.noise_corpus(tmp_path / "noise", bad=tuple(range(13))).folder
    out = tmp_path / "run"
    with pytest.raises(
        DivergedError, match=r"7 steps in a row(?s:.*)begin anew with another --out"
    ):
        run(folder, out, "train.patience=7")
    assert len(list((out / "nonfinite").iterdir())) == 7
    assert checkpoint.names(out / "checkpoints") == ["step-00000005"]
    assert not (out / "final").exists()
    with pytest.raises(DivergedError, match="at step 7"):  # patience survives a resumption
        run(folder, out, "train.patience=7", resume=True)
    with pytest.raises(DivergedError, match="begin anew with the same --out"):
        run(folder, tmp_path / "early", "train.patience=2")


def test_accumulation_equals_the_weighted_mean_of_its_batches(corpus: Path, tmp_path: Path) -> None:
    recipe = config.load("toy/tiny", overrides=[*runs.RECIPE, "train.accumulate=3"], steps=1)
    material = gather([corpus], None, 0.0)
    source = pretrain_stream(material.utterances, recipe.train)
    model = pretrain.build_model(recipe).train()
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    weights = 0.0
    with source.turns(0, 3) as turns:
        for loaded in turns:
            torch.manual_seed(loaded.seed)
            with cpu_kernels(torch.device("cpu")):
                loss = model.loss(loaded.batch)
            names, parameters = zip(*model.named_parameters(), strict=True)
            for name, grad in zip(names, torch.autograd.grad(loss.total, parameters), strict=True):
                expected[name] += grad * loss.weight
            weights += loss.weight
    for name, p in model.named_parameters():
        p.grad = expected[name] / weights
    norm = optim.finish_gradients(list(model.parameters()), 1.0, recipe.train.clip)
    assert run(corpus, tmp_path / "run", "train.accumulate=3", steps=1) == 0
    (line,) = metrics(tmp_path / "run")
    assert line["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert Window().take()["steps"] == 0


def pretrain_stream(utterances: Any, train: Any) -> Any:
    return AudioStream(utterances, train, sample_rate=16000)


def test_clipping_scales_all_gradients_alike() -> None:
    def parameters() -> list[torch.Tensor]:
        a, b = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
        a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
        return [a, b]

    p = parameters()
    assert finish_gradients(p, 2.0, 5.0) == pytest.approx(10.0)
    assert p[0].grad is not None
    assert p[0].grad.tolist() == pytest.approx([3.0, 0.0])
    p = parameters()
    assert finish_gradients(p, 2.0, None) == pytest.approx(10.0)
    assert p[1].grad is not None
    assert p[1].grad.tolist() == pytest.approx([8.0])


def test_vectors_do_not_decay_unless_asked(corpus: Path) -> None:

    recipe = config.load("toy/tiny")
    model = pretrain.build_model(recipe)
    groups = optim.build(model, recipe.train.optimizer, 0.1).param_groups
    assert {p.ndim for p in groups[0]["params"]} == {2}
    assert groups[0]["weight_decay"] == 0.01
    assert {p.ndim for p in groups[1]["params"]} == {1}
    assert groups[1]["weight_decay"] == 0
    every = config.load("toy/tiny", overrides=["train.optimizer.decay_vectors=true"])
    (group,) = optim.build(model, every.train.optimizer, 0.1).param_groups
    assert len(group["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("model", ["apc", "apc/", "apc/tiny"])
def test_a_variant_that_was_not_named_is_said(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "none", tmp_path / "run", "train.min_seconds=0", model=model)
    first = capsys.readouterr().err.partition("\n")[0]
    said = f"{model} names no variant: apc/base is trained; there are tiny, tiny-vq, vq as well"
    assert first == ("" if model == "apc/tiny" else said)


def test_bf16_is_used_where_asked(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_linear, "cpu_multiplies_bf16", lambda: True)  # torch emulates it
    run(corpus, tmp_path / "a")
    run(corpus, tmp_path / "b", precision="bf16")
    a, b = metrics(tmp_path / "a")[-1]["loss"], metrics(tmp_path / "b")[-1]["loss"]
    assert a != b
    assert a == pytest.approx(b, rel=0.1)
    model = modelfolder.load(tmp_path / "b" / "final")
    assert all(v.dtype == torch.float32 for v in model.state_dict().values())


def test_bf16_on_a_cpu_without_it_trains_in_float32_and_says_so_once(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(packed_linear, "cpu_multiplies_bf16", lambda: False)
    packed_linear._warn_of_float32.cache_clear()
    run(corpus, tmp_path / "a", steps=2)
    for name in ("b", "c"):
        run(corpus, tmp_path / name, steps=2, precision="bf16")
        assert sha(tmp_path / name) == sha(tmp_path / "a")
    assert caplog.text.count("float32 products are used") == 1


def test_tensorboard_failing_does_not_stop_a_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "tensorboard").write_text("not a folder")
    assert run(corpus, out) == 0
    assert "no TensorBoard events" in caplog.text

    def full(self: Any, event: Any) -> None:
        if event.HasField("summary"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(metrics_log.Board, "_put", full)
    assert run(corpus, tmp_path / "other") == 0
    assert "TensorBoard events stop here" in caplog.text
    assert len(metrics(tmp_path / "other")) == 5


def test_metrics_of_lost_steps_and_torn_lines_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5}\n{"step": 10}\n{"step": 12}\n{"st')
    with metrics_log.MetricsLog(tmp_path, step=10) as log:
        log.write({"step": 11, "loss": 1.0})
        with pytest.raises(ValueError, match="not JSON compliant"):
            log.write({"step": 12, "loss": float("nan")})
    assert [json.loads(x)["step"] for x in path.read_text().splitlines()] == [5, 10, 11]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_record_that_does_not_fit_ends_the_run(tmp_path: Path) -> None:
    with metrics_log.MetricsLog(tmp_path, step=0) as log:
        log.write({"step": 1})
        log._file.close()
        log._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
        with pytest.raises(OSError, match="Checkpoints are whole; mend it") as caught:
            log.write({"step": 2})
    assert errors.exit_code(caught.value) == errors.DISK


def test_short_utterances_and_splits(corpus: Path, tmp_path: Path) -> None:
    material = gather([corpus], None, 0.5)
    (entry,) = material.details["corpora"]
    assert entry["split"] == "all"
    assert entry["too_short"] + entry["utterances"] == 13
    assert entry["too_short"] > 0
    assert min(u.duration for u in material.utterances) >= 0.5
    with pytest.raises(LookupError, match="no split 'dev'"):
        gather([corpus], "dev", 0.0)
    with pytest.raises(ValueError, match="given twice"):
        gather([corpus, corpus], None, 0.0)
    with pytest.raises(ValueError, match="no utterance lasts 9 s"):
        gather([corpus], None, 9.0)
    other = runs.noise_corpus(tmp_path / "more", count=4, seed=5).folder
    both = gather([corpus, other], None, 0.0)
    assert len(both.utterances) == len({u.id for u in both.utterances}) == 17
    assert both.utterances[-1].id.startswith("more/")


def test_broken_audio_ends_the_run_and_names_the_file(tmp_path: Path) -> None:
    folder = runs.noise_corpus(tmp_path / "noise").folder
    (folder / "04.wav").write_bytes(b"RIFF")
    with pytest.raises(BadDataError, match=r"04\.wav"):
        run(folder, tmp_path / "run")


def test_a_family_without_weights_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fbank has no weights to train"):
        run(corpus, tmp_path / "run", model="fbank")
    assert not (tmp_path / "run" / "run.json").exists()


def test_unusable_devices_are_refused(corpus: Path, tmp_path: Path) -> None:
    for device, message in (("tpu", "must be auto"), ("cuda:99", "no GPU number 99")):
        with pytest.raises(ValueError, match=message):
            run(corpus, tmp_path / "run", device=device)


def test_the_command_line_takes_overrides_anywhere(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    common = ["--corpus", str(corpus), "--out", str(out), "--device", "cpu"]
    overrides = ["model.width=8", "train.batch_seconds=4"]
    argv = ["pretrain", "apc/tiny", *common, "--steps", "2", *overrides]
    assert cli.main(argv) == 0
    page = json.loads((out / "run.json").read_text())
    assert page["recipe"]["model"]["width"] == 8
    assert page["recipe"]["train"]["batch_seconds"] == 4
    assert cli.main(["pretrain", "apc/tiny", *common, "train.lrr=1"]) == 2
    assert "train.lrr: unknown key (command line). Closest: train.lr" in capsys.readouterr().err
