"""The ``mynah`` command: finds the program, parses its arguments, turns errors into exit codes.

Nothing heavy is imported to print help: each program is a module with ``Args`` (a dataclass whose
docstrings are the help) and ``main(args) -> int``, imported when it is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import sys
from collections.abc import Sequence

OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*=")

COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("listing", "upstreams, tasks, heads and commands there are"),
    "info": ("info", "one upstream, task or model: sizes, protocol, sources"),
    "prepare": ("prepare", "make manifests of a corpus, and check its audio"),
    "mix": ("mix", "mixtures of a corpus: for separation, enhancement, diarization"),
    "suite": ("suite", "the embedded corpus, ready for every task"),
    "import": ("import_model", "somebody else's checkpoint as a model folder of ours"),
    "export": ("export", "a model for s3prl, the SUPERB challenge, ONNX, torch.export"),
    "export results": ("export_results", "scores as lm-eval JSON, model-index, LaTeX, Markdown"),
    "pretrain": ("pretrain", "pretrain an upstream on unlabelled audio"),
    "extract": ("extract", "run a frozen upstream over a corpus once and keep its features"),
    "probe": ("probe", "train and score the head of one task on a frozen upstream"),
    "bench": ("bench", "upstreams x tasks, resumable"),
    "predict": ("predict", "what a trained head says of any audio"),
    "judge": ("judge", "score converted speech: distance, words, voice"),
    "pairs": ("pairs", "who is converted to whom: lists for convert and judge vc"),
    "convert": ("convert", "the same words in another voice"),
    "demo": ("demo", "a web page for voice conversion, on this machine"),
    "judge codes": ("judge_codes", "what a converter's codes still say of speaker and words"),
    "judge methods": ("judge_methods", "converters against each other and what bounds them"),
    "vocode": ("vocode", "a corpus beside itself as vocoders say it"),
    "judge vocoders": ("judge_vocoders", "what vocoders cost real speech: copy-synthesis"),
    "gain": ("gain", "what pretraining buys: pretrained against untrained, over seeds"),
    "table": ("table", "scores of a folder of results"),
    "submit": ("submit", "a model's results as the leaderboard takes them"),
    "validate": ("validate", "is a submission whole and right?"),
    "score": ("score", "one number for a model: SUPERB's score and rank, with intervals"),
    "compare": ("compare", "is one model better than another? paired tests, task by task"),
    "profile": (
        "profile",
        "what an upstream costs: parameters, multiply-accumulates, time, memory",
    ),
    "agree": ("agree", "do two folders of results rank upstreams alike?"),
    "report": ("report", "one self-contained HTML page about a folder of results"),
    "leaderboard": ("leaderboard", "a static site over folders of results"),
    "pictures": ("pictures", "reports and leaderboards as PNG: wide, narrow, light, dark"),
    "clusters": ("clusters", "k-means clusters of frames against hand-labelled phones"),
    "check": ("check", "hold anybody's upstream against the contract; parity with others"),
    "speed extract": ("speed_extract", "race our frozen forward against s3prl, HF and torchaudio"),
    "speed probe": ("speed_probe", "race a whole probe against s3prl's"),
    "speed pretrain": (
        "speed_pretrain",
        "race our pretraining steps against HF, torchaudio, s3prl",
    ),
    "speed kmeans": ("speed_kmeans", "race our k-means against scikit-learn and faiss"),
    "speed dtw": ("speed_dtw", "race our query-by-example matching against s3prl's"),
    "speed memory": ("speed_memory", "does memory grow with the corpus?"),
    "speed attention": ("speed_attention", "full against truncated attention, by length"),
    "doctor": ("doctor", "what this environment has and lacks, and what to do"),
}


def usage() -> str:
    """Return the top-level help."""
    from mynah import __version__

    width = max(map(len, COMMANDS)) + 2
    lines = [
        f"mynah {__version__}: speech self-supervised learning and its benchmark.",
        "",
        "usage: mynah COMMAND [ARGUMENTS]      mynah COMMAND --help",
        "",
        *(f"  {name:<{width}}{summary}" for name, (_, summary) in COMMANDS.items()),
        "",
        "exit status: 0 done, 1 a check failed or results are missing, 2 usage or config,",
        "             3 bad data, 4 training diverged, 74 disk, 75 stopped after a checkpoint",
    ]
    return "\n".join(lines)


def resolve(argv: Sequence[str]) -> tuple[str, list[str]] | None:
    """Split the command line into the command's name and its arguments, None where unknown."""
    for words in (2, 1):
        name = " ".join(argv[:words])
        if len(argv) >= words and name in COMMANDS:
            return name, list(argv[words:])
    return None


def gathered(rest: Sequence[str], kind: type) -> list[str]:
    """Return arguments with every key.sub=value right behind the first positional one.

    The parser takes positional arguments in one place only, and people write them in several.

    Args:
        rest: arguments of a command.
        kind: its ``Args``; where that has no ``overrides``, nothing is moved.
    """
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    if "overrides" not in fields:
        return list(rest)
    valued = {f"--{name.replace('_', '-')}" for name, of in fields.items() if of != "bool"}
    moved: list[str] = []
    kept: list[str] = []
    place = None  # behind the first positional argument
    before = ""
    for text in rest:
        value = before.replace("_", "-") in valued
        if not value and OVERRIDE.match(text):
            moved.append(text)
        else:
            kept.append(text)
            if place is None and not value and not text.startswith("-"):
                place = len(kept)
        before = text
    place = len(kept) if place is None else place
    return [*kept[:place], *moved, *kept[place:]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage() + "\n")
        return 0
    if argv[0] in ("-V", "--version"):
        from mynah import __version__

        sys.stdout.write(f"mynah {__version__}\n")
        return 0
    found = resolve(argv)
    if found is None:
        from mynah import registry

        given = " ".join(argv[:2]) if argv[0] == "speed" else argv[0]
        sys.stderr.write(registry.unknown("command", given, COMMANDS) + "\n")
        return 2
    name, rest = found
    return run(name, rest)


def run(name: str, rest: list[str]) -> int:
    """Parse the arguments of one command, run it, and map what it raises to an exit status."""
    import tyro

    from mynah.recipes import errors
    from mynah.recipes.conversion import families

    families.register()
    module = importlib.import_module(f"mynah.recipes.{COMMANDS[name][0]}")
    try:
        args = tyro.cli(
            module.Args,
            prog=f"mynah {name}",
            args=gathered(rest, module.Args),
            description=module.Args.__doc__,
        )
        status: int = module.main(args)
        return status
    except KeyboardInterrupt:
        sys.stderr.write("mynah: interrupted\n")
        return 130
    except BrokenPipeError:  # the reader of our output went away, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        code = errors.exit_code(error)
        if code is None or os.environ.get("MYNAH_DEBUG"):
            raise
        sys.stderr.write(f"mynah {name}: {errors.said(error)}\n")
        return code
