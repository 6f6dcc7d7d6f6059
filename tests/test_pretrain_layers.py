"""Layers that are computed twice give the same weights; compiled ones nearly."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
import runs

from mynah.recipes import pretrain
from mynah.recipes.training import layers
from mynah.recipes.training.values import TrainConfig
from mynah.upstream.core import modelfolder

MODEL = "mockingjay/tiny"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.noise_corpus(tmp_path_factory.mktemp("corpora") / "noise").folder


def run(corpus: Path, out: Path, *overrides: str, **options: object) -> dict[str, torch.Tensor]:
    args = runs.arguments(corpus, out, *runs.SMALL[MODEL], *overrides, model=MODEL, **options)
    assert pretrain.main(args) == 0
    return modelfolder.load(out / "final").state_dict()


@pytest.mark.parametrize("kernels", ["true", "false"])
def test_forgotten_activations_change_nothing(corpus: Path, tmp_path: Path, kernels: str) -> None:
    own = ("model.dropout=0.1", "model.attention_dropout=0.1", f"train.cpu_kernels={kernels}")
    kept = run(corpus, tmp_path / "a", *own)
    forgotten = run(corpus, tmp_path / "b", *own, "train.checkpoint_activations=true")
    assert all(torch.equal(value, forgotten[key]) for key, value in kept.items())


def test_forgotten_activations_resume_exactly(corpus: Path, tmp_path: Path) -> None:
    own = ("train.checkpoint_activations=true",)
    whole = run(corpus, tmp_path / "a", *own)
    args = runs.arguments(
        corpus, tmp_path / "b", *runs.SMALL[MODEL], *own, model=MODEL, minutes=1e-6
    )
    assert pretrain.main(args) == 75
    resumed = run(corpus, tmp_path / "b", *own, resume=True)
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_activations_are_forgotten() -> None:
    from mynah import upstream

    model = upstream.build(MODEL, seed=0).train()
    calls: list[int] = []
    for layer in layers.transformer_layers(model):
        layer.norm1.register_forward_hook(lambda *_: calls.append(1))
    layers.prepare_layers(model, TrainConfig(checkpoint_activations=True), CPU)
    x_BTD = torch.randn(2, 9, model.dim, requires_grad=True)
    last_BTD = model.encoder(x_BTD)[-1]  # type: ignore[operator,union-attr]
    assert len(calls) == 3
    last_BTD.sum().backward()
    assert len(calls) == 6
    assert list(model.state_dict()) == list(upstream.build(MODEL).state_dict())


def test_models_without_such_layers_and_machines_without_compilers_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mynah import upstream

    with pytest.raises(ValueError, match="apc has no Transformer layers of ours"):
        layers.prepare_layers(
            upstream.build("apc/tiny"), TrainConfig(checkpoint_activations=True), CPU
        )
    monkeypatch.setattr(layers.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="needs a C\\+\\+ compiler on a CPU"):
        layers.prepare_layers(upstream.build(MODEL), TrainConfig(compile=True), CPU)
    monkeypatch.setattr(layers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs triton on a GPU"):
        layers.check_compiler(torch.device("cuda"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_layers_train_alike(corpus: Path, tmp_path: Path) -> None:
    own = ("model.dropout=0", "model.attention_dropout=0", "train.cpu_kernels=false")
    plain = run(corpus, tmp_path / "a", *own)
    compiled = run(corpus, tmp_path / "b", *own, "train.compile=true")
    for key, value in plain.items():
        assert torch.allclose(value, compiled[key], rtol=1e-3, atol=1e-4), key
