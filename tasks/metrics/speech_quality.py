"""What enhanced speech sounds like: PESQ and STOI, by the packages that SUPERB-SG's recipe uses.

PESQ (ITU-T P.862.2, wide-band, 16 kHz; package ``pesq``) is a mean opinion score between 1.0 and
4.64. STOI (Taal et al. 2011; package ``pystoi``, not extended) is a correlation of short-time
envelopes, 1 at best. s3prl takes both from asteroid 0.4.4, and averages them over the test set; that
its PESQ is wide-band at 16 kHz is recalled, not verified [R].

Both packages answer some bad input with a number (STOI of very short audio is 1e-5, of silence 0) or
with an error that names no cause. Here they raise a ``ValueError``. They come with the extra
``audio``.

Shape suffix: S samples.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import ArrayLike

from mynah.tasks.metrics.extra import missing
from mynah.tasks.metrics.mean import mean_metric
from mynah.tasks.metrics.metric import Floats, Metric

PESQ_RATE = 16000
PESQ_SHORTEST = 0.25  # s; of the package
# The package's C code has room for 50 stretches of speech and writes past its arrays if there are
# more. A stretch lasts 0.2 s at least and so does the gap to the next, so 19 s cannot hold as many.
PESQ_LONGEST = 19.0
STOI_LEAST_RATE = 10000  # what STOI resamples to


def pesq(estimate: ArrayLike, reference: ArrayLike, *, sample_rate: int) -> float:
    """Return wide-band PESQ (MOS-LQO) of an estimate of clean speech.

    Args:
        estimate: (S) samples between -1 and 1.
        reference: clean speech, likewise.
        sample_rate: 16000.

    Raises:
        ValueError: the extra is not installed, another rate, not one-dimensional, of different
            lengths, shorter than 0.25 s or longer than 19 s, NaN, silence, or a reference in which
            PESQ finds no speech.
    """
    if sample_rate != PESQ_RATE:
        raise ValueError(f"wide-band PESQ is of {PESQ_RATE} Hz, got {sample_rate}: resample first")
    estimate_S, reference_S = _pair(estimate, reference)
    seconds = len(reference_S) / sample_rate
    if not PESQ_SHORTEST <= seconds <= PESQ_LONGEST:
        raise ValueError(
            f"PESQ can score {PESQ_SHORTEST} to {PESQ_LONGEST:g} s, got {seconds:.3f} s"
        )
    try:
        from pesq import BufferTooShortError, NoUtterancesError
        from pesq import pesq as score
    except ImportError as error:
        raise missing("PESQ", "pesq") from error
    try:
        value = float(score(sample_rate, reference_S, estimate_S, "wb"))
    except NoUtterancesError as error:
        raise ValueError("PESQ finds no speech in the reference: too quiet or too short") from error
    except BufferTooShortError as error:
        raise ValueError(f"audio of {seconds:.3f} s is too short for PESQ") from error
    if not math.isfinite(value):
        raise ValueError(f"PESQ is not defined for this pair: the package returned {value}")
    return value


def stoi(estimate: ArrayLike, reference: ArrayLike, *, sample_rate: int) -> float:
    """Return the short-time objective intelligibility of an estimate of clean speech.

    Args:
        estimate: (S) samples.
        reference: clean speech, likewise.
        sample_rate: of both, at least 10000; resampled to that.

    Raises:
        ValueError: the extra is not installed, a lower rate, not one-dimensional, of different
            lengths, NaN, silence, or under 30 frames (about 0.4 s) of the reference that are
            within 40 dB of its loudest.
    """
    if sample_rate < STOI_LEAST_RATE:
        raise ValueError(f"STOI needs {STOI_LEAST_RATE} Hz at least, got {sample_rate}")
    estimate_S, reference_S = _pair(estimate, reference)
    try:
        from pystoi import stoi as score
    except ImportError as error:
        raise missing("STOI", "pystoi") from error
    short = (
        f"too little speech for STOI: {len(reference_S) / sample_rate:.3f} s of audio hold fewer "
        "than 30 frames that are not silent"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # its answer would be 1e-5
        try:
            value = float(score(reference_S, estimate_S, sample_rate, extended=False))
        except (RuntimeWarning, ValueError, IndexError) as error:
            raise ValueError(short) from error
    if not math.isfinite(value):
        raise ValueError(f"STOI is not defined for this pair: the package returned {value}")
    return value


def pesq_metric(*, skip_undefined: bool = False) -> Metric:
    """Mean over utterances of PESQ, from numbers as text; see ``mean_metric``."""
    return mean_metric(
        "pesq",
        higher_is_better=True,
        options="band:wide|rate:16000",
        skip_undefined=skip_undefined,
    )


def stoi_metric(*, skip_undefined: bool = False) -> Metric:
    """Mean over utterances of STOI, from numbers as text; see ``mean_metric``."""
    return mean_metric(
        "stoi",
        higher_is_better=True,
        options="extended:no",
        skip_undefined=skip_undefined,
        scale=100.0,
    )


def _pair(estimate: ArrayLike, reference: ArrayLike) -> tuple[Floats, Floats]:
    """Check two signals, and return them as float64."""
    pair = []
    for x, name in ((estimate, "the estimate"), (reference, "the reference")):
        x_S = np.asarray(x, dtype=np.float64)
        if x_S.ndim != 1:
            raise ValueError(f"{name} must be one channel of samples, got shape {x_S.shape}")
        if not len(x_S):
            raise ValueError(f"{name} has no samples")
        if not np.isfinite(x_S).all():
            raise ValueError(f"{name} has samples that are NaN or infinite")
        if np.ptp(x_S) == 0:
            raise ValueError(f"{name} is silence (constant {x_S[0]:g}): it has no quality")
        pair.append(x_S)
    if len(pair[0]) != len(pair[1]):
        raise ValueError(
            f"the estimate has {len(pair[0])} samples but the reference {len(pair[1])}: "
            "cut or pad them first"
        )
    return pair[0], pair[1]
