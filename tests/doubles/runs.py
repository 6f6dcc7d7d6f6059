"""What the pretraining tests share: a corpus of noise, the toy family, runs in this process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import mynah.upstream
from mynah.recipes import pretrain
from mynah.recipes.pretrain import Args
from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.utterance import Utterance
from mynah.upstream.core import modelfolder

HERE = str(Path(__file__).parent)
RECIPE = (
    "train.lr=0.05",
    "train.batch_seconds=2",
    "train.crop_seconds=0.6",
    "train.log_every=4",
    "train.save_every=5",
)
_MICRO = ("model.dim=24", "model.layers=2", "model.heads=3", "model.ffn=48", "model.num_mels=20")
SMALL = {  # families on the shared Transformer, one of them with a teacher that follows
    "mockingjay/tiny": ("train.accumulate=2", *_MICRO, "model.pos_groups=4"),
    "data2vec/tiny": (*_MICRO, "model.pos_groups=4"),
}
TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
    *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"),
)


def launch(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=200
    )


def with_toy() -> list[str]:
    """Return the folders of the upstream registry with the one that holds ``toy``."""
    return [*mynah.upstream.__path__, HERE]


def noise_corpus(
    folder: Path,
    *,
    count: int = 13,
    bad: tuple[int, ...] = (),
    seed: int = 0,
    slower: int = 1,
) -> Corpus:
    """Write ``count`` utterances of 0.3 to 1 s of modulated noise, some with an id of ``bad...``.

    With ``slower`` they last that many times as long.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    utterances = []
    for i in range(count):
        size = slower * int(rng.integers(4800, 16000))
        envelope = 0.1 + 0.1 * np.sin(np.arange(size) / 900 + i)
        path = folder / f"{i:02}.wav"
        soundfile.write(path, rng.normal(size=size) * envelope, 16000, subtype="PCM_16")
        utterances.append(
            Utterance(
                id=f"{'bad' if i in bad else 'u'}{i:02}",
                path=str(path),
                start=0.0,
                duration=size / 16000,
                sample_rate=16000,
            )
        )
    return write_corpus(folder, utterances, name=folder.name)


def arguments(corpus: Path, out: Path, *overrides: str, **options: Any) -> Args:
    """Return the arguments of a short run of ``toy/tiny``."""
    options = {"model": "toy/tiny", "steps": 12, "device": "cpu", **options}
    return Args(corpus=(corpus,), out=out, overrides=(*RECIPE, *overrides), **options)


def run(corpus: Path, out: Path, *overrides: str, **options: Any) -> int:
    return pretrain.main(arguments(corpus, out, *overrides, **options))


def sha(out: Path) -> str:
    return str(modelfolder.verify(out / "final")["sha256"])
