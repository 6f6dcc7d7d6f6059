"""Mel-cepstra of power spectra: the cepstrum, on a frequency axis warped by an all-pass filter.

The minimum-phase cepstrum c of a power spectrum P has ``log sqrt(P(w)) = sum_m c(m) cos(m w)``.
Replacing z^-1 by ``(z^-1 + a) / (1 + a z^-1)`` stretches low frequencies; the series in the new
variable is the mel-cepstrum (Tokuda et al. 1994, "Mel-generalized cepstral analysis", with gamma 0;
the transform of coefficients is that of Oppenheim and Johnson 1972). Column m of its matrix holds
the power series of ``((x + a) / (1 + a x))^m``: each is the one before it, passed through the
all-pass filter. This is what SPTK's ``sp2mc`` computes: c(0) and the other coefficients up to half
the length of the transform, whose mirror images contribute nothing to low orders.

Shape suffixes: T frames, F bins of the spectrum (0 to the Nyquist frequency), M coefficients.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mynah.tasks.metrics.metric import Floats

# warpings that are close to the mel scale at each rate
ALPHAS = {8000: 0.31, 16000: 0.41, 22050: 0.455, 24000: 0.466, 48000: 0.554}


def alpha_of(sample_rate: int) -> float:
    """Return the usual warping at a sampling rate.

    Raises:
        ValueError: no usual one; give ``alpha``.
    """
    if sample_rate not in ALPHAS:
        raise ValueError(
            f"no usual alpha at {sample_rate} Hz: give one, or resample to one of "
            f"{', '.join(map(str, ALPHAS))}"
        )
    return ALPHAS[sample_rate]


def mel_cepstrum(power_TF: Floats, *, order: int, alpha: float) -> Floats:
    """Return mel-cepstra c(0)..c(order) of power spectra, (T, order + 1).

    Args:
        power_TF: |H|^2 at F = N / 2 + 1 frequencies from 0 to Nyquist; N a power of two or any even
            number.
        order: of the last coefficient.
        alpha: warping, between -1 and 1; 0 gives the plain cepstrum.

    Raises:
        ValueError: spectra that are not positive and finite, fewer than 2 bins, or settings out of
            range.
    """
    if power_TF.ndim != 2 or power_TF.shape[1] < 2:
        raise ValueError(f"spectra must be frames x bins, 2 at least, got {power_TF.shape}")
    if not (np.isfinite(power_TF).all() and (power_TF > 0).all()):
        raise ValueError("power spectra must be positive and finite: a logarithm is taken")
    half = power_TF.shape[1] - 1
    c_TM: Floats = np.fft.irfft(np.log(power_TF), axis=-1)[:, : half + 1].copy()
    c_TM[:, [0, half]] /= 2  # those two occur once in the symmetric series, the others twice
    return warped(c_TM, order=order, alpha=alpha)


def warped(c_TM: Floats, *, order: int, alpha: float) -> Floats:
    """Return cepstra on an axis that is warped by alpha more, (T, order + 1).

    Args:
        c_TM: cepstra.
        order: of the last coefficient to return.
        alpha: warping; that of ``-alpha`` undoes it, up to the coefficients cut off.

    Raises:
        ValueError: settings out of range.
    """
    if order < 0:
        raise ValueError(f"order must be at least 0, got {order}")
    if not -1 < alpha < 1:
        raise ValueError(f"alpha must lie between -1 and 1, got {alpha}")
    found: Floats = c_TM @ _transform(c_TM.shape[-1], order + 1, alpha).T
    return found


@lru_cache(maxsize=8)
def _transform(inputs: int, outputs: int, alpha: float) -> Floats:
    """Return the matrix (outputs, inputs) whose column m is the series of the m-th power."""
    from scipy.signal import lfilter

    matrix: Floats = np.zeros((outputs, inputs))
    column = np.zeros(outputs)
    column[0] = 1
    for m in range(inputs):
        matrix[:, m] = column
        column = lfilter([alpha, 1.0], [1.0, alpha], column)
    matrix.flags.writeable = False  # it is shared
    return matrix
