"""``mynah pairs CORPUS OUT``: who is converted to whom, as lists for ``mynah convert`` and ``mynah judge vc``.

Every sentence of every source speaker is converted to every target speaker who has a recording of it to
compare with. OUT receives, for each target, ``convert-SPEAKER.tsv`` (for ``mynah convert --list``: a
converter to one voice needs a list of its own) and one ``judge.tsv`` over all (for ``mynah judge vc``).
For the Voice Conversion Challenge 2020, as SUPERB-SG scores it::

    mynah pairs corpus lists --sources role=source --references role=reference --voices role=target --sentence parallel
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

if TYPE_CHECKING:
    from mynah.tasks.corpora.utterance import Utterance

CONVERT = ("source", "target", "out")
JUDGE = ("converted", "source", "target", "reference", "text", "id", "source_audio")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Write the lists of a corpus of parallel sentences: what to convert, and how it is judged."""

    corpus: Annotated[Path, Positional]
    """Prepared corpus whose speakers say the same sentences."""
    out: Annotated[Path, Positional]
    """Folder of the lists; the conversions that they name lie in it, too."""
    sources: str = "split=test"
    """LABEL=VALUE of the utterances to convert."""
    references: str = "split=test"
    """LABEL=VALUE of the recordings that conversions are compared with; theirs are the targets."""
    voices: str = "split=train"
    """LABEL=VALUE of the recordings of the targets that a converter hears."""
    sentence: str = "text"
    """Label that tells sentences apart."""
    heard: int = 8
    """Recordings of the target that a converter hears, at most."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One conversion.

    Attributes:
        source: what is converted.
        reference: the target's own recording of the sentence.
        voices: what a converter hears of the target.
    """

    source: Utterance
    reference: Utterance
    voices: Sequence[Utterance]

    @property
    def id(self) -> str:
        """Its name: target speaker and source utterance."""
        return f"{self.reference.speaker}/{self.source.id}"


def select(utterances: Iterable[Utterance], wanted: str, option: str) -> list[Utterance]:
    """Return the utterances with a label's value.

    Raises:
        ValueError: not of the form LABEL=VALUE, or nothing has it; names what is there.
    """
    label, found, value = wanted.partition("=")
    if not (label and found and value):
        raise ValueError(f"{option} must be LABEL=VALUE, such as split=test, got {wanted!r}")
    every = list(utterances)
    chosen = [u for u in every if u.label(label) == value]
    if not chosen:
        seen = sorted({v for u in every if (v := u.label(label))})[:12]
        raise ValueError(f"{option} {wanted}: no utterance; {label} is one of {', '.join(seen)}")
    return chosen


def plan(
    sources: Sequence[Utterance],
    references: Sequence[Utterance],
    voices: Sequence[Utterance],
    *,
    sentence: str,
    heard: int,
) -> list[Plan]:
    """Return every conversion: by target, then source speaker, then sentence.

    What a converter hears of a target is never a recording that conversions are compared with.

    Raises:
        ValueError: an utterance without the label or a speaker, or none to convert.
    """
    for u in (*sources, *references):
        if not (u.speaker and u.label(sentence)):
            raise ValueError(f"utterance {u.id} lacks a speaker or the label {sentence!r}")
    said: dict[tuple[str, str], Utterance] = {}
    for u in sorted(references, key=lambda u: u.id):
        said.setdefault((str(u.speaker), str(u.label(sentence))), u)
    compared = {u.id for u in references}
    spoken: dict[str, list[Utterance]] = {}
    for u in sorted(voices, key=lambda u: u.id):
        if u.id not in compared:
            spoken.setdefault(str(u.speaker), []).append(u)
    plans = []
    for target in sorted({speaker for speaker, _ in said}):
        for u in sorted(sources, key=lambda u: (str(u.speaker), u.id)):
            reference = said.get((target, str(u.label(sentence))))
            if reference is None or u.speaker == target:
                continue
            if not spoken.get(target):
                raise ValueError(
                    f"nothing is there that a converter could hear of {target}: --voices and "
                    "--references must be different recordings"
                )
            plans.append(Plan(source=u, reference=reference, voices=spoken[target][:heard]))
    if not plans:
        raise ValueError(f"no two speakers share a sentence (--sentence {sentence})")
    return plans


def write_lists(plans: Sequence[Plan], out: Path) -> list[Path]:
    """Write the lists, whole or not at all; returns their paths.

    Raises:
        ValueError: an utterance that is a part of its file: ``mynah convert`` reads files.
        OSError: the disk is full or refuses.
    """
    from mynah.files import write_text

    out.mkdir(parents=True, exist_ok=True)
    convert: dict[str, list[tuple[str, ...]]] = {}
    judge: list[tuple[str, ...]] = []
    for one in plans:
        for u in (one.source, one.reference, *one.voices):
            if "," in u.path or not is_whole(u):
                raise ValueError(
                    f"{u.id}: lists name whole files whose path has no comma, and this is "
                    f"{u.duration} s of {u.path} from {u.start} s"
                )
        target = str(one.reference.speaker)
        converted = f"converted/{one.id}.wav"
        heard = ",".join(u.path for u in one.voices)
        convert.setdefault(target, []).append((one.source.path, heard, converted))
        judge.append(
            (
                converted,
                str(one.source.speaker),
                target,
                one.reference.path,
                one.source.text or "",
                one.id,
                one.source.path,
            )
        )
    written = []
    for target, rows in sorted(convert.items()):
        written.append(out / f"convert-{target}.tsv")
        write_text(written[-1], table(CONVERT, rows))
    written.append(out / "judge.tsv")
    write_text(written[-1], table(JUDGE, judge))
    return written


def is_whole(u: Utterance) -> bool:
    """Return whether an utterance is all of its file."""
    import soundfile

    seconds = float(soundfile.info(u.path).duration)
    return not u.start and abs(seconds - u.duration) < 0.01


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a tab-separated table."""
    return "".join("\t".join(cells) + "\n" for cells in (head, *rows))


def main(args: Args) -> int:
    """Write the lists.

    Raises:
        ValueError: arguments that name nothing.
        BadDataError: utterances that cannot be paired.
        FileNotFoundError: no such corpus.
    """
    from mynah.recipes.errors import BadDataError
    from mynah.tasks.corpora.corpus import Corpus

    if args.heard < 1:
        raise ValueError(f"--heard must be at least 1, got {args.heard}")
    every = Corpus.open(args.corpus).utterances()
    sources = select(every, args.sources, "--sources")
    references = select(every, args.references, "--references")
    voices = select(every, args.voices, "--voices")
    try:
        plans = plan(sources, references, voices, sentence=args.sentence, heard=args.heard)
        lists = write_lists(plans, args.out)
    except ValueError as error:
        raise BadDataError(f"{args.corpus}: {error}") from error
    targets = sorted({str(one.reference.speaker) for one in plans})
    sys.stdout.write(
        f"{args.out}: {len(plans)} conversions to {', '.join(targets)}; "
        f"{', '.join(path.name for path in lists)}\n"
    )
    return 0
