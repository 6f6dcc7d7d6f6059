"""Asked to stop: finish the step, write a checkpoint, leave with a status that says so."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Self

UNFINISHED = 75
"""Exit status of a run that was stopped after a checkpoint (sysexits' EX_TEMPFAIL: run it again)."""

INTERRUPTED = 130

CODES = {
    signal.SIGTERM: UNFINISHED,
    signal.SIGUSR2: UNFINISHED,  # Slurm's --signal; NCCL may use SIGUSR1
    signal.SIGINT: INTERRUPTED,
}


class Stop:
    """While it is entered, signals and a time limit ask for a stop instead of ending the process.

    A second SIGINT ends the process at once.

    Args:
        minutes: time limit from now, None for none.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.code: int | None = None
        self.reason = ""
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self._minutes = minutes
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in CODES:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT and self.code is not None:
            raise KeyboardInterrupt
        self.code = CODES[signal.Signals(number)]
        self.reason = signal.Signals(number).name

    def wanted(self) -> bool:
        """Return whether this process was asked to stop or its time is over."""
        if self.code is None and self._deadline is not None and time.monotonic() > self._deadline:
            self.code = UNFINISHED
            self.reason = f"the limit of {self._minutes:g} minutes"
        return self.code is not None
