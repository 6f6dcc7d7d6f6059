"""``binary``: the code is a handful of bits per frame, rounded straight through.

Bits are combined, so a few of them tell more sounds apart than a one-hot vector of the same length,
and what two sounds share (voiced, nasal) can have a bit of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from mynah.downstream.conversion.core.autoencoding import AutoEncoder, AutoEncoderConfig
from mynah.downstream.conversion.core.bottleneck import Binary


@dataclass(frozen=True, kw_only=True)
class Config(AutoEncoderConfig):
    """See :class:`AutoEncoderConfig`; ``code`` is the number of bits."""

    code: int = 16


class Bits(AutoEncoder):
    """Bits between encoder and decoder."""

    config: Config

    def make_bottleneck(self) -> Binary:
        """Return the bits."""
        return Binary(self.config.hidden, self.config.code)


CONVERTER = Bits
CONFIGS = {
    "binary": Config(),
    "binary-tiny": Config(
        hidden=128, encoder_blocks=2, decoder_blocks=2, speaker="statistics", voice=64, code=12
    ),
}
