"""The Gumbel quantiser of vq-wav2vec: hidden layers before the softmax, codes shared by the groups.

Baevski, Schneider and Auli 2020 (arXiv 1910.05453) section 3.1, in fairseq's form
(``GumbelVectorQuantizer`` with ``weight_proj_depth`` and ``combine_groups``).

Shape suffixes: M frames in training, T frames of an utterance, N frames of any number of utterances,
F width of the last hidden layer, D width of a frame, G groups, V codes per group.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.aggregator import Activation
from mynah.upstream.core.gumbel import GumbelQuantizer, Quantised, perplexity


class DeepGumbel(GumbelQuantizer):
    """A Gumbel softmax behind one or more layers, with one set of codes for all groups or not.

    Args:
        channels: width D of frames and of quantised frames.
        groups: G.
        codes: codes of a group.
        shared: one set for all groups.
        depth: 1 for the logits alone; each further layer is twice as wide as the frames.
        activation: between the layers.
        temperature: the first.
    """

    def __init__(
        self,
        channels: int,
        *,
        groups: int,
        codes: int,
        shared: bool,
        depth: int,
        activation: Activation,
        temperature: float,
    ) -> None:
        inner = channels if depth == 1 else 2 * channels
        super().__init__(
            inner, dim=channels, groups=groups, codes=codes, temperature=temperature, shared=shared
        )
        widths = [channels] + [inner] * (depth - 1)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU() if activation == "relu" else nn.GELU()]
        self.hidden = nn.Sequential(*layers)
        if depth > 1:
            self.logits.reset_parameters()  # N(0, 1) is fairseq's for a single layer only

    def forward(self, x_MF: Tensor, *, generator: torch.Generator | None = None) -> Quantised:
        """Quantise frames; ``code_perplexity`` is of the codes that are chosen without noise."""
        x_MF = self.hidden(x_MF)
        found = super().forward(x_MF, generator=generator)
        if not self.training:
            return found
        share_GV = F.one_hot(self._best(x_MF), self.codes).float().mean(dim=0)
        return dataclasses.replace(found, code_perplexity=perplexity(share_GV))

    def choose(self, x_TF: Tensor) -> Tensor:
        """Return the codes (T, G) of frames, without noise."""
        return self._best(self.hidden(x_TF))

    def lookup(self, codes_NG: Tensor) -> Tensor:
        """Return the codes' vectors (N, D), the groups side by side."""
        vectors_GVC = self.vectors_GVC.expand(self.groups, -1, -1)
        group_G = torch.arange(self.groups, device=codes_NG.device)
        return vectors_GVC[group_G, codes_NG].flatten(1)

    @torch.no_grad()
    def _best(self, hidden_MF: Tensor) -> Tensor:
        logits_MGV: Tensor = self.logits(hidden_MF).unflatten(1, (self.groups, self.codes))
        return logits_MGV.argmax(dim=2)
