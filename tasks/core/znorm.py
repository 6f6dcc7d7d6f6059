"""Zero mean and unit deviation: of features over all frames, and of scores over the documents.

Both are steps of SUPERB's query by example (s3prl ``downstream/quesst14_dtw/expert.py``): features
are normalised by the mean and the deviation of every dimension over all frames of queries and
documents together; the scores of each query by those over its documents, and what then lies above
2 is said to be found. Features of a corpus do not fit in memory, so their moments are kept while
the frames go by (Chan, Golub, LeVeque 1979, "Updating formulae", eq. 2.1, in float64).

Shape suffixes: L layers, T frames, D width, Q queries, N documents.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-9  # a smaller deviation counts as this one
FOUND = 2.0  # z-scores above are hits: the top 2.5 % if scores were normally distributed


class RunningMoments:
    """Mean and deviation of every dimension, over frames that come piece by piece.

    All layers of an upstream are kept at once if the pieces have them. The state takes the device of
    the first piece.

    Attributes:
        frames: how many were seen.
    """

    frames: int

    def __init__(self) -> None:
        self.frames = 0
        self._mean: Tensor | None = None  # (D) or (L, D), float64
        self._squares: Tensor | None = None  # sums of squared deviations from it

    def update(self, x: Tensor) -> None:
        """Add frames.

        Args:
            x: (T, D) or (L, T, D), of any floating type; T may be 0.

        Raises:
            ValueError: another shape than before, or values that are not finite.
        """
        if x.ndim not in (2, 3) or not x.is_floating_point():
            raise ValueError(
                f"frames must be floats (T, D) or (L, T, D), got {x.dtype} {tuple(x.shape)}"
            )
        if self._mean is not None and self._mean.shape != x.shape[:-2] + x.shape[-1:]:
            raise ValueError(
                f"frames of shape {tuple(x.shape)} after moments of {tuple(self._mean.shape)}: "
                "all must be of one upstream"
            )
        new = x.shape[-2]
        if new == 0:
            return
        x = x.double()
        mean = x.mean(dim=-2)
        squares = (x - mean.unsqueeze(-2)).square().sum(dim=-2)
        if not bool(squares.isfinite().all()):
            raise ValueError("features hold values that are not finite: check the upstream")
        if self._mean is None or self._squares is None:
            self._mean, self._squares = mean, squares
        else:
            step = mean.to(self._mean.device) - self._mean
            total = self.frames + new
            self._mean = self._mean + step * (new / total)
            self._squares = (
                self._squares
                + squares.to(step.device)
                + step.square() * (self.frames * new / total)
            )
        self.frames += new

    @property
    def mean(self) -> Tensor:
        """Mean of every dimension, float64 (D) or (L, D).

        Raises:
            ValueError: no frames yet.
        """
        if self._mean is None:
            raise ValueError("no frames yet: moments are not defined")
        return self._mean

    @property
    def deviation(self) -> Tensor:
        """Unbiased standard deviation (n - 1, as ``torch.std``), at least 1e-9, float64.

        Raises:
            ValueError: fewer than two frames.
        """
        if self._squares is None or self.frames < 2:
            raise ValueError(f"{self.frames} frames: a deviation needs two at least")
        return (self._squares / (self.frames - 1)).sqrt().clamp(min=LEAST)

    def normalise(self, x: Tensor) -> Tensor:
        """Return (x - mean) / deviation, in x's shape, device and type (float32 at least).

        Raises:
            ValueError: fewer than two frames seen, or another shape than theirs.
        """
        if x.shape[:-2] + x.shape[-1:] != self.mean.shape:
            raise ValueError(
                f"frames of shape {tuple(x.shape)} but moments of {tuple(self.mean.shape)}"
            )
        kind = torch.promote_types(x.dtype, torch.float32)
        mean, deviation = (
            moment.unsqueeze(-2).to(x.device, kind) for moment in (self.mean, self.deviation)
        )
        return (x.to(kind) - mean) / deviation


def normalise_scores(scores: Tensor) -> Tensor:
    """Return each query's scores with zero mean and unit deviation over its documents.

    A query that scores all documents alike (one that is too short, or a single document) gets
    zeros: it finds nothing.

    Args:
        scores: (..., Q, N), higher is better.

    Returns:
        float64 of the same shape; the deviation divides by n, as numpy's does.

    Raises:
        ValueError: no documents, or scores that are not finite.
    """
    if scores.ndim < 1 or scores.shape[-1] == 0:
        raise ValueError(f"scores of shape {tuple(scores.shape)}: no documents")
    if not bool(scores.isfinite().all()):
        raise ValueError("scores hold values that are not finite")
    scores = scores.double()
    centred = scores - scores.mean(dim=-1, keepdim=True)
    deviation = centred.square().mean(dim=-1, keepdim=True).sqrt()
    alike = scores.amax(dim=-1, keepdim=True) == scores.amin(dim=-1, keepdim=True)
    return (centred / deviation.clamp(min=LEAST)).masked_fill(alike, 0.0)


def found(normalised: Tensor) -> Tensor:
    """Return where the protocol says YES: normalised scores above 2."""
    return normalised > FOUND
