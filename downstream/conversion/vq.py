"""``vq``: the code is one of some hundred vectors (VQ-VAE, van den Oord et al. 2017).

A vector that stands for a sound has no room for who said it, nor for how exactly it was said.
"""

from __future__ import annotations

from dataclasses import dataclass

from mynah.downstream.conversion.core.autoencoding import AutoEncoder, AutoEncoderConfig
from mynah.downstream.conversion.core.bottleneck import VectorQuantiser


@dataclass(frozen=True, kw_only=True)
class Config(AutoEncoderConfig):
    """See :class:`AutoEncoderConfig`.

    Attributes:
        codes: vectors of the codebook.
        instance_norm: instance norm in the encoder as well.
        decay: of the codebook's moving averages.
        commitment: weight of the distance between frames and their vectors.
    """

    codes: int = 512
    instance_norm: bool = False
    decay: float = 0.99
    commitment: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codes < 2 or not 0 <= self.decay < 1 or self.commitment < 0:
            raise ValueError(
                "codes must be 2 or more, decay in [0, 1), commitment 0 or more, got "
                f"{self.codes}, {self.decay}, {self.commitment}"
            )


class VQ(AutoEncoder):
    """A codebook between encoder and decoder."""

    config: Config

    def _norms(self) -> bool:
        return self.config.instance_norm

    def make_bottleneck(self) -> VectorQuantiser:
        """Return the codebook."""
        c = self.config
        return VectorQuantiser(
            c.hidden, c.code, codes=c.codes, decay=c.decay, commitment=c.commitment
        )


CONVERTER = VQ
CONFIGS = {
    "vq": Config(),
    "vq-tiny": Config(
        hidden=128, encoder_blocks=2, decoder_blocks=2, speaker="statistics", voice=64, codes=128
    ),
    "vq-tiny-in": Config(
        hidden=128,
        encoder_blocks=2,
        decoder_blocks=2,
        speaker="statistics",
        voice=64,
        codes=128,
        instance_norm=True,
    ),
}
