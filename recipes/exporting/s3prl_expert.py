"""The upstream of this folder as s3prl takes one; mynah must be installed.

The model folder ``model`` beside this file holds the weights; reading it executes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mynah.upstream.core import modelfolder


class UpstreamExpert(nn.Module):
    """A frozen upstream: waveforms in, hidden states out; it cannot be fine-tuned.

    Args:
        ckpt: a model folder of mynah; the one beside this file by default.
        model_config: not used: the model folder says it all.
    """

    def __init__(self, ckpt: str | None = None, model_config: str | None = None, **_: Any) -> None:
        super().__init__()
        del model_config
        folder = Path(ckpt) if ckpt else Path(__file__).resolve().parent / "model"
        self.model = modelfolder.load(folder).freeze()

    def get_downsample_rates(self, key: str) -> int:
        """Return the samples between frames, the same for every state."""
        del key
        return self.model.stride

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """Return ``hidden_states``, each (B, T, D), zero after an utterance's last frame.

        What an utterance yields does not depend on the others.
        """
        lengths_B = torch.tensor([len(wav) for wav in wavs])
        wav_BS = pad_sequence(list(wavs), batch_first=True)
        states = list(self.model(wav_BS, lengths_B).layers_LBTD.unbind(0))
        return {"hidden_states": states}
