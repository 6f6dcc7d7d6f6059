"""Other people's pretraining steps, for races against ours.

Each peer is the library's own model with random weights and our sizes, its own masking, features and
loss, run as its users run it: the gradients clipped, AdamW as torch has it (which is kind to s3prl,
whose own optimisers are slower). A step begins with waveforms and ends with changed weights.

Shape suffixes: B batch, S samples, T frames, M features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

CLIP = 5.0

Loss = Callable[["Tensor"], "Tensor"]
"""Waveforms of one length (B, S) to the loss to differentiate."""

Peer = Callable[[Any], tuple["nn.Module", Loss]]
"""A config of ours to a peer's model and its loss; raises ImportError where it is not installed."""


def hugging_face_wav2vec2(config: Any) -> tuple[nn.Module, Loss]:
    """Return transformers' ``Wav2Vec2ForPreTraining`` with fused attention where it has it."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining
    from transformers.models.wav2vec2.modeling_wav2vec2 import (
        _compute_mask_indices,
        _sample_negative_indices,
    )

    settings = Wav2Vec2Config(
        hidden_size=config.dim,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.ffn,
        conv_dim=[config.conv_channels] * len(config.conv_kernels),
        conv_kernel=list(config.conv_kernels),
        conv_stride=list(config.conv_strides),
        num_conv_pos_embeddings=config.pos_kernel,
        num_conv_pos_embedding_groups=config.pos_groups,
        hidden_dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        activation_dropout=config.activation_dropout,
        feat_proj_dropout=config.input_dropout,
        feat_quantizer_dropout=config.feature_dropout,
        layerdrop=0.0,
        mask_time_prob=config.mask_prob,
        mask_time_length=config.mask_length,
        num_codevectors_per_group=config.codes,
        num_codevector_groups=config.groups,
        codevector_dim=config.code_dim,
        proj_codevector_dim=config.final_dim,
        num_negatives=config.negatives,
        attn_implementation="sdpa",
    )
    peer = Wav2Vec2ForPreTraining(settings).train()

    def loss(wav_BS: Tensor) -> Tensor:
        frames = int(peer._get_feat_extract_output_lengths(wav_BS.shape[1]))
        shape = (len(wav_BS), frames)
        mask = _compute_mask_indices(shape, config.mask_prob, config.mask_length, min_masks=2)
        negatives = _sample_negative_indices(shape, config.negatives, mask_time_indices=mask)
        device = wav_BS.device
        out = peer(
            wav_BS,
            mask_time_indices=torch.tensor(mask, dtype=torch.bool, device=device),
            sampled_negative_indices=torch.tensor(negatives, dtype=torch.long, device=device),
        )
        total: Tensor = out.loss / int(mask.sum())
        return total

    return peer, loss


def torchaudio_hubert(config: Any) -> tuple[nn.Module, Loss]:
    """Return torchaudio's ``hubert_pretrain_model`` with the loss of its recipe.

    Its logits of unmasked frames, which weigh nothing in that loss, are skipped.
    """
    import torch
    import torchaudio
    from torch.nn import functional as F

    layers = zip(config.conv_kernels, config.conv_strides, strict=True)
    peer = torchaudio.models.hubert_pretrain_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[(config.conv_channels, k, s) for k, s in layers],
        extractor_conv_bias=config.conv_bias,
        encoder_embed_dim=config.dim,
        encoder_projection_dropout=config.input_dropout,
        encoder_pos_conv_kernel=config.pos_kernel,
        encoder_pos_conv_groups=config.pos_groups,
        encoder_num_layers=config.layers,
        encoder_num_heads=config.heads,
        encoder_attention_dropout=config.attention_dropout,
        encoder_ff_interm_features=config.ffn,
        encoder_ff_interm_dropout=config.activation_dropout,
        encoder_dropout=config.dropout,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        mask_prob=config.mask_prob,
        mask_selection="static",
        mask_other=0.0,
        mask_length=config.mask_length,
        no_mask_overlap=False,
        mask_min_space=1,
        mask_channel_prob=0.0,
        mask_channel_selection="static",
        mask_channel_other=0.0,
        mask_channel_length=10,
        no_mask_channel_overlap=False,
        mask_channel_min_space=1,
        skip_masked=False,
        skip_nomask=True,
        num_classes=config.clusters,
        final_dim=config.final_dim,
        feature_grad_mult=config.front_grad if config.front_grad < 1 else None,
    ).train()

    def loss(wav_BS: Tensor) -> Tensor:
        frames = wav_BS.shape[1]
        for kernel, stride in zip(config.conv_kernels, config.conv_strides, strict=True):
            frames = (frames - kernel) // stride + 1
        labels_BT = torch.randint(config.clusters, (len(wav_BS), frames), device=wav_BS.device)
        logits, _, penalty = peer(wav_BS, labels_BT)
        right = torch.zeros(len(logits), dtype=torch.long, device=wav_BS.device)
        total: Tensor = F.cross_entropy(logits, right) + config.penalty_weight * penalty
        return total

    return peer, loss


def s3prl_masked(config: Any) -> tuple[nn.Module, Loss]:
    """Return s3prl's Mockingjay or TERA: its features, corruption, model, head and L1 loss."""
    from torch import nn

    with s3prl_importable():
        from s3prl.pretrain.mockingjay.task import generate_masked_acoustic_model_data
        from s3prl.upstream.baseline.preprocessor import get_preprocessor
        from s3prl.upstream.mockingjay.model import (
            TransformerConfig,
            TransformerModel,
            TransformerSpecPredictionHead,
        )
    feature = {"feat_type": "mel", "channel": 0, "log": True, "delta": 0, "cmvn": True}
    extracter, inputs, outputs = get_preprocessor(
        {
            "sample_rate": 16000,
            "win_ms": 25,
            "hop_ms": 10,
            "n_freq": 201,
            "n_mels": config.num_mels,
            "n_mfcc": 13,
            "input": feature,
            "target": {**feature, "feat_type": config.target},
        }
    )
    settings = TransformerConfig(
        {
            "hidden_size": config.dim,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "intermediate_size": config.ffn,
            "hidden_act": "gelu",
            "hidden_dropout_prob": config.dropout,
            "attention_probs_dropout_prob": config.attention_dropout,
            "initializer_range": 0.02,
            "layer_norm_eps": config.norm_eps,
            "share_layer": config.shared,
            "pre_layer_norm": False,
        }
    )
    task = {
        "mask_proportion": config.mask_prob,
        "mask_consecutive_min": config.mask_length,
        "mask_consecutive_max": config.mask_length,
        "mask_allow_overlap": True,
        "mask_frequency": config.band_share,
        "noise_proportion": config.noise_prob,
        "position_encoding_size": config.dim,
    }
    peer = nn.ModuleDict(
        {
            "model": TransformerModel(settings, inputs),
            "head": TransformerSpecPredictionHead(settings, outputs),
        }
    ).train()
    level = 10 ** (-25 / 20)

    def loss(wav_BS: Tensor) -> Tensor:
        loud_BS = wav_BS * (level / (wav_BS.square().mean(1, keepdim=True).sqrt() + 1e-10))
        seen, place, chosen, attention, target = generate_masked_acoustic_model_data(
            tuple(extracter(loud_BS[:, None])), task
        )
        place = place.expand(len(seen), *place.shape)
        last = peer["model"](seen, place, attention, output_all_encoded_layers=False)
        predicted, _ = peer["head"](last)
        error: Tensor = nn.functional.l1_loss(
            predicted.masked_select(chosen), target.masked_select(chosen)
        )
        return error

    return peer, loss


def s3prl_apc(config: Any) -> tuple[nn.Module, Loss]:
    """Return s3prl's APC: its filterbanks, model and L1 loss."""
    import torch
    from torch import nn

    with s3prl_importable():
        from s3prl.upstream.apc.apc import APC
        from s3prl.upstream.apc.audio import create_transform
    extracter, features = create_transform({"feat_type": "fbank", "feat_dim": config.num_mels})
    peer = APC(features, config.width, config.layers, config.dropout, True).train()
    shift = config.shift

    def loss(wav_BS: Tensor) -> Tensor:
        x_BTM = torch.stack([extracter(wav_S[None]) for wav_S in wav_BS])
        lengths = [x_BTM.shape[1] - shift] * len(x_BTM)
        predicted, _ = peer(x_BTM[:, :-shift], lengths, testing=False)
        error: Tensor = nn.functional.l1_loss(predicted, x_BTM[:, shift:])
        return error

    return peer, loss


@contextmanager
def s3prl_importable() -> Iterator[None]:
    """Let s3prl's modules be imported past its hub.

    Raises:
        ImportError: it is not installed.
    """
    from mynah.upstream.interop import s3prl

    s3prl.ensure_importable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
