"""A prepared corpus: a folder of lhotse manifests and a page that says what is in it.

``recordings.jsonl.gz`` and ``supervisions.jsonl.gz`` load in lhotse as they are; ``corpus.json``
names the corpus, its version, its splits, and what had to be left out and why. The same utterances
give the same bytes. Audio inside the folder is named relative to it, audio elsewhere by its
absolute path.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mynah.files import write_bytes, write_text
from mynah.tasks.corpora import manifest
from mynah.tasks.corpora.audio import BadAudioError, file_digest, probe, span
from mynah.tasks.corpora.facts import facts
from mynah.tasks.corpora.manifest import ManifestError
from mynah.tasks.corpora.official.core import trials as trial_list
from mynah.tasks.corpora.official.core.trials import Trial
from mynah.tasks.corpora.utterance import Utterance

FORMAT = 1
RECORDINGS = "recordings.jsonl.gz"
SUPERVISIONS = "supervisions.jsonl.gz"
PAGE = "corpus.json"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A prepared corpus; ``Corpus.open(folder)`` reads one, ``write_corpus`` makes one.

    Attributes:
        folder: absolute.
        name: for tables.
        version: sha256 of the utterances, their labels, the bytes of their audio, wherever that
            lies, and the list of trials, where there is one.
        skipped: what the source holds but could not be used: id -> reason.
        page: all of ``corpus.json``.
    """

    folder: Path
    name: str
    version: str
    skipped: Mapping[str, str]
    page: Mapping[str, Any]
    _loaded: list[Utterance] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """Open a prepared corpus; the manifests are read when utterances are first asked for.

        Raises:
            FileNotFoundError: the folder holds no prepared corpus, or is a file.
            ManifestError: ``corpus.json`` is damaged or of another format.
        """
        folder = Path(folder).absolute()
        try:
            text = (folder / PAGE).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            if folder.is_file():
                raise FileNotFoundError(
                    f"{folder} is a file: give the folder, {folder.parent}"
                ) from error
            raise FileNotFoundError(
                f"{folder} holds no {PAGE}: make a corpus of your audio with "
                "`mynah prepare NAME SOURCE OUT`"
            ) from error
        try:
            page = json.loads(text)
            if page["format"] != FORMAT:
                raise ManifestError(
                    f"{folder / PAGE}: format {page['format']}, this version reads {FORMAT}; "
                    "prepare the corpus again"
                )
            return cls(
                folder=folder,
                name=page["name"],
                version=page["version"],
                skipped=page["skipped"],
                page=page,
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ManifestError(f"{folder / PAGE} is damaged: {error!r}") from error

    def utterances(self, split: str | None = None) -> list[Utterance]:
        """Return the utterances in order of their ids, all or those of one split.

        Raises:
            LookupError: no utterance is in that split.
            ManifestError: a manifest is damaged, or not the one that ``corpus.json`` speaks of.
        """
        if not self._loaded:
            rows = {name: self._rows(name) for name in (RECORDINGS, SUPERVISIONS)}
            self._loaded.extend(
                manifest.utterances(
                    manifest.parse(RECORDINGS, rows[RECORDINGS]),
                    manifest.parse(SUPERVISIONS, rows[SUPERVISIONS]),
                    self.folder,
                )
            )
        if split is None:
            return list(self._loaded)
        chosen = [u for u in self._loaded if u.split == split]
        if not chosen:
            raise LookupError(
                f"corpus {self.name} has no split {split!r}; it has: "
                f"{', '.join(self.splits) or 'no splits'}"
            )
        return chosen

    def trials(self) -> list[Trial]:
        """Return the corpus' own list of trials for speaker verification, empty where it has none.

        Raises:
            ManifestError: ``trials.tsv`` is missing or damaged, or not the one that ``corpus.json``
                speaks of.
        """
        path = self.folder / trial_list.TRIALS
        listed = self.page.get("extra", {}).get("trials", {}).get("sha256")
        if listed is None and not path.exists():
            return []
        try:
            found = trial_list.load(self.folder)
        except (FileNotFoundError, ValueError) as error:
            raise ManifestError(f"{error}; prepare the corpus again") from error
        if hashlib.sha256(trial_list.dump(found)).hexdigest() != listed:
            raise ManifestError(
                f"{path} is not the file that {PAGE} speaks of (damaged, edited, or of another "
                "corpus); prepare the corpus again, or remove it if the corpus has no trials"
            )
        return found

    def _rows(self, name: str) -> bytes:
        path = self.folder / name
        packed = path.read_bytes()
        if hashlib.sha256(packed).hexdigest() != self.page["manifests"].get(name):
            raise ManifestError(
                f"{path} is not the file that {PAGE} speaks of (damaged, edited, or a preparation "
                "that was cut off); prepare the corpus again"
            )
        return gzip.decompress(packed)

    def __len__(self) -> int:
        return int(self.page["utterances"])

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.page["splits"])

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of all labels that at least one utterance carries; speaker and text count."""
        return tuple(self.page["labels"])


def write_corpus(
    folder: str | Path,
    utterances: Iterable[Utterance],
    *,
    name: str,
    source: str = "",
    recordings: Mapping[str, str] | None = None,
    skipped: Mapping[str, str] | None = None,
    validation: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Corpus:
    """Write a prepared corpus; its page comes last, so a preparation that is cut off is found out.

    Starts and durations are moved to the nearest sample of their file.

    Args:
        folder: made where it is missing; other files in it stay.
        utterances: in any order; written in order of their ids.
        name: of the corpus, for tables.
        source: where it came from, for people.
        recordings: audio path -> recording id, where the source has such ids; else the id of the
            utterance, or the file's name where it holds several.
        skipped: what had to be left out: id -> reason.
        validation: what was checked and found, kept in the page.
        extra: further facts for the page: synthesiser, seed, licence ..., ``trials`` with the
            ``sha256`` of ``trials.tsv`` where that was written too.

    Raises:
        BadAudioError: a file cannot be read, or an utterance leaves its file.
        ValueError: no utterances, an id twice, an id or label that is empty or holds a control
            character, or a label name that the utterance has an attribute for.
    """
    folder = Path(folder).absolute()
    ordered = sorted(utterances, key=lambda u: u.id)
    _check(ordered)
    paths = sorted({u.path for u in ordered})
    ids = _recording_ids(ordered, recordings or {})
    infos = {path: probe(path) for path in paths}
    for utterance in ordered:
        first, frames = span(utterance)
        info = infos[utterance.path]
        if utterance.sample_rate != info.sample_rate or not utterance.channel < info.channels:
            raise BadAudioError(
                f"{utterance.path}: utterance {utterance.id!r} speaks of {utterance.sample_rate} Hz "
                f"and channel {utterance.channel}, the file has {info.sample_rate} Hz and "
                f"{info.channels} channels"
            )
        if first < 0 or first + frames > info.frames:
            raise BadAudioError(
                f"{utterance.path}: utterance {utterance.id!r} leaves the file: samples {first} to "
                f"{first + frames} of {info.frames}"
            )
    rows = sorted(
        (manifest.recording_row(ids[p], _relative(p, folder), infos[p]) for p in paths),
        key=lambda row: str(row["id"]),
    )
    supervisions = manifest.dump(manifest.supervision_row(u, ids[u.path]) for u in ordered)
    version = hashlib.sha256(supervisions)
    for path in sorted(paths, key=lambda p: ids[p]):
        version.update(f"{ids[path]}\t{file_digest(path)}\n".encode())
    if listed := (extra or {}).get("trials"):
        version.update(f"trials\t{listed['sha256']}\n".encode())
    packed = {
        RECORDINGS: gzip.compress(manifest.dump(rows), compresslevel=6, mtime=0),
        SUPERVISIONS: gzip.compress(supervisions, compresslevel=6, mtime=0),
    }
    page = {
        "format": FORMAT,
        "name": name,
        "version": version.hexdigest(),
        "source": source,
        **facts(ordered, recordings=len(paths)),
        "skipped": dict(sorted((skipped or {}).items())),
        "validation": dict(validation or {}),
        "extra": dict(extra or {}),
        "manifests": {file: hashlib.sha256(data).hexdigest() for file, data in packed.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in packed.items():
        write_bytes(folder / file, data)
    text = json.dumps(page, ensure_ascii=False, indent=1, allow_nan=False)
    write_text(folder / PAGE, f"{text}\n")
    return Corpus.open(folder)


def check_id(text: str) -> str | None:
    """Return what is wrong with an id, None where it can be one: no white space, none unprintable."""
    if not text:
        return "an empty id"
    if any(c.isspace() or not c.isprintable() for c in text):
        return f"id {text!r} holds white space or a control character"
    return None


def check_label(text: str) -> str | None:
    """Return what is wrong with a label's value: a line, tab or other control character."""
    if any(c < " " or "\x7f" <= c < "\xa0" or c in "\u2028\u2029" for c in text):
        return f"{text[:40]!r} holds a control character"
    return None


def _check(utterances: Sequence[Utterance]) -> None:
    if not utterances:
        raise ValueError("a corpus needs at least one utterance")
    reserved = {"speaker", "text", "split"}
    last = None
    for utterance in utterances:
        wrong = check_id(utterance.id)
        values = {"speaker": utterance.speaker, "text": utterance.text, "split": utterance.split}
        for name, value in [*values.items(), *utterance.labels.items()]:
            wrong = wrong or (f"{name}: {error}" if (error := check_label(value or "")) else None)
        if utterance.id == last:
            wrong = "the id is there twice"
        if clash := reserved & utterance.labels.keys():
            wrong = f"{sorted(clash)} belong to the utterance itself, not to its labels"
        if wrong:
            raise ValueError(f"utterance {utterance.id!r}: {wrong}")
        last = utterance.id


def _recording_ids(utterances: Sequence[Utterance], given: Mapping[str, str]) -> Mapping[str, str]:
    users: dict[str, list[str]] = {}
    for utterance in utterances:
        users.setdefault(utterance.path, []).append(utterance.id)
    ids: dict[str, str] = {}
    taken = {given[path] for path in users if path in given}
    for path, names in users.items():
        if path in given:
            ids[path] = given[path]
            continue
        wanted = stem = names[0] if len(names) == 1 else Path(path).stem
        number = 1
        while wanted in taken:
            number += 1
            wanted = f"{stem}#{number}"
        taken.add(wanted)
        ids[path] = wanted
    if len(set(ids.values())) != len(ids):
        raise ValueError("two files have the same recording id")
    return ids


def _relative(path: str, folder: Path) -> str:
    absolute = Path(path).absolute()
    return str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute)
