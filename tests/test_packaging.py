"""The package as it is installed: complete, guarded, layered, light."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


def settings(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def folders(root: Path) -> set[str]:
    found = {"mynah"}
    for top in ("upstream", "downstream", "tasks", "recipes"):
        for init in (root / top).rglob("__init__.py"):
            relative = init.parent.relative_to(root)
            if "_mynah" not in relative.parts:
                found.add("mynah." + ".".join(relative.parts))
    return found


def test_packages_list_equals_folders(root: Path) -> None:
    listed = settings(root)["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(folders(root))


def test_every_folder_with_python_is_a_package(root: Path) -> None:
    for top in ("upstream", "downstream", "tasks", "recipes"):
        for file in (root / top).rglob("*.py"):
            if "_mynah" not in file.parts:
                assert (file.parent / "__init__.py").exists(), file


@pytest.mark.parametrize("name", ["upstream", "downstream", "tasks", "recipes"])
def test_bare_import_is_refused(root: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert f"write 'import mynah.{name}'" in done.stderr


def test_import_is_light() -> None:
    code = (
        "import sys, mynah.upstream, mynah.downstream, mynah.tasks, mynah.recipes.cli as c;"
        "mynah.upstream.available(); c.usage();"
        "heavy = {'torch','numpy','tyro','rich','lhotse','librosa'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_module_imports_without_the_extras(root: Path) -> None:
    """Every module imports with transformers, espeak and gradio absent, and defines a docstring."""
    names = []
    for package in folders(root) - {"mynah"}:
        folder = root / Path(*package.split(".")[1:])
        names += [f"{package}.{f.stem}" for f in folder.glob("*.py") if f.stem != "__init__"]
    code = (
        "import sys, importlib\n"
        "for extra in ('transformers', 'espeakng_loader', 'gradio', 'torchmetrics', 'pytest'):\n"
        "    sys.modules[extra] = None\n"
        f"for name in {sorted(names)!r}:\n"
        "    assert importlib.import_module(name).__doc__, name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(names) > 30


def test_dependencies_are_pinned_in_constraints(root: Path) -> None:
    def key(text: str) -> str:
        for mark in "=<>;[! ":
            text = text.partition(mark)[0]
        return text.strip().lower().replace("_", "-")

    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {key(line) for line in lines if "==" in line}
    wanted = {key(d) for d in settings(root)["project"]["dependencies"]}
    assert len(wanted) >= 20
    assert wanted <= pinned
    assert "torch==2.11.0" in lines
    assert "torchaudio==2.11.0" in lines


def test_users_seven_packages_are_dependencies_and_used(root: Path) -> None:
    declared = " ".join(settings(root)["project"]["dependencies"])
    imports = {
        "torch": "torch", "torchaudio": "torchaudio", "librosa": "librosa",
        "soundfile": "soundfile", "s3prl": "s3prl", "scikit-learn": "sklearn", "jiwer": "jiwer",
    }  # fmt: skip
    sources = "\n".join(
        f.read_text(encoding="utf-8")
        for top in ("upstream", "downstream", "tasks", "recipes")
        for f in (root / top).rglob("*.py")
    )
    for package, module in imports.items():
        assert package in declared
        assert f"import {module}" in sources or f"from {module}" in sources, module


def test_files_stay_readable(root: Path) -> None:
    for top in ("upstream", "downstream", "tasks", "recipes"):
        for file in (root / top).rglob("*.py"):
            lines = len(file.read_text(encoding="utf-8").splitlines())
            assert lines <= 500, f"{file} has {lines} lines: one idea per file, 100-350 lines"


def test_shipped_files_are_small_and_no_links(root: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-s"], cwd=root, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not listed:
        pytest.skip("not a git checkout")
    for line in listed:
        mode, _, rest = line.split(" ", 2)
        path = root / rest.split("\t", 1)[1]
        assert mode != "120000", f"{path} is a symbolic link"
        if path.exists():
            assert path.stat().st_size < 250_000, path


@pytest.mark.parametrize("top", ["upstream", "downstream", "tasks"])
def test_registry_lists_files(root: Path, top: str) -> None:
    package = importlib.import_module(f"mynah.{top}")
    stems = {f.stem for f in (root / top).glob("*.py")} - {"__init__"}
    assert set(package.available()) == stems
    assert len(stems) >= 2
    with pytest.raises(LookupError, match="Available:"):
        package.get("nonexistent")
