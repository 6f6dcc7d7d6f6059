"""``mynah vocode CORPUS OUT``: a corpus beside itself as vocoders say it.

Whoever judges converted speech should have heard vocoders before: a recogniser or a verification that
knows real recordings only takes a vocoder's artefacts for another word or another voice. Trained on
this corpus (the recordings and a copy of each by each vocoder, labels kept) it has, and its score on
the copies says how far it can be trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction

from mynah.files import new_folder

if TYPE_CHECKING:
    from mynah.downstream.core.melspec import MelSpec
    from mynah.downstream.vocoders.core.contract import Vocoder
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.tasks.corpora.utterance import Utterance

LABEL = "vocoder"


@dataclass(frozen=True, kw_only=True)
class Args:
    """Write a corpus with a copy of every utterance by each vocoder beside the recording."""

    corpus: Annotated[Path, Positional]
    """Prepared corpus."""
    out: Annotated[Path, Positional]
    """New folder: the prepared corpus of recordings and copies, and the copies' audio."""
    vocoder: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Name (mynah list) or folder of a vocoder; repeatable; default: griffin_lim."""
    split: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Splits to copy; repeatable; default: all."""
    only_copies: bool = False
    """Leave the recordings themselves out."""
    corpus_name: str | None = None
    """Name in tables; default: the source's and 'vocoded'."""


def copies(
    utterances: Iterable[Utterance], name: str, vocoder: Vocoder, folder: Path
) -> Iterator[Utterance]:
    """Write utterances as a vocoder says them; yields each as an utterance of the new corpus.

    Args:
        utterances: to copy.
        name: of the vocoder, for ids and labels.
        vocoder: at work.
        folder: of the files, 16-bit WAV at the vocoder's rate.

    Raises:
        BadAudioError: a recording cannot be read.
    """
    import torch

    from mynah.downstream.core.melspec import LogMelSpectrogram
    from mynah.downstream.vocoders.core.prosody import analyse_prosody
    from mynah.recipes.conversion.systems import write
    from mynah.tasks.corpora.audio import read

    spec: MelSpec = vocoder.spec
    spectrogram = LogMelSpectrogram(spec)
    folder.mkdir(parents=True)
    for number, u in enumerate(utterances):
        wav_S = torch.from_numpy(read(u, spec.sample_rate))
        prosody = analyse_prosody(wav_S, spec) if vocoder.needs_prosody else None
        with torch.no_grad():
            copy_S = vocoder(spectrogram(wav_S[None])[0], prosody)[: len(wav_S)].numpy()
        path = folder / f"{number:06d}.wav"
        write(path, copy_S, spec.sample_rate)
        yield replace(
            u,
            id=f"{u.id}-{name}",
            path=str(path),
            start=0.0,
            duration=len(copy_S) / spec.sample_rate,
            sample_rate=spec.sample_rate,
            channel=0,
            labels={**u.labels, LABEL: name},
        )


def build(args: Args) -> Corpus:
    """Make the corpus, whole or not at all.

    Raises:
        ValueError: a folder that holds something, vocoders of one name, or nothing to copy.
        LookupError, FileNotFoundError: an unknown vocoder, split or corpus.
        BadDataError: a recording cannot be read.
    """
    from mynah.recipes.conversion.vocoder import open_vocoder
    from mynah.recipes.errors import BadDataError
    from mynah.recipes.progress import track
    from mynah.tasks.corpora.audio import BadAudioError
    from mynah.tasks.corpora.corpus import Corpus, write_corpus

    out = args.out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{args.out} is not empty: name a new folder for the copies")
    source = Corpus.open(args.corpus)
    utterances = (
        [u for split in args.split for u in source.utterances(split)]
        if args.split
        else source.utterances()
    )
    chosen = args.vocoder or ("griffin_lim",)
    names = [Path(name).name for name in chosen]
    if len(set(names)) != len(names):
        raise ValueError(f"vocoders must have names of their own, got {', '.join(names)}")
    opened = [open_vocoder(name) for name in chosen]
    try:
        with new_folder(out) as made:
            found = (
                []
                if args.only_copies
                else [replace(u, labels={**u.labels, LABEL: "none"}) for u in utterances]
            )
            for name, vocoder in zip(names, opened, strict=True):
                found += copies(track(utterances, f"copying, {name}"), name, vocoder, made / name)
            write_corpus(
                made,
                found,
                name=args.corpus_name or f"{source.name}-vocoded",
                source=f"{source.name}, version {source.version[:12]}, through vocoders",
                extra={"vocoders": {n: v.identity for n, v in zip(names, opened, strict=True)}},
            )
    except BadAudioError as error:
        raise BadDataError(str(error)) from error
    return Corpus.open(out)


def main(args: Args) -> int:
    """Make the corpus, and print what came of it.

    Raises:
        ValueError, LookupError, FileNotFoundError, BadDataError: see :func:`build`.
    """
    from mynah.recipes.prepare import summary
    from mynah.recipes.progress import console

    console.print(summary(build(args)), markup=False)
    return 0
