"""Files and folders that are there whole or not at all."""

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mynah import files
from mynah.recipes import errors


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    files.write_text(tmp_path / "new" / "a.txt", "é\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "é\n".encode()
    with files.replacing(tmp_path / "b") as part:
        part.unlink()
        part.write_bytes(b"1")
        part.chmod(0o600)  # as safetensors does
    for name in ("new/a.txt", "b"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask
    with files.new_folder(tmp_path / "c"):
        pass
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o777 & ~umask


def test_the_umask_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to the whole process: another thread would make files that anybody can write."""

    def refuse(mask: int) -> int:
        raise AssertionError(mask)

    monkeypatch.setattr(os, "umask", refuse)
    files.write_bytes(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    files.write_bytes(path, b"old")
    with pytest.raises(KeyError), files.replacing(path) as part:
        part.write_bytes(b"half")
        raise KeyError
    assert path.read_bytes() == b"old"

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_and_folder_are_flushed_around_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flushed(handle: int) -> None:
        place = Path(f"/proc/self/fd/{handle}").readlink()
        told.append("folder" if place == tmp_path else "file")
        fsync(handle)

    def renamed(*args: object) -> None:
        told.append("rename")
        replace(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    files.write_bytes(tmp_path / "a", b"1")
    assert told == ["file", "rename", "folder"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with files.replacing(path) as one, files.replacing(path) as two:
        assert one != two
        one.write_bytes(b"one")
        two.write_bytes(b"two")
    assert path.read_bytes() == b"one"  # whose block ends last
    wanted = {bytes([value]) * 50_000 for value in range(8)}
    threads = [threading.Thread(target=files.write_bytes, args=(path, data)) for data in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in wanted
    assert list(tmp_path.iterdir()) == [path]


def test_a_long_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 120 + ".json")
    files.write_bytes(path, b"1")
    assert path.read_bytes() == b"1"


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard: list[bytes] = []
    thread = threading.Thread(target=lambda: heard.append(pipe.read_bytes()))
    thread.start()
    files.write_bytes(pipe, b"1")
    thread.join()
    assert heard == [b"1"]
    assert pipe.is_fifo()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with pytest.raises(KeyError), files.new_folder(out) as made:
        (made / "a").write_bytes(b"1")
        raise KeyError
    assert list(out.parent.iterdir()) == []
    with files.new_folder(out) as made:
        (made / "a").write_bytes(b"1")
        files.sync_tree(made)
        assert not out.exists()
    assert (out / "a").read_bytes() == b"1"
    with pytest.raises(OSError, match="not empty"), files.new_folder(out):
        pass
    assert [path.name for path in out.iterdir()] == ["a"]
    assert list(out.parent.iterdir()) == [out]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    with pytest.raises(NotADirectoryError) as caught, files.new_folder(out):
        pass
    assert errors.said(caught.value) == f"{out}: cannot be made: Not a directory"


def test_a_folder_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for name in ("a", "b"):
        with files.new_folder(out, over=True) as made:
            (made / name).write_bytes(b"1")
        assert [path.name for path in out.iterdir()] == [name]
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if target == out and (self / "c").exists():
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="Input/output"), files.new_folder(out, over=True) as made:
        (made / "c").write_bytes(b"1")
    assert [path.name for path in out.iterdir()] == ["b"]  # the old one is back
    assert list(tmp_path.iterdir()) == [out]


def test_what_a_kill_left_is_swept(tmp_path: Path) -> None:
    for name in ("a", "b.json", ".hidden.tmp", ".x.tmp"):
        (tmp_path / name).write_bytes(b"1")
    files.beside(tmp_path / "a").write_bytes(b"half")
    files.beside(tmp_path / "folder").mkdir()
    files.tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".hidden.tmp",
        ".x.tmp",
        "a",
        "b.json",
    ]
    files.tidy(tmp_path / "nowhere")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
