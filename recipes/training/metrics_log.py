"""What a run tells: JSONL is the record, TensorBoard a view of it, a bar or plain lines for people.

The loss of a record is the mean over the steps since the record before it, weighted by what counted
in each; the one that people are shown is of the last step alone.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from mynah.files import write_bytes

logger = logging.getLogger(__name__)


class MetricsLog:
    """``metrics.jsonl`` of a run, and TensorBoard events beside it while that works.

    Args:
        folder: of the run.
        step: steps already done; records beyond it (of work that was lost) are dropped.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        self.path = folder / "metrics.jsonl"
        if self.path.exists():
            kept = [line for line in _whole_lines(self.path) if json.loads(line)["step"] <= step]
            write_bytes(self.path, b"".join(kept))
        self._file = self.path.open("ab", buffering=0)  # a full disk is found at once
        self._board = Board.open(folder / "tensorboard", step=step)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record.

        Raises:
            OSError: the disk is full.
            ValueError: a value is not finite; JSON has no word for it.
        """
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            self._file.write(line)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}: the record of step {record['step']} could not be written. "
                "Checkpoints are whole; mend it and run the same command with --resume",
                str(self.path),
            ) from error
        if self._board is not None and not self._board.write(record):
            self._board = None

    def sync(self) -> None:
        """Flush all records to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close both."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a JSONL file up to the first that is not whole JSON."""
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            record = json.loads(line)
        except ValueError:
            return
        if not line.endswith(b"\n") or not isinstance(record, dict) or "step" not in record:
            return
        yield line


class Board:
    """TensorBoard events, written in the calling thread, so that an error is ours to catch."""

    def __init__(self, file: IO[bytes], *, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._file = file
        self._records = RecordWriter(file)
        self._put(Event(file_version="brain.Event:2"))
        # The viewer drops later points of an earlier session, which was cut off after its checkpoint.
        self._put(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
        file.flush()

    @classmethod
    def open(cls, folder: Path, *, step: int) -> Board | None:
        """Start an events file, None (and a warning) where that fails."""
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return cls((folder / name).open("wb"), step=step)
        except (OSError, ImportError, AttributeError, TypeError) as error:
            logger.warning("no TensorBoard events, metrics.jsonl has it all: %s", error)
            return None

    def write(self, record: Mapping[str, Any]) -> bool:
        """Write the numbers of a record; False (and a warning) where that fails."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        numbers = {k: v for k, v in record.items() if isinstance(v, (int, float)) and k != "step"}
        numbers |= {f"parts/{k}": v for k, v in record.get("parts", {}).items()}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]
        try:
            self._put(Event(step=record["step"], summary=Summary(value=values)))
            self._file.flush()
        except OSError as error:
            logger.warning("TensorBoard events stop here, metrics.jsonl goes on: %s", error)
            self.close()
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as error:
            logger.warning("TensorBoard events may lack their end: %s", error)

    def _put(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


class Reporter:
    """Tells people how a run goes: a bar with time left on a terminal, else a line now and then.

    Args:
        total: steps of the run.
        done: steps already done.
        every: seconds between plain lines.
    """

    def __init__(self, total: int, *, done: int, every: float = 15.0) -> None:
        self.total, self.first, self.every = total, done, every
        self.began = self.last = time.monotonic()
        self._advance: Any = None

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Show the bar while the block runs, where there is a terminal."""
        from mynah.recipes import progress

        if not progress.err.is_terminal:
            yield self
            return
        with progress.bar() as bar:
            task = bar.add_task("pretrain", total=self.total, completed=self.first)
            self._advance = lambda done, text: bar.update(task, completed=done, description=text)
            yield self
        self._advance = None

    @staticmethod
    def say(text: str) -> None:
        """Print a line, above the bar where there is one."""
        from mynah.recipes.progress import err

        err.print(text, markup=False)

    def update(self, done: int, loss: float, lr: float) -> None:
        """Say that a step is done.

        Args:
            done: steps done.
            loss: of this step alone.
            lr: its learning rate.
        """
        now = time.monotonic()
        if self._advance is not None:
            self._advance(done, f"loss {loss:.4g}")
        elif now - self.last >= self.every or done == self.total:
            self.last = now
            from mynah.recipes.progress import err

            each = (now - self.began) / (done - self.first)
            left = each * (self.total - done)
            err.print(
                f"step {done}/{self.total}  loss {loss:.4g}  lr {lr:.2e}  {each:.3f} s/step  "
                f"{left / 60:.1f} min left"
            )
