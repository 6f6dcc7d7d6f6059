"""Pairs with ``transformers``: directories as it saves them, read by ``hf:DIR``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from mynah.recipes.parity.compare import Measured, Pair, apart, built, distance, waves

SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embedding_groups": 4,
}
LARGE: dict[str, Any] = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}


def save(folder: Path, kind: str, *, normalize: bool = False, **settings: Any) -> Path:
    """Write a small random model of a type and its feature extractor, as transformers does."""
    import transformers

    from mynah.upstream.interop import hf_auto

    config = transformers.AutoConfig.for_model(kind, **{**SIZE, **settings})
    model: Any = built(lambda: transformers.AutoModel.from_config(config))
    with hf_auto.quietly():
        model.save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    return folder


def states(folder: Path, *, kind: str, skip: int = 0, **settings: Any) -> Measured:
    """Compare the states of one model type."""
    from mynah.upstream.interop import hf, hf_auto
    from mynah.upstream.interop.settings import read_json

    save(folder, kind, **settings)
    theirs = hf_auto.wrap(folder, read_json(folder / "config.json"))
    return Measured(distance(hf.load(folder), theirs, skip=skip))


def wav2vec2_loss(folder: Path) -> Measured:
    """Compare the states and the contrastive loss for the same masks and distractors."""
    import torch
    import transformers

    from mynah.upstream.core.contrastive import sample_negatives
    from mynah.upstream.interop import hf, hf_auto
    from mynah.upstream.interop.settings import read_json

    heads = {"num_codevectors_per_group": 8, "codevector_dim": 16, "proj_codevector_dim": 24}
    config = transformers.AutoConfig.for_model("wav2vec2", **{**SIZE, **heads})
    model: Any = built(lambda: transformers.Wav2Vec2ForPreTraining(config))
    with hf_auto.quietly():
        model.save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    ours: Any = hf.load(folder).eval()
    wavs = waves((16000, 16000))
    frames = ours.num_frames(16000)
    mask_BT = torch.zeros(2, frames, dtype=torch.bool)
    mask_BT[:, 5:25] = True
    generator = torch.Generator().manual_seed(0)
    negatives_MK = sample_negatives(mask_BT.sum(dim=1), 7, generator=generator)
    # theirs index all frames of the padded batch, ours the masked ones laid end to end
    flat_M = mask_BT.flatten().nonzero()[:, 0]
    sampled = torch.zeros(2 * frames, 7, dtype=torch.int64)
    sampled[flat_M] = flat_M[negatives_MK]
    with torch.no_grad():
        out = model(
            torch.stack(wavs),
            mask_time_indices=mask_BT,
            sampled_negative_indices=sampled.view(2, frames, 7),
        )
        loss = ours.contrast(wavs, mask_BT, negatives_MK, generator=None)
    lost = apart(loss.parts["contrastive"] * loss.weight, out.contrastive_loss)
    theirs = hf_auto.wrap(folder, read_json(folder / "config.json"))
    return Measured(distance(ours, theirs), lost)


def _pair(family: str, cls: str, setting: str, kind: str, **settings: Any) -> Pair:
    return Pair(
        family=family,
        reference=f"transformers {cls}",
        setting=setting,
        measure=partial(states, kind=kind, **settings),
    )


_BUCKETS: dict[str, Any] = {"num_buckets": 32, "max_bucket_distance": 80}

PAIRS = [
    Pair(
        family="wav2vec2",
        reference="transformers Wav2Vec2ForPreTraining",
        setting="post, group",
        measure=wav2vec2_loss,
    ),
    _pair("wav2vec2", "Wav2Vec2Model", "post, group", "wav2vec2"),
    _pair("wav2vec2", "Wav2Vec2Model", "pre, layer", "wav2vec2", normalize=True, **LARGE),
    _pair("hubert", "HubertModel", "post, group", "hubert"),
    _pair("hubert", "HubertModel", "pre, layer", "hubert", normalize=True, **LARGE),
    _pair("hubert", "WavLMModel", "wavlm, post, group", "wavlm", **_BUCKETS),
    _pair("hubert", "WavLMModel", "wavlm, pre, layer", "wavlm", normalize=True, **LARGE),
    _pair("data2vec", "Data2VecAudioModel", "post", "data2vec-audio", normalize=True),
    # transformers lists the first state after the position embedding, s3prl before it
    _pair("distilhubert", "HubertModel", "layers", "hubert", feat_proj_layer_norm=False, skip=1),
]
