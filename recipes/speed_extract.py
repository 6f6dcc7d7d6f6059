"""``mynah speed extract``: our frozen forward against s3prl, Hugging Face and torchaudio.

The same randomly initialised wav2vec 2.0 base (or a smaller one) in every library, the same
utterances, one process, one thread; the contestants take turns, so that a noisy machine is noisy
for all of them. What counts is processor time (``time.process_time``), the median of the runs.

Peers get zero-padded batches, as their users give them. Ours pads nothing, whatever the batch.
Next to each time stands how far the states of a middle and the last layer are from those of the
same weights run one utterance at a time in float32: padding changes what group-norm models yield.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mynah.files import write_text

if TYPE_CHECKING:
    from torch import Tensor

    from mynah.upstream.wav2vec2 import Config

ALONE = "HF sdpa, one by one"
States = list[tuple["Tensor", "Tensor"]]  # a middle and the last layer (T, D) of each utterance


@dataclass(frozen=True, kw_only=True)
class Args:
    """Race our frozen wav2vec 2.0 against s3prl, Hugging Face and torchaudio on the same weights."""

    corpus: Path | None = None
    """Prepared corpus to take utterances from; default: made-up noise."""
    utterances: int = 24
    """How many."""
    shortest: float = 2.0
    """Seconds of the shortest utterance."""
    longest: float = 16.0
    """Seconds of the longest."""
    batch: int = 8
    """Utterances per batch, for ours and for the peers."""
    runs: int = 3
    """Rounds; every contestant runs once in each."""
    threads: int = 1
    """Processor threads."""
    sort: bool = False
    """Batch utterances of similar length: the peers then pad less."""
    variant: str = "base"
    """Size of the model: base or tiny-wav."""
    json: Path | None = None
    """Also write the rows here."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contestant.

    Attributes:
        name: who, and how batched.
        cpu_seconds: median processor time for all utterances; None where it could not run.
        all_seconds: of every run.
        audio_per_cpu: seconds of audio per second of processor time.
        ratio: that, relative to the best peer on padded batches.
        ratio_alone: that, relative to Hugging Face run one by one.
        middle: relative deviation of the middle layer from the one-by-one output.
        last: of the last layer.
        note: why it could not run, or what else to know.
    """

    name: str
    cpu_seconds: float | None = None
    all_seconds: tuple[float, ...] = ()
    audio_per_cpu: float | None = None
    ratio: float | None = None
    ratio_alone: float | None = None
    middle: float | None = None
    last: float | None = None
    note: str = ""


def main(args: Args) -> int:
    """Run the race and print its table."""
    from mynah.recipes.progress import console
    from mynah.upstream.wav2vec2 import CONFIGS

    if args.variant not in ("base", "tiny-wav"):
        raise ValueError(f"variant must be 'base' or 'tiny-wav', got {args.variant!r}")
    rows = run(
        seconds_range=(args.shortest, args.longest),
        utterances=args.utterances,
        runs=args.runs,
        batch=args.batch,
        threads=args.threads,
        corpus=args.corpus,
        sort=args.sort,
        config=CONFIGS[args.variant],
    )
    for line in lines(rows):
        console.print(line)
    if args.json is not None:
        write_text(args.json, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


def run(
    seconds_range: tuple[float, float] = (2.0, 16.0),
    utterances: int = 24,
    *,
    runs: int = 3,
    batch: int = 8,
    threads: int = 1,
    corpus: Path | None = None,
    sort: bool = False,
    seed: int = 0,
    config: Config | None = None,
) -> list[Row]:
    """Race and return one row per contestant, peers first.

    Args:
        seconds_range: shortest and longest utterance.
        utterances: how many.
        runs: rounds.
        batch: utterances per batch.
        threads: of torch; restored afterwards.
        corpus: prepared corpus to draw utterances from; None makes noise.
        sort: order the utterances by length before batching.
        seed: of the weights, the noise and the draw.
        config: the model; None is base.

    Raises:
        ValueError: no utterance, no run, or a model that the peers cannot build.
    """
    import torch

    from mynah.upstream.wav2vec2 import Config

    config = config or Config()
    if min(utterances, runs, batch, threads) < 1:
        raise ValueError("utterances, runs, batch and threads must be at least 1")
    if config.front != "wave" or config.conv_norm != "group" or config.norm != "post":
        raise ValueError("the race is for a model like base: wave front-end, group norm, post-norm")
    wavs = speech(seconds_range, utterances, seed=seed, corpus=corpus)
    if sort:
        wavs.sort(key=len)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _race(wavs, config, runs=runs, batch=batch, seed=seed)
    finally:
        torch.set_num_threads(before)


def speech(
    seconds_range: tuple[float, float], count: int, *, seed: int, corpus: Path | None
) -> list[Tensor]:
    """Return waveforms at 16 kHz in random order of length: from a corpus, or syllabic noise.

    Raises:
        ValueError: the range is empty, or the corpus has too few utterances of such lengths.
    """
    import torch

    low, high = seconds_range
    if not 0 < low <= high < float("inf"):
        raise ValueError(f"lengths must be 0 < shortest <= longest, got {low} and {high}")
    generator = torch.Generator().manual_seed(seed)
    if corpus is None:
        lengths = torch.linspace(low, high, count)[torch.randperm(count, generator=generator)]
        wavs = []
        for length in (lengths * 16000).long().tolist():
            beat = torch.sin(torch.arange(length) * (2 * torch.pi * 4 / 16000)).clamp_min(0.05)
            wavs.append(0.1 * beat * torch.randn(length, generator=generator))
        return wavs
    from mynah.tasks.corpora.audio import read
    from mynah.tasks.corpora.corpus import Corpus

    fitting = [u for u in Corpus.open(corpus).utterances() if low <= u.duration <= high]
    if len(fitting) < count:
        raise ValueError(
            f"{corpus} has {len(fitting)} utterances of {low:g} to {high:g} s, {count} are needed"
        )
    chosen = torch.randperm(len(fitting), generator=generator)[:count].tolist()
    return [torch.from_numpy(read(fitting[index])) for index in chosen]


def _race(wavs: Sequence[Tensor], config: Config, *, runs: int, batch: int, seed: int) -> list[Row]:
    import torch

    from mynah.recipes.progress import track
    from mynah.recipes.speed_peers import PEERS
    from mynah.upstream.core.packed_linear import cpu_multiplies_bf16
    from mynah.upstream.wav2vec2 import Wav2Vec2

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Wav2Vec2(config)
    frames = [model.num_frames(len(wav)) for wav in wavs]
    middle = (config.layers - 1) // 2
    contestants: dict[str, Callable[[], States]] = {}
    notes: dict[str, str] = {}

    def add(name: str, forward: Callable[[Sequence[Tensor]], list[Tensor]], size: int) -> None:
        def once() -> States:
            found: States = []
            for start in range(0, len(wavs), size):
                states = forward(wavs[start : start + size])
                for row in range(len(states[0])):
                    keep = frames[start + row]
                    found.append((states[middle][row, :keep], states[-1][row, :keep]))
            return found

        contestants[name] = once

    for name, peer in PEERS.items():
        label = f"{name}, batches of {batch}"
        try:
            forward = peer(model)
        except (ImportError, AttributeError, OSError, RuntimeError) as error:
            notes[label] = f"cannot run here: {type(error).__name__}: {error}".splitlines()[0]
            continue
        add(label, forward, batch)
        if name == "HF sdpa":
            add(ALONE, forward, 1)

    def ours(precision: Any) -> Callable[[], States]:
        frozen = Wav2Vec2(config)
        frozen.load_state_dict(model.state_dict())
        frozen.freeze(precision)

        def once() -> States:
            found: States = []
            for start in range(0, len(wavs), batch):
                counts = frames[start : start + batch]
                states = list(frozen.hidden_states(wavs[start : start + batch]))
                pair = zip(states[middle + 1].split(counts), states[-1].split(counts), strict=True)
                found.extend(pair)
            return found

        return once

    contestants["ours, fp32"] = ours("fp32")
    if cpu_multiplies_bf16():
        contestants["ours, bf16"] = ours("bf16")
    else:
        notes["ours, bf16"] = "this CPU has no bfloat16 matrix instructions: it would run in fp32"

    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    states: dict[str, States] = {}
    with torch.inference_mode():
        turns = [(index, name) for index in range(runs) for name in contestants]
        for _, name in track(turns, "racing"):
            begin = time.process_time()
            states[name] = contestants[name]()
            seconds[name].append(time.process_time() - begin)
    return _rows(seconds, states, notes, audio=sum(map(len, wavs)) / 16000)


def _rows(
    seconds: dict[str, list[float]], states: dict[str, States], notes: dict[str, str], audio: float
) -> list[Row]:
    import torch

    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peers = [medians[name] for name in medians if ", batches of" in name]
    truth = states[ALONE] if ALONE in states else states["ours, fp32"]

    def deviation(name: str, which: int) -> float:
        own = torch.cat([pair[which] for pair in states[name]])
        reference = torch.cat([pair[which] for pair in truth])
        return float((own - reference).norm() / reference.norm())

    order = sorted({*medians, *notes}, key=lambda name: (name.startswith("ours"), name))
    rows = []
    for name in order:
        if name in notes:
            rows.append(Row(name=name, note=notes[name]))
            continue
        rows.append(
            Row(
                name=name,
                cpu_seconds=medians[name],
                all_seconds=tuple(seconds[name]),
                audio_per_cpu=audio / medians[name],
                ratio=min(peers) / medians[name] if peers else None,
                ratio_alone=medians[ALONE] / medians[name] if ALONE in medians else None,
                middle=deviation(name, 0),
                last=deviation(name, 1),
            )
        )
    return rows


def lines(rows: Sequence[Row]) -> list[str]:
    """Return a Markdown table."""

    def cell(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    found = [
        "| wav2vec 2.0, same weights | CPU s | audio s / CPU s | x best padded peer "
        "| x HF one by one | deviation, middle layer | last layer |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.cpu_seconds is None:
            found.append(f"| {row.name} | {row.note} | | | | | |")
            continue
        cells = (
            cell(row.cpu_seconds, ".2f"),
            cell(row.audio_per_cpu, ".2f"),
            cell(row.ratio, ".2f"),
            cell(row.ratio_alone, ".2f"),
            cell(row.middle, ".1e"),
            cell(row.last, ".1e"),
        )
        found.append(f"| {row.name} | {' | '.join(cells)} |")
    return found
