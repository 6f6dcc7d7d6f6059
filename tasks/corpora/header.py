"""What an audio file says of itself, and whether that can be true.

Decoders believe headers: a WAV that was cut short is read without a word, a FLAC that declares
2^36 samples asks for 256 GiB, a 7-bit WAV comes back twice as long. So before a sample is decoded,
the header is held against the size of the file, and against limits that no speech file exceeds.
"""

from __future__ import annotations

import os
import stat
import struct
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 4000, 192_000
FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3")
LOSSY = ("OGG", "MP3")

_PCM, _FLOAT, _EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
_FLAC_BLOCK = 65_535  # the largest FLAC block, samples
_FLAC_FRAME = 10  # the smallest FLAC frame, bytes: header, a constant subframe, checksums


class BadAudioError(ValueError):
    """A file cannot be used as audio; the message names the file and says what is wrong."""

    exit_code = 3  # bad data


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInfo:
    """The header of an audio file.

    Attributes:
        sample_rate: Hz.
        frames: samples per channel.
        channels: number of channels.
        container: ``WAV``, ``FLAC`` ... as libsndfile names it.
    """

    sample_rate: int
    frames: int
    channels: int
    container: str

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.sample_rate


def probe(path: str | Path) -> AudioInfo:
    """Read and check the header of an audio file; nothing is decoded.

    Only regular files are opened: a pipe or a device would hang or never end. Results are kept per
    (path, modification time, size).

    Raises:
        BadAudioError: missing, unreadable or not a regular file; not a known audio format; more than
            8 channels; a rate outside 4-192 kHz; a RIFF or FLAC header that the file's size
            contradicts; no samples.
    """
    path = os.fspath(path)
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadAudioError(f"{path!r}: cannot be opened: {reason}") from error
    if not stat.S_ISREG(status.st_mode):
        raise BadAudioError(f"{path}: not a regular file")
    return _probe(path, status.st_mtime_ns, status.st_size)


def unforked(path: str) -> AbstractContextManager[str | BinaryIO]:
    """Return what libsndfile should open of a file: its path, or the open file.

    Archives made on a Mac hold ``._x.mp3`` beside ``x.mp3``, which libsndfile takes for the resource
    fork of a Sound Designer file: it refuses an MP3 then. It cannot look beside an open file.
    """
    file = Path(path)
    return file.open("rb") if file.with_name(f"._{file.name}").exists() else nullcontext(path)


@lru_cache(maxsize=65_536)
def _probe(path: str, modified: int, size: int) -> AudioInfo:
    import soundfile

    del modified  # part of the cache's key
    if size == 0:
        raise BadAudioError(f"{path}: the file is empty")
    try:
        with Path(path).open("rb") as file:
            head = file.read(12)
            if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
                _check_wave(path, file.fileno(), size)
        with unforked(path) as given:
            found = soundfile.info(given)
    except (OSError, soundfile.SoundFileError) as error:
        reason = str(error).split(": ", 1)[-1].strip() or type(error).__name__
        raise BadAudioError(f"{path}: not readable as audio: {reason}") from error
    info = AudioInfo(
        sample_rate=int(found.samplerate),
        frames=int(found.frames),
        channels=int(found.channels),
        container=str(found.format),
    )
    if info.container not in FORMATS:
        raise BadAudioError(
            f"{path}: format {info.container} is not one of {', '.join(FORMATS)}; convert it to FLAC"
        )
    if not 1 <= info.channels <= MAX_CHANNELS:
        raise BadAudioError(f"{path}: {info.channels} channels, 1 to {MAX_CHANNELS} are allowed")
    if not MIN_RATE <= info.sample_rate <= MAX_RATE:
        raise BadAudioError(
            f"{path}: sample rate {info.sample_rate} Hz, {MIN_RATE} to {MAX_RATE} are allowed"
        )
    if info.frames <= 0:
        raise BadAudioError(f"{path}: the file holds no samples")
    if info.container == "FLAC" and info.frames > (size // _FLAC_FRAME + 1) * _FLAC_BLOCK:
        raise BadAudioError(
            f"{path}: declares {info.frames} samples, which a FLAC file of {size} bytes cannot hold"
        )
    return info


def _check_wave(path: str, file: int, size: int) -> None:
    """Walk the chunks of a RIFF or RF64 file and hold their sizes against the file's."""
    large_data: int | None = None
    block = 0
    position = 12
    while True:
        header = os.pread(file, 8, position)
        if len(header) < 8:
            raise BadAudioError(f"{path}: a WAV file without a data chunk (cut short?)")
        name, length = header[:4], struct.unpack("<I", header[4:])[0]
        body = position + 8
        if name == b"ds64":
            large_data = struct.unpack("<Q", os.pread(file, 16, body)[8:16].ljust(8, b"\0"))[0]
        elif name == b"fmt ":
            block = _check_format(path, os.pread(file, 40, body))
        elif name == b"data":
            if length == 0xFFFFFFFF and large_data is not None:
                length = large_data
            if length > size - body:
                raise BadAudioError(
                    f"{path}: the header declares {length} bytes of audio, the file holds "
                    f"{size - body}: it was cut short, or streamed without its header being mended"
                )
            if not block:
                raise BadAudioError(f"{path}: a WAV file without a format before its data")
            if length % block:
                raise BadAudioError(
                    f"{path}: {length} bytes of audio are not a whole number of {block}-byte frames"
                )
            return
        position = body + length + length % 2


def _check_format(path: str, body: bytes) -> int:
    """Check a WAV format chunk; returns the bytes per frame (1 where the codec packs samples)."""
    if len(body) < 16:
        raise BadAudioError(f"{path}: a WAV file whose format chunk is cut short")
    tag, channels, _, _, align, bits = struct.unpack("<HHIIHH", body[:16])
    if tag == _EXTENSIBLE and len(body) >= 26:
        tag = struct.unpack("<H", body[24:26])[0]
    if tag not in (_PCM, _FLOAT):
        return 1
    allowed = (8, 16, 24, 32) if tag == _PCM else (32, 64)
    if bits not in allowed:
        raise BadAudioError(f"{path}: {bits}-bit samples, allowed are {allowed}")
    if channels and align != channels * bits // 8:
        raise BadAudioError(
            f"{path}: {align} bytes per frame, {channels} channels of {bits} bits take "
            f"{channels * bits // 8}"
        )
    return max(1, int(align))
