"""CPC against s3prl's networks: the same states, and checkpoints that are refused."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from cpc_small import LENGTHS, relative
from padded import batch, waves

from mynah.upstream.core.framenorm import ChannelNorm
from mynah.upstream.interop import s3prl
from mynah.upstream.interop.families import cpc as reader


def checkpoint(folder: Path, **settings: Any) -> tuple[Path, nn.Module]:
    """Return a checkpoint in s3prl's form, with norms as if trained, and s3prl's own model."""
    s3prl.ensure_importable()
    from s3prl.upstream.cpc.model import CPCAR, CPCEncoder, CPCModel

    config = {
        "hiddenEncoder": 24, "hiddenGar": 24, "normMode": "layerNorm", "arMode": "LSTM",
        "nLevelsGRU": 1, "encoder_type": "cpc", "cpc_mode": None, "samplingType": "samespeaker",
        "onEncoder": False, **settings,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = CPCEncoder(config["hiddenEncoder"], config["normMode"])
        context = CPCAR(
            config["hiddenEncoder"], config["hiddenGar"], False, config["nLevelsGRU"],
            mode=config["arMode"],
        )  # fmt: skip
        model = CPCModel(encoder, context).eval()
        for key, value in model.state_dict().items():
            if "batchNorm" in key and value.is_floating_point():
                value += 0.3 * torch.rand_like(value)
    path = folder / "cpc.pt"
    torch.save({"config": config, "weights": model.state_dict()}, path)
    return path, model


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normMode": "batchNorm", "arMode": "GRU", "hiddenGar": 16, "nLevelsGRU": 2},
    ],
)
def test_states_are_those_of_s3prl(tmp_path: Path, settings: dict[str, Any]) -> None:
    path, theirs = checkpoint(tmp_path, **settings)
    ours = s3prl.convert(path).freeze()
    assert (ours.name, ours.dim, ours.num_layers, ours.stride) == ("cpc", 24, 2, 160)
    wavs = waves(batch(*LENGTHS))
    counts = [ours.num_frames(n) for n in LENGTHS]
    states = [state.split(counts) for state in ours.hidden_states(wavs)]
    for index, wav in enumerate(wavs):
        padded = nn.functional.pad(wav, (0, max(0, 159 - len(wav))))
        with torch.no_grad():
            context, encoded, _ = theirs(padded[None, None], None)
        assert encoded.shape[1] == counts[index]
        assert relative(states[0][index], encoded[0]) < 1e-5
        width = context.shape[2]
        assert relative(states[1][index][:, :width], context[0]) < 1e-5
        assert not states[1][index][:, width:].any()


def test_s3prl_s_own_wrapper_has_the_same_states_in_the_same_order(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    from s3prl.upstream.cpc.expert import UpstreamExpert

    wav = waves(batch(8000))[0]
    with torch.no_grad():
        theirs = UpstreamExpert(str(path)).eval()([wav])["hidden_states"]
    for got, want in zip(s3prl.convert(path).hidden_states([wav]), theirs, strict=True):
        assert relative(got, want[0]) < 1e-5


def test_channel_norm_is_s3prl_s() -> None:
    s3prl.ensure_importable()
    from s3prl.upstream.cpc.model import ChannelNorm as Theirs

    theirs, ours = Theirs(7), ChannelNorm(7)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.copy_(torch.randn(7))
            other.copy_(mine[None, :, None])
    x_BCT = torch.randn(2, 7, 5) * 1e-2
    assert relative(ours(x_BCT.transpose(1, 2)).transpose(1, 2), theirs(x_BCT)) < 1e-6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cpc_mode": "reverse"}, "cpc_mode"),
        ({"samplingType": "sequential"}, "samplingType"),
        ({"encoder_type": "lfb"}, "encoder_type"),
    ],
)
def test_settings_that_ours_lacks_are_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path, _ = checkpoint(tmp_path)
    content = torch.load(path, weights_only=True)
    with pytest.raises(ValueError, match=said):
        reader.s3prl({**content, "config": {**content["config"], **change}}, path)


def test_weights_that_s3prl_would_ignore_or_miss_are_named(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    content = torch.load(path, weights_only=True)
    weights = dict(content["weights"])
    weights["gEncoder.conv9.weight"] = torch.zeros(2)
    with pytest.raises(ValueError, match=r"gEncoder\.conv9\.weight"):
        reader.s3prl({**content, "weights": weights}, path)
    del weights["gEncoder.conv9.weight"], weights["gAR.baseNet.bias_ih_l0"]
    with pytest.raises(ValueError, match=r"gAR\.baseNet\.bias_ih_l0"):
        reader.s3prl({**content, "weights": weights}, path)
    assert reader.s3prl({"model": {}, "config": {}}, path) is None


def test_a_model_without_predictors_cannot_be_trained(tmp_path: Path) -> None:
    model = s3prl.convert(checkpoint(tmp_path)[0])
    with pytest.raises(ValueError, match="objective=False"):
        model.loss(batch(16000))
