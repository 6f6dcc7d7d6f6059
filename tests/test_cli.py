"""The command line as a user meets it."""

import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from mynah.recipes import cli, errors, extract, pretrain


def mynah(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mynah", *args], capture_output=True, text=True)


def test_help_names_every_command() -> None:
    done = mynah("--help")
    assert done.returncode == 0
    for name in cli.COMMANDS:
        assert f"  {name}" in done.stdout


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_each_command_explains_itself_without_torch(name: str) -> None:
    code = (
        "import sys\nfrom mynah.recipes import cli\n"
        "try:\n    cli.main(sys.argv[1:])\n"
        "except SystemExit as e:\n    assert e.code == 0, e.code\n"
        "assert 'torch' not in sys.modules, 'help imported torch'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *name.split(), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "usage: mynah" in done.stdout


def test_unknown_command_suggests() -> None:
    done = mynah("tabel")
    assert done.returncode == errors.USAGE
    assert "Closest: table" in done.stderr


@pytest.mark.parametrize(
    ("given", "model", "overrides"),
    [
        (
            "apc/tiny a.b=1 --corpus C c.d=2 --out X e.f=[3]",
            "apc/tiny",
            ["a.b=1", "c.d=2", "e.f=[3]"],
        ),
        ("--resume a.b=1 --corpus C --out X apc/tiny", "apc/tiny", ["a.b=1"]),
        ("--corpus C --out a.b=1 apc/tiny --no-resume width=2", "apc/tiny", ["width=2"]),
        ("apc/tiny --corpus C --out=X --speaker a=b", "apc/tiny", []),
    ],
)
def test_overrides_may_stand_anywhere(given: str, model: str, overrides: list[str]) -> None:
    args = tyro.cli(pretrain.Args, args=cli.gathered(given.split(), pretrain.Args))
    assert args.model == model
    assert args.overrides == tuple(overrides)
    assert args.corpus == (Path("C"),)
    assert cli.gathered(["--key", "v", "a=b", "w"], extract.Args) == ["--key", "v", "a=b", "w"]


def test_unknown_option_is_usage() -> None:
    assert mynah("table", "x", "--fromat", "csv").returncode == errors.USAGE


def test_user_errors_are_one_line() -> None:
    done = mynah("table", "/nonexistent/results")
    assert done.returncode == errors.USAGE
    assert "Traceback" not in done.stderr
    assert "mynah probe" in done.stderr


def test_list_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "upstreams", "--markdown"]) == 0
    shown = capsys.readouterr().out
    for name in ("fbank", "apc", "mockingjay", "wav2vec2"):
        assert f"`{name}`" in shown
    assert "tiny" in shown
    assert cli.main(["info", "ks"]) == 0
    assert "protocol superb" in capsys.readouterr().out
    assert cli.main(["info", "apc/tiny"]) == 0
    assert "hidden states" in capsys.readouterr().out
    assert cli.main(["info", "apcc"]) == errors.USAGE
    assert "Closest: apc" in capsys.readouterr().err


def test_doctor_is_content_with_the_test_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert "Ready." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("pretrain apc/tiny --steps 2", "--corpus"),
        ("gain apc/tiny", "--corpus"),
        ("judge vocoders --corpus nowhere", "--vocoder"),
    ],
)
def test_an_option_that_may_be_repeated_and_is_needed_is_asked_for(
    command: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command.split(), "--out", str(tmp_path / "out")]) == errors.USAGE
    assert f"{option} is missing: give {option} " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_exit_codes() -> None:
    import errno

    assert errors.exit_code(errors.BadDataError("x")) == 3
    assert errors.exit_code(errors.DivergedError("x")) == 4
    assert errors.exit_code(OSError(errno.ENOSPC, "full")) == 74
    assert errors.exit_code(LookupError("x")) == 2
    assert errors.exit_code(IsADirectoryError(errno.EISDIR, "x")) == 2
    for defect in (AttributeError("x"), KeyError("x"), IndexError("x")):
        assert errors.exit_code(defect) is None


def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x-seed0.json").mkdir()
    assert cli.main(["table", str(tmp_path)]) == errors.USAGE
    assert capsys.readouterr().err == f"mynah table: {tmp_path}/x-seed0.json: Is a directory\n"
    args = ["pretrain", "apc/tiny", "--corpus", str(tmp_path), "--out", str(tmp_path / "run")]
    assert cli.main([*args, "--config", str(tmp_path)]) == errors.USAGE
    assert capsys.readouterr().err == f"mynah pretrain: {tmp_path}: Is a directory\n"


@pytest.mark.parametrize("defect", [KeyError("hidden"), IndexError("list index out of range")])
def test_a_defect_of_ours_is_no_usage_line(
    defect: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(args: object) -> int:
        raise defect

    monkeypatch.setattr("mynah.recipes.table.main", fails)
    with pytest.raises(type(defect)):
        cli.main(["table", "x"])


def test_a_matrix_stops_where_the_next_cell_would_fail_too() -> None:
    import errno

    gone = FileNotFoundError(errno.ENOENT, "x")
    assert errors.of_one_cell(gone) is gone
    with pytest.raises(PermissionError):
        errors.of_one_cell(PermissionError(errno.EACCES, "x"))
