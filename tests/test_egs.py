"""The corpus recipes: what their dry runs would do are commands that exist, with options that parse."""

import importlib
import shlex
import subprocess
from pathlib import Path

import pytest
import tyro

from mynah.recipes import cli

ROOT = Path(__file__).resolve().parents[1]


def dry_run(name: str, *options: str) -> list[list[str]]:
    """Return the commands of a dry run, word by word."""
    done = subprocess.run(
        ["bash", str(ROOT / "egs" / name / "run.sh"), "--dry-run", "true", *options],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith("==")]
    return [
        shlex.split(
            line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)").replace("$", "\\$")
        )
        for line in lines
    ]


def parsed(words: list[str]) -> object:
    """Parse a command as ``mynah`` would."""
    start = words.index("mynah") + 1
    command = cli.resolve(words[start:])
    assert command is not None, words
    name, rest = command
    module = importlib.import_module(f"mynah.recipes.{cli.COMMANDS[name][0]}")
    return tyro.cli(module.Args, args=rest)


def test_librispeech(tmp_path: Path) -> None:
    options = ["--corpus", "LS", "--parts", "train-clean-100 dev-clean", "--exp", str(tmp_path)]
    commands = dry_run("librispeech", *options, "--model", "hubert/base", "--iterations", "2")
    assert [words[1] for words in commands] == ["prepare", "prepare", "pretrain", "check"]
    for words in commands:
        parsed(words)
    launched = dry_run("librispeech", *options, "--gpus", "4", "--stage", "2", "--stop-stage", "2")
    assert launched[0][:4] == ["torchrun", "--nproc-per-node", "4", "-m"]
    parsed(launched[0])


def test_fsdd(tmp_path: Path) -> None:
    commands = dry_run("fsdd", "--corpus", "fsdd", "--exp", str(tmp_path), "--seeds", "0 1")
    assert [words[1] for words in commands] == ["prepare", "gain"]
    for words in commands:
        parsed(words)


@pytest.mark.parametrize("name", ["librispeech", "fsdd"])
def test_what_is_missing_or_unknown_is_said(name: str) -> None:
    script = str(ROOT / "egs" / name / "run.sh")
    without = subprocess.run(["bash", script], capture_output=True, text=True)
    assert without.returncode == 2
    assert "--corpus is needed" in without.stderr
    unknown = subprocess.run(["bash", script, "--nope", "1"], capture_output=True, text=True)
    assert unknown.returncode == 2
    assert "--stop-stage" in unknown.stderr
