"""Seconds and memory of a frozen forward, measured in a process of its own.

Peak memory is of the whole process: a model measured after another one would be charged for both.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one utterance at a time takes on this machine.

    Attributes:
        rtf: CPU seconds per second of audio, median over runs.
        peak: resident memory of the process at its largest, MiB: Python, torch, weights, one run.
        seconds: length of the utterance.
        runs: that the median is over, after one that does not count.
        threads: of torch.
    """

    rtf: float
    peak: float
    seconds: float
    runs: int
    threads: int


def measure(spec: str, *, seconds: float, runs: int) -> Measured:
    """Load an upstream in a new process, run it on noise, and return what that took.

    Raises:
        ValueError: the process failed; the message holds the end of what it wrote.
    """
    command = [sys.executable, "-m", "mynah.recipes.costs.measure", spec, str(seconds), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{spec} could not be measured:\n{done.stderr[-1000:].strip()}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _here(spec: str, seconds: float, runs: int) -> Measured:
    import torch

    from mynah.upstream.core import spec as specs

    model = specs.load(spec)
    samples = round(seconds * model.sample_rate)
    wav_S = torch.randn(samples, generator=torch.Generator().manual_seed(0)) / 10
    spent = []
    with torch.no_grad():
        for _ in range(runs + 1):
            start = time.process_time()
            for _state in model.hidden_states([wav_S]):
                pass
            spent.append(time.process_time() - start)
    return Measured(
        rtf=statistics.median(spent[1:]) / seconds,
        peak=_peak(),
        seconds=seconds,
        runs=runs,
        threads=torch.get_num_threads(),
    )


def _peak() -> float:
    """Return the largest resident memory of this process so far, in MiB.

    Linux's ``ru_maxrss`` of a new program starts at what its parent held: its own is in /proc.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 1024 if sys.platform != "darwin" else 1024 * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    _found = _here(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(vars(_found)) + "\n")
