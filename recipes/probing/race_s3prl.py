"""s3prl's side of ``mynah speed probe``: its own classes, used as its ``Runner`` uses them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mynah.recipes.probing.race import CLIP, LEARNING_RATE, Clips, Side, chunks, right_in, timed

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from mynah.upstream.wav2vec2 import Wav2Vec2


def s3prl_upstream(model: Wav2Vec2, folder: Path) -> nn.Module:
    """Return s3prl's wav2vec 2.0 upstream with our weights, through its own entry point.

    Raises:
        ImportError: s3prl is not installed or cannot be imported.
    """
    import warnings

    import torch

    from mynah.recipes.speed_peers import _renamed
    from mynah.upstream.interop import s3prl

    s3prl.ensure_importable()
    config = model.config
    layers = zip(config.conv_kernels, config.conv_strides, strict=True)
    weights = _renamed(model, "fairseq", heads=True)
    weights["quantizer.vars"] = weights["quantizer.vars"].reshape(
        1, config.groups * config.codes, -1
    )
    settings = {
        "encoder_layers": config.layers,
        "encoder_embed_dim": config.dim,
        "encoder_ffn_embed_dim": config.ffn,
        "encoder_attention_heads": config.heads,
        "conv_feature_layers": str([(config.conv_channels, k, s) for k, s in layers]),
        "conv_bias": config.conv_bias,
        "conv_pos": config.pos_kernel,
        "conv_pos_groups": config.pos_groups,
        "quantize_targets": True,
        "latent_vars": config.codes,
        "latent_groups": config.groups,
        "latent_dim": config.code_dim,
        "final_dim": config.final_dim,
    }
    path = folder / "wav2vec2.pt"
    torch.save(
        {"task_cfg": {"normalize": False}, "model_cfg": settings, "model_weight": weights}, path
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from s3prl.upstream.wav2vec2.hubconf import wav2vec2_custom

        upstream: nn.Module = wav2vec2_custom(ckpt=str(path))
    return upstream.eval()


def race_s3prl(
    upstream: nn.Module, clips: Clips, order: Sequence[Sequence[Sequence[int]]], seed: int
) -> Side:
    """Train as s3prl's runner does, upstream at every step, and score."""
    import contextlib
    import io

    import torch
    from s3prl.downstream.model import UtteranceLevel
    from s3prl.upstream.interfaces import Featurizer
    from torch import nn
    from torch.nn.utils.rnn import pad_sequence

    side = Side(name="s3prl")
    with contextlib.redirect_stderr(io.StringIO()):
        featurizer = Featurizer(upstream, "hidden_states", upstream_device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projector = nn.Linear(featurizer.output_dim, 256)
        head = UtteranceLevel(input_dim=256, output_dim=clips.classes)
    params = [*featurizer.parameters(), *projector.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(params, lr=LEARNING_RATE)
    objective = nn.CrossEntropyLoss()

    def logits(batch: Sequence[np.ndarray]) -> Tensor:
        wavs = [torch.FloatTensor(wav) for wav in batch]
        with torch.no_grad():
            features = upstream(wavs)
        features = featurizer(wavs, features)
        lengths = torch.IntTensor([len(feature) for feature in features])
        out: Tensor = head(projector(pad_sequence(features, batch_first=True)), lengths)[0]
        return out

    def one_pass(batches: Sequence[Sequence[int]]) -> None:
        for batch in batches:
            target_B = torch.LongTensor([clips.train_labels[i] for i in batch])
            loss = objective(logits([clips.train[i] for i in batch]), target_B)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(params, CLIP)
            if not torch.isnan(norm):
                optimizer.step()
            optimizer.zero_grad()
            side.losses.append(float(loss.detach()))

    def score() -> None:
        right = 0
        with torch.no_grad():
            for at, labels in chunks(clips.test_labels, len(order[0][0])):
                right += right_in(logits(clips.test[at : at + len(labels)]), labels)
        side.accuracy = right / len(clips.test)

    for batches in order:
        side.passes.append(timed(partial(one_pass, batches)))
    side.score = timed(score)
    return side
