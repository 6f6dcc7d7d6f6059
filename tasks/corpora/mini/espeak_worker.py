"""The process that owns espeak-ng: text in, 16-bit PCM and timed events out, over a pipe.

Started by :mod:`mynah.tasks.corpora.mini.espeak` as ``python -m
mynah.tasks.corpora.mini.espeak_worker LIBRARY DATA``. The library keeps process-global state, so
one process holds one engine. It reads one JSON object per line from standard input::

    {"voice": "gmw/en-US+m01", "text": "seven", "rate": 170, "pitch": 50, "range": 50, "seed": 7}

and answers with one JSON line ``{"rate": Hz, "samples": n, "words": [[position, sample], ...],
"phones": [[mnemonic, sample], ...]}`` followed by ``2 n`` bytes of little-endian PCM. A request
that the engine refuses is answered by ``{"error": "..."}``.

An utterance depends on its request alone, not on those before it, if the voice sets flutter,
roughness and echo to zero: what is left of the engine's state is its random seed, which is set
before each utterance.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any, BinaryIO

SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS
PHONEME_EVENTS, DONT_EXIT = 0x0001, 0x8000
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4  # espeak_PARAMETER
TERMINATED, WORD, PHONEME = 0, 1, 7  # espeak_EVENT_TYPE
CHARS_UTF8 = 1


class _Id(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Engine:
    """espeak-ng in this process.

    Args:
        library: path of the shared library.
        data: path of the folder that holds ``phontab``.

    Raises:
        RuntimeError: the library could not be initialised with that data.
    """

    def __init__(self, library: str, data: str) -> None:
        self._lib = ctypes.CDLL(library)
        self._lib.espeak_Info.restype = ctypes.c_char_p
        options = PHONEME_EVENTS | DONT_EXIT
        self.rate: int = self._lib.espeak_Initialize(SYNCHRONOUS, 0, data.encode(), options)
        if self.rate <= 0:
            raise RuntimeError(f"espeak-ng could not be initialised with the data folder {data}")
        self._callback = _CALLBACK(self._receive)  # kept: the library holds a bare pointer
        self._lib.espeak_SetSynthCallback(self._callback)
        self._pcm: list[bytes] = []
        self._words: list[tuple[int, int]] = []
        self._phones: list[tuple[str, int]] = []
        info: bytes = self._lib.espeak_Info(None)
        self.version = info.decode()

    def _receive(self, wav: Any, count: int, events: Any) -> int:
        if wav and count > 0:
            self._pcm.append(ctypes.string_at(wav, 2 * count))
        i = 0
        while events[i].type != TERMINATED:
            event = events[i]
            if event.type == WORD:
                self._words.append((event.text_position, event.sample))
            elif event.type == PHONEME:
                self._phones.append((event.id.string.decode(), event.sample))
            i += 1
        return 0

    def synthesise(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Return the answer's header and its PCM.

        Raises:
            ValueError: the voice does not exist or the engine refused the text.
        """
        self._pcm, self._words, self._phones = [], [], []
        voice = request["voice"]
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r} in its data folder")
        for parameter, name in ((RATE, "rate"), (PITCH, "pitch"), (RANGE, "range")):
            self._lib.espeak_SetParameter(parameter, request[name], 0)
        self._lib.espeak_SetParameter(VOLUME, 50, 0)  # loud voices clip at more
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(request["seed"]))
        text = request["text"].encode()
        status = self._lib.espeak_Synth(text, len(text) + 1, 0, 1, 0, CHARS_UTF8, None, None)
        if status != 0:
            raise ValueError(f"espeak-ng refused {request['text']!r} (status {status})")
        pcm = b"".join(self._pcm)
        header = {
            "rate": self.rate,
            "samples": len(pcm) // 2,
            "words": self._words,
            "phones": self._phones,
        }
        return header, pcm


def serve(engine: Engine, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the pipe closes; the first line sent is the engine's version."""
    answers.write(json.dumps({"version": engine.version, "rate": engine.rate}).encode() + b"\n")
    answers.flush()
    for line in requests:
        try:
            header, pcm = engine.synthesise(json.loads(line))
        except ValueError as error:
            header, pcm = {"error": str(error)}, b""
        answers.write(json.dumps(header).encode() + b"\n" + pcm)
        answers.flush()


def main() -> int:
    """Run the worker on standard input and output."""
    library, data = sys.argv[1:]
    # The pipe is moved away from descriptor 1: the library may print there.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(Engine(library, data), sys.stdin.buffer, answers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
