"""``autoencoder``: no disentangling at all, the control that every other method is compared with.

It says again what it heard almost perfectly, and given another voice it still does: everything went
through the code, so the decoder never learnt to listen to the voice.
"""

from __future__ import annotations

from dataclasses import dataclass

from mynah.downstream.conversion.core.autoencoding import AutoEncoder, AutoEncoderConfig
from mynah.downstream.conversion.core.bottleneck import Plain


@dataclass(frozen=True, kw_only=True)
class Config(AutoEncoderConfig):
    """See :class:`AutoEncoderConfig`."""


class PlainAutoEncoder(AutoEncoder):
    """Encoder, decoder, and nothing that keeps the speaker out of the code."""

    config: Config

    def make_bottleneck(self) -> Plain:
        """Return a linear map."""
        return Plain(self.config.hidden, self.config.code)


CONVERTER = PlainAutoEncoder
CONFIGS = {
    "autoencoder": Config(),
    "autoencoder-tiny": Config(
        hidden=128, encoder_blocks=2, decoder_blocks=2, speaker="statistics", voice=64
    ),
}
