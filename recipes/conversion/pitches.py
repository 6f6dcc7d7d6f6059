"""F0 contours of recordings, each measured once: most of what a conversion costs is measuring pitch.

A target's recordings are heard again with every source that is converted to him, and by every method
that is compared. Contours are small (100 values a second), audio is known by its samples.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import torch

from mynah.downstream.vocoders.core.prosody import analyse_prosody

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from mynah.downstream.core.melspec import MelSpec

KEPT = 1024
_kept: OrderedDict[tuple[bytes, MelSpec], Tensor] = OrderedDict()


def f0_of(wav_S: NDArray[np.float32], spec: MelSpec) -> Tensor:
    """Return the F0 contour (T,) of a waveform, in Hz, 0 where there is none.

    Args:
        wav_S: at the spectrograms' rate.
        spec: of the spectrograms, whose frames the contour has.

    Raises:
        ValueError: as ``analyse_prosody``.
    """
    key = (hashlib.blake2b(wav_S.tobytes(), digest_size=16).digest(), spec)
    if key not in _kept:
        _kept[key] = analyse_prosody(torch.from_numpy(wav_S), spec).f0_T
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]


def forget() -> None:
    """Forget every contour."""
    _kept.clear()
