"""What an importer of an official corpus finds, and how it collects it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mynah.tasks.corpora.corpus import check_id, check_label
from mynah.tasks.corpora.official.core.trials import Trial
from mynah.tasks.corpora.rows import Problems, Row, audio_roots, locate
from mynah.tasks.corpora.utterance import Interval


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a corpus holds.

    Attributes:
        rows: its utterances, before any audio is checked.
        trials: pairs to verify, where the corpus has such a list.
        left_out: what the protocol leaves out and why -> how many; none of it is a fault.
    """

    rows: Sequence[Row]
    trials: Sequence[Trial] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


class Collector:
    """Rows of one corpus; what is wrong with one is noted and costs that one only.

    Args:
        source: folder of the corpus; audio must lie in it or in an audio root.
        problems: receives what is wrong.
        audio_root: further folders that audio may lie in.
        channel: of every file, None where files have one.
    """

    def __init__(
        self,
        source: Path,
        problems: Problems,
        *,
        audio_root: Sequence[str | Path] = (),
        channel: int | None = None,
    ) -> None:
        self.source = source
        self.problems = problems
        self.roots = audio_roots(source, audio_root)
        self.channel = channel
        self.rows: list[Row] = []
        self.left_out: Counter[str] = Counter()

    def locate(self, text: str | Path, base: Path) -> str:
        """Return the absolute path of audio; see ``rows.locate``.

        Raises:
            ValueError: a pipe, or outside the source and all audio roots.
        """
        return locate(str(text), base, self.roots)

    def add(
        self,
        where: str,
        name: str,
        audio: str | Path,
        *,
        base: Path | None = None,
        split: str | None = None,
        speaker: str | None = None,
        text: str | None = None,
        labels: Mapping[str, str] | None = None,
        intervals: Mapping[str, tuple[Interval, ...]] | None = None,
        start: float = 0.0,
        end: float | None = None,
        declared_seconds: float | None = None,
        tolerance: float = 0.0,
    ) -> None:
        """Add an utterance, or note what is wrong with it.

        Args:
            where: ``file:line`` that names it.
            name: its id.
            audio: path, relative to ``base``.
            base: default: the source.
            split: ``train``, ``dev``, ``test``, or None.
            speaker: its speaker.
            text: its transcript.
            labels: its labels; empty ones are no labels.
            intervals: its timed labels.
            start: seconds from the start of the file.
            end: seconds from the start of the file, None for its end.
            declared_seconds: its length as the source states it, and
            tolerance: by how much the true length may differ, in seconds.
        """
        self.problems.seen.add(name)
        kept = {label: value for label, value in (labels or {}).items() if value}
        if split is not None:
            kept["split"] = split
        try:
            if wrong := check_id(name):
                raise ValueError(wrong)
            for label, value in {"speaker": speaker, "text": text, **kept}.items():
                if wrong := check_label(value or ""):
                    raise ValueError(f"{label}: {wrong}")
            path = self.locate(audio, base or self.source)
        except ValueError as error:
            self.problems.blame(where, error, name)
            return
        self.rows.append(
            Row(
                id=name,
                where=where,
                path=path,
                start=start,
                end=end,
                channel=self.channel,
                speaker=speaker or None,
                text=text or None,
                labels=kept,
                intervals=intervals or {},
                declared_seconds=declared_seconds,
                tolerance=tolerance,
            )
        )

    def skip(self, reason: str, count: int = 1) -> None:
        """Count what the protocol leaves out; it is no fault."""
        self.left_out[reason] += count

    def found(self, trials: Sequence[Trial] = ()) -> Found:
        """Return everything that was collected."""
        return Found(rows=self.rows, trials=trials, left_out=dict(self.left_out))
