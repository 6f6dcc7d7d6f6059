"""Are our models the published ones? Each family beside every installed reference.

A pair builds a small model of the reference's with random weights, writes it as the reference would,
reads it with our reader, and compares every hidden state, and the loss where the reference has one.
"""

from __future__ import annotations

from mynah.recipes.parity import (
    cases_codes,
    cases_hf,
    cases_parts,
    cases_s3prl,
    cases_spectrum,
    cases_torchaudio,
    cases_wave,
)
from mynah.recipes.parity.compare import Measured, Pair

__all__ = ["PAIRS", "Measured", "Pair"]

PAIRS: list[Pair] = sorted(
    [
        *cases_codes.PAIRS,
        *cases_hf.PAIRS,
        *cases_torchaudio.PAIRS,
        *cases_s3prl.PAIRS,
        *cases_parts.PAIRS,
        *cases_spectrum.PAIRS,
        *cases_wave.PAIRS,
    ],
    key=lambda pair: (pair.family, pair.reference, pair.setting),
)
