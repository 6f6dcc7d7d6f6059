"""``gumbel``: the code is a one-hot vector, learnt through the Gumbel-softmax (Jang et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from mynah.downstream.conversion.core.autoencoding import AutoEncoder, AutoEncoderConfig
from mynah.downstream.conversion.core.bottleneck import Gumbel


@dataclass(frozen=True, kw_only=True)
class Config(AutoEncoderConfig):
    """See :class:`AutoEncoderConfig`.

    Attributes:
        codes: length of the one-hot vector.
        hot: temperature at the start.
        cold: at the end.
        diversity: weight of the term that keeps codes in use.
    """

    codes: int = 512
    hot: float = 2.0
    cold: float = 0.5
    diversity: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codes < 2 or not 0 < self.cold <= self.hot or self.diversity < 0:
            raise ValueError(
                "codes must be 2 or more, 0 < cold <= hot, diversity 0 or more, got "
                f"{self.codes}, {self.cold}, {self.hot}, {self.diversity}"
            )


class OneHot(AutoEncoder):
    """One of many vectors, chosen softly at first and hard at last."""

    config: Config

    def make_bottleneck(self) -> Gumbel:
        """Return the one-hot bottleneck."""
        c = self.config
        return Gumbel(
            c.hidden, c.code, codes=c.codes, hot=c.hot, cold=c.cold, diversity=c.diversity
        )


CONVERTER = OneHot
CONFIGS = {
    "gumbel": Config(),
    "gumbel-tiny": Config(
        hidden=128, encoder_blocks=2, decoder_blocks=2, speaker="statistics", voice=64, codes=128
    ),
}
