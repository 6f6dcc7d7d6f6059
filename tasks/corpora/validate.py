"""From rows to utterances: every file is opened, and every problem is listed, not only the first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from mynah.tasks.corpora import hearing
from mynah.tasks.corpora.audio import AudioInfo, BadAudioError, probe, read
from mynah.tasks.corpora.rows import Problems, Row
from mynah.tasks.corpora.utterance import Interval, Utterance

CLIP_SECONDS = 0.01
"""A segment may end this much after its recording: files of segments keep hundredths of a second."""

Track = Callable[[Sequence[Utterance]], Iterable[Utterance]]


def validate(
    rows: Sequence[Row],
    problems: Problems,
    *,
    decode: bool = True,
    jobs: int | None = None,
    sounds: bool = False,
    track: Track | None = None,
) -> list[Utterance]:
    """Hold rows against their audio.

    Args:
        rows: from an importer.
        problems: receives what is wrong; it already holds the importer's findings.
        decode: decode every utterance, which finds damage and NaN; else only headers are read.
        jobs: threads that decode; None for one per core, 8 at most.
        sounds: note where there is sound, as the tier ``sounds``, of what is decoded.
        track: wraps the utterances to show progress.

    Returns:
        the utterances that can be used, by id, their times on the sample grid. Times of interval
        labels stay.
    """
    rows = _unique(rows, problems)
    spoiled = problems.skipped
    infos: dict[str, AudioInfo | str] = {}
    good: list[tuple[Row, Utterance]] = []
    for row in rows:
        if row.id in spoiled:
            continue
        if row.path not in infos:
            try:
                infos[row.path] = probe(row.path)
            except BadAudioError as error:
                infos[row.path] = str(error)
        info = infos[row.path]
        try:
            if isinstance(info, str):
                raise ValueError(info)
            good.append((row, _utterance(row, info, problems)))
        except ValueError as error:
            problems.error(row.where, str(error), row.id)
    if decode:
        good = _decoded(good, problems, jobs, track, sounds)
    return sorted((utterance for _, utterance in good), key=lambda u: u.id)


def _unique(rows: Sequence[Row], problems: Problems) -> list[Row]:
    first: dict[str, Row] = {}
    twice: set[str] = set()
    for row in rows:
        problems.seen.add(row.id)
        if row.id in first:
            twice.add(row.id)
            problems.error(
                row.where, f"id {row.id!r} is there twice, first at {first[row.id].where}", row.id
            )
        first.setdefault(row.id, row)
    return [row for row in rows if row.id not in twice]


def _utterance(row: Row, info: AudioInfo, problems: Problems) -> Utterance:
    rate = info.sample_rate
    if row.declared_rate is not None and row.declared_rate != rate:
        raise ValueError(f"{row.path}: {rate} Hz, but {row.declared_rate} are declared")
    if row.channel is None and info.channels > 1:
        raise ValueError(
            f"{row.path}: {info.channels} channels; say which to use (--channel N, counted from 0)"
        )
    channel = row.channel or 0
    if not 0 <= channel < info.channels:
        raise ValueError(f"{row.path}: no channel {channel}, it has {info.channels} from 0 on")
    first = round(row.start * rate)
    last = info.frames if row.end is None else round(row.end * rate)
    if row.start < 0:
        raise ValueError(f"{row.path}: starts before the file, at {row.start} s")
    if first >= info.frames or last - info.frames > CLIP_SECONDS * rate:
        raise ValueError(
            f"{row.path}: the segment {row.start}-{row.end} s leaves the file, which lasts "
            f"{info.duration:.3f} s"
        )
    if last > info.frames:
        problems.warn(
            row.where,
            f"{row.id!r} ends {(last - info.frames) / rate:.4f} s after its file and is cut there",
        )
        last = info.frames
    if last <= first:
        raise ValueError(f"{row.path}: {row.start}-{row.end} s holds no sample")
    seconds = (last - first) / rate
    declared = row.declared_seconds
    if declared is not None and not abs(declared - seconds) <= row.tolerance + 1 / rate:
        raise ValueError(f"{row.path}: {seconds:.4f} s, but {declared:g} s are declared")
    labels = dict(row.labels)
    return Utterance(
        id=row.id,
        path=row.path,
        start=first / rate,
        duration=seconds,
        sample_rate=rate,
        channel=channel,
        speaker=row.speaker,
        text=row.text,
        split=labels.pop("split", None),
        labels=labels,
        intervals=row.intervals,
    )


def _decoded(
    pairs: list[tuple[Row, Utterance]],
    problems: Problems,
    jobs: int | None,
    track: Track | None,
    sounds: bool,
) -> list[tuple[Row, Utterance]]:
    """Decode every utterance; in order, whatever the number of threads."""
    utterances = [utterance for _, utterance in pairs]
    good = []
    with ThreadPoolExecutor(jobs or min(8, os.cpu_count() or 1)) as pool:
        findings = pool.map(partial(_listen, sounds=sounds), utterances)
        shown = track(utterances) if track else utterances
        for (row, utterance), _, (error, warning, tier) in zip(pairs, shown, findings, strict=True):
            if error:
                problems.error(row.where, error, row.id)
                continue
            if warning:
                problems.warn(row.where, warning)
            if sounds:
                tiers = {**utterance.intervals, hearing.TIER: tier}
                good.append((row, replace(utterance, intervals=tiers)))
            else:
                good.append((row, utterance))
    return good


def _listen(utterance: Utterance, *, sounds: bool) -> tuple[str, str, tuple[Interval, ...]]:
    """Return what makes an utterance unusable, what is odd about it, and where there is sound."""
    try:
        wav_S = read(utterance, utterance.sample_rate)
    except BadAudioError as error:
        return str(error), "", ()
    peak = float(np.max(np.abs(wav_S)))
    warning = ""
    if peak == 0:
        warning = f"{utterance.path}: digital silence throughout"
    elif peak > 1.001:
        warning = f"{utterance.path}: samples up to {peak:.3g}, louder than full scale"
    return "", warning, hearing.tier(utterance, wav_S) if sounds else ()
