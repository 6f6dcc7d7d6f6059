"""Write the golden losses: five training steps of each family's small variants.

Run ``python tests/golden/make.py [family/variant ...]``. A refactoring leaves the files as they are within
the tolerance of ``tests/test_golden.py``; a change of numbers is a commit of its own that says why.

Chosen so that the numbers mean the same on any CPU: synthetic audio, every random choice from a
seeded generator, no dropout (its random numbers depend on the CPU's maker) and steps of one length
down the gradient (Adam's first steps amplify rounding where a gradient is nearly zero).
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from mynah import upstream
from mynah.upstream.core.contract import Batch, Upstream

HERE = Path(__file__).resolve().parent
SEED = 20
STEPS = 5
STEP_LENGTH = 0.1
# Which of two frames is the largest may hang on a rounding error, and the gradient with it: where
# maxima over frames are pooled, only short steps end at the same place on any CPU. So may which of two
# codes is the nearest.
SHORT_STEPS = {"byol": 0.001, "delores": 0.001, "vq_vae": 0.001}
LARGEST = 4_000_000
SECONDS = (1.1, 0.7, 1.6, 0.9)
TEACHERS = {"code_bert": "vq_wav2vec"}  # of whom not every upstream can be the teacher


def names() -> list[str]:
    """Return every ``family/variant`` that can be trained in seconds."""
    found = []
    for family in upstream.available():
        for variant in upstream.get(family).CONFIGS:
            with torch.device("meta"):
                size = sum(p.numel() for p in upstream.build(f"{family}/{variant}").parameters())
            if 0 < size <= LARGEST:
                found.append(f"{family}/{variant}")
    return found


def path(name: str) -> Path:
    """Return the golden file of ``family/variant``."""
    return HERE / f"{name.replace('/', '-')}.txt"


def batch(generator: torch.Generator) -> Batch:
    """Return four utterances of vowel-like pulses that glide, with pauses and noise."""
    rate = 16000
    lengths = [int(s * rate) for s in SECONDS]
    wav_BS = torch.zeros(len(lengths), max(lengths))
    for row, n in enumerate(lengths):
        time = torch.arange(n, dtype=torch.float64) / rate
        pitch = 100 + 30 * row + 20 * torch.sin(2 * torch.pi * (1.5 + 0.3 * row) * time)
        phase = 2 * torch.pi * pitch.cumsum(0) / rate
        formant = 8 + 5 * torch.sin(2 * torch.pi * (2.1 + 0.4 * row) * time)
        harmonics = torch.arange(1, 30, dtype=torch.float64)[:, None]
        weight = torch.exp(-((harmonics - formant) ** 2) / 8) + 0.3 / harmonics
        voice = (weight * torch.sin(harmonics * phase)).sum(0)
        pause = torch.sigmoid(40 * torch.sin(2 * torch.pi * 2.5 * time + row))
        noise = torch.randn(n, generator=generator, dtype=torch.float64)
        wav_BS[row, :n] = (0.05 * pause * voice + 0.003 * noise).float()
    return Batch(
        wav_BS=wav_BS,
        lengths_B=torch.tensor(lengths),
        ids=tuple(f"golden{row}" for row in range(len(lengths))),
        generator=generator,
    )


def labelled(model: Upstream, data: Batch) -> Batch:
    """Return the batch with a label per frame where the model predicts labels: its loudest band."""
    if not model.needs_labels:
        return data
    labels = []
    for wav, n in zip(data.wav_BS, data.lengths_B, strict=True):
        count, stride = model.num_frames(int(n)), model.stride
        frames = torch.nn.functional.pad(wav[: int(n)], (0, stride)).unfold(0, stride, stride)
        bands = torch.fft.rfft(frames[:count].double()).abs()[:, 1:33]
        labels.append(bands.argmax(dim=1))
    return dataclasses.replace(data, labels=tuple(labels))


def teach(model: Upstream) -> Upstream:
    """Give a seeded teacher to a model that learns from one."""
    if model.needs_teacher:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            family = upstream.get(TEACHERS.get(model.name, "wav2vec2"))
            teacher = family.MODEL(family.CONFIGS["tiny"])
        model.take_teacher(teacher.freeze())
    return model


def model(name: str) -> Upstream:
    """Return ``family/variant`` with seeded weights and without dropout."""
    family, _, variant = name.partition("/")
    module = upstream.get(family)
    config = module.CONFIGS[variant]
    drops = [f.name for f in dataclasses.fields(config) if "drop" in f.name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        built: Upstream = module.MODEL(dataclasses.replace(config, **dict.fromkeys(drops, 0.0)))
    return teach(built).train()


def length_of(name: str) -> float:
    """Return the length of the steps of ``family/variant``."""
    return SHORT_STEPS.get(name.partition("/")[0], STEP_LENGTH)


def losses(name: str, *, step_length: float | None = None) -> list[float]:
    """Return the loss before each of five steps down the gradient."""
    length = length_of(name) if step_length is None else step_length
    trained = model(name)
    data = labelled(trained, batch(torch.Generator().manual_seed(SEED)))
    values = []
    for step in range(1, STEPS + 1):
        loss = trained.loss(data).total
        trained.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        slopes = [p for p in trained.parameters() if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in slopes if p.grad is not None]).norm()
        with torch.no_grad():
            for p in slopes:
                p.sub_(p.grad * (length / norm))
        trained.after_step(step, STEPS)
        values.append(loss.item())
    return values


def text(name: str) -> str:
    """Return the contents of a golden file."""
    lines = [
        f"# {name}: step and loss of {STEPS} steps of length {length_of(name)} down the gradient",
        f"# torch {torch.__version__.partition('+')[0]}, seed {SEED}, "
        f"command: python tests/golden/make.py {name}",
        *(f"{step} {value:.6f}" for step, value in enumerate(losses(name), start=1)),
    ]
    return "\n".join(lines) + "\n"


def main(chosen: list[str]) -> None:
    """Write the files of the chosen variants, or of all."""
    for name in chosen or names():
        contents = text(name)
        path(name).write_text(contents, encoding="utf-8")
        sys.stdout.write(contents)


if __name__ == "__main__":
    main(sys.argv[1:])
