"""``mynah speed pretrain``: one optimiser step of ours against the same step of other libraries.

Sizes, audio and settings are the same on both sides; the contestants take turns in one process, so
that a noisy machine is noisy for all of them. A step is everything: features from the waveform,
masks and negatives, forward, backward, clipping, AdamW. On a CPU processor time counts
(``time.process_time``, one thread), on a GPU the clock; printed are medians.

Ours is what the training loop runs: with the kernels of ``recipes/training/kernels`` on a CPU. The
ratio is to the best peer in the same precision. On a GPU the share of the card's peak that our
steps use (model FLOP utilisation) is printed as well, with operations counted by torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mynah.files import write_text
from mynah.recipes.speed_pretrain_rows import Row, lines, peak_of, rows_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Step = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Race:
    """Ours and their peers over the same audio.

    Attributes:
        title: what is trained.
        ours: ``family/variant``.
        peers: name -> function of ``speed_pretrain_peers``.
        utterances: of a batch, at ``--scale`` 1.
    """

    title: str
    ours: tuple[str, ...]
    peers: dict[str, str]
    utterances: int


RACES: dict[str, Race] = {
    "wav2vec2-tiny": Race(
        title="wav2vec 2.0, 3 layers of 192",
        ours=("wav2vec2/tiny-wav", "wav2vec2/tiny"),
        peers={"HF Wav2Vec2ForPreTraining": "hugging_face_wav2vec2"},
        utterances=8,
    ),
    "wav2vec2-base": Race(
        title="wav2vec 2.0 base",
        ours=("wav2vec2/base",),
        peers={"HF Wav2Vec2ForPreTraining": "hugging_face_wav2vec2"},
        utterances=3,
    ),
    "hubert-base": Race(
        title="HuBERT base",
        ours=("hubert/base",),
        peers={"torchaudio hubert_pretrain_model": "torchaudio_hubert"},
        utterances=3,
    ),
    "mockingjay": Race(
        title="Mockingjay, 3 layers of 768",
        ours=("mockingjay/base",),
        peers={"s3prl Mockingjay": "s3prl_masked"},
        utterances=4,
    ),
    "tera": Race(
        title="TERA, 3 layers of 768",
        ours=("mockingjay/tera",),
        peers={"s3prl TERA": "s3prl_masked"},
        utterances=4,
    ),
    "apc": Race(
        title="APC, 3 GRUs of 512",
        ours=("apc/base",),
        peers={"s3prl APC": "s3prl_apc"},
        utterances=8,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Args:
    """Race pretraining steps against Hugging Face, torchaudio and s3prl on the same audio."""

    races: tuple[str, ...] = tuple(RACES)
    """Which: wav2vec2-tiny, wav2vec2-base, hubert-base, mockingjay, tera, apc."""
    corpus: Path | None = None
    """Prepared corpus to take utterances from; default: made-up noise."""
    seconds: float = 4.0
    """Length of every utterance."""
    scale: float = 1.0
    """Factor on the utterances of a batch."""
    steps: int = 3
    """Measured steps of each contestant, after one that is not."""
    precision: Literal["fp32", "bf16", "both"] = "both"
    """Of matrix products (autocast), for ours and for the peers."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    compile: bool = False
    """Compile our layers (GPU)."""
    peak: float | None = None
    """Peak of the card in TFLOP/s, where the table of cards does not know it."""
    threads: int = 1
    """Processor threads."""
    json: Path | None = None
    """Also write the rows here."""


def main(args: Args) -> int:
    """Run the races and print their table.

    Raises:
        ValueError: an unknown race, or sizes out of range.
    """
    from mynah.recipes.progress import console
    from mynah.upstream.core.devices import device_for

    rows = run(args)
    for line in lines(rows, gpu=device_for(args.device).type == "cuda"):
        console.print(line, markup=False)
    if args.json is not None:
        write_text(args.json, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


def run(args: Args, races: dict[str, Race] | None = None) -> list[Row]:
    """Race and return one row per contestant, peers first.

    Args:
        args: of the command.
        races: those that there are; None for ours.

    Raises:
        ValueError: an unknown race, sizes out of range, or a device that is not there.
    """
    import torch

    from mynah import registry
    from mynah.recipes.training.arithmetic import reproducible
    from mynah.recipes.training.values import TrainConfig
    from mynah.upstream.core.devices import device_for

    known = RACES if races is None else races
    for name in args.races:
        if name not in known:
            raise ValueError(registry.unknown("race", name, known))
    peak = 1.0 if args.peak is None else args.peak
    sizes = (args.seconds, args.scale, peak)
    if min(args.steps, args.threads) < 1 or not all(0 < size < float("inf") for size in sizes):
        raise ValueError("steps and threads must be at least 1, seconds, scale and peak above 0")
    device = device_for(args.device)
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        with reproducible(device, TrainConfig(deterministic=False)):  # TF32 for all, on a GPU
            return [row for name in args.races for row in _race(name, known[name], args, device)]
    finally:
        torch.set_num_threads(before)


def _race(name: str, race: Race, args: Args, device: torch.device) -> list[Row]:
    import torch

    from mynah.recipes.progress import track
    from mynah.recipes.speed_extract import speech
    from mynah.upstream.core.packed_linear import cpu_multiplies_bf16

    utterances = max(1, round(race.utterances * args.scale))
    wavs = speech((args.seconds, args.seconds), utterances, seed=0, corpus=args.corpus)
    wav_BS = torch.stack([wav[: min(map(len, wavs))] for wav in wavs]).to(device)
    precisions = ("fp32", "bf16") if args.precision == "both" else (args.precision,)
    slow = device.type == "cpu" and not cpu_multiplies_bf16()
    steps: dict[tuple[str, str], Step] = {}
    notes: dict[tuple[str, str], str] = {}
    operations: dict[str, int] = {}
    makers: dict[str, Callable[[], Callable[[str], Step]]] = {}
    for label, function in race.peers.items():
        makers[label] = lambda function=function: _peer(function, race.ours[0], wav_BS)  # type: ignore[misc]
    for spec in race.ours:
        makers[f"ours, {spec}"] = lambda spec=spec: _ours(spec, wav_BS, args, operations)  # type: ignore[misc]
    for label, make in makers.items():
        made: Callable[[str], Step] | None = None
        for precision in precisions:
            key = (label, precision)
            if precision == "bf16" and slow:
                notes[key] = "this CPU has no bfloat16 matrix instructions"
                continue
            try:
                made = made or make()
                steps[key] = made(precision)
            except (ImportError, AttributeError, OSError, RuntimeError) as error:
                notes[key] = f"cannot run here: {type(error).__name__}: {error}".splitlines()[0]
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    turns = [(index, key) for index in range(args.steps + 1) for key in steps]
    for index, key in track(turns, name):
        took = timed(steps[key], index, device)
        if index:  # the first one compiles, allocates and imports
            seconds[key].append(took)
    audio = wav_BS.numel() / 16000
    return rows_of(
        race.title,
        race.peers,
        seconds,
        notes,
        operations,
        audio=audio,
        peak=_peak(args, device),
    )


def timed(step: Step, index: int, device: torch.device) -> float:
    """Return the seconds of one step: of processor time on a CPU, of the clock on a GPU."""
    if device.type == "cpu":
        begin = time.process_time()
        step(index)
        return time.process_time() - begin
    import torch

    torch.cuda.synchronize(device)
    begin = time.perf_counter()
    step(index)
    torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def _peer(function: str, spec: str, wav_BS: Tensor) -> Callable[[str], Step]:
    import torch

    from mynah.recipes import speed_pretrain_peers
    from mynah.recipes.training.arithmetic import autocast

    model, loss = getattr(speed_pretrain_peers, function)(_config(spec))
    model.to(wav_BS.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def made(precision: str) -> Step:
        def step(index: int) -> None:
            del index
            optimizer.zero_grad()
            with autocast(wav_BS.device, lower=precision == "bf16"):
                total = loss(wav_BS)
            total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), speed_pretrain_peers.CLIP)
            optimizer.step()

        return step

    return made


def _config(spec: str) -> Any:
    from mynah import upstream

    family, _, variant = spec.partition("/")
    return upstream.get(family).CONFIGS[variant]


def _ours(
    spec: str, wav_BS: Tensor, args: Args, operations: dict[str, int]
) -> Callable[[str], Step]:
    import dataclasses

    import torch

    from mynah import upstream
    from mynah.recipes.speed_pretrain_peers import CLIP
    from mynah.recipes.training import optim
    from mynah.recipes.training.arithmetic import autocast
    from mynah.recipes.training.distributed import World
    from mynah.recipes.training.kernels import cpu_kernels
    from mynah.recipes.training.layers import prepare_layers
    from mynah.recipes.training.values import OptimizerConfig, TrainConfig
    from mynah.upstream.core.contract import Batch

    device = wav_BS.device
    config = _config(spec)
    # layers that are skipped at random would make steps cost different amounts
    layerdrop = {"layerdrop": 0.0} if hasattr(config, "layerdrop") else {}
    built = upstream.get(spec.partition("/")[0]).MODEL(dataclasses.replace(config, **layerdrop))
    model = built.train().to(device)
    prepare_layers(model, TrainConfig(compile=args.compile), device)
    objective = World(device=device).wrap(model)
    optimizer = optim.build(model, OptimizerConfig(), 1e-5)
    parameters = list(optim.trainable(model).values())
    lengths_B = torch.full((len(wav_BS),), wav_BS.shape[1])
    labels = None
    if model.needs_labels:
        frames = model.num_frames(wav_BS.shape[1])
        labels = tuple(torch.randint(config.clusters, (frames,)) for _ in wav_BS)

    def made(precision: str) -> Step:
        def step(index: int) -> None:
            batch = Batch(
                wav_BS=wav_BS,
                lengths_B=lengths_B,
                ids=tuple(map(str, range(len(wav_BS)))),
                generator=torch.Generator().manual_seed(index),
                labels=labels,
            )
            optimizer.zero_grad(set_to_none=True)
            with cpu_kernels(device), autocast(device, lower=precision == "bf16"):
                total, _, weight = objective(batch)
            (total * weight).backward()
            optim.finish_gradients(parameters, 1 / weight, CLIP)
            optimizer.step()
            model.after_step(index + 1, args.steps + 1)

        if device.type == "cuda" and spec not in operations:
            operations[spec] = counted(step)
        return step

    return made


def counted(step: Step) -> int:
    """Return the floating-point operations of a step's products, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step(0)
    return int(counter.get_total_flops())


def _peak(args: Args, device: torch.device) -> Callable[[str], float | None]:
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return lambda precision: args.peak or peak_of(name, precision)
