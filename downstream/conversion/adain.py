"""``adain``: instance norm takes the speaker out, adaptive instance norm puts another one in.

Chou et al. 2019 (arXiv:1904.05742). The encoder's instance norm removes what does not change within an
utterance; the decoder's channels get mean and variance from the voice alone. ``kl`` above 0 makes the
code variational, as the paper has it. Differences: the time axis is not shortened, since the code is
narrow enough as it is, and blocks are plain residual ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mynah.downstream.conversion.core.autoencoding import AutoEncoder, AutoEncoderConfig
from mynah.downstream.conversion.core.bottleneck import Bottleneck, Plain, Variational


@dataclass(frozen=True, kw_only=True)
class Config(AutoEncoderConfig):
    """See :class:`AutoEncoderConfig`.

    Attributes:
        kl: weight of the divergence of the code from a standard Gaussian; 0 for a code that is not
            drawn.
        adaptive: whether the decoder normalises before it scales (AdaIN) or only scales (FiLM).
    """

    kl: float = 0.01
    adaptive: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl < 0:
            raise ValueError(f"kl must be 0 or more, got {self.kl}")


class AdaIN(AutoEncoder):
    """Instance norm in the encoder, the voice's statistics in the decoder."""

    instance_norm: ClassVar[bool] = True
    config: Config

    @property
    def adaptive(self) -> bool:  # type: ignore[override]  # a setting here
        """Whether the decoder normalises."""
        return self.config.adaptive

    def make_bottleneck(self) -> Bottleneck:
        """Return a variational code, or a plain one where ``kl`` is 0."""
        if self.config.kl:
            return Variational(self.config.hidden, self.config.code, weight=self.config.kl)
        return Plain(self.config.hidden, self.config.code)


CONVERTER = AdaIN
CONFIGS = {
    "adain": Config(code=128, encoder_blocks=6, decoder_blocks=6),
    "adain-tiny": Config(
        hidden=128, encoder_blocks=2, decoder_blocks=2, speaker="statistics", voice=64, kl=0.0
    ),
    "adain-tiny-vae": Config(
        hidden=128, encoder_blocks=2, decoder_blocks=2, speaker="statistics", voice=64, kl=0.003
    ),
}
