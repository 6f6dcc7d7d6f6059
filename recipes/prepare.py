"""``mynah prepare NAME SOURCE OUT``: any audio becomes a corpus, or every reason why it cannot."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from mynah.recipes import official
from mynah.recipes.errors import BadDataError
from mynah.recipes.prepare_options import OFFICIAL, OPTIONS, check, values

if TYPE_CHECKING:
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.tasks.corpora.official.core.found import Found
    from mynah.tasks.corpora.rows import Problems, Row
    from mynah.tasks.corpora.utterance import Utterance

SHOWN = 100  # problems that are printed: one cause often spoils every line of a file

Many = Annotated[tuple[str, ...], UseAppendAction]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Make lhotse manifests of a corpus and check its audio; or only check, with --validate.

    mynah prepare mini OUT | kaldi DATA_DIR OUT | folder DIR OUT | tsv MANIFEST_OR_DIR OUT |
    lhotse DIR OUT | NAME_OF_AN_OFFICIAL_CORPUS DIR OUT
    """

    name: Annotated[
        str,
        Positional,
        arg(
            metavar="NAME",
            help="What the source is: mini (the embedded corpus, which needs no source), kaldi, "
            f"folder, tsv, lhotse; or an official corpus as it is unpacked: {', '.join(OFFICIAL)}.",
        ),
    ]
    source: Annotated[str, Positional]
    """Where the audio is described (for mini: the folder to write)."""
    out: Annotated[str | None, Positional] = None
    """Folder to write: recordings.jsonl.gz, supervisions.jsonl.gz, corpus.json."""
    corpus_name: str | None = None
    """Name of the corpus in tables; default: the source's folder, or the official corpus' name."""

    validate: bool = False
    """Check only; write nothing."""
    quick: bool = False
    """Read headers only; damage inside files and NaN samples are not found."""
    sounds: bool = False
    """Note where there is sound: silences are cut out of what asv hears under superb. voxceleb1 does
    so by itself; others need it above ten hours."""
    max_bad: float = 0.0
    """Share of utterances that may be left out; more ends with exit status 3."""
    list_all: bool = False
    """Print every problem, not the first hundred."""
    jobs: int | None = None
    """Threads that decode, processes that synthesise; default one per core (threads: 8 at most)."""

    audio_root: Many = ()
    """A folder, besides the source's own, that audio may lie in; may be repeated."""
    channel: int | None = None
    """Channel of every file, from 0, where the source does not say; needed if files have several."""
    variant: str | None = None
    """Official corpora of several kinds: which, as a language, a version or a task."""
    expect: Literal["published", "none"] = "published"
    """Official corpora: warn of sizes that are not the published ones, or do not compare."""
    strict: bool = False
    """Official corpora: a size that is not the published one is an error (exit status 3)."""

    from_path: Many = ()
    """folder: LABEL=parent or LABEL=REGEX whose group, found in the path, is the label; repeatable."""
    rename: Many = ()
    """tsv: COLUMN=LABEL, as phones_cmudict=phones; repeatable."""

    intervals: Many = ()
    """tsv: TIER=FOLDER of timed labels, one ID.tsv each with start, end, label, as phones=labels, or
    one ID.rttm each, as speakers=rttm."""

    split_by: str | None = None
    """Label whose values are the splits."""
    held_out: Many = ()
    """LABEL=VALUE,VALUE of the test split, as speaker=george; all others train; repeatable."""
    dev_held_out: Many = ()
    """LABEL=VALUE,VALUE of the dev split; repeatable."""
    splits: str | None = None
    """Shares of train, dev and test by seconds, as 0.8,0.1,0.1."""
    split_unit: str = "speaker"
    """With --splits: label that no two splits share; ``utterance`` for none."""
    split_within: str | None = None
    """With --splits: label each of whose values is shared among all splits, as speaker for sid."""
    stretch: float | None = None
    """Cut utterances into stretches of so many seconds first; transcripts are left out."""
    seed: int = 0
    """Of --splits, and of the embedded corpus."""
    size: Literal["tiny", "small", "medium", "large"] = "small"
    """mini: how much to synthesise."""
    level: Literal[0, 1, 2, 3] = 3
    """mini: 0 dry, 1 gain, 2 rooms and equalisation, 3 noise too."""
    backend: Literal["espeak", "formant"] = "espeak"
    """mini: the synthesiser; ``formant`` needs nothing installed and sounds worse."""


def main(args: Args) -> int:
    """Prepare or validate, and print what came of it.

    Raises:
        BadDataError: more utterances are bad than ``max_bad`` allows; the problems were printed.
        ValueError: options that do not go together.
    """
    from mynah.recipes.progress import console

    check(args)
    if args.name == "mini":
        console.print(summary(_mini(args)), markup=False)
        return 0
    utterances, problems, found = examine(args)
    checked = official.Review()
    if found is not None:
        utterances = official.settle(args.name, utterances, problems)
        checked = official.review(
            args.name,
            official.choose(args.name, args.variant),
            found,
            utterances,
            problems,
            published=args.expect == "published",
        )
    _print(problems, everything=args.list_all)
    _judge(args, utterances, problems, {} if found is None else found.left_out)
    if args.strict:
        official.insist(args.name, checked)
    if args.stretch is not None:
        from mynah.tasks.corpora import stretches

        utterances = stretches.cut(utterances, args.stretch)
    utterances = _split(args, utterances)
    if args.validate:
        console.print(
            f"{_counts(utterances, problems)}; nothing written (--validate)", markup=False
        )
        return 0
    corpus = write(args, utterances, problems, checked)
    console.print(summary(corpus), markup=False)
    return 0


def examine(args: Args) -> tuple[list[Utterance], Problems, Found | None]:
    """Read the source and hold it against its audio.

    Returns:
        what is good, what is wrong, and all that the importer of an official corpus found.
    """
    from mynah.recipes.progress import track
    from mynah.tasks.corpora.rows import Problems
    from mynah.tasks.corpora.validate import validate

    problems = Problems()
    found: Found | None = None
    rows: Sequence[Row]
    if args.name in OFFICIAL:
        importer = importlib.import_module(f"mynah.tasks.corpora.official.{args.name}")
        found = importer.read(args.source, problems, **_importer_options(args))
        rows = found.rows
    else:
        importer = importlib.import_module(f"mynah.tasks.corpora.{args.name}")
        rows = importer.read(args.source, problems, **_importer_options(args))
    utterances = validate(
        rows,
        problems,
        decode=not args.quick,
        jobs=args.jobs,
        sounds=args.sounds or getattr(importer, "SOUNDS", False),
        track=lambda items: track(items, "checking audio"),
    )
    return utterances, problems, found


def write(
    args: Args, utterances: list[Utterance], problems: Problems, checked: official.Review
) -> Corpus:
    """Write the corpus to ``args.out``, with the account of what was left out."""
    from mynah.tasks.corpora.corpus import write_corpus

    assert args.out is not None  # checked with the other options
    official.write_trials(args.out, checked.trials)
    return write_corpus(
        args.out,
        utterances,
        name=args.corpus_name or _default_name(args),
        source=f"{args.name}:{args.source}",
        skipped=problems.skipped,
        validation={
            "decoded": not args.quick,
            "seen": len(problems.seen),
            "skipped": len(problems.skipped),
            "errors": len(problems.errors),
            "warnings": len(problems.warnings),
            "max_bad": args.max_bad,
        },
        extra=checked.extra if args.name in OFFICIAL else None,
    )


def summary(corpus: Corpus) -> str:
    """Return what a corpus holds, in a few lines."""
    page = corpus.page
    lines = [
        f"corpus {corpus.name} in {corpus.folder}, version {corpus.version[:12]}",
        f"  {_part(page)} in {page['recordings']} files",
        *(f"  {name}: {_part(part)}" for name, part in page["splits"].items()),
        f"  labels: {_labels(page['labels'], len(corpus)) or 'none'}",
        *([f"  timed: {_labels(page['tiers'], len(corpus))}"] if page.get("tiers") else []),
        *official.lines(page["extra"]),
        f"  skipped: {len(corpus.skipped)}",
    ]
    return "\n".join(lines)


def _part(part: Any) -> str:
    return f"{part['utterances']} utterances, {part['seconds'] / 3600:.3f} h, {part['speakers']} speakers"


def _labels(facts: Mapping[str, Any], total: int) -> str:
    """Return names of labels, how many values they have, and in how many utterances if not all."""
    return ", ".join(
        f"{name} ({one['values']} values"
        + (f" in {one['utterances']}" if one["utterances"] < total else "")
        + ")"
        for name, one in facts.items()
    )


def _counts(utterances: list[Utterance], problems: Problems) -> str:
    return (
        f"{len(problems.seen)} utterances seen, {len(utterances)} good, "
        f"{len(problems.skipped)} bad; {len(problems.errors)} errors, "
        f"{len(problems.warnings)} warnings"
    )


def _print(problems: Problems, *, everything: bool) -> None:
    from mynah.recipes.progress import err

    shown = problems.found if everything else problems.found[:SHOWN]
    for problem in shown:
        err.print(str(problem), markup=False)
    if left := len(problems.found) - len(shown):
        err.print(f"... and {left} more problems: --list-all prints them", markup=False)


def _judge(
    args: Args, utterances: list[Utterance], problems: Problems, left_out: Mapping[str, int]
) -> None:
    strict = args.max_bad == 0 and problems.errors
    if not strict and problems.bad_fraction <= args.max_bad and utterances:
        return
    reasons = "".join(f"\n  left out: {count} ({why})" for why, count in left_out.items())
    if not utterances and not problems.errors:
        raise BadDataError(
            f"{args.source}: no utterance is left{reasons or ', it holds none'}\nIs it the right folder?"
        )
    share = f"{100 * problems.bad_fraction:.2f} %"
    raise BadDataError(
        f"{args.source}: {_counts(utterances, problems)} ({share} bad, --max-bad allows "
        f"{100 * args.max_bad:g} %); mend what is listed above, or allow more{reasons}"
        + (f"\n{hint}" if (hint := problems.hint()) else "")
    )


def _split(args: Args, utterances: list[Utterance]) -> list[Utterance]:
    from mynah.tasks.corpora import splits

    if args.split_by:
        return splits.by_label(utterances, args.split_by)
    if args.held_out or args.dev_held_out:
        return splits.by_holding_out(utterances, values(args.held_out), values(args.dev_held_out))
    if args.splits:
        try:
            shares = [float(share) for share in args.splits.split(",")]
        except ValueError as error:
            raise ValueError(
                f"--splits wants numbers, as 0.8,0.1,0.1; got {args.splits}"
            ) from error
        if args.split_within:
            return splits.by_order(utterances, shares, label=args.split_within)
        return splits.by_proportion(utterances, shares, unit=args.split_unit, seed=args.seed)
    return utterances


def _importer_options(args: Args) -> dict[str, Any]:
    options: dict[str, Any] = {"audio_root": args.audio_root}
    if args.name in OPTIONS["channel"]:
        options["channel"] = args.channel
    if args.name in OFFICIAL:
        options |= {"channel": args.channel, "variant": official.choose(args.name, args.variant)}
    if args.name == "folder":
        options["from_path"] = args.from_path
    if args.name == "tsv":
        options["rename"] = {k: ",".join(v) for k, v in values(args.rename).items()}
        options["intervals"] = {k: ",".join(v) for k, v in values(args.intervals).items()}
    return options


def _default_name(args: Args) -> str:
    if args.name in OFFICIAL:
        return official.title(args.name, official.choose(args.name, args.variant))
    path = Path(args.source).resolve()
    return path.parent.name if path.is_file() and path.name == "manifest.tsv" else path.stem


def _mini(args: Args) -> Corpus:
    from mynah.recipes.progress import bar
    from mynah.tasks.corpora.mini import build

    with bar() as progress:
        task = progress.add_task("synthesising", total=None)
        return build(
            args.source,
            size=args.size,
            seed=args.seed,
            level=args.level,
            backend=args.backend,
            workers=args.jobs,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
