"""TERA and AudioALBERT against s3prl on the same weights, and checkpoints that are refused."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from padded import batch

from mynah.upstream.interop import s3prl
from mynah.upstream.mockingjay import Mockingjay, positions

NET = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "hidden_act": "gelu",
    "intermediate_size": 48, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.02, "layer_norm_eps": 1e-12, "share_layer": False,
    "pre_layer_norm": False,
}  # fmt: skip
TASK = {
    "sequence_length": 150, "mask_proportion": 0.15, "mask_consecutive_min": 7,
    "mask_consecutive_max": 7, "mask_allow_overlap": True, "mask_frequency": 0.2,
    "noise_proportion": 0.15, "position_encoding_size": 24,
}  # fmt: skip


def checkpoint(folder: Path, net: dict[str, Any], task: dict[str, Any]) -> tuple[Path, Any, Any]:
    """Write a checkpoint with trained-looking weights; return it, s3prl's model and its head."""
    s3prl.ensure_importable()
    from s3prl.upstream.mockingjay.model import (
        TransformerConfig,
        TransformerModel,
        TransformerSpecPredictionHead,
    )

    config = TransformerConfig({**NET, **net})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TransformerModel(config, 80).eval()
        head = TransformerSpecPredictionHead(config, 80).eval()
        with torch.no_grad():
            for weight in [*model.parameters(), *head.parameters()]:
                weight += 0.1 * torch.randn(weight.shape)
    feature = {"feat_type": "mel", "channel": 0, "log": True, "delta": 0, "cmvn": True}
    audio = {
        "sample_rate": 16000, "win_ms": 25, "hop_ms": 10, "n_freq": 201, "n_mels": 80,
        "n_mfcc": 13, "target_level": -25, "input": feature, "target": feature,
    }  # fmt: skip
    content = {
        "Transformer": model.state_dict(),
        "SpecHead": head.state_dict(),
        "Upstream_Config": {"transformer": {**NET, **net}, "audio": audio, "task": task},
        "Config": {},
    }
    torch.save(content, folder / "states.ckpt")
    return folder / "states.ckpt", model, head


def theirs_of(model: Any, x_TM: Tensor) -> list[Tensor]:
    """Return s3prl's hidden states (T, D) of one utterance."""
    place = positions(len(x_TM), 24, x_TM.device)[None]
    with torch.no_grad():
        states = model(x_TM[None], place, torch.ones(1, len(x_TM)), output_all_encoded_layers=True)
    return [state[0] for state in states]


@pytest.mark.parametrize("shared", [False, True])
def test_tera_and_audio_albert_equal_s3prl_on_the_same_weights(
    tmp_path: Path, shared: bool
) -> None:
    path, theirs, _ = checkpoint(tmp_path, {"share_layer": shared}, TASK)
    ours = s3prl.convert(path)
    assert isinstance(ours, Mockingjay)
    assert ours.config.shared == shared
    assert (ours.config.band_share, ours.config.noise_prob) == (0.2, 0.15)
    assert len(ours.encoder.layers) == (1 if shared else 3)
    wavs = [wav[:n] for wav, n in zip(batch(600, 16000).wav_BS, (600, 16000), strict=True)]
    counts = [ours.num_frames(len(wav)) for wav in wavs]
    states = list(ours.freeze().hidden_states(wavs))
    assert len(states) == ours.num_layers == 4
    for index, wav in enumerate(wavs):
        expected = theirs_of(theirs, ours.spectra([wav])[0])
        for got_ND, want in zip(states, expected, strict=True):
            got = got_ND.split(counts)[index]
            assert (got - want).norm() / want.norm() < 1e-5


def test_tera_s_loss_is_s3prl_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, theirs, head = checkpoint(tmp_path, {}, {**TASK, "noise_proportion": 1.0})
    from s3prl.pretrain.mockingjay.task import generate_masked_acoustic_model_data

    ours = s3prl.convert(path)
    assert isinstance(ours, Mockingjay)
    given = batch(16000, 11200, 16000)
    wavs = [wav[:n] for wav, n in zip(given.wav_BS, given.lengths_B.tolist(), strict=True)]
    x_NM, _, counts = ours.spectra(wavs)
    x_BTM = nn.utils.rnn.pad_sequence(x_NM.split(counts), batch_first=True)
    task = {**TASK, "noise_proportion": 1.0}
    seen, place, label, attention, target = generate_masked_acoustic_model_data(
        (copy.deepcopy(x_BTM),), task
    )
    with torch.no_grad():
        states = theirs(seen, place.expand(3, -1, -1), attention, output_all_encoded_layers=False)
        predicted, _ = head(states)
    expected = (predicted - target)[label].abs().mean().item()
    rows = attention.bool()
    monkeypatch.setattr(ours, "corrupted", lambda *_, **__: (seen[rows], label[rows]))
    loss = ours.loss(given)
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert loss.weight == pytest.approx(int(label.sum()) / 80)


def test_layers_that_are_said_to_be_shared_but_differ_are_refused(tmp_path: Path) -> None:
    path, _, _ = checkpoint(tmp_path, {"share_layer": True}, TASK)
    content = torch.load(path, weights_only=True)
    name = "encoder.layer.2.output.dense.weight"
    content["Transformer"][name] = content["Transformer"][name] + 1e-6
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"layer\.2\.output\.dense\.weight differs"):
        s3prl.convert(path)
    del content["Transformer"][name]
    torch.save(content, path)
    with pytest.raises(ValueError, match="share their weights, but holds 47 tensors"):
        s3prl.convert(path)


def test_kaldi_features_are_refused(tmp_path: Path) -> None:
    path, _, _ = checkpoint(tmp_path, {}, TASK)
    content = torch.load(path, weights_only=True)
    content["Upstream_Config"]["audio"] = {"kaldi": {"feat_type": "fbank"}}
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"Kaldi features \(fbank\)"):
        s3prl.convert(path)
