"""Options of ``mynah prepare``: which source heeds which, and what contradicts what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mynah import registry
from mynah.recipes import official
from mynah.tasks.corpora.official import available

if TYPE_CHECKING:
    from mynah.recipes.prepare import Args

GENERAL = ("mini", "kaldi", "folder", "tsv", "lhotse")
OFFICIAL = tuple(available())

OPTIONS = {  # option -> the sources that heed it; official: all official corpora
    "corpus_name": ("kaldi", "folder", "tsv", "lhotse", "official"),
    "validate": ("kaldi", "folder", "tsv", "lhotse", "official"),
    "quick": ("kaldi", "folder", "tsv", "lhotse", "official"),
    "sounds": ("kaldi", "folder", "tsv", "lhotse", "official"),
    "list_all": ("kaldi", "folder", "tsv", "lhotse", "official"),
    "max_bad": ("kaldi", "folder", "tsv", "lhotse", "official"),
    "jobs": ("mini", "kaldi", "folder", "tsv", "lhotse", "official"),
    "audio_root": ("kaldi", "folder", "tsv", "lhotse", "official"),
    "channel": ("kaldi", "folder", "tsv", "official"),
    "variant": ("official",),
    "expect": ("official",),
    "strict": ("official",),
    "from_path": ("folder",),
    "rename": ("tsv",),
    "intervals": ("tsv",),
    "split_by": ("kaldi", "folder", "tsv", "lhotse"),
    "held_out": ("kaldi", "folder", "tsv", "lhotse"),
    "dev_held_out": ("kaldi", "folder", "tsv", "lhotse"),
    "splits": ("kaldi", "folder", "tsv", "lhotse"),
    "split_unit": ("kaldi", "folder", "tsv", "lhotse"),
    "split_within": ("kaldi", "folder", "tsv", "lhotse"),
    "stretch": ("kaldi", "folder", "tsv", "lhotse"),
    "size": ("mini",),
    "level": ("mini",),
    "backend": ("mini",),
}


def check(args: Args) -> None:
    """Refuse options that would do nothing or contradict one another.

    Raises:
        LookupError: no such source.
        ValueError: options that do not go together.
    """
    if args.name not in (*GENERAL, *OFFICIAL):
        raise LookupError(registry.unknown("corpus", args.name, (*GENERAL, *OFFICIAL)))
    kind = "official" if args.name in OFFICIAL else args.name
    defaults = {f: type(args).__dataclass_fields__[f].default for f in OPTIONS}
    for option, sources in OPTIONS.items():
        if getattr(args, option) != defaults[option] and kind not in sources:
            flag = option.replace("_", "-")
            meant = ", ".join("official corpora" if s == "official" else s for s in sources)
            raise ValueError(f"--{flag} is for {meant} and does nothing for {args.name}")
    if kind == "official":
        official.choose(args.name, args.variant)
    if args.sounds and args.quick:
        raise ValueError("--sounds needs decoded audio: leave out --quick")
    if args.strict and args.expect != "published":
        raise ValueError("--strict compares with the published sizes: leave out --expect none")
    ways = {
        "--split-by": args.split_by,
        "--held-out": args.held_out or args.dev_held_out,
        "--splits": args.splits,
    }
    if len(given := [name for name, value in ways.items() if value]) > 1:
        raise ValueError(f"{' and '.join(given)} are different ways to split; give one")
    if args.split_unit != defaults["split_unit"] and not args.splits:
        raise ValueError("--split-unit needs --splits")
    if args.split_within and not args.splits:
        raise ValueError("--split-within needs --splits")
    if args.split_within and args.split_unit != defaults["split_unit"]:
        raise ValueError("--split-unit and --split-within contradict one another; give one")
    if args.split_within and args.seed:
        raise ValueError("--split-within keeps the corpus' order: there is nothing for --seed")
    if args.seed and not args.splits and args.name != "mini":
        raise ValueError("--seed needs --splits")
    if not 0 <= args.max_bad < 1:
        raise ValueError(f"--max-bad must be in 0..1, got {args.max_bad}")
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {args.jobs}")
    if args.name == "mini":
        if args.out is not None:
            raise ValueError("the embedded corpus needs no source: mynah prepare mini OUT")
    elif args.validate == (args.out is not None):
        raise ValueError(
            "give a folder to write: mynah prepare NAME SOURCE OUT"
            if args.out is None
            else "--validate writes nothing: leave out the folder to write"
        )


def values(options: tuple[str, ...]) -> dict[str, list[str]]:
    """Read LABEL=VALUE,VALUE, repeated; returns values by label.

    Raises:
        ValueError: another form.
    """
    found: dict[str, list[str]] = {}
    for option in options:
        label, equals, values = option.partition("=")
        if not label or not equals or not values:
            raise ValueError(f"wanted LABEL=VALUE,VALUE, got {option!r}")
        found.setdefault(label, []).extend(values.split(","))
    return found
