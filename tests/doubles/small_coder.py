"""A small vq-wav2vec that uses all of its codes, and sounds whose frames differ."""

import torch
from torch import Tensor

from mynah.upstream import vq_wav2vec
from mynah.upstream.core.kmeans_quantizer import KmeansQuantizer

CODES = vq_wav2vec.Config(
    channels=12, context_kernels=(2,), steps=2, codes=6, shared=False, quantizer="kmeans"
)


def sounds(*lengths: int, seed: int = 0) -> list[Tensor]:
    """Noise and a tone that glides, so that frames differ."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for n in lengths:
        time = torch.arange(n) / 16000
        tone = torch.sin(2 * torch.pi * (300 * time + 3000 * time**2))
        found.append(0.02 * torch.randn(n, generator=generator) + 0.3 * time * tone)
    return found


def teacher(config: vq_wav2vec.Config = CODES, seed: int = 3) -> vq_wav2vec.VqWav2Vec:
    """A vq-wav2vec that uses all of its codes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = vq_wav2vec.VqWav2Vec(config)
    quantizer = model.coder.quantizer
    if isinstance(quantizer, KmeansQuantizer):
        with torch.no_grad():
            z_TF = quantizer.project(model.coder.extractor(sounds(9000))[0], None)[0]
            some_VGC = z_TF[:: len(z_TF) // config.codes][: config.codes].unflatten(1, (2, -1))
            quantizer.vectors_GVC.copy_(some_VGC.transpose(0, 1))
    return model.freeze()
