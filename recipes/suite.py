"""``mynah suite OUT``: the embedded corpus, ready for every task, and which part serves which.

A suite is a YAML file beside the corpora::

    pr: [mini]
    sd: [diarization]

Task -> prepared corpora, relative to the file. ``mynah bench SPEC --suite OUT/suite.yaml`` runs all
of it. Write your own for other corpora.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

FILE = "suite.yaml"
PAIRS = 8  # mixtures for separation, for each one for enhancement
EMBEDDED = {  # task -> folder beside the file
    **dict.fromkeys(
        ("ks", "ic", "sid", "er", "pr", "asr", "ood_asr", "sf", "st", "asv", "qbe"), "mini"
    ),
    "sd": "diarization",
    "se": "enhancement",
    "ss": "separation",
}


@dataclass(frozen=True, kw_only=True)
class Args:
    """Make the embedded corpus and mixtures of it, one suite for every task."""

    out: Annotated[Path, Positional]
    """Folder to write."""
    size: Literal["tiny", "small", "medium", "large"] = "small"
    """How much to synthesise."""
    backend: Literal["espeak", "formant"] = "espeak"
    """The synthesiser; ``formant`` needs nothing installed and sounds worse."""
    mixtures: int = 90
    """Mixtures for enhancement; for diarization a third as many, but longer, and for separation
    eight times as many: a head that has heard a few dozen learns them by heart."""
    seed: int = 0
    """Of the corpus and the mixtures."""


def read_suite(path: Path) -> dict[str, list[Path]]:
    """Return task -> corpora of a suite.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a mapping of tasks to lists of folders, or a list of none.
        LookupError: an unknown task.
    """
    import yaml

    from mynah import registry, tasks

    if not path.is_file():
        raise FileNotFoundError(f"no suite {path}; 'mynah suite' makes one of the embedded corpus")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or not data:
        raise ValueError(f"{path} must map tasks to lists of corpora, as 'pr: [mini]'")
    known = tasks.available()
    out = {}
    for name, folders in data.items():
        if name not in known:
            raise LookupError(registry.unknown("task", str(name), known))
        listed = [folders] if isinstance(folders, str) else folders
        if not isinstance(listed, list) or not all(isinstance(f, str) for f in listed):
            raise ValueError(f"{path}: {name} must be a list of folders, got {folders!r}")
        if not listed:
            raise ValueError(f"{path}: {name} names no corpus; give one, or leave the line out")
        out[name] = [path.parent / folder for folder in listed]
    return out


def main(args: Args) -> int:
    """Make what is not there yet, and write the suite.

    Raises:
        ValueError: a folder that holds something else.
    """
    from mynah.recipes import mix
    from mynah.recipes.progress import console
    from mynah.tasks.corpora import mini
    from mynah.tasks.corpora.corpus import PAGE

    args.out.mkdir(parents=True, exist_ok=True)
    corpus = mini.build(args.out / "mini", size=args.size, seed=args.seed, backend=args.backend)
    console.print(f"{corpus.folder}: {len(corpus.utterances())} utterances", markup=False)
    kinds: tuple[tuple[Literal["separation", "enhancement", "diarization"], int], ...] = (
        ("separation", PAIRS * args.mixtures),
        ("enhancement", args.mixtures),
        ("diarization", max(3, args.mixtures // 3)),
    )
    for kind, count in kinds:
        if not (args.out / kind / PAGE).is_file():
            mix.main(
                mix.Args(
                    kind=kind,
                    corpus=corpus.folder,
                    out=args.out / kind,
                    count=count,
                    seed=args.seed,
                )
            )
    write_suite(args.out / FILE, EMBEDDED)
    console.print(f"{args.out / FILE}: {', '.join(EMBEDDED)}", markup=False)
    return 0


def write_suite(path: Path, serves: Mapping[str, str]) -> None:
    """Write which folder beside the file serves which task."""
    from mynah.files import write_text

    lines = [f"{task}: [{folder}]" for task, folder in serves.items()]
    write_text(path, "# task: corpora, relative to this file\n" + "\n".join(lines) + "\n")
