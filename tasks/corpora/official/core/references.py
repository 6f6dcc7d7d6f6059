"""Reference signals of an utterance: clean speech, separated sources, as labels that are paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mynah.tasks.corpora.header import AudioInfo, probe
from mynah.tasks.corpora.official.core.found import Collector


def references(collector: Collector, info: AudioInfo, wanted: Mapping[str, Path]) -> dict[str, str]:
    """Return label -> absolute path of each reference, its header checked.

    Args:
        collector: whose audio roots the references must lie in.
        info: header of the utterance's own file.
        wanted: label -> file.

    Raises:
        BadAudioError: a reference is missing or unreadable.
        ValueError: it lies outside all audio roots, or its rate, length or number of channels is
            not the utterance's.
    """
    labels = {}
    for label, file in wanted.items():
        path = collector.locate(file, collector.source)
        found = probe(path)
        mine = (info.sample_rate, info.frames, info.channels)
        theirs = (found.sample_rate, found.frames, found.channels)
        if mine != theirs:
            raise ValueError(
                f"{label} has {theirs[0]} Hz, {theirs[1]} samples, {theirs[2]} channels; the "
                f"utterance has {mine[0]} Hz, {mine[1]} samples, {mine[2]} channels: {path}"
            )
        labels[label] = path
    return labels
