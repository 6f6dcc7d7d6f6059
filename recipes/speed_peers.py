"""Other people's wav2vec 2.0 with our weights in it, for races against them.

Each peer is built from our config, filled with our weights under its own names, and run the way its
users run it: s3prl, Hugging Face (sdpa) and torchaudio on zero-padded batches with their length or
mask arguments.

Shape suffixes: B batch, S samples, T frames, D width.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from mynah.upstream.wav2vec2 import Wav2Vec2

Forward = Callable[["Sequence[Tensor]"], "list[Tensor]"]
"""Waveforms to hidden states (B, T, D) without state 0: the outputs of the layers in order."""


def padded(wavs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return waveforms (B, S) zero-padded on the right and their lengths (B)."""
    import torch

    lengths_B = torch.tensor([len(wav) for wav in wavs])
    return torch.nn.utils.rnn.pad_sequence(list(wavs), batch_first=True), lengths_B


def hugging_face(model: Wav2Vec2) -> Forward:
    """Return transformers' ``Wav2Vec2Model`` with sdpa attention.

    Raises:
        ImportError: transformers is not installed.
    """
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = model.config
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
        attn_implementation="sdpa",
    )
    peer = Wav2Vec2Model(settings).eval()
    peer.load_state_dict(_renamed(model, "hf"))

    def forward(wavs: Sequence[Tensor]) -> list[Tensor]:
        wav_BS, lengths_B = padded(wavs)
        mask_BS = None
        if len(wavs) > 1:
            mask_BS = (torch.arange(wav_BS.shape[1]) < lengths_B[:, None]).long()
        out = peer(wav_BS, attention_mask=mask_BS, output_hidden_states=True)
        return list(out.hidden_states[1:])

    return forward


def torchaudio_model(model: Wav2Vec2) -> Forward:
    """Return torchaudio's ``wav2vec2_model``.

    Raises:
        ImportError: torchaudio is not installed.
    """
    import torchaudio

    config = model.config
    layers = zip(config.conv_kernels, config.conv_strides, strict=True)
    peer = torchaudio.models.wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[(config.conv_channels, k, s) for k, s in layers],
        extractor_conv_bias=config.conv_bias,
        encoder_embed_dim=config.dim,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=config.pos_kernel,
        encoder_pos_conv_groups=config.pos_groups,
        encoder_num_layers=config.layers,
        encoder_num_heads=config.heads,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=config.ffn,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    ).eval()
    state = {}
    for name, value in _renamed(model, "hf").items():
        if name.startswith("encoder."):
            state["encoder.transformer." + name.removeprefix("encoder.")] = value
        elif name.startswith("feature_projection."):
            state["encoder." + name] = value
        elif name != "masked_spec_embed":
            state[name] = value
    peer.load_state_dict(state)

    def forward(wavs: Sequence[Tensor]) -> list[Tensor]:
        states: list[Tensor] = peer.extract_features(*padded(wavs))[0]
        return states

    return forward


def s3prl_model(model: Wav2Vec2) -> Forward:
    """Return the ``Wav2Vec2Model`` that s3prl carries, imported past its hub.

    Raises:
        ImportError: s3prl is not installed or cannot be imported.
    """
    from mynah.upstream.interop import s3prl

    s3prl.ensure_importable()
    import torch
    from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model

    config = model.config
    layers = zip(config.conv_kernels, config.conv_strides, strict=True)
    settings = Wav2Vec2Config(
        encoder_layers=config.layers,
        encoder_embed_dim=config.dim,
        encoder_ffn_embed_dim=config.ffn,
        encoder_attention_heads=config.heads,
        conv_feature_layers=str([(config.conv_channels, k, s) for k, s in layers]),
        conv_bias=config.conv_bias,
        conv_pos=config.pos_kernel,
        conv_pos_groups=config.pos_groups,
        quantize_targets=True,
        latent_vars=config.codes,
        latent_groups=config.groups,
        latent_dim=config.code_dim,
        final_dim=config.final_dim,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it uses torch's older weight_norm
        peer = Wav2Vec2Model(settings).eval()
    state = _renamed(model, "fairseq", heads=True)
    state["quantizer.vars"] = state["quantizer.vars"].reshape(1, config.groups * config.codes, -1)
    peer.load_state_dict(state)

    def forward(wavs: Sequence[Tensor]) -> list[Tensor]:
        wav_BS, lengths_B = padded(wavs)
        padding_BS = torch.arange(wav_BS.shape[1]) >= lengths_B[:, None]
        out = peer(source=wav_BS, padding_mask=padding_BS, mask=False, features_only=True)
        return [state[0].transpose(0, 1) for state in out["layer_results"]]

    return forward


PEERS: dict[str, Callable[[Wav2Vec2], Forward]] = {
    "s3prl": s3prl_model,
    "HF sdpa": hugging_face,
    "torchaudio": torchaudio_model,
}


def _renamed(model: Wav2Vec2, style: Any, *, heads: bool = False) -> dict[str, Tensor]:
    """Return our weights under others' names, with or without the pretraining heads."""
    from mynah.upstream.interop import keymap

    state = {}
    for key, value in model.state_dict().items():
        head = key.startswith(("quantizer.", "project_q.", "final_proj."))
        if key != "quantizer.temperature" and (heads or not head):
            state[keymap.theirs(key, style, conv_norm=model.config.conv_norm)[0]] = value.clone()
    return state
