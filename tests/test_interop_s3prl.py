"""s3prl: equal states on the same weights, wrapped hub entries, and files that must not be run."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mynah.upstream.core import spec
from mynah.upstream.interop import s3prl, s3prl_hub
from mynah.upstream.interop.wrapped import Wrapped

LENGTHS = (600, 16000, 23456)  # s3prl makes NaN of a single frame


@pytest.fixture(autouse=True)
def importable() -> None:
    s3prl.ensure_importable()


def waves() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(n, generator=generator) for n in LENGTHS]


def apc_checkpoint(folder: Path, **paras: Any) -> Path:
    from s3prl.upstream.apc.apc import APC

    model = {
        "num_layers": 3, "hidden_size": 24, "dropout": 0.1, "residual": True, **paras
    }  # fmt: skip
    audio = {"feat_type": "fbank", "feat_dim": 40, "frame_length": 25, "frame_shift": 10}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = APC(40, **model).state_dict()
    config = {
        "model": {"paras": model},
        "task": {"n_future": 5},
        "data": {"audio": {**audio, "decode_wav": False, "cmvn": True}},
    }
    path = folder / "apc.ckpt"
    torch.save({"model": state, "config": config}, path)
    return path


def mockingjay_checkpoint(folder: Path, *, target: str = "mel", **net: Any) -> Path:
    from s3prl.upstream.mockingjay.model import (
        TransformerConfig,
        TransformerModel,
        TransformerSpecPredictionHead,
    )

    transformer = {
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "hidden_act": "gelu",
        "intermediate_size": 48, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02, "layer_norm_eps": 1e-12, "share_layer": False,
        "pre_layer_norm": False, **net,
    }  # fmt: skip
    feature = {"channel": 0, "log": True, "delta": 0, "cmvn": True}
    audio = {
        "sample_rate": 16000, "win_ms": 25, "hop_ms": 10, "n_freq": 201, "n_mels": 80,
        "n_mfcc": 13, "target_level": -25, "input": {"feat_type": "mel", **feature},
        "target": {"feat_type": target, **feature},
    }  # fmt: skip
    task = {"sequence_length": 60, "mask_proportion": 0.15, "mask_consecutive_max": 7}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = TransformerConfig(transformer)
        net_state = TransformerModel(config, 80).state_dict()
        head = TransformerSpecPredictionHead(config, 80 if target == "mel" else 201)
    for key, value in net_state.items():  # as trained: norms and biases that are not 1 and 0
        value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(key)))
    path = folder / "mockingjay.ckpt"
    torch.save(
        {
            "Transformer": net_state,
            "SpecHead": head.state_dict(),
            "Upstream_Config": {"transformer": transformer, "audio": audio, "task": task},
            "Config": {},
        },
        path,
    )
    return path


@pytest.mark.parametrize(
    ("family", "entry"), [("apc", "apc_local"), ("mockingjay", "mockingjay_local")]
)
def test_ours_equals_s3prl_on_the_same_weights(tmp_path: Path, family: str, entry: str) -> None:
    make = apc_checkpoint if family == "apc" else mockingjay_checkpoint
    path = make(tmp_path)
    ours, theirs = spec.load(f"s3prl:{path}"), spec.load(f"s3prl:{entry},ckpt={path}")
    assert ours.name == family
    assert (ours.dim, ours.num_layers, ours.stride) == (
        theirs.dim,
        theirs.num_layers,
        theirs.stride,
    )
    assert [ours.num_frames(n) for n in LENGTHS] == [theirs.num_frames(n) for n in LENGTHS]
    for got, want in zip(ours.hidden_states(waves()), theirs.hidden_states(waves()), strict=True):
        assert got.shape == want.shape
        assert (got - want).norm() / want.norm() < 1e-5


def test_the_linear_target_and_old_names_are_read(tmp_path: Path) -> None:
    path = mockingjay_checkpoint(tmp_path, target="linear")
    content = torch.load(path, weights_only=True)
    content["Transformer"] = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for key, value in content["Transformer"].items()
    }
    content["Config"] = content.pop("Upstream_Config")
    torch.save(content, tmp_path / "old.ckpt")
    old, new = s3prl.convert(tmp_path / "old.ckpt"), s3prl.convert(path)
    assert old.config.target == "linear"
    assert old.fingerprint() == new.fingerprint()


def test_the_loss_of_apc_is_s3prl_s(tmp_path: Path) -> None:
    from s3prl.upstream.apc.apc import APC
    from torch.nn.utils.rnn import pad_sequence

    from mynah.upstream.core.contract import Batch

    path = apc_checkpoint(tmp_path, dropout=0.0)
    model = s3prl.convert(path)
    reference = APC(40, num_layers=3, hidden_size=24, dropout=0.0, residual=True)
    reference.load_state_dict(torch.load(path, weights_only=True)["model"])
    wavs = waves()[1:]
    parts = [model.features([wav])[0] for wav in wavs]  # type: ignore[operator]
    x_BTM = pad_sequence(parts, batch_first=True)
    predicted, _ = reference(x_BTM[:, :-5], [len(part) - 5 for part in parts], testing=False)
    expected = torch.nn.functional.l1_loss(predicted, x_BTM[:, 5:]).item()
    given = Batch(
        wav_BS=pad_sequence(wavs, batch_first=True),
        lengths_B=torch.tensor([len(wav) for wav in wavs]),
        ids=("a", "b"),
        generator=torch.Generator(),
    )
    assert model.loss(given).total.item() == pytest.approx(expected, rel=1e-5)


def test_a_hub_entry_is_wrapped() -> None:
    model = spec.load("s3prl:fbank")
    assert (model.dim, model.num_layers, model.stride) == (240, 1, 160)
    assert [model.num_frames(n) for n in (1, 400, 559, 560, 16000, 320123)] == [
        1, 1, 1, 2, 98, 1999,
    ]  # fmt: skip
    ours = spec.load("fbank/cmvn")
    (want,), (got,) = model.hidden_states(waves()), ours.hidden_states(waves())
    assert (got - want).norm() / want.norm() < 1e-4


def test_a_number_of_frames_that_no_formula_gives_is_asked_for() -> None:
    class Odd(torch.nn.Module):
        def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
            n = len(wavs[0])
            return {"hidden_states": [torch.zeros(1, n // 160 + (n % 7 == 0), 4)]}

    model = Wrapped(Odd(), name="odd", stride=160, states=s3prl_hub._states)
    assert model._count is None
    assert [model.num_frames(n) for n in (1600, 1603, 16002)] == [10, 11, 101]


def test_frames_that_depend_on_the_audio_are_refused() -> None:
    class Trimmed(torch.nn.Module):
        def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
            return {"hidden_states": [torch.zeros(1, len(wavs[0]) // 160 + int(wavs[0].any()), 4)]}

    model = Wrapped(Trimmed(), name="trimmed", stride=160, states=s3prl_hub._states)
    with pytest.raises(RuntimeError, match="depends on the audio"):
        list(model.hidden_states([torch.ones(1600)]))


class Harm:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (eval, (f"__import__('pathlib').Path({str(self.target)!r}).touch()",))


@pytest.mark.parametrize("how", ["s3prl:{path}", "s3prl:mockingjay_local,ckpt={path}"])
def test_a_checkpoint_that_runs_code_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    trace, path = tmp_path / "executed", tmp_path / "harm.ckpt"
    torch.save({"Transformer": Harm(trace), "Config": {}}, path)
    with pytest.raises(ValueError, match="Nothing of it was executed"):
        spec.load(how.format(path=path))
    assert not trace.exists()
    with path.open("rb"), pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)  # torch.load is torch's own again


@pytest.mark.parametrize(
    ("change", "said"),
    [({"pre_layer_norm": True}, "pre_layer_norm"), ({"hidden_act": "relu"}, "hidden_act")],
)
def test_settings_that_ours_lacks_are_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        s3prl.convert(mockingjay_checkpoint(tmp_path, **change))


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = apc_checkpoint(tmp_path)
    content = torch.load(path, weights_only=True)
    del content["model"]["postnet.bias"]
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"postnet\.bias"):
        s3prl.convert(path)


def test_unknown_specs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="apc_local"):
        s3prl.load("apc_locall")
    with pytest.raises(ValueError, match="needs a checkpoint"):
        s3prl.load("apc_local")
    with pytest.raises(ValueError, match="ckpt=<file>"):
        s3prl.load("fbank,layer=3")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        s3prl.load("apc_local,ckpt=nowhere.ckpt")
    torch.save({"weights": {}, "config": {}}, tmp_path / "cpc.ckpt")
    with pytest.raises(
        ValueError, match=r"holds weights, config, which no family reads.*apc, .*mockingjay"
    ):
        s3prl.load(str(tmp_path / "cpc.ckpt"))
