"""CPC: an autoregressive network on encoded frames tells the frames to come from others.

Van den Oord, Li and Vinyals 2018, "Representation learning with contrastive predictive coding"
(arXiv 1807.03748), and its modified form, Riviere, Joulin, Mazare and Dupoux 2020, "Unsupervised
pretraining transfers well across languages" (arXiv 2002.02848). Convolutions turn the waveform into
10 ms frames z, a recurrent network summarises them up to t in a context c_t, and for each of the
next 12 steps a predictor of c_t has to score the true z above 128 others. Details that the papers
leave open follow ``CPC_audio``, the code of the second.

What differs: the loss is the mean over steps, there the sum. Where the negatives come from one
speaker there, they come from one utterance here, for which no speaker has to be known. A negative
that happens to be the true frame does not count.

Hidden states, as SUPERB counts them: the encoder's output, the context. All states have one width:
where one is narrower (the base's context, 256 of 512), zeros follow its values.

Variants: ``base`` is the original (512 channels, batch norm, GRU of 256, a matrix per step),
``modified`` the model behind SUPERB's ``modified_cpc`` row (256 channels, norm over channels, LSTM,
a Transformer layer per step); ``tiny`` learns in minutes on a CPU because its encoder sees 20 ms
log-mel frames.

Shape suffixes: B batch, T frames, N frames of a ragged batch, A anchors (frames that are predicted
from) of the whole batch, K steps, M negatives, C encoder width, H context width, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.cpc_encoder import MelEncoder, Norm, PackedEncoder, WaveEncoder
from mynah.upstream.core.cpc_predictors import LinearPredictors, TransformerPredictors
from mynah.upstream.core.infonce import Scope, anchor_counts, draw_negatives, info_nce
from mynah.upstream.core.packing import Packing
from mynah.upstream.core.recurrent import PackedRecurrent
from mynah.upstream.core.select import counted


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of CPC; the defaults are the original's, named as ``CPC_audio`` names them.

    Attributes:
        front: ``wave`` for the convolutions, ``mel`` for linear layers on log-mel filterbanks.
        channels: width of the encoder.
        norm: of its layers: ``batch`` or ``channel``.
        num_mels: filters of the ``mel`` front-end.
        stack: its 10 ms frames per frame.
        mel_layers: its linear layers.
        context: ``gru`` or ``lstm``.
        width: its units.
        layers: its layers.
        objective: false for a model read from elsewhere without the parts that pretraining needs.
        steps: how many frames ahead are predicted, each by its own predictor.
        predictor: ``linear`` or ``transformer``.
        predictor_heads: attention heads of a Transformer predictor.
        predictor_ffn: its inner width.
        predictor_distances: distances with a position vector of their own.
        dropout: inside it.
        negatives: frames that the true one is told from.
        negatives_from: the ``batch`` or the ``utterance``.
    """

    front: Literal["wave", "mel"] = "wave"  # CPC_audio: encoder_type
    channels: int = 512  # CPC_audio: hiddenEncoder
    norm: Norm = "batch"  # CPC_audio: normMode
    num_mels: int = 40
    stack: int = 2
    mel_layers: int = 2
    context: Literal["gru", "lstm"] = "gru"  # CPC_audio: arMode
    width: int = 256  # CPC_audio: hiddenGar
    layers: int = 1  # CPC_audio: nLevelsGRU
    objective: bool = True
    steps: int = 12  # CPC_audio: nPredicts
    predictor: Literal["linear", "transformer"] = "linear"  # CPC_audio: rnnMode
    predictor_heads: int = 8
    predictor_ffn: int = 2048
    predictor_distances: int = 116  # CPC_audio: sizeWindow / 160 - nPredicts
    dropout: float = 0.1
    negatives: int = 128  # CPC_audio: negativeSamplingExt
    negatives_from: Scope = "batch"  # CPC_audio: samplingType


CONFIGS = {
    "base": Config(),
    "modified": Config(
        channels=256,
        norm="channel",
        context="lstm",
        predictor="transformer",
        negatives_from="utterance",
    ),
    "tiny": Config(
        front="mel",
        channels=192,
        norm="channel",
        width=192,
        steps=6,
        negatives=64,
        negatives_from="utterance",
    ),
}


class Cpc(Packing[tuple[PackedEncoder, PackedRecurrent]]):
    """Encoder, recurrent context, and a predictor for each step."""

    name = "cpc"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.encoder: WaveEncoder | MelEncoder
        if config.front == "wave":
            self.encoder = WaveEncoder(config.channels, norm=config.norm)
        elif config.front == "mel":
            self.encoder = MelEncoder(
                config.channels,
                num_mels=config.num_mels,
                stack=config.stack,
                layers=config.mel_layers,
                norm=config.norm,
            )
        else:
            raise ValueError(f"front must be 'wave' or 'mel', got {config.front!r}")
        kinds: dict[str, type[nn.GRU | nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
        if config.context not in kinds:
            raise ValueError(f"context must be 'gru' or 'lstm', got {config.context!r}")
        self.context = kinds[config.context](
            config.channels, config.width, config.layers, batch_first=True
        )
        self.dim = max(config.channels, config.width)
        self.num_layers = 2
        self.stride = self.encoder.stride
        if config.objective:
            self.predictors = build_predictors(config)
            self.least_frames = config.steps + 1
            # who tells frames apart is right more than twice as often as by chance
            self.floors = {"accuracy": 2.0 / (1 + config.negatives)}

    # -- frozen features ----------------------------------------------------------------------

    def num_frames(self, n_samples: int) -> int:
        """Return the exact number of frames; fewer samples than one frame needs count as one.

        Raises:
            ValueError: no samples.
        """
        if n_samples < 1:
            raise ValueError(f"a waveform needs at least one sample, got {n_samples}")
        return self.encoder.num_frames(n_samples)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the encoded frames and the context, float32 (N, D)."""
        encoder, context = self.packed()
        counts = [self.num_frames(len(wav)) for wav in wavs]
        z_NC = encoder(wavs)
        yield F.pad(z_NC, (0, self.dim - z_NC.shape[1]))
        c_NH = context(z_NC, counts)
        yield F.pad(c_NH, (0, self.dim - c_NH.shape[1]))

    def _pack(self, dtype: torch.dtype) -> tuple[PackedEncoder, PackedRecurrent]:
        return self.encoder.packed(dtype), PackedRecurrent(self.context, dtype=dtype)

    # -- pretraining --------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Loss:
        """Return InfoNCE, averaged over the steps; utterances too short for all of them are left out.

        ``parts`` holds ``chance`` too, the loss of a blind guess: a model that is not below it has
        learnt nothing.

        Raises:
            ValueError: no utterance of the batch is longer than the steps, or the model has no
                predictors.
        """
        config: Config = self.config
        wavs = [
            wav[:n]
            for wav, n in zip(batch.wav_BS, batch.lengths_B.tolist(), strict=True)
            if self.num_frames(n) > config.steps
        ]
        if not wavs:
            raise ValueError(
                f"every utterance of the batch has at most {config.steps} frames, too few to "
                f"predict one {config.steps} frames ahead: leave out the shortest "
                f"({', '.join(batch.ids[:5])} ...)"
            )
        negatives_AM = draw_negatives(
            [self.num_frames(len(wav)) for wav in wavs],
            steps=config.steps,
            n=config.negatives,
            scope=config.negatives_from,
            generator=batch.generator,
        )
        return self.contrast(wavs, negatives_AM)

    def contrast(self, wavs: Sequence[Tensor], negatives_AM: Tensor) -> Loss:
        """Return the objective for given negatives.

        Args:
            wavs: waveforms that each have more frames than there are steps.
            negatives_AM: for each anchor, indices into the frames of all utterances.
        """
        config: Config = self.config
        if not config.objective:
            raise ValueError(
                "this cpc was read without its predictors (objective=False): it yields features "
                "and cannot be pretrained"
            )
        z_BTC, counts = self.encoder(wavs)
        device = z_BTC.device
        time_T = torch.arange(z_BTC.shape[1], device=device)
        valid_BT = time_T < counted(counts, device)[:, None]
        anchors = counted(anchor_counts(counts, config.steps), device)
        top = int(anchors.max())
        anchor_BT = time_T[:top] < anchors[:, None]
        c_BTH = self.context(z_BTC)[0][:, :top]
        pred_KAC = self.predictors(c_BTH)[:, anchor_BT]
        task = info_nce(
            pred_KAC,
            z_BTC[valid_BT],
            negatives_AM=negatives_AM.to(device),
            counts=counts,
            scope=config.negatives_from,
        )
        parts = {
            "info_nce": task.loss.detach(),
            "chance": torch.full((), 1.0 + config.negatives, device=device).log(),
            "accuracy": task.accuracy_K.mean(),
            "accuracy_first": task.accuracy_K[0],
            "accuracy_last": task.accuracy_K[-1],
        }
        return Loss(total=task.loss, parts=parts, weight=float(len(negatives_AM)))


def build_predictors(config: Config) -> LinearPredictors | TransformerPredictors:
    """Return the predictors of a config.

    Raises:
        ValueError: an unknown kind, or Transformers between unequal widths.
    """
    if config.steps < 1:
        raise ValueError(f"steps must be at least 1, got {config.steps}")
    if config.predictor == "linear":
        return LinearPredictors(config.steps, config.width, config.channels)
    if config.predictor != "transformer":
        raise ValueError(f"predictor must be 'linear' or 'transformer', got {config.predictor!r}")
    if config.width != config.channels:
        raise ValueError(
            "a Transformer predictor needs a context as wide as the encoder, got width "
            f"{config.width} and channels {config.channels}: make them equal or take 'linear'"
        )
    return TransformerPredictors(
        config.steps,
        config.width,
        heads=config.predictor_heads,
        ffn=config.predictor_ffn,
        dropout=config.dropout,
        distances=config.predictor_distances,
    )


MODEL = Cpc
