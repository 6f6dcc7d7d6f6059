"""Pairs with s3prl's models on spectra: Mockingjay and relatives, APC, VQ-APC, NPC."""

from __future__ import annotations

from typing import Any

from mynah.recipes.parity.compare import apart, built, noise_batch
from mynah.recipes.parity.s3prl_pairs import pair

NET: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "hidden_act": "gelu",
    "intermediate_size": 48, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.02, "layer_norm_eps": 1e-12, "share_layer": False,
    "pre_layer_norm": False,
}  # fmt: skip
TASK: dict[str, Any] = {
    "sequence_length": 150, "mask_proportion": 0.15, "mask_consecutive_min": 7,
    "mask_consecutive_max": 7, "mask_allow_overlap": True, "mask_frequency": 0.0,
    "noise_proportion": 0.0, "position_encoding_size": 24,
}  # fmt: skip
TERA = {"mask_frequency": 0.2, "noise_proportion": 1.0}
VQ = {"codebook_size": [7, 5], "code_dim": [16, 8], "gumbel_temperature": 0.5}
EQUAL = {"codebook_size": [6, 6], "code_dim": [12, 12], "gumbel_temperature": 0.8}


def mockingjay(*, target: str = "mel", shared: bool = False, **task: Any) -> tuple[Any, Any]:
    """Build a Mockingjay, TERA (with bands and noise) or AudioALBERT (with one shared layer)."""
    from s3prl.upstream.mockingjay.model import (
        TransformerConfig,
        TransformerModel,
        TransformerSpecPredictionHead,
    )

    net, task = {**NET, "share_layer": shared}, {**TASK, **task}
    config = TransformerConfig(net)
    bins = 80 if target == "mel" else 201
    model = built(lambda: TransformerModel(config, 80))
    head = built(lambda: TransformerSpecPredictionHead(config, bins))
    feature = {"channel": 0, "log": True, "delta": 0, "cmvn": True}
    audio = {
        "sample_rate": 16000, "win_ms": 25, "hop_ms": 10, "n_freq": 201, "n_mels": 80,
        "n_mfcc": 13, "target_level": -25, "input": {"feat_type": "mel", **feature},
        "target": {"feat_type": target, **feature},
    }  # fmt: skip
    content = {
        "Transformer": model.state_dict(),
        "SpecHead": head.state_dict(),
        "Upstream_Config": {"transformer": net, "audio": audio, "task": task},
        "Config": {},
    }
    return content, (model, head, task)


def mockingjay_loss(ours: Any, theirs: tuple[Any, Any, dict[str, Any]]) -> float:
    """Compare the errors of what s3prl chose and corrupted in a batch."""
    import torch
    from s3prl.pretrain.mockingjay.task import generate_masked_acoustic_model_data

    model, head, task = theirs
    given = noise_batch((16000, 11200, 16000))
    x_NM, _, counts = ours.spectra(given.wavs())
    x_BTM = torch.nn.utils.rnn.pad_sequence(x_NM.split(counts), batch_first=True)
    seen, place, label, attention, target = generate_masked_acoustic_model_data(
        (x_BTM.clone(),), task
    )
    with torch.no_grad():
        states = model(seen, place.expand(3, -1, -1), attention, output_all_encoded_layers=False)
        predicted, _ = head(states)
        expected = (predicted - target)[label.bool()].abs().mean()
        rows = attention.bool()
        ours.corrupted = lambda *_, **__: (seen[rows], label[rows].bool())
        return apart(ours.loss(given).total, expected)


def apc(**paras: Any) -> tuple[dict[str, Any], Any]:
    """Build an APC, or a VQ-APC with ``vq``."""
    from s3prl.upstream.apc.apc import APC

    settings = {"num_layers": 3, "hidden_size": 24, "dropout": 0.0, "residual": True, **paras}
    model = built(lambda: APC(40, **settings))
    config = {"model": {"paras": settings}, "task": {"n_future": 5}, "data": fbank(40)}
    return {"model": model.state_dict(), "config": config}, model


def fbank(bins: int) -> dict[str, Any]:
    """Return s3prl's settings of normalised filterbanks."""
    return {
        "audio": {
            "feat_type": "fbank", "feat_dim": bins, "frame_length": 25, "frame_shift": 10,
            "decode_wav": False, "cmvn": True,
        }
    }  # fmt: skip


def apc_loss(ours: Any, theirs: Any) -> float:
    """Compare the errors of the foretold frames, over a padded batch."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    given = noise_batch((16000, 11200, 16000))
    parts = [ours.features([wav])[0] for wav in given.wavs()]
    x_BTM = pad_sequence([part[:-5] for part in parts], batch_first=True)
    y_BTM = pad_sequence([part[5:] for part in parts], batch_first=True)
    with torch.no_grad():
        predicted, _ = theirs(x_BTM, [len(part) - 5 for part in parts], testing=True)
        return apart(ours.loss(given).total, (predicted - y_BTM).abs().mean())


def npc(*, vq: dict[str, Any] | None) -> tuple[dict[str, Any], Any]:
    """Build an NPC."""
    from s3prl.upstream.npc.npc import NPC

    settings = {
        "hidden_size": 24, "n_blocks": 2, "kernel_size": 11, "mask_size": 5, "dropout": 0.0,
        "residual": True, "batch_norm": True, "activate": "relu", "disable_cross_layer": False,
        "vq": vq,
    }  # fmt: skip
    model = built(lambda: NPC(20, **settings))
    config = {"model": {"method": "npc", "paras": settings}, "data": fbank(20)}
    return {"model": model.state_dict(), "config": config}, model


def npc_loss(ours: Any, theirs: Any) -> float:
    """Compare the errors of the frames of a batch."""
    import torch

    given = noise_batch((9000, 9000, 9000))
    x_NM, counts = ours.features(given.wavs())
    x_BTM = torch.stack(x_NM.split(counts))
    with torch.no_grad():
        predicted, _ = theirs(x_BTM, testing=True)
        return apart(ours.loss(given).total, (predicted - x_BTM).abs().mean())


PAIRS = [
    pair("mockingjay", "mockingjay_local", mockingjay, setting="linear target", target="linear"),
    pair("mockingjay", "mockingjay_local", mockingjay, setting="mel", loss=mockingjay_loss),
    pair("mockingjay", "tera_local", mockingjay, setting="tera", loss=mockingjay_loss, **TERA),
    pair(
        "mockingjay",
        "audio_albert_local",
        mockingjay,
        setting="audio_albert",
        loss=mockingjay_loss,
        shared=True,
    ),
    pair("apc", "apc_local", apc, setting="apc", loss=apc_loss),
    pair("apc", "apc_local", apc, setting="vq-apc", loss=apc_loss, vq=VQ),
    pair("npc", "npc_local", npc, setting="no quantiser", loss=npc_loss, vq=None),
    pair("npc", "npc_local", npc, setting="quantiser", loss=npc_loss, vq=EQUAL),
]
