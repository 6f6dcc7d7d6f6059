"""The reader that keeps nothing on disk: a request is a forward, unless memory still has it.

Features do not depend on the batch that they were computed in, so those of the last utterances can
serve whoever asks next: heads that are trained side by side share one forward.

Shape suffixes: B batch, L layers, T frames, D width, N frames of a ragged batch end to end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.store.codec import Kind
from mynah.upstream.store.reader import Item, Reader, unknown


class StreamReader(Reader):
    """Keeps nothing on disk: requests go through the upstream.

    Args:
        upstream: a frozen upstream.
        items: the utterances.
        memory: bytes of the latest features that are kept in memory; 0 for none.

    Raises:
        ValueError: the upstream is not frozen, or two items share an id.
    """

    kind: Kind = "stream"

    def __init__(self, upstream: Upstream, items: Sequence[Item], *, memory: int = 0) -> None:
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
        self._memory = memory
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._size = 0

    def lengths(self, ids: Sequence[str]) -> Tensor:
        """Return each utterance's number of frames, (B,) int64; no forward is needed."""
        sizes = [self._upstream.num_frames(self._item(name).num_samples) for name in ids]
        return torch.tensor(sizes, dtype=torch.int64)

    @torch.no_grad()
    def pooled(self, ids: Sequence[str]) -> Tensor:
        """Return each utterance's time mean of every layer, (B, L, D) float32."""
        if self._memory:
            return torch.stack([part_LTD.mean(1) for part_LTD in self.frames(ids)])
        out_BLD = torch.empty(len(ids), self.num_layers, self.dim)
        lengths = self.lengths(ids).tolist()
        for layer, states_ND in enumerate(self._upstream.hidden_states(self._load(ids))):
            for b, part_TD in enumerate(states_ND.split(lengths)):
                out_BLD[b, layer] = part_TD.float().mean(0)
        return out_BLD

    @torch.no_grad()
    def frames(self, ids: Sequence[str]) -> list[Tensor]:
        """Return each utterance's frames, a list of (L, T, D) float32; not to be changed."""
        missing = [name for name in dict.fromkeys(ids) if name not in self._kept]
        computed = dict(zip(missing, self._compute(missing), strict=True)) if missing else {}
        out = [computed[n] if n in computed else self._kept[n] for n in ids]
        for name in ids:
            if name in self._kept:
                self._kept.move_to_end(name)
        for name, part_LTD in computed.items():
            self._keep(name, part_LTD)
        return out

    def _keep(self, name: str, part_LTD: Tensor) -> None:
        size = part_LTD.numel() * part_LTD.element_size()
        if size > self._memory:
            return
        self._kept[name] = part_LTD
        self._size += size
        while self._size > self._memory:
            _, oldest = self._kept.popitem(last=False)
            self._size -= oldest.numel() * oldest.element_size()

    def _compute(self, ids: Sequence[str]) -> list[Tensor]:
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
        self.stats.computed += len(ids)
        wavs = []
        for name in ids:
            item = self._item(name)
            wavs.append(torch.from_numpy(item.load()).to(device))
            self.stats.audio_seconds += item.num_samples / self.sample_rate
        return wavs
