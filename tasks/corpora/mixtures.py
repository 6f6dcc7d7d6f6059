"""Corpora of mixtures, made from a corpus of single speakers: for separation, enhancement, diarization.

Every mixture is of one part (train, dev, test) of the source corpus, so mixtures share no speaker
between parts where the source corpus shares none. The same corpus, options and seed give the same
bytes, wherever the folder lies: references are named relative to the mixture's file.

- ``separation``: ``mix/ID.wav`` and ``s1/ID.wav``, ``s2/ID.wav``; labels ``s1``, ``s2`` and
  ``s1_speaker``, ``s2_speaker``.
- ``enhancement``: ``noisy/ID.wav`` and ``clean/ID.wav``; label ``clean``, and all that the source
  utterance has.
- ``diarization``: ``mix/ID.wav``; timed labels ``speakers``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np

from mynah.files import new_folder
from mynah.tasks.corpora import mixdown
from mynah.tasks.corpora.audio import BadAudioError, read
from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.mixdown import Sound, Wave
from mynah.tasks.corpora.mixture_plan import Mixture, Options, plan, shares, usable
from mynah.tasks.corpora.utterance import Utterance

DRAWS = 100  # of a stretch of noise that is not digital silence
VERSION = 1  # raised whenever the same request would give other bytes

Track = Callable[[Sequence[Mixture]], Iterable[Mixture]]


@dataclass(frozen=True, kw_only=True)
class Noises:
    """Recordings of noise by part; without any, noise is made."""

    by_split: Mapping[str, Sequence[Utterance]] = field(default_factory=dict)

    @classmethod
    def shared_out(
        cls, recordings: Sequence[Utterance], sizes: Mapping[str, int], *, seed: int
    ) -> Noises:
        """Return recordings by part, none in two: their own parts, else in proportion to ``sizes``.

        Args:
            recordings: of noise.
            sizes: part -> number of utterances that are to be mixed.
            seed: of the order in which they are shared out.

        Raises:
            ValueError: fewer recordings than parts.
        """
        if set(sizes) <= {u.split for u in recordings}:
            return cls(by_split={s: [u for u in recordings if u.split == s] for s in sizes})
        if len(recordings) < len(sizes):
            raise ValueError(
                f"{len(recordings)} recordings of noise for the parts {', '.join(sizes)}: none may "
                "be in two of them"
            )
        left = sorted(recordings, key=lambda u: u.id)
        random.Random(f"noise|{seed}").shuffle(left)
        given = shares(sizes, len(left)).items()
        return cls(by_split={s: [left.pop() for _ in range(share)] for s, share in given})

    def draw(self, split: str, samples: int, rate: int, rng: np.random.Generator) -> Wave:
        """Return noise (S,) of a part: a stretch of a recording, again and again where it is short.

        Collections of sounds fill their recordings up with zeros: a stretch of nothing else is drawn
        again.

        Raises:
            BadAudioError: recordings that cannot be read, or hold hardly anything.
        """
        if not self.by_split:
            return mixdown.coloured(samples, rng)
        recordings = self.by_split[split]
        for _ in range(DRAWS):
            one = recordings[int(rng.integers(len(recordings)))]
            noise_S = read(one, rate)
            first = int(rng.integers(max(1, len(noise_S) - samples + 1)))
            repeated = np.resize(noise_S, max(len(noise_S), first + samples))
            drawn_S = repeated[first : first + samples]
            if drawn_S.any():
                return drawn_S
        raise BadAudioError(
            f"noise of {split}: {DRAWS} stretches of {samples / rate:.1f} s drawn from "
            f"{len(recordings)} recordings were digital silence, the last one of {one.path}: leave "
            "such recordings out"
        )


def render(mixture: Mixture, options: Options, noises: Noises | None = None) -> Sound:
    """Return the sound of a mixture.

    Args:
        mixture: from :func:`plan`.
        options: what is asked for.
        noises: what to add, None for no noise; enhancement cannot do without.

    Raises:
        BadAudioError: a recording cannot be read, or is digital silence (of noise: all that is
            drawn); the message names it.
    """
    draw = hashlib.sha256(f"{options.kind}|{options.seed}|{mixture.id}".encode()).digest()
    rng = np.random.default_rng(list(draw))
    waves = []
    levels: dict[str | None, float] = {}
    for u in mixture.utterances:
        level = rng.uniform(-options.spread / 2, options.spread / 2)
        level = mixdown.LEVEL + levels.setdefault(u.speaker, level)
        try:
            waves.append(mixdown.to_level(read(u, options.rate), options.rate, level))
        except ValueError as error:
            raise BadAudioError(f"utterance {u.id!r}: {error}") from error
    if options.kind == "diarization":
        turns = [
            (
                str(u.speaker),
                wav_S,
                mixdown.spoken(wav_S, options.rate, u.intervals.get("words", ())),
            )
            for u, wav_S in zip(mixture.utterances, waves, strict=True)
        ]
        sound = mixdown.by_turns(turns, options.rate, overlap=options.overlap, rng=rng)
    else:
        names = ["clean"] if options.kind == "enhancement" else _sources(len(waves))
        beside = mixdown.beside(waves, options.mode)
        sound = mixdown.together(dict(zip(names, beside, strict=True)), bits=32)
    parts = dict(sound.parts)
    if noises is not None:
        speech_S = sound.mixture
        noise_S = noises.draw(mixture.split, len(speech_S), options.rate, rng)
        snr = rng.uniform(*options.snr)
        parts["noise"] = mixdown.under(noise_S, speech_S, options.rate, snr)
    return mixdown.together(parts, sound.turns, bits=options.bits)


def build(
    folder: str | Path,
    corpus: Corpus,
    options: Options,
    *,
    noise: Sequence[Utterance] | None = None,
    name: str | None = None,
    track: Track | None = None,
) -> Corpus:
    """Make a corpus of mixtures, whole or not at all.

    Args:
        folder: new or empty. All is written beside it first and moved there at the end.
        corpus: of single speakers.
        options: what is asked for.
        noise: recordings of noise to add; None for none, of which enhancement makes its own.
        name: of the new corpus; default: the source's and the kind.
        track: wraps the mixtures to show progress.

    Raises:
        ValueError: a folder that holds something, or as :func:`usable`, :func:`plan` and
            :func:`render`.
        BadAudioError: a recording cannot be read.
    """
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty: name a new folder for the mixtures")
    parts, left_out = usable(corpus.utterances(), options)
    mixtures = plan(parts, options)
    noises = Noises() if options.kind == "enhancement" else None
    if noise is not None:
        sizes = {split: len(part) for split, part in parts.items()}
        noises = Noises.shared_out(noise, sizes, seed=options.seed)
    with new_folder(folder) as made:
        utterances = [
            _write(made, mixture, render(mixture, options, noises), options)
            for mixture in (track(mixtures) if track else mixtures)
        ]
        write_corpus(
            made,
            utterances,
            name=name or f"{corpus.name}-{options.kind}",
            source=f"mixtures of {corpus.name}, version {corpus.version[:12]}",
            extra={
                "mixtures": VERSION,
                **dataclasses.asdict(options),
                "noise": "none"
                if noises is None
                else "made"
                if not noises.by_split
                else "recorded",
                "left_out": left_out,
            },
        )
    return Corpus.open(folder)


def _sources(count: int) -> list[str]:
    return [f"s{number}" for number in range(1, count + 1)]


def _write(folder: Path, mixture: Mixture, sound: Sound, options: Options) -> Utterance:
    """Write the files of a mixture; returns it as an utterance."""
    main = "noisy" if options.kind == "enhancement" else "mix"
    kept = {} if options.kind == "diarization" else dict(sound.parts)
    kept.pop("noise", None)
    file = f"{quote(mixture.id, safe='')}.wav"
    for place, wav_S in {main: sound.mixture, **kept}.items():
        _save(folder / place / file, wav_S, options)
    labels = {part: f"../{part}/{file}" for part in kept}
    one = mixture.utterances[0]
    utterance = Utterance(
        id=mixture.id,
        path=str(folder / main / file),
        start=0.0,
        duration=len(sound.mixture) / options.rate,
        sample_rate=options.rate,
        split=mixture.split,
        labels=labels,
        intervals={"speakers": sound.turns} if sound.turns else {},
    )
    if options.kind == "enhancement":
        return dataclasses.replace(
            utterance,
            speaker=one.speaker,
            text=one.text,
            labels={**one.labels, **labels},
            intervals=one.intervals,
        )
    if options.kind == "separation":
        who = zip(_sources(len(mixture.utterances)), mixture.utterances, strict=True)
        labels |= {f"{name}_speaker": str(u.speaker) for name, u in who}
    return utterance


def _save(path: Path, wav_S: Wave, options: Options) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()  # a full disk is then an OSError, not libsndfile's
    if options.bits == 16:
        integers_S = np.round(wav_S * 2**15).astype(np.int16)
        soundfile.write(buffer, integers_S, options.rate, format="WAV", subtype="PCM_16")
    else:
        soundfile.write(buffer, wav_S, options.rate, format="WAV", subtype="FLOAT")
    path.write_bytes(buffer.getvalue())
