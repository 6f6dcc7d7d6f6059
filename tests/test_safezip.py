"""Zips that lie are refused with the reason, and nothing is written."""

from __future__ import annotations

import io
import random
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mynah.recipes import cli
from mynah.recipes.submission import safezip


def zipped_with(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in entries:
            archive.writestr(info, data)
    return path


def named(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    return info


def of_mode(mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("a.txt")
    info.external_attr = mode << 16
    return info


def refused(path: Path, reason: str) -> None:
    with pytest.raises(safezip.UnsafeZipError, match=reason):
        safezip.read(path)


def test_an_honest_zip(tmp_path: Path) -> None:
    files = {"predict/a.txt": b"1\n", "predict/b.h5": bytes(range(256)) * 9, "empty": b""}
    path = zipped_with(tmp_path / "x.zip", ("predict/", b""), *files.items())
    assert safezip.read(path) == files
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = b"a comment, PK\3\4"
        for name, data in files.items():
            archive.writestr(name, data)
    assert safezip.read(path) == files
    with zipfile.ZipFile(path, "w") as archive, archive.open("a", "w", force_zip64=True) as file:
        file.write(b"with sizes of 64 bits")
    assert safezip.read(path) == {"a": b"with sizes of 64 bits"}
    stream = io.BytesIO()
    with zipfile.ZipFile(Forward(stream), "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        archive.writestr("a", b"sizes come after the data")
        archive.writestr("b", b"as in a stream")
    path.write_bytes(stream.getvalue())
    assert safezip.read(path) == {"a": b"sizes come after the data", "b": b"as in a stream"}


class Forward:
    """A file that cannot be sought, as a pipe."""

    def __init__(self, inner: io.BytesIO) -> None:
        self.write, self.flush = inner.write, inner.flush


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../x.txt", "leads out of the folder"),
        ("predict/../../x.txt", "leads out of the folder"),
        ("/etc/x.txt", "absolute name"),
        ("//server/x.txt", "absolute name"),
        ("\\\\server\\x.txt", "absolute name"),
        ("C:/x.txt", "absolute name"),
        ("..\\x.txt", "characters that no file name"),
        ("a\\b.txt", "characters that no file name"),
        ("a\nb.txt", "characters that no file name"),
        ("a\x1b[2Jb.txt", "characters that no file name"),
        ("a.txt:stream", "characters that no file name"),
        ("a//b.txt", "empty, or begins or ends"),
        ("./a.txt", "empty, or begins or ends"),
        ("a /b.txt", "empty, or begins or ends"),
        ("a.txt.", "empty, or begins or ends"),
        ("a.txt ", "empty, or begins or ends"),
        ("a.\u200btxt", "invisible characters"),
        ("a\u202etxt", "invisible characters"),
    ],
)
def test_names_that_lie(tmp_path: Path, name: str, reason: str) -> None:
    path = zipped_with(tmp_path / "x.zip", (named(name), b"1"))
    refused(path, reason)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


def test_a_name_with_a_zero_byte(tmp_path: Path) -> None:
    path = zipped_with(tmp_path / "x.zip", ("a.txt_.exe", b"1"))
    path.write_bytes(path.read_bytes().replace(b"a.txt_.exe", b"a.txt\0.exe"))
    refused(path, "a zero byte in it")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("a.txt", "a.txt", "same or a confusable name"),
        ("a.txt", "A.TXT", "same or a confusable name"),
        ("stra\u00dfe", "STRASSE", "same or a confusable name"),
        ("\u00e9.txt", "e\u0301.txt", "same or a confusable name"),
        ("fi.txt", "\ufb01.txt", "same or a confusable name"),
        ("a", "a/b", "is a file and a folder"),
        ("a", "a/", "same or a confusable name"),
    ],
)
def test_names_that_cannot_both_be(tmp_path: Path, one: str, other: str, reason: str) -> None:
    refused(zipped_with(tmp_path / "x.zip", (one, b"1"), (other, b"")), reason)


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices(tmp_path: Path, mode: int) -> None:
    path = zipped_with(tmp_path / "x.zip", (of_mode(mode | 0o777), b"/etc/passwd"))
    refused(path, "a link or a device")


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.zip"
    refused(zipped_with(path, ("a.txt", bytes(4 * 2**20))), "that is a bomb")
    zipped_with(path, *((f"{i}.txt", bytes([i]) * 100) for i in range(6)))
    monkeypatch.setattr(safezip, "TOTAL_BYTES", 500)
    refused(path, "600 bytes in all; at most 500")
    monkeypatch.setattr(safezip, "MEMBER_BYTES", 99)
    refused(path, "would be 100 bytes; at most 99")
    monkeypatch.setattr(safezip, "FILE_BYTES", 99)
    refused(path, "bytes; at most 99 are read")


def test_a_table_of_contents_that_is_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.zip"
    many = [(f"{i}.txt", b"") for i in range(30)]
    zipped_with(path, *many)
    whole = path.read_bytes()
    monkeypatch.setattr(safezip, "MEMBERS", 29)
    refused(path, "30 entries; at most 29")
    at = whole.rfind(b"PK\5\6")
    few = whole[: at + 8] + struct.pack("<2H", 1, 1) + whole[at + 12 :]
    path.write_bytes(few)  # says that it is one entry, and is thirty
    refused(path, "30 entries; at most 29")
    monkeypatch.setattr(safezip, "DIRECTORY_BYTES", 1000)
    refused(path, "a table of contents of .* bytes; at most 1000")


def flip(data: bytes, at: int, new: bytes) -> bytes:
    assert data[at : at + len(new)] != new
    return data[:at] + new + data[at + len(new) :]


def table(data: bytes) -> int:
    """Return where the table of contents begins."""
    return int(struct.unpack_from("<L", data, data.rfind(b"PK\5\6") + 16)[0])


def overlapping(data: bytes) -> bytes:
    """Let the second entry of the table begin within the first one's data, which looks like one."""
    second = data.rfind(b"PK\1\2")
    inner = data.find(b"PK\3\4", 4)
    return flip(data, second + 42, struct.pack("<L", inner))


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no zip": (lambda d: b"PK but no zip", "no table of contents"),
    "nothing": (lambda d: b"", "no table of contents"),
    "cut off": (lambda d: d[:-30], "something else comes before"),
    "data changed": (lambda d: flip(d, d.index(b"hello"), b"jello"), "is damaged: Bad CRC"),
    "encrypted": (lambda d: flip(d, table(d) + 8, b"\1"), "is encrypted"),
    "other compression": (lambda d: flip(d, table(d) + 10, b"\x0c"), "neither stored nor"),
    "longer than it is": (lambda d: flip(d, table(d) + 24, b"\x40"), "damaged|not as long"),
    "two names": (lambda d: flip(d, 30, b"b"), "differ"),
    "header gone": (lambda d: flip(d, 0, b"XX"), "it has no header"),
    "something before": (lambda d: b"#!/bin/sh\n" + d, "something else comes before"),
    "entries overlap": (overlapping, "overlap"),
    "beyond the end": (lambda d: flip(d, d.rfind(b"PK\1\2") + 42, b"\xff\xff\xff\x7f"), "damaged|no header"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_bytes_that_lie(tmp_path: Path, name: str) -> None:
    damage, reason = DAMAGES[name]
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        inner = zipped_with(tmp_path / "inner.zip", ("b", b"1")).read_bytes()
        archive.writestr("a", b"hello " + inner)
        archive.writestr("b", b"2")
    path.write_bytes(damage(path.read_bytes()))
    refused(path, reason)


def test_entries_that_overlap_the_table(tmp_path: Path) -> None:
    path = zipped_with(tmp_path / "x.zip", ("a", b""))
    data = path.read_bytes()
    path.write_bytes(flip(data, data.index(b"PK\1\2") + 20, struct.pack("<L", 40)))
    refused(path, "overlaps the table of contents")


def test_any_flipped_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    path = zipped_with(tmp_path / "x.zip", ("p/a", b"1" * 90), ("p/b", b"hello"), ("p/c", b""))
    whole, values = path.read_bytes(), set(safezip.read(path).values())
    chance = random.Random(0)
    for at in range(len(whole)):
        path.write_bytes(flip(whole, at, bytes([whole[at] ^ chance.randrange(1, 256)])))
        try:
            found = safezip.read(path)
        except safezip.UnsafeZipError:
            continue
        assert set(found.values()) <= values, at
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zip"]


def test_other_kinds_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        safezip.read(tmp_path / "none.zip")
    with pytest.raises(FileNotFoundError, match="no such file"):
        safezip.read(tmp_path)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.txt", b"1" * 100)
    refused(path, "neither stored nor deflated")
    refused(zipped_with(path), "is empty")
    assert cli.main(["validate", str(path), "--against", str(tmp_path)]) == 2
    assert "is empty" in capsys.readouterr().err
