"""The README is the manual: its table, its commands and its code are run."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from mynah.recipes import cli


def read(root: Path, name: str = "README.md") -> str:
    return (root / name).read_text(encoding="utf-8")


def commands(text: str) -> list[list[str]]:
    """Return every ``mynah ...`` line of indented blocks, split as a shell splits."""
    lines = [line.strip() for line in text.splitlines() if line.startswith("    mynah ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_table_is_what_list_prints(root: Path) -> None:
    shown = read(root).split("<!-- mynah list all --markdown -->\n")[1].split("<!-- end -->")[0]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main(["list", "all", "--markdown"]) == 0
    assert shown == out.getvalue()


@pytest.mark.parametrize(
    "name", ["README.md", "BENCHMARKS.md", "upstream/README.md", "recipes/README.md"]
)
def test_commands_exist_with_their_options(root: Path, name: str) -> None:
    lines = commands(read(root, name))
    for words in lines:
        found = cli.resolve(words)
        assert found is not None, words
        command, rest = found
        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as end:
            cli.main([*command.split(), "--help"])
        assert end.value.code == 0
        for word in rest:
            if word.startswith("--"):
                assert re.search(rf"{word}[,\s]", out.getvalue()), f"{command} has no {word}"
    assert lines or name not in ("README.md", "BENCHMARKS.md")


def test_python_blocks_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", read(root), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "torch.Size([4, 2, 49, 192]) [49, 38]" in capsys.readouterr().out


def test_every_folder_has_a_readme(root: Path) -> None:
    for folder in (
        "upstream",
        "downstream",
        "tasks",
        "recipes",
        "egs",
        "tests",
        "tasks/corpora/mini",
    ):
        assert len(read(root, f"{folder}/README.md")) > 300


def test_recipes_of_corpora_are_short_and_list_their_stages(root: Path) -> None:
    scripts = sorted((root / "egs").glob("*/run.sh"))
    assert scripts
    assert "set -euo pipefail" in read(root, "egs/recipe.sh").splitlines()
    for script in scripts:
        lines = script.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 40, script
        assert '. "$(dirname "$0")/../recipe.sh"' in lines
        assert any("--stop-stage" in line for line in lines)
        for line in lines:
            words = line.strip().removeprefix("do_ ").split()
            if words and words[0] == "mynah":
                assert cli.resolve(words[1:]) is not None, line
