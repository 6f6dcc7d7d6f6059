"""Batches of kept features, in bounded memory.

Shape suffixes: B batch, L layers, T frames, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mynah.tasks.corpora.utterance import Utterance
    from mynah.upstream.store import Reader

BUDGET = 192 << 20  # bytes of features and activations of one forward


class Source:
    """Features of utterances as heads take them, read by position from the store.

    Args:
        reader: of the feature store.
        pooled: give time means (B, L, D); otherwise frames (L, B, T, D).
        heads: how many heads are trained at once, which decides how many frames fit.
        batch: most utterances of one evaluation batch.
        budget: bytes that one forward may take.

    Attributes:
        read: utterances given out so far.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        pooled: bool,
        heads: int,
        batch: int = 256,
        budget: int = BUDGET,
    ) -> None:
        self.reader = reader
        self.is_pooled = pooled
        self.batch = batch
        layers, dim = reader.num_layers, reader.dim
        # float16 frames of all layers; per head the sum, its gradient and one product's operand.
        self.room = max(1, budget // (dim * (2 * layers + 12 * heads)))

    def lengths(self, utterances: Sequence[Utterance]) -> list[int]:
        """Return the number of frames of each utterance."""
        sizes: list[int] = self.reader.lengths([u.id for u in utterances]).tolist()
        return sizes

    def __call__(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        """Return features and frame counts of a batch."""
        ids = [u.id for u in utterances]
        lengths_B = self.reader.lengths(ids)
        if self.is_pooled:
            return self.reader.pooled(ids), lengths_B
        frames_LBTD = self.reader.padded(ids, dtype=torch.float16)
        low, high = frames_LBTD.aminmax()
        if not bool(torch.isfinite(low) & torch.isfinite(high)):  # kept in float32, and for cause
            frames_LBTD = self.reader.padded(ids)
        return frames_LBTD, lengths_B

    def cut(self, batch: Sequence[Utterance]) -> Iterator[list[Utterance]]:
        """Yield the utterances of a training batch in groups that fit into the budget.

        The loss of a batch is a mean over its items, so the groups' gradients add up to its own.
        """
        if self.is_pooled:
            yield list(batch)
            return
        yield from self._groups(batch, self.lengths(batch), len(batch))

    def sweep(self, utterances: Sequence[Utterance]) -> Iterator[list[Utterance]]:
        """Yield all utterances in groups that fit, those of like length together."""
        if self.is_pooled:
            for at in range(0, len(utterances), self.batch):
                yield list(utterances[at : at + self.batch])
            return
        yield from self._groups(utterances, self.lengths(utterances), self.batch)

    def _groups(
        self, utterances: Sequence[Utterance], lengths: Sequence[int], most: int
    ) -> Iterator[list[Utterance]]:
        order = sorted(range(len(utterances)), key=lambda i: lengths[i])
        group: list[int] = []
        for i in order:
            if group and (len(group) == most or (len(group) + 1) * lengths[i] > self.room):
                yield [utterances[j] for j in group]
                group = []
            group.append(i)
        if group:
            yield [utterances[j] for j in group]
