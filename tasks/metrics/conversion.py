"""How close a converted voice is to the target's own recording of the same sentence.

The objective measures of S3PRL-VC (s3prl ``downstream/a2o-vc-vcc2020/vc_evaluate.py``):

* analysis: waveform times 32767, FIR high-pass at 70 Hz (255 taps), WORLD's harvest with the
  speaker's range of F0 and cheaptrick (transform of 1024), every 5 ms; mel-cepstra of order 39,
  alpha 0.466 at 24 kHz;
* **MCD** (dB): frames whose power is within 20 dB of the utterance's mean are aligned by DTW under
  the Euclidean distance of all 40 coefficients, *c(0) included*; mean over the path of
  ``10 / ln 10 * sqrt(2 * sum of squared differences)``;
* **F0 RMSE** (Hz) and **F0 correlation** (Pearson): voiced frames of both are aligned by a second
  DTW of their mel-cepstra; over its path;
* **duration difference** (s): of the lengths after librosa's trimming of silence (60 dB).

The protocol aligns with ``fastdtw``, which is approximate; ``exact=False`` repeats it (radius 1), and
then all four numbers equal those of s3prl's function with pysptk 1.0.1 and fastdtw 0.3.4 to 13
digits. The default is the exact alignment. Over 60 pairs of recordings of one sentence by two actors
(EmoDB) its MCD was 0.12 dB lower on average, 1.65 dB at most, and once 0.03 dB higher: MCD divides by
the length of the path, so the cheapest path need not have the lowest. F0 RMSE moved by up to 9 Hz
either way. Numbers of the two must not be mixed: the signature names the alignment.

MCD is a distance to one recording: it says nothing without that of the unconverted source and of
another recording of the target. WORLD is the analyser, which favours converters that use WORLD.

Shape suffixes: S samples, T frames, M coefficients, F bins, P pairs of a path.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mynah.tasks.metrics.align import Alignment, align, distances, fast_align
from mynah.tasks.metrics.extra import missing
from mynah.tasks.metrics.mean import mean_metric
from mynah.tasks.metrics.mel_cepstrum import alpha_of, mel_cepstrum
from mynah.tasks.metrics.metric import Floats, Metric

ORDER = 39
FFT_SIZE = 1024
PERIOD = 5.0  # ms
LOW_CUT = 70.0  # Hz
TAPS = 255
GATE = -20.0  # dB of the mean power
SHORTEST = 0.1  # s: WORLD finds no pitch in less
_LOUDEST = 10.0  # samples beyond are of another scale
_DB = 10 / np.log(10) * np.sqrt(2)


@dataclass(frozen=True, kw_only=True)
class Voice:
    """What is compared of one utterance.

    Attributes:
        sample_rate: of the audio.
        cepstra_TM: mel-cepstra, every 5 ms.
        f0_T: Hz; 0 where unvoiced.
        power_T: dB relative to the utterance's mean power.
        seconds: without silence at the ends.
    """

    sample_rate: int
    cepstra_TM: Floats
    f0_T: Floats
    power_T: Floats
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How far one utterance is from its target.

    Attributes:
        mcd: mel-cepstral distortion, dB.
        f0_rmse: Hz; None where one of the two has no voiced frame.
        f0_corr: None there too, and where F0 is constant.
        duration_difference: seconds, absolute.
    """

    mcd: float
    f0_rmse: float | None
    f0_corr: float | None
    duration_difference: float


def need_world() -> None:
    """Say early that the analysis cannot be done.

    Raises:
        ValueError: the extra is not installed.
    """
    try:
        import pyworld  # noqa: F401
    except ImportError as error:
        raise missing("WORLD's analysis", "pyworld-prebuilt") from error


def analyse(
    wav: ArrayLike,
    *,
    sample_rate: int,
    f0_range: tuple[float, float] = (71.0, 800.0),
    order: int = ORDER,
    alpha: float | None = None,
) -> Voice:
    """Return what :func:`compare` needs of one utterance.

    Args:
        wav: (S) samples between -1 and 1.
        sample_rate: the protocol's is 24000.
        f0_range: lowest and highest F0 of the speaker in Hz; the default is WORLD's own.
        order: of the mel-cepstrum.
        alpha: its warping; None takes the usual one at this rate.

    Raises:
        ValueError: the extra is not installed, audio that is not one channel, shorter than 0.1 s,
            NaN, not scaled to 1, or silent; a range of F0 that is none, or a rate without a usual
            alpha.
    """
    low, high = f0_range
    if not 0 < low < high < sample_rate / 2:
        raise ValueError(
            f"f0_range must be 0 < lowest < highest < {sample_rate / 2:g} Hz, got {f0_range}"
        )
    alpha = alpha_of(sample_rate) if alpha is None else alpha
    wav_S = _checked(wav, sample_rate)
    need_world()
    import pyworld
    from librosa.effects import trim

    loud_S = _high_passed(wav_S * np.iinfo(np.int16).max, sample_rate)
    f0_T, time_T = pyworld.harvest(
        loud_S, sample_rate, f0_floor=low, f0_ceil=high, frame_period=PERIOD
    )
    power_TF = pyworld.cheaptrick(loud_S, f0_T, time_T, sample_rate, fft_size=FFT_SIZE)
    power_T = (2 * power_TF.sum(axis=1) - power_TF[:, 0] - power_TF[:, -1]) / FFT_SIZE
    return Voice(
        sample_rate=sample_rate,
        cepstra_TM=mel_cepstrum(power_TF, order=order, alpha=alpha),
        f0_T=f0_T,
        power_T=10 * np.log10(power_T / power_T.mean()),
        seconds=len(trim(wav_S)[0]) / sample_rate,
    )


def compare(
    converted: Voice, target: Voice, *, exact: bool = True, with_c0: bool = True
) -> Conversion:
    """Return the distances between a conversion and the target's recording.

    Args:
        converted: analysis of the conversion.
        target: analysis of the target, with the same settings.
        exact: align exactly rather than as ``fastdtw`` does; see the top of this module.
        with_c0: whether c(0), the level, takes part in alignment and distortion, as the protocol
            has it.

    Raises:
        ValueError: different sampling rates or orders.
    """
    if converted.sample_rate != target.sample_rate:
        raise ValueError(
            f"the conversion has {converted.sample_rate} Hz but the target {target.sample_rate}: "
            "resample first"
        )
    first = 0 if with_c0 else 1
    loud = [voice.cepstra_TM[voice.power_T > GATE, first:] for voice in (converted, target)]
    voiced = [voice.cepstra_TM[voice.f0_T > 0, first:] for voice in (converted, target)]
    f0_rmse = f0_corr = None
    if all(map(len, voiced)):
        path = _aligned(voiced[0], voiced[1], exact)
        x_P = converted.f0_T[converted.f0_T > 0][path.x_P]
        y_P = target.f0_T[target.f0_T > 0][path.y_P]
        f0_rmse = float(np.sqrt(np.mean((x_P - y_P) ** 2)))
        if np.ptp(x_P) > 0 and np.ptp(y_P) > 0:
            f0_corr = float(np.corrcoef(x_P, y_P)[0, 1])
    return Conversion(
        mcd=mel_cepstral_distortion(loud[0], loud[1], exact=exact),
        f0_rmse=f0_rmse,
        f0_corr=f0_corr,
        duration_difference=abs(converted.seconds - target.seconds),
    )


def mel_cepstral_distortion(x_TM: Floats, y_TM: Floats, *, exact: bool = True) -> float:
    """Return the mean distortion in dB of two sequences of mel-cepstra, aligned by DTW.

    Args:
        x_TM: mel-cepstra, whichever coefficients shall count.
        y_TM: likewise.
        exact: as :func:`compare`.

    Raises:
        ValueError: different widths, no frames, or NaN.
    """
    path = _aligned(x_TM, y_TM, exact)
    difference_PM = x_TM[path.x_P] - y_TM[path.y_P]
    return float(np.mean(_DB * np.linalg.norm(difference_PM, axis=1)))


def mcd_metric(*, exact: bool = True, with_c0: bool = True) -> Metric:
    """Mean over utterances of MCD in dB, from numbers as text."""
    rules = f"analysis:world|order:{ORDER}|c0:{'yes' if with_c0 else 'no'}|gate:-20dB"
    return mean_metric("mcd", higher_is_better=False, options=f"{rules}|{_dtw(exact)}|unit:dB")


def f0_rmse_metric(*, exact: bool = True) -> Metric:
    """Mean over utterances of F0 RMSE in Hz, without those that have no voiced frames."""
    options = f"analysis:world|{_dtw(exact)}|unit:Hz"
    return mean_metric("f0_rmse", higher_is_better=False, options=options, skip_undefined=True)


def f0_corr_metric(*, exact: bool = True) -> Metric:
    """Mean over utterances of the correlation of F0, without those where it is not defined."""
    options = f"analysis:world|{_dtw(exact)}"
    return mean_metric("f0_corr", higher_is_better=True, options=options, skip_undefined=True)


def duration_metric() -> Metric:
    """Mean over utterances of the difference of durations in seconds."""
    return mean_metric("ddur", higher_is_better=False, options="trim:60dB|unit:s")


def _dtw(exact: bool) -> str:
    return f"dtw:{'exact' if exact else 'fastdtw-1'}"


def _aligned(x_TM: Floats, y_TM: Floats, exact: bool) -> Alignment:
    return align(distances(x_TM, y_TM)) if exact else fast_align(x_TM, y_TM)


def _high_passed(wav_S: Floats, sample_rate: int) -> Floats:
    from scipy.signal import firwin, lfilter

    taps = firwin(TAPS, LOW_CUT, pass_zero=False, fs=sample_rate)
    filtered: Floats = lfilter(taps, 1, wav_S)
    return filtered


def _checked(wav: ArrayLike, sample_rate: int) -> Floats:
    wav_S = np.ascontiguousarray(wav, dtype=np.float64)
    if wav_S.ndim != 1:
        raise ValueError(f"audio must be one channel of samples, got shape {wav_S.shape}")
    if len(wav_S) < SHORTEST * sample_rate:
        raise ValueError(
            f"audio of {len(wav_S) / sample_rate:.3f} s is too short: {SHORTEST} s at least"
        )
    if not np.isfinite(wav_S).all():
        raise ValueError("audio has samples that are NaN or infinite")
    if np.ptp(wav_S) == 0:
        raise ValueError(f"audio is silence (constant {wav_S[0]:g}): it has no spectrum")
    if np.abs(wav_S).max() > _LOUDEST:
        raise ValueError(
            f"samples must lie between -1 and 1, got {np.abs(wav_S).max():g}: divide integers by "
            "32768"
        )
    return wav_S
