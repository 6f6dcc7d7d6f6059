"""DinoSR and SpidR from their authors' files, against forward passes written out by the files' names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mynah.recipes import cli
from mynah.upstream.core.spec import load
from mynah.upstream.dinosr import Config, DinoSr
from mynah.upstream.interop import fairseq, s3prl

D, HEADS, DEPTH, CONV, GROUPS, FFN, TOP, CODES = 24, 3, 3, 16, 4, 48, 2, 8
STACK = [(CONV, 10, 5), (CONV, 3, 2), (CONV, 3, 2), (CONV, 2, 2), (CONV, 2, 2)]
WAV = torch.randn(4000, generator=torch.Generator().manual_seed(5))
FAIRSEQ: dict[str, Any] = {
    "_name": "dinosr", "discrete": True, "extractor_mode": "layer_norm", "conv_bias": False,
    "conv_feature_layers": str(STACK), "encoder_layers": DEPTH, "encoder_embed_dim": D,
    "encoder_ffn_embed_dim": FFN, "encoder_attention_heads": HEADS, "conv_pos": 10,
    "conv_pos_groups": GROUPS, "pos_conv_depth": 2, "mask_prob": 0.8, "mask_length": 10,
    "dropout": 0.0, "attention_dropout": 0.0, "dropout_input": 0.0, "encoder_layerdrop": 0.05,
    "codebook_size": CODES, "codebook_init_decay": 0.9, "codebook_end_decay": 0.9,
    "average_top_k_layers": TOP, "instance_norm_target_layer": True, "ema_decay": 0.999,
    "ema_end_decay": 0.9999, "ema_anneal_end_step": 30000, "freeze_teacher_step": 200001,
}  # fmt: skip
SPIDR: dict[str, Any] = {
    "run": {"model_type": "spidr"}, "masking": {"mask_prob": 0.7},
    "model": {
        "extractor_conv_layer_config": [list(layer) for layer in STACK], "encoder_embed_dim": D,
        "encoder_pos_conv_kernel": 10, "encoder_pos_conv_groups": GROUPS,
        "encoder_pos_conv_depth": 2, "encoder_num_layers": DEPTH, "encoder_num_heads": HEADS,
        "encoder_attention_dropout": 0.0, "encoder_ff_interm_features": FFN,
        "encoder_dropout": 0.0, "codebook_size": CODES, "num_codebooks": TOP,
        "ema_timescale": 5000,
    },
}  # fmt: skip


class Weights(dict[str, Tensor]):
    """Random weights by name."""

    def __init__(self) -> None:
        super().__init__()
        self.draw = torch.Generator().manual_seed(0)

    def some(self, name: str, *shape: int, around: float = 0.0) -> None:
        self[name] = around + 0.2 * torch.randn(shape, generator=self.draw)

    def linear(self, name: str, width: int, out: int, *, bias: bool = True) -> None:
        self.some(f"{name}.weight", out, width)
        if bias:
            self.some(f"{name}.bias", out)

    def norm(self, name: str, width: int) -> None:
        self.some(f"{name}.weight", width, around=1.0)
        self.some(f"{name}.bias", width)


def fairseq_file(path: Path, **changed: Any) -> tuple[Path, Weights]:
    """Write a DinoSR as fairseq does; return the weights of student and teacher too."""
    w = Weights()
    for i, (channels, kernel, _) in enumerate(STACK):
        w.some(f"feature_extractor.conv_layers.{i}.0.weight", channels, CONV if i else 1, kernel)
        w.norm(f"feature_extractor.conv_layers.{i}.2.1", CONV)
    w.norm("layer_norm", CONV)
    w.linear("post_extract_proj", CONV, D)
    w.some("mask_emb", D)
    for i in range(TOP):
        w.linear(f"heads.{i}", D, CODES)
        w.some(f"_codebook{i}", CODES, D)
        w[f"_codebook_cnts{i}"] = torch.rand(CODES, generator=w.draw) + 0.5
    for side in ("encoder", "_ema"):
        w.norm(f"{side}.layer_norm", D)
        for i in range(2):
            w.some(f"{side}.pos_conv.{i}.0.weight", D, D // GROUPS, 5)
            w.some(f"{side}.pos_conv.{i}.0.bias", D)
        for i in range(DEPTH):
            name = f"{side}.layers.{i}"
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                w.linear(f"{name}.self_attn.{part}", D, D)
            w.norm(f"{name}.self_attn_layer_norm", D)
            w.norm(f"{name}.final_layer_norm", D)
            w.linear(f"{name}.fc1", D, FFN)
            w.linear(f"{name}.fc2", FFN, D)
    inner = {k.removeprefix("_ema."): v for k, v in w.items() if k.startswith("_ema.")}
    state: dict[str, Any] = {k: v for k, v in w.items() if not k.startswith("_ema.")}
    settings = {**FAIRSEQ, **changed}
    torch.save(
        {
            "model": {**state, "_ema": inner},
            "cfg": {"model": settings, "task": {"normalize": True}},
        },
        path,
    )
    return path, w


def spidr_file(folder: Path, *, biases: bool = False, config: Any = SPIDR) -> tuple[Path, Weights]:
    """Write a SpidR as its code does, with a ``config.json`` beside it unless that is None."""
    w = Weights()
    for i, (channels, kernel, _) in enumerate(STACK):
        name = f"feature_extractor.conv_layers.{i}"
        w.some(f"{name}.conv.weight", channels, CONV if i else 1, kernel)
        w.norm(f"{name}.layer_norm", CONV)
    w.norm("feature_projection.layer_norm", CONV)
    w.linear("feature_projection.projection", CONV, D)
    w.some("mask_embedding", D)
    for i in range(TOP):
        w.linear(f"heads.{i}.0", D, CODES)
        w.some(f"codebooks.{i}.codebook", CODES, D)
        w[f"codebooks.{i}.counts"] = torch.rand(CODES, generator=w.draw) + 0.5
    for side in ("student", "teacher"):
        w.norm(f"{side}.layer_norm", D)
        for i in range(2):
            w.some(f"{side}.pos_conv_embed.convs.{i}.weight", D, D // GROUPS, 5)
            w.some(f"{side}.pos_conv_embed.convs.{i}.bias", D)
        for i in range(DEPTH):
            name = f"{side}.layers.{i}"
            w.linear(f"{name}.attention.qkv", D, 3 * D, bias=biases)
            w.linear(f"{name}.attention.proj", D, D)
            w.norm(f"{name}.layer_norm", D)
            w.norm(f"{name}.final_layer_norm", D)
            w.linear(f"{name}.feed_forward.intermediate_dense", D, FFN)
            w.linear(f"{name}.feed_forward.output_dense", FFN, D)
    state = {f"module.{name}": tensor for name, tensor in w.items()}
    state["module.current_step"] = torch.tensor([7])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "final.pt"
    torch.save({"model": state, "epoch": torch.zeros(1), "step": torch.zeros(1)}, path)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return path, w


def front(w: Weights, conv: str, norm: str, names: tuple[str, str]) -> Tensor:
    """Return the projected frames of ``WAV`` normalised."""
    x_CT = F.layer_norm(WAV, WAV.shape)[None]
    for i, (_, _, stride) in enumerate(STACK):
        name = f"feature_extractor.conv_layers.{i}"
        x_CT = F.conv1d(x_CT, w[f"{name}.{conv}.weight"], stride=stride)
        normed = F.layer_norm(x_CT.T, (CONV,), w[f"{name}.{norm}.weight"], w[f"{name}.{norm}.bias"])
        x_CT = F.gelu(normed.T)
    x_TC = F.layer_norm(x_CT.T, (CONV,), w[f"{names[0]}.weight"], w[f"{names[0]}.bias"])
    return F.linear(x_TC, w[f"{names[1]}.weight"], w[f"{names[1]}.bias"])


def spidr_front(w: Weights) -> Tensor:
    return front(
        w, "conv", "layer_norm", ("feature_projection.layer_norm", "feature_projection.projection")
    )


def through(
    x_TD: Tensor, w: Weights, side: str, names: dict[str, str]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return hidden states and feed-forward outputs of one side, each (T, D)."""

    def normed(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    place_DT = x_TD.T
    for i in range(2):
        name = f"{side}.{names['pos'].format(i)}"
        place_DT = F.conv1d(
            place_DT, w[f"{name}.weight"], w[f"{name}.bias"], padding=2, groups=GROUPS
        )
        place_DT = F.gelu(F.layer_norm(place_DT.T, (D,)).T)
    x_TD = normed(x_TD + place_DT.T, f"{side}.layer_norm")
    states, fed = [x_TD], []
    for i in range(DEPTH):
        name = f"{side}.layers.{i}"
        if "qkv" in names:
            q, k, v = linear(x_TD, f"{name}.{names['qkv']}").chunk(3, -1)
        else:
            q, k, v = (linear(x_TD, f"{name}.self_attn.{part}_proj") for part in "qkv")
        q, k, v = (part.view(-1, HEADS, D // HEADS).transpose(0, 1) for part in (q, k, v))
        scores = q @ k.transpose(1, 2) * (D // HEADS) ** -0.5
        y = (scores.softmax(-1) @ v).transpose(0, 1).reshape(-1, D)
        x_TD = normed(x_TD + linear(y, f"{name}.{names['out']}"), f"{name}.{names['norm']}")
        fed.append(linear(F.gelu(linear(x_TD, f"{name}.{names['in']}")), f"{name}.{names['back']}"))
        x_TD = normed(x_TD + fed[-1], f"{name}.final_layer_norm")
        states.append(x_TD)
    return states, fed


IN_FAIRSEQ = {
    "pos": "pos_conv.{}.0", "out": "self_attn.out_proj", "norm": "self_attn_layer_norm",
    "in": "fc1", "back": "fc2",
}  # fmt: skip
IN_SPIDR = {
    "pos": "pos_conv_embed.convs.{}", "qkv": "attention.qkv", "out": "attention.proj",
    "norm": "layer_norm", "in": "feed_forward.intermediate_dense",
    "back": "feed_forward.output_dense",
}  # fmt: skip


def check_states(ours: Any, wanted: list[Tensor]) -> None:
    got = ours(WAV[None], torch.tensor([len(WAV)])).layers_LBTD
    assert len(got) == len(wanted) == DEPTH + 1
    for layer_BTD, want_TD in zip(got, wanted, strict=True):
        torch.testing.assert_close(layer_BTD[0], want_TD, rtol=1e-4, atol=2e-5)


def cross_entropy(
    heard: list[Tensor], targets: list[Tensor], w: Weights, mask_T: Tensor, names: tuple[str, ...]
) -> Tensor:
    """Return the loss as SpidR's code computes it, for masked frames of one utterance."""
    losses = []
    for i, (x_TD, y_TD) in enumerate(zip(heard, targets, strict=True)):
        head, codes, counts = (name.format(i) for name in names)
        normed_TD = F.instance_norm(y_TD.T[None])[0].T
        distance = torch.cdist(normed_TD[mask_T], w[codes] / w[counts][:, None])
        logits = F.linear(x_TD[mask_T], w[f"{head}.weight"], w[f"{head}.bias"])
        losses.append(F.cross_entropy(logits, distance.argmin(1)))
    return torch.stack(losses).mean()


def mask(frames: int) -> Tensor:
    return torch.rand(frames, generator=torch.Generator().manual_seed(1)) < 0.5


def test_dinosr_of_fairseq(tmp_path: Path) -> None:
    path, w = fairseq_file(tmp_path / "dinosr.pt")
    ours = fairseq.load(path)
    assert isinstance(ours, DinoSr)
    assert ours.config.objective
    assert (ours.config.read, ours.config.mask_min_spans) == ("last", 1)
    assert (ours.config.freeze, ours.config.ema_anneal) == (200001, 30000)
    x_TD = front(w, "0", "2.1", ("layer_norm", "post_extract_proj"))
    check_states(ours, through(x_TD, w, "encoder", IN_FAIRSEQ)[0])
    mask_T = mask(len(x_TD))
    masked_TD = torch.where(mask_T[:, None], w["mask_emb"], x_TD)
    last_TD = through(masked_TD, w, "encoder", IN_FAIRSEQ)[0][-1]
    targets = through(x_TD, w, "_ema", IN_FAIRSEQ)[1][-TOP:]
    wanted = cross_entropy(
        [last_TD] * TOP, targets, w, mask_T, ("heads.{}", "_codebook{}", "_codebook_cnts{}")
    )
    assert float(ours.eval().predict([WAV], mask_T[None]).total.detach()) == pytest.approx(
        float(wanted), rel=1e-5
    )


@pytest.mark.parametrize("biases", [False, True])
def test_spidr(tmp_path: Path, biases: bool) -> None:
    path, w = spidr_file(tmp_path, biases=biases)
    ours = s3prl.convert(path)
    assert isinstance(ours, DinoSr)
    assert (ours.config.read, ours.config.ema_timescale) == ("each", 5000)
    assert (ours.config.mask_prob, ours.config.layerdrop) == (0.7, 0.0)
    x_TD = spidr_front(w)
    check_states(ours, through(x_TD, w, "student", IN_SPIDR)[0])
    mask_T = mask(len(x_TD))
    masked_TD = torch.where(mask_T[:, None], w["mask_embedding"], x_TD)
    heard = through(masked_TD, w, "student", IN_SPIDR)[1][-TOP:]
    targets = through(x_TD, w, "teacher", IN_SPIDR)[1][-TOP:]
    names = ("heads.{}.0", "codebooks.{}.codebook", "codebooks.{}.counts")
    wanted = cross_entropy(heard, targets, w, mask_T, names)
    assert float(ours.eval().predict([WAV], mask_T[None]).total.detach()) == pytest.approx(
        float(wanted), rel=1e-5
    )


def test_dinosr_of_spidrs_code(tmp_path: Path) -> None:
    model = {key: value for key, value in SPIDR["model"].items() if key != "ema_timescale"}
    path, w = spidr_file(tmp_path, config=model)  # the settings of the model alone
    ours = s3prl.convert(path)
    assert isinstance(ours, DinoSr)
    assert (ours.config.read, ours.config.ema_timescale) == ("last", 0.0)
    check_states(ours, through(spidr_front(w), w, "student", IN_SPIDR)[0])


def test_without_settings_it_yields_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, w = spidr_file(tmp_path, config=None)
    with pytest.raises(ValueError, match="does not fit dinosr"):
        s3prl.convert(path)  # not the published shape
    shape = {
        "conv_channels": CONV, "conv_kernels": [k for _, k, _ in STACK],
        "conv_strides": [s for _, _, s in STACK], "dim": D, "layers": DEPTH, "heads": HEADS,
        "ffn": FFN, "pos_kernel": 5, "pos_groups": GROUPS, "pos_depth": 2,
    }  # fmt: skip
    monkeypatch.setattr(
        "mynah.upstream.interop.families.dinosr._spidr_values", lambda *_: dict(shape)
    )
    ours = s3prl.convert(path)
    assert not ours.config.objective
    check_states(ours, through(spidr_front(w), w, "student", IN_SPIDR)[0])


def test_import_writes_what_was_read(tmp_path: Path) -> None:
    fairseq_file(tmp_path / "dinosr.pt")
    spidr_file(tmp_path / "spidr")
    for source in (f"fairseq:{tmp_path / 'dinosr.pt'}", f"s3prl:{tmp_path / 'spidr' / 'final.pt'}"):
        out = tmp_path / source.partition(":")[0]
        assert cli.main(["import", source, str(out)]) == 0
        again, first = load(str(out)), load(source)
        assert again.config == first.config
        for key, value in first.state_dict().items():
            assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("change", "objective"),
    [
        ({}, True),
        ({"codebook_end_decay": 0.99}, False),
        ({"layer_norm_target_layer": True}, False),
        ({"ema_layers_only": False}, False),
    ],
)
def test_another_objective_leaves_features(
    tmp_path: Path, change: dict[str, Any], objective: bool
) -> None:
    ours = fairseq.load(fairseq_file(tmp_path / "other.pt", **change)[0])
    assert ours.config.objective is objective


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"discrete": False}, "discrete is False, only True"),
        ({"layer_norm_first": True}, "layer_norm_first is True, only False"),
        ({"codebook_size": 16}, "does not fit dinosr"),
    ],
)
def test_what_is_not_implemented_is_said(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path, _ = fairseq_file(tmp_path / "odd.pt", **change)
    with pytest.raises(ValueError, match=said):
        fairseq.load(path)


def test_never_to_rest_is_nought(tmp_path: Path) -> None:
    ours = fairseq.load(fairseq_file(tmp_path / "on.pt", freeze_teacher_step=-1)[0])
    assert isinstance(ours.config, Config)
    assert ours.config.freeze == 0
