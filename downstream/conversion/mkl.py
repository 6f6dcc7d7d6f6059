"""``mkl``: the linear map that carries one Gaussian to another at the least cost.

Frames of the source and of the target are taken for Gaussian; the Monge-Kantorovich map between the
two, ``A = S^-1/2 (S^1/2 T S^1/2)^1/2 S^-1/2`` of the covariances S and T, moves every frame no farther
than it must (Pitie and Kokaram 2007; for voices MKL-VC, Alobashev 2025). With diagonal covariances it
is ``stats``. Nothing is trained; some seconds of both speakers are needed, since covariances are
measured.

Shape suffixes: T frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mynah.downstream.conversion.core.contract import Converter, Heard
from mynah.downstream.conversion.core.statistics import Gaussian, active_frames, audible


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        shrink: share of the diagonal in each covariance, 0 to 1; 1 is ``stats``.
        group: bins that are mapped together, in order of their variance, as MKL-VC does; 0 for all.
    """

    shrink: float = 0.1
    group: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.shrink <= 1 or self.group < 0:
            raise ValueError(
                f"shrink must be in [0, 1] and group 0 or more, got {self.shrink} and {self.group}"
            )


def transport(source: Gaussian, target: Gaussian) -> Tensor:
    """Return the matrix A (D, D), symmetric, that carries the source's covariance to the target's."""
    root_DD, inverse_DD = _roots(source.covariance_DD)
    middle_DD, _ = _roots(root_DD @ target.covariance_DD @ root_DD)
    return inverse_DD @ middle_DD @ inverse_DD


def _roots(matrix_DD: Tensor) -> tuple[Tensor, Tensor]:
    """Return the square root of a positive definite matrix, and that one's inverse."""
    values_D, vectors_DD = torch.linalg.eigh(matrix_DD)
    roots_D = values_D.clamp(min=1e-10).sqrt()
    return (vectors_DD * roots_D) @ vectors_DD.T, (vectors_DD / roots_D) @ vectors_DD.T


class MKL(Converter):
    """The optimal linear map from one voice's frames to another's."""

    trained: ClassVar[bool] = False
    config: Config

    @property
    def code_dim(self) -> int:
        """Mel bins."""
        return self.sizes.spec.num_mels

    def encode_content(self, source: Heard) -> Tensor:
        """Return the spectrogram (T, M), whitened by its own covariance."""
        source, _ = audible(source, [], nepers=self.sizes.spec.nepers)
        own = self.encode_speaker([source])
        _, inverse_MM = _roots(own.covariance_DD)
        return ((source.mel_TM.double() - own.mean_D) @ inverse_MM).float()

    def encode_speaker(self, references: Sequence[Heard]) -> Gaussian:
        """Return mean and covariance over the speech of some recordings.

        Raises:
            ValueError: no recording.
        """
        return Gaussian.of(active_frames(references)[1], shrink=self.config.shrink)

    def speaker_vector(self, voice: Gaussian) -> Tensor:
        """Return mean and deviation of each bin (2M,)."""
        return voice.vector()

    def decode(self, code_TC: Tensor, voice: Gaussian) -> Tensor:
        """Return a whitened code, coloured by the voice's covariance."""
        root_MM, _ = _roots(voice.covariance_DD)
        mel_TM = code_TC.double() @ root_MM + voice.mean_D
        return voice.within(mel_TM, least=self.sizes.spec.silence)

    @torch.no_grad()
    def convert(
        self, source: Heard, references: Sequence[Heard], *, more: Sequence[Heard] = ()
    ) -> Tensor:
        """Return the spectrogram (T, M), carried to the target's Gaussian; see the contract."""
        source, more = audible(source, more, nepers=self.sizes.spec.nepers)
        own, other = self.encode_speaker([source, *more]), self.encode_speaker(references)
        moved_TM = source.mel_TM.double() - own.mean_D
        order = own.deviation_D.argsort(descending=True)
        for bins in order.split(self.config.group or len(order)):
            parts = [
                Gaussian(
                    mean_D=g.mean_D[bins],
                    deviation_D=g.deviation_D[bins],
                    loudest_D=g.loudest_D[bins],
                    covariance_DD=g.covariance_DD[bins][:, bins],
                )
                for g in (own, other)
            ]
            moved_TM[:, bins] = moved_TM[:, bins] @ transport(*parts)
        return other.within(moved_TM + other.mean_D, least=self.sizes.spec.silence)


CONVERTER = MKL
CONFIGS = {"mkl": Config()}
