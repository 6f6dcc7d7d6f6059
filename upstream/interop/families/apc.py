"""APC and VQ-APC from checkpoints of s3prl: ``model`` (weights) and ``config`` (settings).

APC's authors publish weights alone, whose settings are in the file's name
(``bs32-rhl3-rhs512-rd0-adam-res-ts3.pt``: dropout 0, residual connections, three frames ahead). Their
inputs, made by Kaldi, were normalised beforehand; ours are in each utterance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop.filling import at, fill, require


def s3prl(content: Mapping[str, Any], path: str | Path) -> Upstream | None:
    """Return the APC of a checkpoint, None where it holds something else.

    Raises:
        ValueError: an APC with a setting that ours does not have, or whose weights do not fit.
    """
    from mynah.upstream.apc import Apc, Config

    paras, audio = at(content, "config", "model", "paras"), at(content, "config", "data", "audio")
    weights = at(content, "model")
    if "rnns.0.weight_ih_l0" in content:
        return _published(content, path)
    if "rnn_layers.0.weight_ih_l0" not in weights:
        return None
    require(
        path,
        {**audio, **paras},
        feat_type="fbank",
        frame_length=25,
        frame_shift=10,
        cmvn=True,
        residual=True,
    )
    vq = at(paras, "vq")
    config = Config(
        num_mels=int(audio["feat_dim"]),
        width=int(paras["hidden_size"]),
        layers=int(paras["num_layers"]),
        dropout=float(paras["dropout"]),
        shift=int(at(content, "config", "task").get("n_future", Config.shift)),
        codes=tuple(vq.get("codebook_size", ())),
        code_dims=tuple(vq.get("code_dim", ())),
        gumbel_temperature=float(vq.get("gumbel_temperature", Config.gumbel_temperature)),
        loss_over_padding=True,
    )
    for group in range(len(config.codes)):  # a setting there, a buffer here
        temperature = torch.tensor(config.gumbel_temperature)
        weights[f"vq_layers.{group}.temperature"] = temperature
    return fill(Apc(config), weights, apc_key, path)


_SAYS = re.compile(r".*-rd(?P<dropout>[\d.]+)-\w+-(?P<res>res-)?ts(?P<shift>\d+)")


def _published(content: Mapping[str, Any], path: str | Path) -> Upstream:
    """Return the APC of its authors' weights.

    Raises:
        ValueError: a name that does not tell the settings, one with a setting that ours does not
            have, or weights that do not fit.
    """
    from mynah.upstream.apc import Apc, Config

    said = _SAYS.fullmatch(Path(path).stem)
    if said is None or not said["res"]:
        raise ValueError(
            f"{path}: weights of APC alone, whose settings its authors write into the file's name; "
            "ours has residual connections, so the name must be as in "
            "bs32-rhl3-rhs512-rd0-adam-res-ts3.pt"
        )
    weights = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    config = Config(
        num_mels=weights["rnns.0.weight_ih_l0"].shape[1],
        width=weights["rnns.0.weight_hh_l0"].shape[1],
        layers=sum(key.endswith(".weight_hh_l0") for key in weights),
        dropout=float(said["dropout"]),
        shift=int(said["shift"]),
    )
    name = "postnet.layer.weight"  # a convolution over one frame
    if name in weights and weights[name].ndim == 3:
        weights[name] = weights[name].squeeze(2)
    return fill(Apc(config), weights, _published_key, path)


def _published_key(key: str) -> str:
    """Return the authors' name of one of our APC's weights."""
    return key.replace("layers.", "rnns.").replace("predict.", "postnet.layer.")


_PARTS = {
    "layers.": "rnn_layers.",
    "quantizers.": "vq_layers.",
    "logits.": "vq_logits.",
    "codebook.": "codebook_CxE.",
    "predict.": "postnet.",
}


def apc_key(key: str) -> str:
    """Return s3prl's name of one of our APC's weights."""
    for ours, theirs in _PARTS.items():
        key = key.replace(ours, theirs)
    return key
