"""Audio in, audio in another voice out: a converter, a vocoder, and what is between the two.

Shape suffixes: S samples, T frames, M mel bins, C width of a code.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mynah.downstream.conversion.core.contract import Converter, Heard
from mynah.downstream.conversion.core.statistics import active, empty_bins
from mynah.downstream.vocoders.core.contract import Prosody, Vocoder
from mynah.downstream.vocoders.core.prosody import F0Stats, analyse_prosody, move_f0
from mynah.recipes.conversion import checks, watermark
from mynah.recipes.conversion.checks import Recording, Wave
from mynah.recipes.conversion.hearing import Hearing
from mynah.recipes.conversion.pitches import f0_of
from mynah.recipes.conversion.stretches import cut, joined

STRETCH = 30.0
"""Seconds that are converted at once: memory does not grow with the length of a source."""
KNN_REFERENCE = 30.0
OWN_SPEECH = 5.0
MEASURING = ("mkl", "stats")


@dataclass(frozen=True, kw_only=True)
class Result:
    """A conversion.

    Attributes:
        wav_S: float32 samples, as many as the source has, at the output's rate.
        sample_rate: Hz of the output.
        mel_TM: its log-mel spectrogram, as the vocoder was given it.
        source_mel_TM: the source's.
        code_TC: its content code.
        voice: the target's speaker vector.
        f0_source_T: Hz, where the vocoder needed it; else None.
        f0_out_T: Hz that the vocoder was given; else None.
        seconds: of the clock that it took.
        warnings: for whoever asked.
        record: how it came about, ready for JSON.
    """

    wav_S: Wave
    sample_rate: int
    mel_TM: Tensor
    source_mel_TM: Tensor
    code_TC: Tensor
    voice: Tensor
    f0_source_T: Tensor | None
    f0_out_T: Tensor | None
    seconds: float
    warnings: tuple[str, ...]
    record: Mapping[str, Any]


class Engine:
    """Converts recordings; the same recordings give the same samples, in whatever order.

    Args:
        converter: ready, in eval mode.
        hearing: how it hears.
        vocoder: of the same spectrograms.
        identity: of the converter, for records.
        longest: seconds of a source.
        key: of the watermark; None for none.
    """

    def __init__(
        self,
        converter: Converter,
        hearing: Hearing,
        vocoder: Vocoder,
        *,
        identity: Mapping[str, Any],
        longest: float = 300.0,
        key: str | None = watermark.KEY,
    ) -> None:
        self.converter = converter
        self.hearing = hearing
        self.vocoder = vocoder
        self.identity = dict(identity)
        self.longest = longest
        self.key = key

    @property
    def sample_rate(self) -> int:
        """Hz of what comes out."""
        return self.hearing.spec.sample_rate

    def hear(self, recording: Recording) -> Heard:
        """Return what the converter hears of a recording, long ones stretch by stretch."""
        wav_S, hop = checks.resampled(recording, self.sample_rate), self.hearing.spec.hop
        stretches = cut(wav_S, self.sample_rate, longest=STRETCH, hop=hop)
        firsts = [first for first, _ in stretches]
        parts = []
        for (first, last), after in zip(stretches, [*firsts[1:], None], strict=True):
            heard = self.hearing([torch.from_numpy(wav_S[first:last])])[0]
            own = None if after is None else (after - first) // hop  # the rest is heard again
            parts.append(Heard(x_TD=heard.x_TD[:own], mel_TM=heard.mel_TM[:own]))
        return Heard(
            x_TD=torch.cat([one.x_TD for one in parts]),
            mel_TM=torch.cat([one.mel_TM for one in parts]),
        )

    @torch.no_grad()
    def convert(
        self,
        source: Recording,
        references: Sequence[Recording],
        *,
        more: Sequence[Recording] = (),
        semitones: float = 0.0,
        keep_f0: bool = False,
    ) -> Result:
        """Say what a recording says in the voice of others.

        Args:
            source: what is said.
            references: recordings of the target speaker.
            more: further recordings of the source speaker, which some methods measure.
            semitones: by which pitch is shifted beside, where the vocoder is given one.
            keep_f0: leave pitch where the source has it, likewise.

        Raises:
            RefusedError: a recording that cannot be used; the message says why.
        """
        began = time.monotonic()
        checks.check_source(source, longest=self.longest)
        kept, warnings = checks.check_references(references)
        moves = self.vocoder.needs_prosody
        if (semitones or keep_f0) and not moves:
            raise ValueError(
                "pitch is in the spectrogram with this vocoder: --semitones and --keep-f0 need one "
                "that is given F0, such as world"
            )
        own = [checks.trimmed(one) for one in more]
        warnings += self._thin(source, own, kept)
        wav_S = checks.resampled(source, self.sample_rate)
        heard_more = [self.hear(one) for one in own]
        heard_refs = [self.hear(one) for one in kept]
        pitch = None
        if moves:
            pitch = self._pitch(wav_S, kept, own, semitones=semitones, keep=keep_f0)
            if pitch.target is None and not keep_f0 and self.converter.moves_pitch:
                warnings.append("no pitch was found in the target's recordings: it is not moved")
        spec = self.hearing.spec
        parts, mels, before, codes = [], [], [], []
        contours: list[tuple[Tensor, Tensor]] = []
        stretches = cut(wav_S, self.sample_rate, longest=STRETCH, hop=spec.hop)
        for first, last in stretches:
            piece = torch.from_numpy(wav_S[first:last])
            heard = self.hearing([piece])[0]
            mel_TM = self.converter.convert(heard, heard_refs, more=heard_more)
            prosody = None
            if pitch is not None:
                prosody, f0_T = pitch.of(piece, spec)
                contours.append((f0_T, prosody.f0_T))
            parts.append(self.vocoder(mel_TM, prosody).numpy())
            mels.append(mel_TM)
            before.append(heard.mel_TM)
            codes.append(self.converter.encode_content(heard))
        out_S = joined(parts, stretches, len(wav_S))
        mel_TM, source_mel_TM = torch.cat(mels), torch.cat(before)
        out_S, lowered = _levelled(out_S, wav_S, self.sample_rate)
        if lowered >= 0.05:
            warnings.append(f"lowered by {lowered:.1f} dB so that nothing clips")
        if self.key is not None:
            out_S = watermark.mark(out_S, self.sample_rate, key=self.key)
            out_S = out_S / max(1.0, float(np.abs(out_S).max(initial=0.0)))
        if self.converter.moves_pitch:
            warnings += self._nearer(mel_TM, source_mel_TM, [h.mel_TM for h in heard_refs])
        if self.identity.get("method") in MEASURING:
            empty_M = empty_bins(source_mel_TM, nepers=spec.nepers)
            if empty_M.any() and not empty_M.all():
                warnings.append(
                    f"the source has no signal in {int(empty_M.sum())} of {len(empty_M)} bands, as "
                    "telephone speech: these follow its loudness"
                )
        voice = self.converter.encode_speaker(heard_refs)
        took = time.monotonic() - began
        return Result(
            wav_S=out_S.astype(np.float32),
            sample_rate=self.sample_rate,
            mel_TM=mel_TM,
            source_mel_TM=source_mel_TM,
            code_TC=torch.cat(codes),
            voice=self.converter.speaker_vector(voice),
            f0_source_T=torch.cat([a for a, _ in contours]) if contours else None,
            f0_out_T=torch.cat([b for _, b in contours]) if contours else None,
            seconds=took,
            warnings=tuple(warnings),
            record={
                "converter": self.identity,
                "vocoder": self.vocoder.identity,
                "semitones": semitones,
                "keep_f0": keep_f0,
                "watermark": self.key is not None,
                "source_seconds": source.seconds,
                "reference_seconds": sum(one.seconds for one in kept),
            },
        )

    def _thin(
        self, source: Recording, own: Sequence[Recording], kept: Sequence[Recording]
    ) -> list[str]:
        """Return what to warn of where a method has less speech than it lives on."""
        method = self.identity.get("method")
        seconds = sum(one.seconds for one in kept)
        heard = source.seconds + sum(one.seconds for one in own)
        if method == "knn" and seconds < KNN_REFERENCE:
            return [
                f"knn puts speech together from {seconds:.0f} s of the target: below "
                f"{KNN_REFERENCE:g} s words suffer"
            ]
        if method in MEASURING and heard < OWN_SPEECH:
            return [
                f"{method} measures the source speaker by {checks.shorter(heard)} s: below {OWN_SPEECH:g} s "
                "badly"
            ]
        return []

    def _pitch(
        self,
        wav_S: Wave,
        kept: Sequence[Recording],
        own: Sequence[Recording],
        *,
        semitones: float,
        keep: bool,
    ) -> _Pitch:
        """Measure both speakers' pitch."""
        spec = self.hearing.spec

        def contours(waves: Sequence[Wave]) -> F0Stats | None:
            longest = int(STRETCH * spec.sample_rate)
            return F0Stats.of([f0_of(w[:longest], spec) for w in waves])

        moved = self.converter.moves_pitch and not keep
        others = [checks.resampled(one, spec.sample_rate) for one in kept]
        mine = [wav_S, *(checks.resampled(one, spec.sample_rate) for one in own)]
        return _Pitch(
            source=contours(mine) if moved else None,
            target=contours(others) if moved else None,
            semitones=semitones,
        )

    def _nearer(self, mel_TM: Tensor, source_TM: Tensor, references: Sequence[Tensor]) -> list[str]:
        """Warn where the mean spectrum of what came out is nearer to the source's than the target's."""
        spec = self.hearing.spec
        mel_TM, source_TM = mel_TM * spec.nepers, source_TM * spec.nepers
        references = [one_TM * spec.nepers for one_TM in references]

        def speech(mel_TM: Tensor) -> Tensor:
            return mel_TM[active(mel_TM)].mean(0)

        target_M = torch.stack([speech(one) for one in references]).mean(0)
        out_M = speech(mel_TM)
        to_target = float((out_M - target_M).norm())
        to_source = float((out_M - speech(source_TM)).norm())
        if to_source < to_target:
            return [
                "the mean spectrum is still nearer to the source's than to the target's "
                f"({to_source:.1f} against {to_target:.1f}): little was converted"
            ]
        return []


@dataclass(frozen=True, kw_only=True)
class _Pitch:
    """How a contour is moved."""

    source: F0Stats | None
    target: F0Stats | None
    semitones: float

    def of(self, wav_S: Tensor, spec: Any) -> tuple[Prosody, Tensor]:
        """Return the moved excitation of a waveform, and its own F0."""
        own = analyse_prosody(wav_S, spec)
        moved_T = move_f0(own.f0_T, self.source, self.target, semitones=self.semitones)
        return Prosody(f0_T=moved_T, aperiodicity_TF=own.aperiodicity_TF), own.f0_T


def _levelled(out_S: Wave, source_S: Wave, sample_rate: int) -> tuple[Wave, float]:
    """Return audio as loud as the source where it speaks, and the dB that it had to be lowered by."""
    own = checks.active_level(out_S, sample_rate)
    gain = checks.active_level(source_S, sample_rate) / own if own > 1e-8 else 1.0
    out_S = out_S * np.float32(gain)
    peak = float(np.abs(out_S).max(initial=0.0))
    if peak <= 0.99:
        return out_S, 0.0
    return out_S * np.float32(0.99 / peak), 20 * float(np.log10(peak / 0.99))
