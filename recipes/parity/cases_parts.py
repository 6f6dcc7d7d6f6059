"""Pairs of families whose own code is no package with s3prl's copies of the networks they are made of.

DinoSR's Transformer is data2vec's, DeLoRes' encoder is BYOL-A's. Each is written as its authors' code
writes it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mynah.recipes.parity.cases_s3prl import CALM, data2vec
from mynah.recipes.parity.compare import Measured, Pair, built, distance, relative, waves
from mynah.recipes.parity.s3prl_pairs import saved


def dinosr(folder: Path) -> Measured:
    """Compare the states of DinoSR with those of a data2vec of the same weights."""
    import torch

    from mynah.upstream.interop import fairseq, s3prl_hub

    path, _ = saved(folder, data2vec, **CALM)
    content = torch.load(path, weights_only=True)
    cfg = {
        "model": {**content["model_cfg"], "_name": "dinosr", "discrete": True},
        "task": content["task_cfg"],
    }
    weights = {k: v for k, v in content["model_weight"].items() if not k.startswith("_ema")}
    torch.save({"cfg": cfg, "model": weights}, folder / "dinosr.pt")
    ours = fairseq.load(folder / "dinosr.pt")
    return Measured(distance(ours, s3prl_hub.wrap("data2vec_custom", checkpoint=path)))


def delores(folder: Path) -> Measured:
    """Compare the embedding of a clip with that of BYOL-A's encoder of the same weights."""
    import torch

    from mynah.upstream.interop import s3prl

    s3prl.ensure_importable()
    from s3prl.upstream.byol_a.byol_a import AudioNTT2020

    theirs: Any = built(lambda: AudioNTT2020(n_mels=64, d=96)).eval()
    state = {
        re.sub(
            r"^features\.(\d+)", lambda n: f"features_{int(n[1]) // 4 + 1}.{int(n[1]) % 4}", key
        ): v
        for key, v in theirs.state_dict().items()
    }
    content = {"state_dict": {f"encoder.encoder.{key}": value for key, value in state.items()}}
    torch.save(content, folder / "final.ckpt")
    ours: Any = s3prl.convert(folder / "final.ckpt").eval()
    (wav,) = waves((16000,))
    with torch.no_grad():
        spectrum_MT = ours.spectrum(wav)
        got = ours.encoder.embed(spectrum_MT[None])[0]
        return Measured(relative(got, theirs(spectrum_MT[None, None])[0]))


PAIRS = [
    Pair(family="dinosr", reference="s3prl data2vec_custom", setting="post", measure=dinosr),
    Pair(family="delores", reference="s3prl byol_a", setting="clips", measure=delores),
]
