"""Kills pretraining runs: ``killer.py FOLDER`` prints one JSON object about all of them.

Every run is a fork of this process, which has imported everything and computed nothing. A run is
killed with SIGKILL at its n-th event: an fsync, a rename, or half-way through a file of weights.
"""

import gc
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import runs
import tensorboard.compat.proto.summary_pb2
import tensorboard.summary.writer.record_writer  # noqa: F401  imported before the forks

import mynah.upstream
from mynah.recipes import pretrain
from mynah.recipes.training import checkpoint, loop, runfolder  # noqa: F401
from mynah.tasks.corpora import audio, batching, corpus  # noqa: F401
from mynah.upstream.core import modelfolder

FOLDER = Path(sys.argv[1])
CORPUS, OUT = FOLDER / "corpus", FOLDER / "run"
events = 0
kill_at = -1


def event() -> bool:
    global events
    events += 1
    if events - 1 == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return False


def watch() -> None:
    """Count the events of this process, and die at the one that was asked for."""
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def watched(function):
        def call(*args, **kwargs):
            event()
            function(*args, **kwargs)

        return call

    def half(function):
        def call(tensors, path, **kwargs):
            function(tensors, path, **kwargs)
            if events == kill_at:
                os.truncate(path, Path(path).stat().st_size // 2)
            event()

        return call

    os.fsync, os.rename, os.replace = watched(fsync), watched(rename), watched(replace)
    checkpoint.save_file = half(checkpoint.save_file)
    modelfolder.save_file = half(modelfolder.save_file)


def run(*, resume: bool, at: int = -1, count: Path | None = None) -> int:
    """Run in a fork; return the fork's pid."""
    global kill_at
    gc.freeze()  # fewer pages to copy
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        kill_at = at
        watch()
        code = pretrain.main(runs.arguments(CORPUS, OUT, resume=resume))
        if count:
            count.write_text(str(events))
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def final() -> str:
    return json.loads((OUT / "final" / "config.json").read_text())["sha256"]


def losses() -> list[tuple[int, float]]:
    lines = (OUT / "metrics.jsonl").read_text().splitlines()
    return [(r["step"], r["loss"]) for r in map(json.loads, lines)]


def main() -> None:
    torch.set_num_threads(1)
    mynah.upstream.__path__ = runs.with_toy()
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # imports a thousand modules
    runfolder.commit = lambda: None
    for name in runfolder.PACKAGES:
        runfolder._version(name)
    runs.noise_corpus(CORPUS)
    counter = FOLDER / "count"
    assert ended(run(resume=False, count=counter)) == 0
    wanted, wanted_losses, total = final(), losses(), int(counter.read_text())
    report = {"moments": total, "died": 0, "wrong": [], "resumed_from": {}}
    for at in range(total):
        shutil.rmtree(OUT)
        report["died"] += ended(run(resume=False, at=at)) == -signal.SIGKILL
        kept = checkpoint.names(OUT / "checkpoints")
        whole, problems = checkpoint.newest(OUT / "checkpoints")
        report["resumed_from"][whole.name if whole else "none"] = 1
        code = ended(run(resume=True))
        if code or problems or final() != wanted or losses() != wanted_losses:
            report["wrong"].append([at, code, kept, problems])
    # At any moment, again and again, until it is through.
    draw = random.Random(0)
    shutil.rmtree(OUT)
    report["random_kills"] = 0
    for turn in range(40):
        pid = run(resume=True)
        time.sleep(draw.uniform(0.02, 0.1 * (turn + 1)))
        os.kill(pid, signal.SIGKILL)
        if ended(pid) == 0:
            break
        report["random_kills"] += 1
    ended(run(resume=True))
    report["random_equal"] = final() == wanted and losses() == wanted_losses
    print(json.dumps(report))  # noqa: T201


main()
