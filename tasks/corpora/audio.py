"""Audio in: one channel of a stretch of a file, at the rate that a model hears.

libsndfile decodes and soxr resamples; no other decoder is tried, because others hide damage. Shape
suffix: S samples.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mynah.tasks.corpora.header import LOSSY, AudioInfo, BadAudioError, probe, unforked
from mynah.tasks.corpora.shape import gain
from mynah.tasks.corpora.utterance import Utterance

__all__ = [
    "MAX_FRAMES",
    "AudioInfo",
    "BadAudioError",
    "content_key",
    "file_digest",
    "num_samples",
    "probe",
    "read",
    "resampled_length",
    "span",
]

MAX_FRAMES = 2**27
"""Longest utterance in samples of the file: 2.3 hours at 16 kHz, 512 MiB of float32."""

_BLOCK = 2**20  # frames decoded at once, so that unused channels never pile up
_CODEC_FRAME = 1152  # samples by which an MP3 or Ogg header may overstate


def span(utterance: Utterance) -> tuple[int, int]:
    """Return the first sample and the number of samples of an utterance at its file's own rate.

    Both are rounded to the nearest sample; an utterance has at least one. Where silences are cut
    out, the number is of what is left.
    """
    if utterance.sounds is not None:
        return utterance.sounds[0][0], sum(end - begin for begin, end in utterance.sounds)
    first = round(utterance.start * utterance.sample_rate)
    return first, max(1, round(utterance.duration * utterance.sample_rate))


def resampled_length(samples: int, source_rate: int, sample_rate: int) -> int:
    """Return how many samples ``samples`` become at another rate: nearest, halves up, at least 1."""
    return max(1, (samples * sample_rate + source_rate // 2) // source_rate)


def num_samples(utterance: Utterance, sample_rate: int = 16000) -> int:
    """Return exactly how many samples ``read`` gives, from the manifest alone."""
    return resampled_length(span(utterance)[1], utterance.sample_rate, sample_rate)


def read(utterance: Utterance, sample_rate: int = 16000) -> NDArray[np.float32]:
    """Decode an utterance.

    Args:
        utterance: what to read: file, start, duration, channel.
        sample_rate: Hz wanted; soxr's high quality converts where the file's differs.

    Returns:
        float32 samples (S,), S = ``num_samples(utterance, sample_rate)``, at the file's own level
        but for the utterance's ``gain``, which is cut at full scale.

    Raises:
        BadAudioError: the header is refused (see ``probe``) or is not what the manifest says, the
            utterance leaves the file or is longer than ``MAX_FRAMES``, fewer samples come than were
            declared, or a sample is not a finite number.
    """
    import soundfile

    path = utterance.path
    info = probe(path)
    first, frames = span(utterance)
    sounds = utterance.sounds or ((first, first + frames),)
    if info.sample_rate != utterance.sample_rate:
        raise BadAudioError(
            f"{path}: {info.sample_rate} Hz, the manifest says {utterance.sample_rate}; the file "
            "has changed: prepare the corpus again"
        )
    if not 0 <= utterance.channel < info.channels:
        raise BadAudioError(
            f"{path}: no channel {utterance.channel}, the file has {info.channels} (counted from 0)"
        )
    if first < 0 or sounds[-1][1] > info.frames:
        raise BadAudioError(
            f"{path}: samples {first} to {sounds[-1][1]} wanted for utterance {utterance.id!r}, "
            f"the file has {info.frames}"
        )
    if frames > MAX_FRAMES:
        raise BadAudioError(
            f"{path}: utterance {utterance.id!r} lasts {utterance.duration:.0f} s, more than "
            f"{MAX_FRAMES / info.sample_rate:.0f}; cut it into segments"
        )
    wav_S = np.zeros(frames, dtype=np.float32)
    done = 0
    try:
        with unforked(path) as given, soundfile.SoundFile(given) as file:
            for begin, end in sounds:
                if begin:
                    file.seek(begin)
                for size in _blocks(end - begin):
                    block = file.read(size, dtype="float32", always_2d=True)
                    wav_S[done : done + len(block)] = block[:, utterance.channel]
                    done += len(block)
                    if len(block) < size:
                        break
    except (OSError, soundfile.SoundFileError) as error:
        raise BadAudioError(f"{path}: decoding failed after {done} samples: {error}") from error
    # A lossy codec's header may overstate by one codec frame at the end: the rest stays silence.
    if done < frames and (info.container not in LOSSY or frames - done > _CODEC_FRAME):
        raise BadAudioError(f"{path}: {frames} samples were declared, {done} could be decoded")
    if not np.isfinite(wav_S).all():
        bad = int(np.flatnonzero(~np.isfinite(wav_S))[0])
        raise BadAudioError(f"{path}: sample {first + bad} is not a finite number")
    if sample_rate != info.sample_rate:
        wav_S = _resample(wav_S, info.sample_rate, sample_rate)
    return gain(wav_S, utterance.gain) if utterance.gain else wav_S


def _blocks(frames: int) -> Iterator[int]:
    for first in range(0, frames, _BLOCK):
        yield min(_BLOCK, frames - first)


def _resample(
    wav_S: NDArray[np.float32], source_rate: int, sample_rate: int
) -> NDArray[np.float32]:
    import soxr

    wanted = resampled_length(len(wav_S), source_rate, sample_rate)
    out_S = np.zeros(wanted, dtype=np.float32)
    got_S = soxr.resample(wav_S, source_rate, sample_rate, quality="HQ")[:wanted]
    out_S[: len(got_S)] = got_S
    return out_S


def file_digest(path: str | Path) -> str:
    """Return the sha256 of a file's bytes, kept per (path, modification time, size)."""
    path = os.fspath(path)
    try:
        status = Path(path).stat()
        return _file_digest(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise BadAudioError(f"{path}: cannot be read: {error.strerror}") from error


@lru_cache(maxsize=262_144)
def _file_digest(path: str, modified: int, size: int) -> str:
    del modified, size  # part of the cache's key
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_key(utterance: Utterance, sample_rate: int = 16000) -> str:
    """Return the identity of what ``read`` gives: sha256 over the file's bytes and what is taken of it.

    Names and folders play no part: the same bytes, stretch, channel, rate, gain and cuts give the
    same key on every machine.
    """
    first, frames = span(utterance)
    what = f"{file_digest(utterance.path)} {first} {frames} {utterance.channel} {sample_rate}"
    if utterance.gain or utterance.sounds is not None:
        what += f" {utterance.gain:g} dB, {utterance.sounds}"
    return hashlib.sha256(what.encode()).hexdigest()
