"""``mynah predict HEAD AUDIO ...``: what a trained head says of any audio.

A line for each file: a transcript, a class with its probability, who speaks when, a translation; or,
for speaker verification, how similar the first file is to each of the others. What is audio, and
RTTM, goes to files.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from mynah.recipes.listening import Listener
    from mynah.tasks.core.contract import Presented
    from mynah.tasks.corpora.audio import BadAudioError
    from mynah.tasks.corpora.utterance import Utterance


@dataclass(frozen=True, kw_only=True)
class Args:
    """Say what a trained head makes of audio files or of a corpus."""

    head: Annotated[Path, Positional]
    """NAME.head.safetensors, beside the result of a probe."""
    audio: Annotated[tuple[Path, ...], Positional] = ()
    """Audio files of any rate and length."""
    corpus: Path | None = None
    """A prepared corpus: all of its utterances."""
    split: str | None = None
    """Only this split of the corpus."""
    upstream: str | None = None
    """Spec of the upstream, where it is no longer what the head's file says (same weights)."""
    out: Path | None = None
    """Folder for answers that are audio (se, ss) and for RTTM (sd)."""
    json: bool = False
    """A JSON object a line, with more in it: times, probabilities."""
    channel: int | None = None
    """Channel of the files, from 0; needed where they have several."""
    upstream_seed: int = 0
    """Of the upstream's random weights, where its spec has no others."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the upstream's forward, as the head was trained on it."""
    device: str = "cpu"
    """Where the upstream runs."""


def named(paths: Sequence[Path]) -> list[str]:
    """Return an id for each file: its stem without white space, numbered where it is not unique."""
    used: set[str] = set()
    names = []
    for path in paths:
        stem = re.sub(r"\s+", "_", path.stem) or "audio"
        name, number = stem, 1
        while name in used:
            number += 1
            name = f"{stem}-{number}"
        used.add(name)
        names.append(name)
    return names


def gathered(args: Args) -> list[tuple[str, Utterance | BadAudioError]]:
    """Return what is asked about, each with what to call it: its path, or its id in the corpus.

    A file that is not audio comes as the error that it gave.

    Raises:
        ValueError: nothing.
        FileNotFoundError, LookupError: no such corpus, or no such split of it.
    """
    from mynah.recipes.listening import utterance_of
    from mynah.tasks.corpora.audio import BadAudioError
    from mynah.tasks.corpora.corpus import Corpus

    if not args.audio and args.corpus is None:
        raise ValueError("nothing to listen to: give audio files, or --corpus DIR")
    found: list[tuple[str, Utterance | BadAudioError]] = []
    for path, name in zip(args.audio, named(args.audio), strict=True):
        try:
            found.append((str(path), utterance_of(path, name=name, channel=args.channel)))
        except BadAudioError as error:
            found.append((str(path), error))
    if args.corpus is not None:
        found += [(u.id, u) for u in Corpus.open(args.corpus).utterances(args.split)]
    return found


def written(listener: Listener, said: Presented, name: str, out: Path | None) -> list[str]:
    """Write what an answer has for files; returns their paths.

    Raises:
        ValueError: an answer that is audio, and no folder for it.
    """
    import soundfile

    from mynah.tasks.metrics.rttm import write_rttm

    if said.wavs and out is None:
        raise ValueError(
            f"the answer of {listener.card.task} is audio: say where to write it, --out FOLDER"
        )
    paths: list[Path] = []
    if out is None:
        return []
    out.mkdir(parents=True, exist_ok=True)
    for part, wav_S in said.wavs.items():
        paths.append(out / (f"{name}.wav" if len(said.wavs) == 1 else f"{name}.{part}.wav"))
        soundfile.write(paths[-1], wav_S, listener.upstream.sample_rate, subtype="FLOAT")
    if said.rttm is not None:
        paths.append(out / f"{name}.rttm")
        write_rttm(paths[-1], {name: said.rttm})
    return [str(path) for path in paths]


def answers(
    listener: Listener, asked: Sequence[tuple[str, Utterance | BadAudioError]], out: Path | None
) -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """Yield (what was asked about, text, JSON, whether it could be used) of each.

    Embeddings are compared with the first one that could be used.

    Raises:
        ValueError: embeddings and only one utterance; an answer that is audio and no ``out``.
    """
    from mynah.tasks.core.contract import DataError
    from mynah.tasks.corpora.audio import BadAudioError
    from mynah.tasks.vc import cosines

    first: tuple[str, Any] | None = None
    for shown, utterance in asked:
        try:
            if isinstance(utterance, BadAudioError):
                raise utterance
            said = listener.presented(utterance)
        except (BadAudioError, DataError) as error:
            yield shown, str(error), {"error": str(error)}, False
            continue
        if said.embedding is None:
            files = written(listener, said, utterance.id, out)
            text = "\t".join([" ".join(said.text.split()), *files])
            yield shown, text, {**said.json, **({"files": files} if files else {})}, True
        elif first is None:
            if len(asked) < 2:
                raise ValueError(
                    f"{listener.card.task} compares the first file with others: give two at least"
                )
            first = shown, said.embedding
        else:
            score = float(cosines(said.embedding, [first[1]])[0])
            yield shown, f"{score:.4f}", {"against": first[0], "similarity": score}, True


def main(args: Args) -> int:
    """Print the answers.

    Raises:
        FileNotFoundError, LookupError, ValueError: no such head, upstream, corpus or file, or ones
            that do not go together.
        BadDataError: some audio could not be used; the rest was answered.
    """
    from mynah.recipes.errors import BadDataError
    from mynah.recipes.listening import open_listener

    asked = gathered(args)
    listener = open_listener(
        args.head,
        upstream=args.upstream,
        seed=args.upstream_seed,
        precision=args.precision,
        device=args.device,
    )
    failed = []
    for shown, text, more, usable in answers(listener, asked, args.out):
        if args.json:
            line = json.dumps(
                {"audio": shown, "task": listener.card.task, **more}, ensure_ascii=False
            )
            sys.stdout.write(f"{line}\n")
        elif usable:
            sys.stdout.write(f"{shown}\t{text}\n")
        sys.stdout.flush()
        if not usable:
            failed.append(text)
    if failed:
        listed = "\n  ".join(failed)
        raise BadDataError(f"{len(failed)} of {len(asked)} could not be used:\n  {listed}")
    return 0
