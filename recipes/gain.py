"""``mynah gain``: what pretraining buys, family by family.

For each model and seed: pretrain it, then probe the pretrained model and the same model with its
initial weights, the same heads on the same data. Baselines without weights are probed beside them.
What is there already is kept, so the command can be stopped and given again. The table says for
each task both scores and by how much the pretrained one is better, with 95 % intervals over
speakers and seeds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction


@dataclass(frozen=True, kw_only=True)
class Args:
    """Pretrain models with several seeds and compare them with their untrained selves."""

    models: Annotated[tuple[str, ...], Positional]
    """Families and variants, such as apc/tiny; hubert/tiny:2 for two iterations."""
    corpus: Annotated[tuple[Path, ...], UseAppendAction]
    """Prepared corpus to pretrain on; repeatable."""
    probe: Annotated[tuple[str, ...], UseAppendAction]
    """TASK:CORPUS or TASK:CORPUS:STEPS, as pr:data/l2:300; repeatable."""
    out: Path
    """Folder: runs/ and results/."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of pretraining, of the untrained weights and of the heads."""
    baselines: tuple[str, ...] = ("fbank", "fbank/cmvn")
    """Specs without weights, probed once per seed."""
    teacher: Annotated[tuple[str, ...], UseAppendAction] = ()
    """MODEL=TEACHER: a model of this list that another learns from, as distilhubert/tiny=hubert/tiny."""
    override: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Recipe value for every model, as train.steps=400; repeatable."""
    jobs: int = 1
    """Processes at a time, one thread each."""
    table_only: bool = False
    """Compute nothing; print the Markdown table of what is there."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One task on one corpus."""

    task: str
    corpus: Path
    steps: int | None

    @classmethod
    def parse(cls, text: str) -> Probe:
        """Read TASK:CORPUS[:STEPS].

        Raises:
            ValueError: another form.
        """
        parts = text.split(":")
        if len(parts) not in (2, 3) or (len(parts) == 3 and not parts[2].isdigit()):
            raise ValueError(f"--probe must be TASK:CORPUS or TASK:CORPUS:STEPS, got {text!r}")
        return cls(task=parts[0], corpus=Path(parts[1]), steps=int(parts[2]) if parts[2:] else None)


def run_folder(args: Args, model: str, seed: int) -> Path:
    """Return the folder of a model's run with one seed."""
    return args.out / "runs" / f"{model.replace('/', '-').replace(':', '-it')}-seed{seed}"


def main(args: Args) -> int:
    """Pretrain, probe, print; exit status 1 if anything is missing.

    Raises:
        ValueError, LookupError: a model, probe or teacher that does not exist.
    """
    from mynah.recipes.gain_table import render
    from mynah.recipes.progress import console, err

    probes = [Probe.parse(text) for text in args.probe]
    teachers = dict(_teachers(args))
    _check(args)
    failed: list[str] = []
    if not args.table_only:
        # those that learn from others come after them
        waves = [
            [m for m in args.models if m not in teachers],
            [m for m in args.models if m in teachers],
        ]
        first = [(spec, seed) for spec in args.baselines for seed in args.seeds]
        with ThreadPoolExecutor(max(1, args.jobs)) as pool:
            for number, wave in enumerate(waves):
                pairs = [(model, seed) for seed in args.seeds for model in wave]
                work = [pool.submit(_one, args, probes, teachers, *pair) for pair in pairs]
                if number == 0:
                    work += [pool.submit(_baseline, args, probes, *pair) for pair in first]
                for done in work:
                    failed += done.result()
    for problem in failed:
        err.print(problem, markup=False)
    text, missing = render(args, probes)
    console.print(text, markup=False, soft_wrap=True)
    return 1 if failed or missing else 0


def _teachers(args: Args) -> Iterator[tuple[str, str]]:
    for text in args.teacher:
        model, equals, teacher = text.partition("=")
        if not equals or model not in args.models or teacher not in args.models:
            raise ValueError(f"--teacher must be MODEL=TEACHER of the models given, got {text!r}")
        yield model, teacher


def _check(args: Args) -> None:
    from mynah import registry, upstream

    for model in (*args.models, *args.baselines):
        family, _, variant = model.partition(":")[0].partition("/")
        configs = upstream.get(family).CONFIGS
        if (variant or "base") not in configs:
            raise LookupError(registry.unknown(f"variant of {family!r}:", variant, configs))
    if not args.seeds or len(set(args.seeds)) != len(args.seeds):
        raise ValueError(f"seeds must be distinct, at least one; got {list(args.seeds)}")


def _one(
    args: Args, probes: Sequence[Probe], teachers: dict[str, str], model: str, seed: int
) -> list[str]:
    """Pretrain and probe one model with one seed; return what failed."""
    name, _, iterations = model.partition(":")
    run = run_folder(args, model, seed)
    command = ["pretrain", name, *args.override, "--out", str(run), "--seed", str(seed), "--resume"]
    for corpus in args.corpus:
        command += ["--corpus", str(corpus)]
    if iterations:
        command += ["--iterations", iterations]
    if model in teachers:
        command += ["--teacher", str(run_folder(args, teachers[model], seed))]
    failed = _run(command, args.out / "logs" / f"{run.name}.log", clock=run / "cpu_seconds.json")
    if failed:
        return [failed]
    sides: tuple[tuple[str, list[str]], ...] = (
        (str(run), []),
        (name, ["--upstream-seed", str(seed)]),
    )
    found = [_probe(args, probe, spec, seed, extra) for spec, extra in sides for probe in probes]
    return [problem for problem in found if problem]


def _baseline(args: Args, probes: Sequence[Probe], spec: str, seed: int) -> list[str]:
    found = [_probe(args, probe, spec, seed, []) for probe in probes]
    return [problem for problem in found if problem]


def _probe(args: Args, probe: Probe, spec: str, seed: int, extra: list[str]) -> str:
    command = ["probe", spec, probe.task, "--corpus", str(probe.corpus), "--seeds", str(seed)]
    command += ["--out", str(args.out / "results"), *extra]
    if probe.steps is not None:
        command += ["--steps", str(probe.steps)]
    name = f"{spec.replace('/', '-')[-60:]}-{seed}-{probe.task}-{probe.corpus.name}"
    return _run(command, args.out / "logs" / f"{name}.log")


def _run(command: list[str], log: Path, *, clock: Path | None = None) -> str:
    """Run ``mynah`` in a process of its own with one thread; return what went wrong, if anything."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    with log.open("a", encoding="utf-8") as file:
        file.write(" ".join(command) + "\n")
        file.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "mynah", *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
    if code:
        return f"{' '.join(command)}: exit status {code}, see {log}"
    if clock is not None and not clock.exists():
        spent = {"cpu": usage.ru_utime + usage.ru_stime, "wall": time.monotonic() - began}
        clock.write_text(json.dumps(spent), encoding="utf-8")
    return ""
