"""A folder of audio files; labels may be read off their paths."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from mynah.tasks.corpora.corpus import check_label
from mynah.tasks.corpora.rows import Problems, Row, audio_roots, locate

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".sph", ".w64")  # fmt: skip


def read(
    source: str | Path,
    problems: Problems,
    *,
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
    from_path: Sequence[str] = (),
) -> list[Row]:
    """Find the audio files of a folder and its sub-folders; links to folders are not entered.

    Args:
        source: the folder. A file's id is its path in it, without suffix, ``/`` and white space
            turned into ``-`` and ``_``.
        problems: receives what is wrong.
        audio_root: folders, besides the source, that linked files may lie in.
        channel: of all files.
        from_path: ``LABEL=parent`` (name of the folder that holds the file) or ``LABEL=REGEX``, whose
            first group, searched in the path in the source, is the label; LABEL may be ``speaker``,
            ``text``, ``split`` or any other name.

    Raises:
        NotADirectoryError: the source is no folder.
        FileNotFoundError: it holds no audio file.
        ValueError: a rule of ``from_path`` is malformed.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    rules = [_rule(text) for text in from_path]
    roots = audio_roots(folder, audio_root)
    rows = []
    without: dict[str, list[str]] = {label: [] for label, _ in rules}
    for file in sorted(_files(folder)):
        where = file.encode("utf-8", "backslashreplace").decode()
        name = identifier(where)
        problems.seen.add(name)
        labels = {label: found for label, rule in rules if (found := _match(rule, where))}
        for label in without.keys() - labels.keys():
            without[label].append(where)
        try:
            if any(wrong := check_label(value) for value in labels.values()):
                raise ValueError(str(wrong))
            path = locate(file, folder, roots)
        except ValueError as error:
            problems.blame(where, error, name)
            continue
        rows.append(
            Row(
                id=name,
                where=where,
                path=path,
                channel=channel,
                speaker=labels.pop("speaker", None),
                text=labels.pop("text", None),
                labels=labels,
            )
        )
    for label, files in without.items():
        if files:
            problems.warn(
                str(folder), f"{len(files)} files have no {label} by this rule, as {files[0]}"
            )
    if not rows and not problems.found:
        raise FileNotFoundError(f"{folder} holds no audio file ({', '.join(SUFFIXES)})")
    return rows


def identifier(path: str) -> str:
    """Return an utterance id made of a relative path: ``a b/c.wav`` gives ``a_b-c``."""
    stem = str(Path(path).with_suffix("")).removeprefix("./")
    printable = "".join(c if c.isprintable() else "_" for c in re.sub(r"\s", "_", stem))
    return printable.encode("utf-8", "backslashreplace").decode().replace("/", "-")


def _files(folder: Path) -> list[str]:
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [
            str((Path(root) / file).relative_to(folder))
            for file in files
            if file.lower().endswith(SUFFIXES) and not file.startswith(".")
        ]
    return found


def _rule(text: str) -> tuple[str, re.Pattern[str] | None]:
    label, equals, rule = text.partition("=")
    if not equals or not label or not rule:
        raise ValueError(f"wanted LABEL=parent or LABEL=REGEX, got {text!r}")
    if rule == "parent":
        return label, None
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ValueError(f"{rule!r} is not a regular expression: {error}") from error
    if pattern.groups < 1:
        raise ValueError(f"{rule!r} has no group: put ( ) around what is the {label}")
    return label, pattern


def _match(rule: re.Pattern[str] | None, path: str) -> str:
    if rule is None:
        return Path(path).parent.name
    found = rule.search(path)
    return (found.group(1) or "") if found else ""
