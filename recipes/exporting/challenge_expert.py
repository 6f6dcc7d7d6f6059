"""The upstream of this folder as the SUPERB challenge takes one; it needs torch and nothing else.

``model.pt`` is a TorchScript archive of one utterance: (1, S) -> (L, T, D).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

TASKS = ("PR", "SID", "ER", "ASR", "QbE", "ASV", "SD", "ST", "SE", "SS", "secret")


class UpstreamExpert(nn.Module):
    """A frozen upstream: waveforms in, hidden states out.

    Args:
        ckpt: the TorchScript archive; ``model.pt`` beside this file by default.
        model_config: not used: the archive says it all.
    """

    def __init__(self, ckpt: str | None = None, model_config: str | None = None, **_: Any) -> None:
        super().__init__()
        del model_config
        path = ckpt or str(Path(__file__).resolve().parent / "model.pt")
        inside = {"facts.json": ""}
        self.model = torch.jit.load(path, map_location="cpu", _extra_files=inside).eval()
        facts = json.loads(inside["facts.json"])
        self.stride, self.shortest = int(facts["stride"]), int(facts["shortest"])

    def get_downsample_rates(self, key: str) -> int:
        """Return the samples between frames, the same for every state."""
        del key
        return self.stride

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """Return the hidden states, each (B, T, D), under ``hidden_states`` and every task's name.

        Utterances are heard one by one; after an utterance's last frame there are zeros. One that
        is too short is zero-padded to the shortest that the model takes.
        """
        rows = []
        for wav in wavs:
            wav_S = pad(wav, (0, max(0, self.shortest - len(wav))))
            rows.append(self.model(wav_S[None]).transpose(0, 1))
        states = list(pad_sequence(rows, batch_first=True).unbind(2))
        return dict.fromkeys(("hidden_states", *TASKS), states)
