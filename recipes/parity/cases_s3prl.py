"""Pairs with s3prl's copies of the Transformer families on waveforms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mynah.recipes.parity.compare import Measured, Pair, apart, built, distance, waves
from mynah.recipes.parity.s3prl_pairs import pair, saved

if TYPE_CHECKING:
    from torch import Tensor

    from mynah.upstream.core.contract import Upstream

CONV = "[(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2"
CALM = {"dropout": 0.0, "attention_dropout": 0.0}
SIZE: dict[str, Any] = {
    "conv_feature_layers": CONV,
    "encoder_layers": 3,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 2,
    "conv_pos_groups": 4,
}
LARGE: dict[str, Any] = {
    "extractor_mode": "layer_norm",
    "layer_norm_first": True,
    "conv_bias": True,
}


def converted(model: Any, config: dict[str, Any], *, normalize: bool) -> dict[str, Any]:
    """Return what s3prl makes of a fairseq checkpoint."""
    task = {"normalize": normalize}
    return {"task_cfg": task, "model_cfg": config, "model_weight": model.state_dict()}


def wav2vec2(*, normalize: bool = False, **settings: Any) -> tuple[dict[str, Any], Any]:
    """Build a wav2vec 2.0."""
    from s3prl.upstream.utils import merge_with_parent
    from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model

    config = {"_name": "wav2vec2", **SIZE, "final_dim": 8, "latent_vars": 4, **settings}
    config["quantize_targets"] = True
    model = built(lambda: Wav2Vec2Model(merge_with_parent(Wav2Vec2Config, config)))
    return converted(model, config, normalize=normalize), model


def hubert(
    *, normalize: bool = False, classes: int = 9, **settings: Any
) -> tuple[dict[str, Any], Any]:
    """Build a HuBERT."""
    from s3prl.upstream.hubert.hubert_model import (
        HubertConfig,
        HubertModel,
        HubertPretrainingConfig,
    )
    from s3prl.upstream.utils import merge_with_parent

    config = {"_name": "hubert", **SIZE, "final_dim": 8, "label_rate": 50.0, **settings}
    symbols = [[str(n) for n in range(classes)]]
    model = built(
        lambda: HubertModel(
            merge_with_parent(HubertConfig, config), HubertPretrainingConfig(), symbols
        )
    )
    content = converted(model, config, normalize=normalize)
    return {**content, "dictionaries_symbols": symbols}, model


def wavlm(*, normalize: bool = False, **settings: Any) -> tuple[dict[str, Any], Any]:
    """Build a WavLM, in the form of its authors."""
    from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

    config = {
        **SIZE, "relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 32,
        "max_distance": 80, "normalize": normalize, **settings,
    }  # fmt: skip
    model = built(lambda: WavLM(WavLMConfig(config)))
    return {"cfg": config, "model": model.state_dict()}, model


def distiller(**settings: Any) -> tuple[dict[str, Any], Any]:
    """Build a DistilHuBERT."""
    from s3prl.upstream.distiller.model import DistillerConfig, DistillerModel

    config = {
        **SIZE, "extractor_conv_feature_layers": CONV, "encoder_layers": 2, "final_dim": 32,
        "n_tasks": 3, "pred_layer_id": [1, 2, 3], "cosine_loss": 1.0, **settings,
    }  # fmt: skip
    model = built(lambda: DistillerModel(DistillerConfig(config)))
    return {"Distiller": model.state_dict(), "Config": {"distiller": config}}, model


def data2vec(*, normalize: bool = True, **settings: Any) -> tuple[dict[str, Any], Any]:
    """Build a data2vec without its head, as s3prl wants it."""
    content, model = data2vec_whole(normalize=normalize, **settings)
    weights = content["model_weight"]
    content["model_weight"] = {k: v for k, v in weights.items() if "final_proj" not in k}
    return content, model


def data2vec_whole(*, normalize: bool = True, **settings: Any) -> tuple[dict[str, Any], Any]:
    """Build a data2vec with its head and a teacher of other weights."""
    import copy
    from types import SimpleNamespace

    from s3prl.upstream.data2vec.data2vec_model import Data2VecAudioConfig, Data2VecAudioModel
    from s3prl.upstream.utils import merge_with_parent

    config = {
        "_name": "data2vec_audio", **SIZE, "extractor_mode": "layer_norm", "pos_conv_depth": 5,
        "conv_pos": 95, "average_top_k_layers": 2, "instance_norm_target_layer": True, **settings,
    }  # fmt: skip
    model: Any = built(lambda: Data2VecAudioModel(merge_with_parent(Data2VecAudioConfig, config)))
    content = converted(model, config, normalize=normalize)
    teacher = built(lambda: copy.deepcopy(model.encoder))
    content["model_weight"]["_ema"] = teacher.state_dict()
    # its own way to make a teacher does not work outside of fairseq
    model.ema = SimpleNamespace(model=teacher, get_decay=lambda: 0.999, fp32_params={})
    return content, model


def data2vec_both(folder: Path) -> Measured:
    """Compare states and loss; the hub loads the model only without its head."""
    from mynah.upstream.interop import s3prl, s3prl_hub

    whole, bare = folder / "whole", folder / "bare"
    whole.mkdir()
    bare.mkdir()
    path, theirs = saved(whole, data2vec_whole, **CALM)
    ours = s3prl.convert(path).eval()
    lost = data2vec_loss(ours, theirs)
    path, _ = saved(bare, data2vec, **CALM)
    return Measured(distance(ours, s3prl_hub.wrap("data2vec_custom", checkpoint=path)), lost)


def half_masked(frames: int) -> Tensor:
    """Return which frames of two utterances are masked, bool (2, T), as many in each."""
    import torch

    mask_BT = torch.zeros(2, frames, dtype=torch.bool)
    mask_BT[0, ::2] = True
    mask_BT[1, : int(mask_BT[0].sum())] = True
    return mask_BT


def hubert_loss(ours: Upstream, theirs: Any) -> float:
    """Compare cross-entropy and penalty for the same masks and labels."""
    import torch
    from torch.nn import functional as F

    wavs = waves((9000, 9000))
    frames = ours.num_frames(9000)
    mask_BT = half_masked(frames)
    labels_BT = torch.arange(2 * frames).view(2, frames) % 9

    def masked(x_BTD: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return torch.where(mask_BT[..., None], theirs.mask_emb, x_BTD), mask_BT

    theirs.apply_mask = masked
    with torch.no_grad():
        out = theirs(
            torch.stack(wavs),
            target_list=[labels_BT],
            padding_mask=torch.zeros(2, 9000, dtype=torch.bool),
        )
        (logits,), (wanted,) = theirs.get_logits(out), theirs.get_targets(out)
        expected = F.cross_entropy(logits, wanted) + 10 * out["features_pen"]
        return apart(ours.predict(wavs, mask_BT, labels_BT).total, expected)  # type: ignore[operator]


def data2vec_loss(ours: Upstream, theirs: Any) -> float:
    """Compare the regression of the teacher's layers for the same masks."""
    import torch
    from torch.nn import functional as F

    wavs = waves((9000, 9000))
    mask_BT = half_masked(ours.num_frames(9000))
    with torch.no_grad():
        normed = torch.stack([F.layer_norm(wav, wav.shape) for wav in wavs])
        out = theirs(normed, mask_indices=mask_BT)
        expected = out["losses"]["regression"] / out["sample_size"]
        return apart(ours.regress(wavs, mask_BT).total, expected)  # type: ignore[operator]


PAIRS = [
    pair("wav2vec2", "wav2vec2_custom", wav2vec2, setting="post, group"),
    pair("wav2vec2", "wav2vec2_custom", wav2vec2, setting="pre, layer", normalize=True, **LARGE),
    pair("hubert", "hubert_custom", hubert, setting="post, group", loss=hubert_loss, **CALM),
    pair("hubert", "hubert_custom", hubert, setting="pre, layer", normalize=True, **LARGE),
    pair("hubert", "wavlm_local", wavlm, setting="wavlm, post, group"),
    pair("hubert", "wavlm_local", wavlm, setting="wavlm, pre, layer", normalize=True, **LARGE),
    Pair(
        family="data2vec",
        reference="s3prl data2vec_custom",
        setting="post",
        measure=data2vec_both,
    ),
    pair("data2vec", "data2vec_custom", data2vec, setting="pre", layer_norm_first=True),
    pair("distilhubert", "distiller_local", distiller, setting="six states"),
]
