"""data2vec 2.0 from fairseq's checkpoints, held against a forward pass written out by its names.

No package here has that model, so ``states`` below follows the description of fairseq's modules,
operation by operation, on the weights as the file has them.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mynah.recipes import cli
from mynah.upstream.core.contract import Batch
from mynah.upstream.core.spec import load
from mynah.upstream.interop import fairseq

D, HEADS, DEPTH, CONV, GROUPS, FFN = 24, 3, 3, 16, 4, 48
AUDIO = "modality_encoders.AUDIO."
WAV = torch.randn(4000, generator=torch.Generator().manual_seed(5))


def settings(**more: Any) -> dict[str, Any]:
    audio = {
        "feature_encoder_spec": f"[({CONV}, 10, 5)] + [({CONV}, 3, 2)] * 2 + [({CONV},2,2)] * 2",
        "conv_pos_depth": 2, "conv_pos_width": 10, "conv_pos_groups": GROUPS, "prenet_depth": 0,
        "mask_prob": 0.5, "mask_length": 5, "mask_noise_std": 0.01, "use_alibi_encoder": True,
        "learned_alibi_scale": True, "learned_alibi_scale_per_head": True,
        "decoder": {"input_dropout": 0.1, "decoder_dim": 16, "decoder_groups": GROUPS,
                    "decoder_kernel": 7, "decoder_layers": 2},
        **more.pop("audio", {}),
    }  # fmt: skip
    return {
        "_name": "data2vec_multi", "depth": DEPTH, "embed_dim": D, "num_heads": HEADS,
        "mlp_ratio": FFN / D, "norm_eps": 1e-5, "clone_batch": 2, "average_top_k_layers": 2,
        "ema_decay": 0.999, "ema_end_decay": 0.99999, "ema_anneal_end_step": 75000,
        "ema_encoder_only": False, "instance_norm_target_layer": True, "loss_beta": 0,
        "loss_scale": None, "modalities": {"audio": audio}, **more,
    }  # fmt: skip


def weights(*, prenet: int = 0, heads_share: bool = False) -> dict[str, Any]:
    """Return random weights by fairseq's names, those of the teacher among them."""
    draw = torch.Generator().manual_seed(0)

    def some(*shape: int, around: float = 0.0) -> Tensor:
        return around + 0.2 * torch.randn(shape, generator=draw)

    def norm(name: str, width: int) -> dict[str, Tensor]:
        return {f"{name}.weight": some(width, around=1.0), f"{name}.bias": some(width)}

    def linear(name: str, width: int, out: int) -> dict[str, Tensor]:
        return {f"{name}.weight": some(out, width), f"{name}.bias": some(out)}

    def context() -> dict[str, Tensor]:
        found = {f"{AUDIO}alibi_scale": some(1, 1, 1 if heads_share else HEADS, 1, 1, around=1.0)}
        for i in (1, 2):
            name = f"{AUDIO}relative_positional_encoder.{i}.0"
            found |= {f"{name}.weight": some(D, D // GROUPS, 5), f"{name}.bias": some(D)}
        found |= norm(f"{AUDIO}context_encoder.norm", D)
        for i in range(DEPTH):
            name = f"blocks.{i - prenet}" if i >= prenet else f"{AUDIO}context_encoder.blocks.{i}"
            found |= norm(f"{name}.norm1", D) | norm(f"{name}.norm2", D)
            found |= linear(f"{name}.attn.qkv", D, 3 * D) | linear(f"{name}.attn.proj", D, D)
            found |= linear(f"{name}.mlp.fc1", D, FFN) | linear(f"{name}.mlp.fc2", FFN, D)
        return found

    front: dict[str, Any] = {}
    for i, kernel in enumerate((10, 3, 3, 2, 2)):
        name = f"{AUDIO}local_encoder.conv_layers.{i}"
        front |= {f"{name}.0.weight": some(CONV, CONV if i else 1, kernel)}
        front |= norm(f"{name}.2.1", CONV)
    front |= norm(f"{AUDIO}project_features.1", CONV) | linear(
        f"{AUDIO}project_features.2", CONV, D
    )
    decoder: dict[str, Any] = {}
    for i in range(2):
        name = f"{AUDIO}decoder.blocks.{i}.0"
        decoder |= {
            f"{name}.weight": some(16, (16 if i else D) // GROUPS, 7),
            f"{name}.bias": some(16),
        }
    decoder |= linear(f"{AUDIO}decoder.proj", 16, D)
    return {**front, **context(), **decoder, "_ema": context()}


def states(w: dict[str, Any], *, prenet: int = 0) -> list[Tensor]:
    """Return the input of every block and the last one's output, of ``WAV`` normalised."""

    def normed(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    x_CT = F.layer_norm(WAV, WAV.shape)[None]
    for i, stride in enumerate((5, 2, 2, 2, 2)):
        name = f"{AUDIO}local_encoder.conv_layers.{i}"
        x_CT = F.conv1d(x_CT, w[f"{name}.0.weight"], stride=stride)
        x_CT = F.gelu(normed(x_CT.T, f"{name}.2.1").T)
    x_TC = normed(x_CT.T, f"{AUDIO}project_features.1")
    name = f"{AUDIO}project_features.2"
    x_TD = F.linear(x_TC, w[f"{name}.weight"], w[f"{name}.bias"])
    place_DT = x_TD.T
    for i in (1, 2):
        name = f"{AUDIO}relative_positional_encoder.{i}.0"
        place_DT = F.conv1d(
            place_DT, w[f"{name}.weight"], w[f"{name}.bias"], padding=2, groups=GROUPS
        )
        place_DT = F.gelu(F.layer_norm(place_DT.T, (D,)).T)
    x_TD = normed(x_TD + place_DT.T, f"{AUDIO}context_encoder.norm")
    frames = torch.arange(len(x_TD))
    # ALiBi's slopes for three heads: two of the series of two heads, then one of that of four
    slopes = torch.tensor([2.0**-4, 2.0**-8, 2.0**-2]).view(-1, 1, 1)
    bias_HTT = -slopes * (frames - frames[:, None]).abs()
    bias_HTT = bias_HTT * w[f"{AUDIO}alibi_scale"].clamp(min=0).view(-1, 1, 1)
    out = [x_TD]
    for i in range(DEPTH):
        name = f"blocks.{i - prenet}" if i >= prenet else f"{AUDIO}context_encoder.blocks.{i}"
        qkv = F.linear(x_TD, w[f"{name}.attn.qkv.weight"], w[f"{name}.attn.qkv.bias"])
        q, k, v = (part.view(-1, HEADS, D // HEADS).transpose(0, 1) for part in qkv.chunk(3, -1))
        scores = (q * (D // HEADS) ** -0.5) @ k.transpose(1, 2) + bias_HTT
        y = (scores.softmax(-1) @ v).transpose(0, 1).reshape(-1, D)
        y = F.linear(y, w[f"{name}.attn.proj.weight"], w[f"{name}.attn.proj.bias"])
        x_TD = normed(x_TD + y, f"{name}.norm1")
        y = F.gelu(F.linear(x_TD, w[f"{name}.mlp.fc1.weight"], w[f"{name}.mlp.fc1.bias"]))
        y = F.linear(y, w[f"{name}.mlp.fc2.weight"], w[f"{name}.mlp.fc2.bias"])
        x_TD = normed(x_TD + y, f"{name}.norm2")
        out.append(x_TD)
    return out


def save(path: Path, state: dict[str, Any], model: dict[str, Any]) -> Path:
    torch.save({"model": state, "cfg": {"model": model, "task": {"normalize": True}}}, path)
    return path


@pytest.mark.parametrize(("prenet", "share"), [(0, False), (1, False), (0, True)])
def test_every_hidden_state_is_that_of_the_description(
    tmp_path: Path, prenet: int, share: bool
) -> None:
    w = weights(prenet=prenet, heads_share=share)
    model = settings(audio={"prenet_depth": prenet}, depth=DEPTH - prenet)
    ours = fairseq.load(save(tmp_path / "base_libri.pt", w, model))
    features = ours(WAV[None], torch.tensor([len(WAV)]))
    wanted = states(w, prenet=prenet)
    assert features.layers_LBTD.shape[0] == len(wanted) == DEPTH + 1
    for layer_BTD, want_TD in zip(features.layers_LBTD, wanted, strict=True):
        torch.testing.assert_close(layer_BTD[0], want_TD, rtol=1e-4, atol=2e-5)


def test_with_its_teacher_it_can_be_pretrained_further(tmp_path: Path) -> None:
    w = weights()
    model: Any = fairseq.load(save(tmp_path / "whole.pt", w, settings()))
    assert (model.config.objective, model.config.clones) == (True, 2)
    assert (model.config.ema_anneal, model.config.top_layers) == (75000, 2)
    state = model.state_dict()
    q, _, v = w["_ema"]["blocks.1.attn.qkv.weight"].chunk(3)
    assert torch.equal(state["teacher.layers.1.attn.q.weight"], q)
    assert torch.equal(state["teacher.layers.1.attn.v.weight"], v)
    assert torch.equal(state["decoder.proj.bias"], w[f"{AUDIO}decoder.proj.bias"])
    batch = Batch(
        wav_BS=WAV[None], lengths_B=torch.tensor([len(WAV)]),
        ids=("a",), generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert model.loss(batch).total.isfinite()
    features: Any = fairseq.load(
        save(tmp_path / "other.pt", w, settings(end_of_block_targets=True))
    )
    assert not features.config.objective  # its targets are not made as ours are
    del w["_ema"]
    features = fairseq.load(save(tmp_path / "features.pt", w, settings()))
    assert not features.config.objective
    assert "decoder.proj.bias" not in features.state_dict()


def test_settings_as_namespaces_and_round_trip(tmp_path: Path) -> None:
    w = weights()
    content = {"model": w, "cfg": {"model": settings(), "task": {"normalize": True}}}
    content["args"] = Namespace(unused=1)
    torch.save(content, tmp_path / "base.pt")
    out = tmp_path / "ours"
    assert cli.main(["import", f"fairseq:{tmp_path / 'base.pt'}", str(out)]) == 0
    again, first = load(str(out)), fairseq.load(tmp_path / "base.pt")
    assert again.name == "data2vec"
    lengths = torch.tensor([len(WAV)])
    assert torch.equal(again(WAV[None], lengths).layers_LBTD, first(WAV[None], lengths).layers_LBTD)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer_norm_first": True}, "layer_norm_first is True"),
        ({"audio": {"num_extra_tokens": 1}}, "num_extra_tokens is 1"),
        ({"audio": {"use_alibi_encoder": False}}, "use_alibi_encoder is False"),
        ({"audio": {"learned_alibi_scale_per_layer": True}}, "per_layer is True"),
        ({"modalities": {"image": {}}}, "without audio; it has image"),
        ({"depth": 2}, "32 unexpected: _ema.blocks.2"),
    ],
)
def test_what_is_not_implemented_is_said(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = save(tmp_path / "odd.pt", weights(), settings(**change))
    with pytest.raises(ValueError, match=said):
        fairseq.load(path)
