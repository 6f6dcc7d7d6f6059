"""FBANK against torchaudio's pieces."""

import pytest
import torch
from torch import Tensor
from torchaudio.compliance import kaldi
from torchaudio.functional import compute_deltas

from mynah import upstream
from mynah.upstream.core.contract import Batch


def waves() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(n, generator=generator) for n in (100, 560, 9000, 16000)]


def reference(wav: Tensor, num_mels: int) -> Tensor:
    wav = torch.nn.functional.pad(wav, (0, max(0, 400 - len(wav))))
    x = kaldi.fbank(wav[None], num_mel_bins=num_mels).T[None]
    first = compute_deltas(x)
    return torch.cat([x, first, compute_deltas(first)], dim=1)[0].T


@pytest.mark.filterwarnings("ignore::UserWarning")  # torchaudio: empty filters at 80 bins
@pytest.mark.parametrize(("variant", "num_mels"), [("base", 80), ("tiny", 40)])
def test_features_are_kaldi_fbank_with_deltas(variant: str, num_mels: int) -> None:
    model = upstream.build(f"fbank/{variant}").freeze()
    (states,) = model.hidden_states(waves())
    expected = torch.cat([reference(wav, num_mels) for wav in waves()])
    assert model.dim == 3 * num_mels
    assert states.shape == expected.shape
    # float32; 1.9e-6 and 2.0e-6 on two makes of CPU
    assert (states - expected).norm() / expected.norm() < 4e-6


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_cmvn_variant_normalises_each_utterance() -> None:
    model = upstream.build("fbank/cmvn").freeze()
    wav = waves()[3]
    (states,) = model.hidden_states([waves()[2], wav])
    plain = reference(wav, 80)
    expected = (plain - plain.mean(0)) / (plain.std(0) + 1e-10)
    ours = states[model.num_frames(9000) :]
    assert (ours - expected).norm() / expected.norm() < 5e-5  # deltas are small differences


def test_there_is_nothing_to_train() -> None:
    model = upstream.build("fbank")
    assert not list(model.parameters())
    assert not model.state_dict()
    batch = Batch(
        wav_BS=torch.zeros(1, 800),
        lengths_B=torch.tensor([800]),
        ids=("a",),
        generator=torch.Generator(),
    )
    with pytest.raises(TypeError, match="nothing to train"):
        model.loss(batch)
