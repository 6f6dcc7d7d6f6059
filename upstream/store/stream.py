"""The reader that keeps nothing: every request is a forward.

Shape suffixes: B batch, L layers, T frames, D width, N frames of a ragged batch end to end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.store.codec import Kind
from mynah.upstream.store.reader import Item, Reader, unknown


class StreamReader(Reader):
    """Keeps nothing: every request goes through the upstream.

    Args:
        upstream: a frozen upstream.
        items: the utterances.

    Raises:
        ValueError: the upstream is not frozen, or two items share an id.
    """

    kind: Kind = "stream"

    def __init__(self, upstream: Upstream, items: Sequence[Item]) -> None:
        if not upstream.frozen:
            raise ValueError("features are taken of frozen upstreams only: call upstream.freeze()")
        super().__init__(
            num_layers=upstream.num_layers,
            dim=upstream.dim,
            sample_rate=upstream.sample_rate,
            stride=upstream.stride,
        )
        self._upstream = upstream
        self._items = {item.id: item for item in items}
        if len(self._items) != len(items):
            raise ValueError("utterance ids must be unique: two items share one")

    def lengths(self, ids: Sequence[str]) -> Tensor:
        """Return each utterance's number of frames, (B,) int64; no forward is needed."""
        sizes = [self._upstream.num_frames(self._item(name).num_samples) for name in ids]
        return torch.tensor(sizes, dtype=torch.int64)

    @torch.no_grad()
    def pooled(self, ids: Sequence[str]) -> Tensor:
        """Return each utterance's time mean of every layer, (B, L, D) float32."""
        out_BLD = torch.empty(len(ids), self.num_layers, self.dim)
        lengths = self.lengths(ids).tolist()
        for layer, states_ND in enumerate(self._upstream.hidden_states(self._load(ids))):
            for b, part_TD in enumerate(states_ND.split(lengths)):
                out_BLD[b, layer] = part_TD.float().mean(0)
        return out_BLD

    @torch.no_grad()
    def frames(self, ids: Sequence[str]) -> list[Tensor]:
        """Return each utterance's frames, a list of (L, T, D) float32."""
        lengths = self.lengths(ids).tolist()
        out = [torch.empty(self.num_layers, t, self.dim) for t in lengths]
        for layer, states_ND in enumerate(self._upstream.hidden_states(self._load(ids))):
            for part_LTD, part_TD in zip(out, states_ND.split(lengths), strict=True):
                part_LTD[layer] = part_TD
        return out

    def _item(self, name: str) -> Item:
        item = self._items.get(name)
        if item is None:
            raise unknown(name)
        return item

    def _load(self, ids: Sequence[str]) -> list[Tensor]:
        device = self._upstream.device
        self.stats.forwards += 1
        wavs = []
        for name in ids:
            item = self._item(name)
            wavs.append(torch.from_numpy(item.load()).to(device))
            self.stats.audio_seconds += item.num_samples / self.sample_rate
        return wavs
