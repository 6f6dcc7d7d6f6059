"""espeak-ng as an engine: a worker process, a private data folder and voices of our own.

The engine's library and data come from the wheel ``espeakng-loader`` (extra ``synth``). They are
GPL-3: nothing of them is imported here, they are loaded by the worker process only.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mynah.tasks.corpora.mini import lexicon, phones
from mynah.tasks.corpora.mini.script import SILENCE, Line, Speaker, Speech

LOADER = "espeakng-loader"
MISSING = (
    "the espeak-ng engine is not installed: pip install 'mynah[synth]' (a GPL-3 library, run in a "
    "process of its own), or choose the built-in one with backend='formant'"
)
ACCENTS = {
    "us": ("en-US", True),
    "gb": ("en", False),
    "rp": ("en-GB-x-rp", False),
    "lancaster": ("en-GB-x-gbclan", False),
    "caribbean": ("en-029", True),
    "newyork": ("en-US-nyc", False),
}  # accent -> (espeak's voice file, rhotic)
_TONE_HZ = ((600, 170), (1200, 135), (2000, 110), (3200, 100))  # espeak's default balance
_CLOSURE = 0.004  # a stop's closure is quieter than this share of the peak
_CLOSURE_SECONDS = 0.09
_KEPT = 0.4  # of the phone before a closure, at least
_PATH_LIMIT = 150  # the library keeps its data path in 160 bytes


def available() -> bool:
    """Whether the wheel is installed."""
    return importlib.util.find_spec("espeakng_loader") is not None


def _installed() -> tuple[Path, Path]:
    """Return the library and the data folder of the wheel.

    Raises:
        ValueError: the wheel is not installed.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise ValueError(MISSING) from error
    return Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def variant(speaker: Speaker, *, tone: float, breath: float) -> str:
    """Return the text of a voice file that makes espeak speak as that speaker.

    Args:
        speaker: the voice.
        tone: spectral tilt, dB per octave above 500 Hz.
        breath: aspiration, 0 to 6.
    """
    rows = [
        "language variant",
        "name mynah",
        f"gender {'male' if speaker.gender == 'm' else 'female'}",
        f"pitch {speaker.pitch[0]:.0f} {speaker.pitch[1]:.0f}",
        "flutter 0",
        "roughness 0",
        "echo 0 0",
    ]
    for i, (f, h, w) in enumerate(
        zip(speaker.formants, speaker.heights, speaker.widths, strict=True)
    ):
        rows.append(f"formant {i + 1} {100 * f:.0f} {100 * h:.0f} {100 * w:.0f}")
    balance = [(hz, a * 10 ** (tone * np.log2(hz / 500) / 20)) for hz, a in _TONE_HZ]
    loudest = max(a for _, a in balance)  # one byte each: a steep tilt takes from the bass
    balance = [(hz, a * min(1.0, 255 / loudest)) for hz, a in balance]
    rows.append("tone " + " ".join(f"{hz} {a:.0f}" for hz, a in balance))
    level = max(0, round(breath))
    if level:
        rows.append("breath 0 " + " ".join([str(level)] * 7))
    rows.append(f"voicing {100 * speaker.voicing:.0f}")
    unvoiced, voiced = speaker.consonants
    rows.append(f"consonants {100 * unvoiced:.0f} {100 * voiced:.0f}")
    rows.append("stressLength " + " ".join(map(str, speaker.stress)))
    rows.append(f"intonation {speaker.intonation}")
    return "\n".join(rows) + "\n"


class Espeak:
    """One espeak-ng process with a data folder that holds English and the voices asked for.

    Raises:
        ValueError: the wheel is not installed.
        RuntimeError: the process did not start.
    """

    name = "espeak"

    def __init__(self) -> None:
        library, data = _installed()
        self._folder = Path(tempfile.mkdtemp(prefix="mynah-espeak-"))
        if len(str(self._folder)) > _PATH_LIMIT:
            raise RuntimeError(
                f"espeak-ng cannot use a data folder of more than {_PATH_LIMIT} characters "
                f"({self._folder}): set TMPDIR to a shorter path"
            )
        shared = ("phontab", "phonindex", "phondata", "intonations", "en_dict")
        for item in (*shared, *(f"lang/gmw/{voice}" for voice, _ in ACCENTS.values())):
            _link(data / item, self._folder / item)
        self._voices = self._folder / "voices" / "!v"
        self._voices.mkdir(parents=True)
        self._known: dict[str, str] = {}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mynah.tasks.corpora.mini.espeak_worker"),
                *(str(library), str(self._folder)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        version = self._read_header()["version"]
        self.version = f"{version} ({LOADER} {importlib.metadata.version(LOADER)})"

    def close(self) -> None:
        """End the process and remove its folder."""
        if self._process.stdin and self._process.stdout:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def speak(self, speaker: Speaker, line: Line, seed: int) -> Speech:
        """Return the speech of one line; depends on the arguments and the engine version alone.

        Raises:
            ValueError: the engine refused.
            RuntimeError: the process died.
        """
        prosody = line.prosody
        voice_file, rhotic = ACCENTS[speaker.accent]
        text = variant(
            speaker, tone=speaker.tone + prosody.tone, breath=speaker.breath + prosody.breath
        )
        voice = self._known.setdefault(text, f"v{len(self._known)}")
        file = self._voices / voice
        if not file.exists():
            file.write_text(text, encoding="ascii")
        request = {
            "voice": f"gmw/{voice_file}+{voice}",
            "text": line.text,
            "rate": round(min(max(speaker.wpm * prosody.rate, 80), 300)),
            "pitch": round(min(max(50 + prosody.pitch, 0), 99)),
            "range": round(min(max(50 + prosody.range, 0), 99)),
            "seed": seed % 2**31,
        }
        header, pcm = self._ask(request)
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32) / 32768
        return align(
            line.text,
            samples,
            int(header["rate"]),
            [(str(m), int(s)) for m, s in header["phones"]],
            [(int(p), int(s)) for p, s in header["words"]],
            rhotic=rhotic,
        )

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the espeak-ng process has no pipes")
        with contextlib.suppress(BrokenPipeError):  # the read below says that it ended
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        header = self._read_header()
        if "error" in header:
            raise ValueError(header["error"])
        return header, stdout.read(2 * header["samples"])

    def _read_header(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else b""
        if not line:
            raise RuntimeError(
                f"the espeak-ng process ended with status {self._process.wait()}; "
                "what it printed is above"
            )
        header: dict[str, Any] = json.loads(line)
        return header


def align(
    text: str,
    samples: np.ndarray,
    rate: int,
    events: Sequence[tuple[str, int]],
    words: Sequence[tuple[int, int]],
    *,
    rhotic: bool,
) -> Speech:
    """Turn espeak's events into contiguous phones and words.

    Three conventions of the engine are mended: a stop's closure is emitted before its event and
    is given back to it; a word event precedes the pause before the word; and short words that
    espeak joins ("in the") are told apart by the number of phones in the lexicon.

    Args:
        text: the words that were said.
        samples: waveform (S,).
        rate: Hz.
        events: (mnemonic, first sample) in order.
        words: (one-based position in the text, sample) in order.
        rhotic: whether the accent says the R of "car".
    """
    events = [(name, sample) for name, sample in events if sample <= len(samples)]
    ends = [sample for _, sample in events[1:]] + [len(samples)]
    symbols: list[str] = []
    starts: list[int] = []
    if events and events[0][1] > 0:
        symbols.append(SILENCE)
        starts.append(0)
    for i, ((mnemonic, start), end) in enumerate(zip(events, ends, strict=True)):
        following = events[i + 1][0] if i + 1 < len(events) else ""
        parts = phones.arpabet(mnemonic, following, rhotic=rhotic)
        if end <= start:
            continue
        for k, symbol in enumerate(parts):
            symbols.append(symbol)
            starts.append(start if k == 0 else start + round(phones.FIRST_SHARE * (end - start)))
    owners = _owners(text, symbols, starts, words)
    starts = _closures(samples, rate, symbols, starts)
    bounds = [*starts, len(samples)]
    spoken = [(s, a, b) for s, (a, b) in zip(symbols, pairwise(bounds), strict=True) if b > a]
    tokens = text.split()
    timed: list[tuple[str, int, int]] = []
    for k, token in enumerate(tokens):
        mine = [i for i, owner in enumerate(owners) if owner == k]
        if mine:
            timed.append((token, bounds[mine[0]], bounds[mine[-1] + 1]))
    return Speech(samples=samples, rate=rate, phones=_join(spoken), words=tuple(timed))


def _join(phones_: list[tuple[str, int, int]]) -> tuple[tuple[str, int, int], ...]:
    """Join neighbouring pauses."""
    joined: list[tuple[str, int, int]] = []
    for symbol, start, end in phones_:
        if joined and symbol == SILENCE and joined[-1][0] == SILENCE:
            joined[-1] = (SILENCE, joined[-1][1], end)
        else:
            joined.append((symbol, start, end))
    return tuple(joined)


def _owners(
    text: str, symbols: Sequence[str], starts: Sequence[int], words: Sequence[tuple[int, int]]
) -> list[int]:
    """Return the index of the word that each phone belongs to, -1 for pauses."""
    tokens = text.split()
    positions, at = [], 1
    for token in tokens:
        positions.append(at)
        at += len(token) + 1
    begun = sorted({sample: position for position, sample in reversed(words)}.items())
    owners = [-1] * len(symbols)
    for g, (sample, position) in enumerate(begun):
        until_sample, until = begun[g + 1] if g + 1 < len(begun) else (1 << 60, at)
        group = [k for k, p in enumerate(positions) if position <= p < until]
        mine = [
            i
            for i, (symbol, start) in enumerate(zip(symbols, starts, strict=True))
            if symbol != SILENCE and sample <= start < until_sample
        ]
        for n, k in enumerate(group):
            rest = len(group) - n - 1  # each later word keeps at least one phone
            count = len(mine) if rest == 0 else len(lexicon.load().get(tokens[k], "?"))
            count = max(1, min(count, len(mine) - rest))
            for i in mine[:count]:
                owners[i] = k
            mine = mine[count:]
    return owners


def _closures(
    samples: np.ndarray, rate: int, symbols: Sequence[str], starts: Sequence[int]
) -> list[int]:
    """Move the start of each stop back over the near-silence before its burst."""
    moved = list(starts)
    limit = round(_CLOSURE_SECONDS * rate)
    threshold = _CLOSURE * float(np.abs(samples).max(initial=0.0))
    for i in range(1, len(symbols)):
        if symbols[i] not in phones.STOPS or symbols[i - 1] == SILENCE:
            continue
        least = max(1, round(_KEPT * (moved[i] - moved[i - 1])))
        first = max(moved[i] - limit, moved[i - 1] + least)
        loud = np.flatnonzero(np.abs(samples[first : moved[i]]) > threshold)
        moved[i] = first if len(loud) == 0 else first + int(loud[-1]) + 1
    return moved
