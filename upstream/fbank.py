"""FBANK: log-mel filterbanks with their slopes, the representation that every model must beat.

Kaldi filterbanks, deltas and delta-deltas, as SUPERB's ``fbank`` baseline (Yang et al. 2021, arXiv
2105.01051): 80 filters, hence 240 features each 10 ms. There is nothing to train.

s3prl normalises each utterance (its ``fbank``) or does not (its ``fbank_no_cmvn``); here the
default does not, because normalisation removes loudness and part of the speaker: use the variant
``cmvn`` for s3prl's.

Shape suffixes: N frames of the whole batch laid end to end, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from mynah.upstream.core import mel
from mynah.upstream.core.contract import Batch, Loss, Upstream


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of FBANK.

    Attributes:
        num_mels: number of mel filters.
        deltas: how many orders of slopes are appended.
        cmvn: whether each feature is normalised to mean 0 and deviation 1 in each utterance.
    """

    num_mels: int = 80  # s3prl: num_mel_bins
    deltas: int = 2  # s3prl: delta.order
    cmvn: bool = False  # s3prl: cmvn.use_cmvn


CONFIGS = {"base": Config(), "cmvn": Config(cmvn=True), "tiny": Config(num_mels=40)}


class Fbank(Upstream):
    """One hidden state: the filterbanks and their slopes side by side."""

    name = "fbank"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.front = mel.KaldiFbank(num_mels=config.num_mels)
        self.dim = config.num_mels * (1 + config.deltas)
        self.num_layers = 1
        self.stride = mel.STRIDE

    def num_frames(self, n_samples: int) -> int:
        """Return how many windows of 25 ms fit, at least one."""
        return self.front.num_frames(n_samples)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the features (N, D)."""
        x_ND, counts = self.front(wavs)
        x_ND = mel.with_deltas(x_ND, counts, order=self.config.deltas)
        yield mel.cmvn(x_ND, counts) if self.config.cmvn else x_ND

    def loss(self, batch: Batch) -> Loss:
        """Refuse: filterbanks have no parameters.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "fbank has nothing to train; pretrain another upstream (apc, mockingjay, wav2vec2 ...)"
        )


MODEL = Fbank
