"""``mynah judge vocoders --corpus DIR --vocoder NAME ...``: what a vocoder costs real speech.

Copy-synthesis: each recording's own spectrogram, and pitch where a vocoder is given it, are made
audible again, and the copy is compared with the recording. No converter sounds better than its
vocoder does here. Distances of all vocoders are measured at one sampling rate, within the recordings'
own band.

Shape suffixes: S samples, T frames, M mel bins.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import UseAppendAction

from mynah.files import write_text

if TYPE_CHECKING:
    from torch import Tensor

    from mynah.downstream.core.melspec import LogMelSpectrogram, MelSpec
    from mynah.downstream.vocoders.core.contract import Vocoder
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.tasks.corpora.utterance import Utterance
    from mynah.tasks.metrics.bootstrap import Interval
    from mynah.tasks.metrics.conversion import Voice

FORMAT = 1
GROSS = 0.2  # of F0, as in Rabiner et al. 1976
SHORTEST = 0.5  # seconds: less has hardly a voiced frame to compare


@dataclass(frozen=True, kw_only=True)
class Args:
    """Compare recordings with what vocoders make of their own spectrograms."""

    corpus: Path
    """Prepared corpus."""
    vocoder: Annotated[tuple[str, ...], UseAppendAction]
    """Name (griffin_lim, world), run or folder of a vocoder, ours or somebody else's; repeatable."""
    out: Path
    """JSON file to write: metrics with intervals, and a row per utterance and vocoder."""
    split: str | None = None
    """Split, or all; default: test, or all of a corpus that names no splits."""
    count: int = 24
    """Utterances: the same number of each speaker, as far as there are."""
    rate: int | None = None
    """Hz at which distances are measured; default: no more than any vocoder or recording has."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """What was measured of one copy.

    Attributes:
        mcd: mel-cepstral distortion to the recording in dB, aligned exactly.
        mel_l1: mean absolute difference of the log-mel spectrograms, natural logarithm.
        f0_cents: root mean square of the difference of F0 where both are voiced; None where no
            frame is.
        f0_gross: share of those frames whose F0 is off by more than a fifth, mostly by octaves;
            they make most of the root mean square.
        voicing: share of frames that are voiced in one and unvoiced in the other.
        rtf: CPU seconds of the vocoder per second of audio.
        rtf_pitch: CPU seconds that measuring its pitch takes, where it is given that; else 0.
    """

    mcd: float
    mel_l1: float
    f0_cents: float | None
    f0_gross: float | None
    voicing: float
    rtf: float
    rtf_pitch: float


def judge_spec(sample_rate: int) -> MelSpec:
    """Return the spectrogram by which copies are compared at a rate: the usual one, full band."""
    from mynah.downstream.core.melspec import MelSpec

    window = sample_rate * 40 // 1000
    return MelSpec(
        sample_rate=sample_rate,
        n_fft=2 ** math.ceil(math.log2(window)),
        window=window,
        hop=sample_rate // 100,
        high=sample_rate / 2,
    )


def pick(corpus: Corpus, split: str | None, count: int) -> list[Utterance]:
    """Return utterances of a split, the speakers taking turns, in an order that hashes decide.

    Raises:
        ValueError: a count below 1, or no utterance that is long enough.
        LookupError: no such split.
    """
    if count < 1:
        raise ValueError(f"--count must be 1 or more, got {count}")
    wanted = split or ("test" if "test" in corpus.splits else "all")
    speakers: dict[str, list[Utterance]] = {}
    for u in corpus.utterances(None if wanted == "all" else wanted):
        if u.duration >= SHORTEST:
            speakers.setdefault(u.speaker or u.id, []).append(u)
    if not speakers:
        raise ValueError(f"{corpus.name} ({wanted}) has no utterance of {SHORTEST:g} s or more")
    ranked = [
        (turn, name, u)
        for name, theirs in speakers.items()
        for turn, u in enumerate(
            sorted(theirs, key=lambda u: hashlib.sha256(u.id.encode()).hexdigest())
        )
    ]
    return [u for _, _, u in sorted(ranked, key=lambda row: row[:2])[:count]]


def rate_of(chosen: Sequence[Utterance], vocoders: Sequence[Vocoder]) -> int:
    """Return the Hz at which copies are compared: no more than every recording and vocoder has.

    Above a recording's own band a copy is some 60 dB below the speech, and the logarithm of next to
    nothing would outweigh what is heard.
    """
    from mynah.tasks.metrics.mel_cepstrum import ALPHAS

    rates = [*(u.sample_rate for u in chosen), *(v.spec.sample_rate for v in vocoders)]
    return max((rate for rate in ALPHAS if rate <= min(rates)), default=min(ALPHAS))


class Bench:
    """Recordings and their copies at one rate.

    Args:
        rate: Hz at which they are compared.
    """

    def __init__(self, rate: int) -> None:
        from mynah.downstream.core.melspec import LogMelSpectrogram

        self.rate = rate
        self._mel = LogMelSpectrogram(judge_spec(rate))
        self._mels: dict[int, LogMelSpectrogram] = {}
        self._known: dict[str, tuple[Tensor, Voice]] = {}

    def measure(self, u: Utterance, vocoder: Vocoder) -> Copy:
        """Copy an utterance and compare.

        Raises:
            BadAudioError: it cannot be read or analysed.
        """
        import numpy as np
        import torch

        from mynah.downstream.core.melspec import LogMelSpectrogram
        from mynah.downstream.vocoders.core.prosody import analyse_prosody
        from mynah.tasks.corpora.audio import read
        from mynah.tasks.metrics.conversion import compare

        spec = vocoder.spec
        mel = self._mels.setdefault(id(vocoder), LogMelSpectrogram(spec))
        wav_S = torch.from_numpy(read(u, spec.sample_rate))
        with torch.no_grad():
            mel_TM = mel(wav_S[None])[0]
        began = time.process_time()
        prosody = analyse_prosody(wav_S, spec) if vocoder.needs_prosody else None
        heard = time.process_time()
        copy_S = vocoder(mel_TM, prosody)
        said = time.process_time()
        copy_S = torch.nn.functional.pad(copy_S, (0, max(0, len(wav_S) - len(copy_S))))
        if u.id not in self._known:
            own_S = torch.from_numpy(read(u, self.rate))
            self._known[u.id] = self._mel(own_S[None])[0], self._voice(u, own_S)
        own_TM, own = self._known[u.id]
        copy_S = self._at_rate(copy_S[: len(wav_S)], spec.sample_rate)
        copy_TM = self._mel(copy_S[None])[0]
        voice = self._voice(u, copy_S)
        frames = min(len(own_TM), len(copy_TM))
        pitch = min(len(own.f0_T), len(voice.f0_T))
        f0_T, copied_T = own.f0_T[:pitch], voice.f0_T[:pitch]
        both_T = (f0_T > 0) & (copied_T > 0)
        ratio = copied_T[both_T] / f0_T[both_T]
        return Copy(
            mcd=compare(voice, own).mcd,
            mel_l1=float((own_TM[:frames] - copy_TM[:frames]).abs().mean()),
            f0_cents=float(1200 * np.sqrt(np.mean(np.log2(ratio) ** 2))) if len(ratio) else None,
            f0_gross=float(np.mean(np.abs(ratio - 1) > GROSS)) if len(ratio) else None,
            voicing=float(np.mean((f0_T > 0) != (copied_T > 0))),
            rtf=(said - heard) / u.duration,
            rtf_pitch=(heard - began) / u.duration if vocoder.needs_prosody else 0.0,
        )

    def _voice(self, u: Utterance, wav_S: Tensor) -> Voice:
        from mynah.downstream.vocoders.core.prosody import F0_RANGE
        from mynah.tasks.corpora.audio import BadAudioError
        from mynah.tasks.metrics.conversion import analyse

        try:
            return analyse(wav_S.numpy(), sample_rate=self.rate, f0_range=F0_RANGE)
        except ValueError as error:
            raise BadAudioError(f"{u.id}: {error}") from error

    def _at_rate(self, wav_S: Tensor, sample_rate: int) -> Tensor:
        import soxr
        import torch

        if sample_rate == self.rate:
            return wav_S
        return torch.from_numpy(soxr.resample(wav_S.numpy(), sample_rate, self.rate))


def scores(copies: Sequence[Copy], speakers: Sequence[str]) -> dict[str, Interval]:
    """Return the mean of each measure over utterances, with its interval by speaker."""
    from mynah.tasks.metrics.bootstrap import bootstrap
    from mynah.tasks.metrics.conversion import mcd_metric
    from mynah.tasks.metrics.mean import UNDEFINED, as_text, mean_metric

    def mean(name: str, unit: str) -> Any:
        return mean_metric(
            name, higher_is_better=False, options=f"unit:{unit}", skip_undefined=True
        )

    metrics = [mcd_metric(), mean("mel_l1", "ln"), mean("f0_cents", "cent")]
    metrics += [mean("f0_gross", "share"), mean("voicing", "share")]
    metrics += [mean("rtf", "cpu-s/s"), mean("rtf_pitch", "cpu-s/s")]
    found = {}
    for metric in metrics:
        texts = [as_text(getattr(copy, metric.name)) for copy in copies]
        if any(text != UNDEFINED for text in texts):
            found[metric.name] = bootstrap(
                metric, [""] * len(texts), texts, speakers, unit="speaker"
            )
    return found


def judged(args: Args) -> dict[str, Any]:
    """Return what is written.

    Raises:
        BadDataError: audio that cannot be used.
        ValueError, LookupError, FileNotFoundError: vocoders, corpora or settings that cannot be.
    """
    from mynah import __version__
    from mynah.recipes.conversion.vocoder import open_vocoder
    from mynah.recipes.errors import BadDataError
    from mynah.recipes.progress import track
    from mynah.tasks.corpora.audio import BadAudioError
    from mynah.tasks.corpora.corpus import Corpus

    if len(set(args.vocoder)) != len(args.vocoder):
        raise ValueError(f"every vocoder once, got {', '.join(args.vocoder)}")
    corpus = Corpus.open(args.corpus)
    chosen = pick(corpus, args.split, args.count)
    vocoders = {name: open_vocoder(name) for name in args.vocoder}
    rate = args.rate or rate_of(chosen, list(vocoders.values()))
    bench = Bench(rate)
    speakers = [u.speaker or u.id for u in chosen]
    found = []
    for name, vocoder in vocoders.items():
        try:
            bench.measure(
                chosen[0], vocoder
            )  # what a first call loads is nobody's real-time factor
            copies = [bench.measure(u, vocoder) for u in track(chosen, f"copying, {name}")]
        except BadAudioError as error:
            raise BadDataError(str(error)) from error
        rows = [{"id": u.id, **asdict(copy)} for u, copy in zip(chosen, copies, strict=True)]
        found.append(
            {
                "vocoder": name,
                "identity": vocoder.identity,
                "sample_rate": vocoder.spec.sample_rate,
                "metrics": {key: asdict(s) for key, s in scores(copies, speakers).items()},
                "rows": rows,
            }
        )
    return {
        "format": FORMAT,
        "corpus": corpus.name,
        "corpus_version": corpus.version,
        "split": args.split,
        "rate": rate,
        "seconds": sum(u.duration for u in chosen),
        "vocoders": found,
        "mynah": __version__,
    }


HEADS = {
    "mcd": "MCD dB",
    "mel_l1": "mel L1",
    "f0_cents": "F0 RMSE cents",
    "f0_gross": "F0 gross",
    "voicing": "V/UV error",
    "rtf": "CPU s / s",
    "rtf_pitch": "pitch CPU s / s",
}


def cell(score: Mapping[str, Any] | None) -> str:
    """Return a score and its interval as a table shows them."""
    if score is None:
        return "-"
    digits = 1 if score["value"] >= 10 else 3
    low, value, high = (f"{score[key]:.{digits}f}" for key in ("low", "value", "high"))
    return f"{value} [{low}, {high}]"


def main(args: Args) -> int:
    """Judge, write the JSON, print a table.

    Raises:
        BadDataError, ValueError, LookupError, FileNotFoundError: see :func:`judged`.
    """
    if not args.vocoder:
        raise ValueError("--vocoder is missing: give --vocoder NAME, such as griffin_lim or world")
    page = judged(args)
    write_text(args.out, json.dumps(page, indent=1, ensure_ascii=False) + "\n")
    rows = [["vocoder", *HEADS.values()]]
    rows += [
        [one["vocoder"], *(cell(one["metrics"].get(key)) for key in HEADS)]
        for one in page["vocoders"]
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")
    any_score = page["vocoders"][0]["metrics"]["mcd"]
    sys.stdout.write(
        f"{any_score['n']} utterances, {page['seconds']:.0f} s at {page['rate']} Hz; 95 % intervals "
        f"from {any_score['units']} {any_score['unit']}s\n"
    )
    return 0
