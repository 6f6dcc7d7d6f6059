"""fairseq-style checkpoints: the right model, and a pickle that cannot do anything."""

import argparse
import dataclasses
import enum
import os
import pickle
import re
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mynah.upstream.interop import fairseq, keymap
from mynah.upstream.interop.unpickle import Stub, plain, read
from mynah.upstream.wav2vec2 import Config, Wav2Vec2

CONV = "[(32, 10, 5)] + [(32, 3, 2)] * 4 + [(32,2,2)] + [(32,2,2)]"
SETTINGS: dict[str, Any] = {
    "extractor_mode": "default",
    "conv_feature_layers": CONV,
    "encoder_embed_dim": 64,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_embed_dim": 96,
    "latent_vars": 8,
    "latent_temp": "(2,0.5,0.999995)",
    "final_dim": 16,
    "quantize_targets": True,
}
POST = Config(
    conv_channels=32,
    dim=64,
    layers=2,
    heads=4,
    ffn=96,
    codes=8,
    code_dim=16,
    final_dim=16,
    layerdrop=0.0,
)
PRE = dataclasses.replace(POST, conv_norm="layer", conv_bias=True, norm="pre", normalize=True)


def build(config: Config) -> Wav2Vec2:
    torch.manual_seed(0)
    model = Wav2Vec2(config)
    for p in model.parameters():
        p.data += 0.05 * torch.randn_like(p)
    return model


def foreign(model: Wav2Vec2) -> dict[str, Tensor]:
    """Our weights under fairseq's names."""
    state = {}
    for key, value in model.state_dict().items():
        if key != "quantizer.temperature":
            (name,) = keymap.theirs(key, "fairseq", conv_norm=model.config.conv_norm)
            state[name] = value.clone()
    if "quantizer.vars" in state:
        state["quantizer.vars"] = state["quantizer.vars"].reshape(1, 16, 8)
    return state


def same(path: Path, model: Wav2Vec2) -> bool:
    (wav,) = torch.randn(1, 5000)
    a = list(fairseq.load(path).freeze().hidden_states([wav]))
    b = list(model.freeze().hidden_states([wav]))
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture
def omegaconf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Look-alikes of the classes that hydra-era checkpoints are pickled with."""
    module = types.ModuleType("omegaconf.dictconfig")

    class DictConfig:
        def __init__(self, content: dict[str, Any]) -> None:
            self._content = {key: AnyNode(value) for key, value in content.items()}
            self._metadata = {"ref_type": dict, "key": None}

    class AnyNode:
        def __init__(self, value: Any) -> None:
            self._val = value
            self._parent = None

    class Mode(enum.Enum):
        DEFAULT = "default"

    for kind in (DictConfig, AnyNode, Mode):
        kind.__module__ = "omegaconf.dictconfig"
        kind.__qualname__ = kind.__name__
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)
    yield module


def test_old_checkpoint_with_a_namespace(tmp_path: Path) -> None:
    model = build(POST)
    path = tmp_path / "old.pt"
    content = {
        "args": argparse.Namespace(arch="wav2vec2", normalize=False, **SETTINGS),
        "model": OrderedDict(foreign(model)),
        "optimizer_history": [{"best_loss": np.float64(1.5), "name": "adam"}],
        "last_optimizer_state": {"step": np.zeros(3)},
    }
    for zipped in (True, False):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        assert same(path, model)
    loaded = fairseq.load(path)
    assert loaded.config.gumbel_end == 0.5
    assert loaded.config.objective


def test_hydra_checkpoint_without_importing_omegaconf(
    tmp_path: Path, omegaconf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        **SETTINGS,
        "_name": "wav2vec2",
        "extractor_mode": "layer_norm",
        "layer_norm_first": True,
        "conv_bias": True,
        "encoder_layerdrop": 0.0,
    }
    cfg = {
        "model": omegaconf.DictConfig(settings),
        "task": omegaconf.DictConfig({"normalize": True, "mode": omegaconf.Mode.DEFAULT}),
    }
    path = tmp_path / "hydra.pt"
    model = build(PRE)
    torch.save({"args": None, "cfg": cfg, "model": foreign(model)}, path)
    for name in ("omegaconf", "omegaconf.dictconfig"):
        monkeypatch.delitem(sys.modules, name)
    assert plain(read(path)["cfg"])["task"] == {"normalize": True, "mode": "default"}
    assert fairseq.load(path).config == dataclasses.replace(PRE, mask_prob=0.65)
    assert same(path, model)
    assert "omegaconf" not in sys.modules


def test_s3prl_form_and_fine_tuned(tmp_path: Path) -> None:
    model = build(dataclasses.replace(POST, objective=False))
    path = tmp_path / "converted.pt"
    weights = foreign(model)
    torch.save({"task_cfg": {}, "model_cfg": SETTINGS, "model_weight": weights}, path)
    assert same(path, model)
    tuned: dict[str, Tensor] = {f"w2v_encoder.w2v_model.{k}": v for k, v in weights.items()}
    tuned["w2v_encoder.proj.weight"] = torch.ones(5, 64)
    inner = {"model": {**SETTINGS, "_name": "wav2vec2"}, "task": {}}
    cfg = {"model": {"_name": "wav2vec_ctc", "w2v_args": inner}, "task": {"normalize": False}}
    torch.save({"cfg": cfg, "model": tuned}, path)
    assert same(path, model)
    assert not fairseq.load(path).config.objective


def test_no_projection_where_widths_agree(tmp_path: Path) -> None:
    model = build(dataclasses.replace(POST, dim=32))
    with torch.no_grad():
        model.frontend.proj.weight.copy_(torch.eye(32))
        model.frontend.proj.bias.zero_()
    state = foreign(model)
    del state["post_extract_proj.weight"], state["post_extract_proj.bias"]
    path = tmp_path / "narrow.pt"
    torch.save({"cfg": {"model": {**SETTINGS, "encoder_embed_dim": 32}}, "model": state}, path)
    assert same(path, model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_name": "speech_dlm"}, "holds a 'speech_dlm'.*families that read .*wav2vec2"),
        ({"activation_fn": "relu"}, "activation_fn is 'relu'"),
        ({"layer_type": "conformer"}, "layer_type is 'conformer'"),
        ({"conv_feature_layers": "__import__('os').abort()"}, "must look like"),
        ({"conv_feature_layers": "[(32, 10, 5)] * 99999999999"}, "must look like"),
        ({"conv_feature_layers": "[(32, 10)]"}, "triples"),
        ({"encoder_layers": 3}, "missing"),
    ],
)
def test_another_model_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"cfg": {"model": {**SETTINGS, **change}}, "model": foreign(build(POST))}, path)
    with pytest.raises(ValueError, match=message):
        fairseq.load(path)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        fairseq.load(tmp_path / "none.pt")
    path = tmp_path / "x.pt"
    for content, message in (
        ({"weights": 1}, "it has weights"),
        ([1], "holds a list"),
        ({"model": {"a": torch.ones(1)}}, "has no settings"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            fairseq.load(path)
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match="cannot be read"):
        fairseq.load(path)
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "storages")
    with pytest.raises(ValueError, match="tar archive"):
        fairseq.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"")
        archive.writestr("m/constants.pkl", b"")
    with pytest.raises(ValueError, match="TorchScript"):
        fairseq.load(path)


# -- files that attack ---------------------------------------------------------------------------


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def attacks(canary: Path) -> dict[str, Any]:
    command = f"touch {canary}"
    return {
        "system": Call(os.system, command),
        "touch": Call(Path.touch, canary),
        "eval": Call(eval, f"__import__('os').system({command!r})"),
        "getattr": Call(getattr, "text", "upper"),
        "import": Call(__import__, "antigravity"),
        "load": Call(pickle.loads, pickle.dumps(Call(os.system, command))),
        "torch": Call(torch.load, str(canary)),
        "jit": Call(torch.jit.load, str(canary)),
        "from numpy": Call(np.load, str(canary)),
        "namespace": argparse.Namespace(x=Call(os.system, command)),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", list(attacks(Path("x"))))
def test_a_malicious_checkpoint_executes_nothing(name: str, zipped: bool, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "bad.pt"
    content = {"cfg": {"model": SETTINGS}, "model": {"a": attacks(canary)[name]}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"asks for|dictionary of tensors"):
        fairseq.load(path)
    assert not canary.exists()


def test_the_attack_would_work_on_plain_pickle(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "bad.pt"
    torch.save({"a": attacks(canary)["system"]}, path)
    torch.load(path, weights_only=False)
    assert canary.exists()


def test_a_function_cannot_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    # GLOBAL torch._utils._rebuild_tensor_v2, then BUILD with attributes to set on it
    path.write_bytes(
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x08\x00\x00\x00__doc__q\x00K\x01s\x86b."
    )
    with pytest.raises(ValueError, match="cannot be read"):
        read(path)
    assert torch._utils._rebuild_tensor_v2.__doc__ != 1


def test_stubs_only_remember(tmp_path: Path) -> None:
    path = tmp_path / "stub.pt"
    torch.save({"x": argparse.Namespace(a=1, b=[2]), "y": np.float64(3)}, path)
    content = read(path)
    assert isinstance(content["x"], Stub)
    assert repr(content["x"]) == "<inert argparse.Namespace>"
    assert plain(content["x"]) == {"a": 1, "b": [2]}
    assert "numpy" in repr(content["y"])


def test_a_reader_that_misses_a_setting_says_so(tmp_path: Path) -> None:
    from mynah.upstream.interop import s3prl

    path = tmp_path / "apc.ckpt"
    torch.save({"model": {"rnn_layers.0.weight_ih_l0": torch.ones(1)}, "config": {}}, path)
    with pytest.raises(ValueError, match="looks like apc but has no 'feat_dim'"):
        s3prl.convert(path)


@pytest.mark.parametrize(
    ("config", "prefix"),
    [
        ('{"model_type": "hubert"}', "use hf:{}"),
        ('{"format": 1}', "use {}"),
        (None, "use hf:{} with"),
    ],
)
def test_a_safetensors_file_names_the_prefix_of_its_folder(
    config: str | None, prefix: str, tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, file)
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    message = re.escape(prefix.format(tmp_path)) + ("$" if config else "")
    with pytest.raises(ValueError, match=f"is a safetensors file .*{message}"):
        fairseq.load(file)
