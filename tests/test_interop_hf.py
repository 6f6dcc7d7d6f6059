"""Hugging Face directories: the same layers from the same files, and no silent misfit."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mynah.upstream.interop import hf

SIZE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "conv_dim": [32] * 7,
    "num_codevectors_per_group": 8,
    "codevector_dim": 16,
    "proj_codevector_dim": 24,
}
LARGE: dict[str, Any] = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
WEIGHTS = "model.safetensors"


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """No unit gains and zero biases that would hide a swap."""
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn_like(p)
    return model.eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2ForPreTraining,
        Wav2Vec2Model,
    )

    torch.manual_seed(0)
    made = {}
    for name, kind, more, normalize in (
        ("base", Wav2Vec2Model, {}, False),
        ("large", Wav2Vec2Model, LARGE, True),
        ("pretraining", Wav2Vec2ForPreTraining, {}, False),
        ("ctc", Wav2Vec2ForCTC, {**LARGE, "vocab_size": 5}, True),
    ):
        folder = tmp_path_factory.mktemp(name)
        shaken(kind(Wav2Vec2Config(**SIZE, **more))).save_pretrained(folder)  # type: ignore[operator]
        Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
        made[name] = folder
    return made


def reference(folder: Path, wav: Tensor) -> list[Tensor]:
    """Hidden states of transformers, the last one after the final norm as SUPERB takes it."""
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

    model = Wav2Vec2Model.from_pretrained(folder).eval()
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    values = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    with torch.no_grad():
        out = model(values, output_hidden_states=True)
    return [*(h[0] for h in out.hidden_states[:-1]), out.last_hidden_state[0]]


@pytest.mark.parametrize("name", ["base", "large", "pretraining", "ctc"])
def test_layers_equal_those_of_transformers(name: str, folders: dict[str, Path]) -> None:
    model = hf.load(folders[name]).freeze()
    assert model.config.objective == (name == "pretraining")
    assert model.config.normalize == (name in ("large", "ctc"))
    wavs = [0.1 * torch.randn(n) for n in (400, 16000, 9001)]
    frames = [model.num_frames(len(wav)) for wav in wavs]
    together = [layer.split(frames) for layer in model.hidden_states(wavs)]
    for index, wav in enumerate(wavs):
        expected = reference(folders[name], wav)
        assert len(expected) == len(together) == 4
        for layer, state in zip(together, expected, strict=True):
            assert layer[index].shape == state.shape
            assert (layer[index] - state).norm() / state.norm() < 1e-5


def copy_of(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def same_as(folder: Path, other: Path) -> bool:
    (wav,) = torch.randn(1, 4000)
    *_, a = hf.load(folder).freeze().hidden_states([wav])
    *_, b = hf.load(other).freeze().hidden_states([wav])
    return torch.equal(a, b)


def test_a_bin_file_with_the_old_names(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_of(folders["base"], tmp_path)
    state = load_file(folder / WEIGHTS)
    conv = "encoder.pos_conv_embed.conv"
    state[f"{conv}.weight_g"] = state.pop(f"{conv}.parametrizations.weight.original0")
    state[f"{conv}.weight_v"] = state.pop(f"{conv}.parametrizations.weight.original1")
    torch.save({f"wav2vec2.{name}": t for name, t in state.items()}, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    assert same_as(folder, folders["base"])


def test_shards(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_of(folders["large"], tmp_path)
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(state)
    where = {}
    for shard in (0, 1):
        file = f"model-0000{shard + 1}-of-00002.safetensors"
        save_file({name: state[name] for name in names[shard::2]}, folder / file)
        where.update(dict.fromkeys(names[shard::2], file))
    index = folder / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    assert same_as(folder, folders["large"])
    index.write_text(json.dumps({"weight_map": {**where, "more": file}}))
    with pytest.raises(ValueError, match="different weights"):
        hf.load(folder)
    index.write_text(json.dumps({"weight_map": {**where, "more": "../x.safetensors"}}))
    with pytest.raises(ValueError, match=r"names '\.\./x\.safetensors'"):
        hf.load(folder)


def test_without_a_preprocessor_config(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy_of(folders["large"], tmp_path)
    (folder / "preprocessor_config.json").unlink()
    assert hf.load(folder).config.normalize
    assert "waveforms are normalised" in caplog.text


def test_weights_that_do_not_fit(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_of(folders["base"], tmp_path)
    state = load_file(folder / WEIGHTS)
    lost = state.pop("encoder.layers.1.feed_forward.output_dense.bias")
    save_file({**state, "encoder.layers.1.extra": lost}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"1 missing: .*output_dense\.bias; 1 unexpected: .*extra"):
        hf.load(folder)
    state["encoder.layers.1.feed_forward.output_dense.bias"] = lost[:-1].clone()
    save_file(state, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"1 different: .*is \(63,\), must be \(64,\)"):
        hf.load(folder)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        hf.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "no family reads model_type 'bert'.*: .*wav2vec2"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"add_adapter": True}, "add_adapter is True"),
        ({"conv_dim": [32] * 6 + [64]}, "one width"),
        ({"hidden_size": "64.5"}, "dim"),
    ],
)
def test_a_setting_that_is_not_implemented(
    change: dict[str, Any], message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy_of(folders["base"], tmp_path)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        hf.load(folder)


def test_what_is_not_there(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="hf download"):
        hf.load("facebook/wav2vec2-base")
    folder = copy_of(folders["base"], tmp_path)
    (folder / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match="has no weights"):
        hf.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not readable JSON"):
        hf.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is not there"):
        hf.load(folder)


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def test_a_malicious_bin_file_executes_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_of(folders["base"], tmp_path)
    (folder / WEIGHTS).unlink()
    canary = tmp_path / "canary"
    torch.save({"mask": Bomb(canary)}, folder / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"asks for \S+getattr.*Nothing of it was executed"
    ) as told:
        hf.load(folder)
    assert not canary.exists()
    assert "for hf:, as safetensors" in str(told.value)
    assert "weights_only" not in str(told.value)
    for content, match in (
        ({"args": argparse.Namespace()}, "'args' is no tensor but argparse.Namespace"),
        (b"hello world", "cannot be read as a checkpoint"),
    ):
        if isinstance(content, bytes):
            (folder / "pytorch_model.bin").write_bytes(content)
        else:
            torch.save(content, folder / "pytorch_model.bin")
        with pytest.raises(ValueError, match=match):
            hf.load(folder)
