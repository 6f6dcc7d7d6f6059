"""Pairs with s3prl's models on waveforms that are no Transformers: CPC, wav2vec, vq-wav2vec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mynah.recipes.parity.compare import apart, built, waves
from mynah.recipes.parity.s3prl_pairs import pair

if TYPE_CHECKING:
    from torch import Tensor

WAV2VEC: dict[str, Any] = {
    "infonce": False, "prediction_steps": 4, "num_negatives": 5,
    "conv_feature_layers": "[(24, 10, 5), (24, 8, 4), (24, 4, 2), (24, 4, 2), (24, 4, 2)]",
    "conv_aggregator_layers": "[(24, 2, 1), (24, 3, 1), (24, 5, 1)]",
    "skip_connections_agg": True, "residual_scale": 0.5, "log_compression": True,
    "activation": "relu", "offset": "auto", "vq_type": "none",
}  # fmt: skip
GUMBEL = {"vq_type": "gumbel", "vq_vars": 7, "vq_groups": 2, "vq_depth": 3, "activation": "gelu"}
KMEANS = {"vq_type": "kmeans", "vq_vars": 7, "vq_groups": 2, "vq_gamma": 0.3, "activation": "gelu"}


def cpc(**settings: Any) -> tuple[dict[str, Any], Any]:
    """Build a CPC."""
    from s3prl.upstream.cpc.model import CPCAR, CPCEncoder, CPCModel

    config = {
        "hiddenEncoder": 24, "hiddenGar": 24, "normMode": "layerNorm", "arMode": "LSTM",
        "nLevelsGRU": 1, "encoder_type": "cpc", "cpc_mode": None, "samplingType": "samespeaker",
        "onEncoder": False, **settings,
    }  # fmt: skip
    width, levels, mode = config["hiddenGar"], config["nLevelsGRU"], config["arMode"]
    model = built(
        lambda: CPCModel(
            CPCEncoder(config["hiddenEncoder"], config["normMode"]),
            CPCAR(config["hiddenEncoder"], width, False, levels, mode=mode),
        )
    )
    return {"config": config, "weights": model.state_dict()}, model


def wav2vec(**settings: Any) -> tuple[dict[str, Any], Any]:
    """Build a wav2vec or, with ``vq_type``, a vq-wav2vec."""
    from s3prl.upstream.wav2vec.wav2vec_model import Wav2VecConfig, Wav2VecModel

    config = {**WAV2VEC, **settings}
    model = built(lambda: Wav2VecModel(Wav2VecConfig(**config)))
    content = {"task_cfg": {"normalize": False}, "model_cfg": config}
    return {**content, "model_weight": model.state_dict()}, model


def wav2vec_loss(ours: Any, theirs: Any) -> float:
    """Compare fairseq's criterion for the same distractors: sum over logits / positives.

    The quantisers' terms are given a weight of 1; theirs of the Gumbel one is not divided by the
    number of codes.
    """
    import dataclasses

    import torch
    from torch.nn import functional as F

    from mynah.upstream.core.future import draw_others

    wavs = waves((9000, 9000))
    counts = [ours.num_frames(9000)] * 2
    generator = torch.Generator().manual_seed(2)
    others_BTN = draw_others(counts, ours.config.negatives, generator=generator)

    def given(y_BCT: Tensor) -> Tensor:  # theirs are (N, B, C, T)
        rows = torch.arange(len(y_BCT))[:, None, None]
        return y_BCT.transpose(1, 2)[rows, others_BTN].permute(2, 0, 3, 1)

    theirs.wav2vec_predictions.sample_negatives = given
    quantised = theirs.vector_quantizer is not None
    if quantised:
        codes = float(ours.config.codes * ours.config.groups)
        ours.config = dataclasses.replace(ours.config, diversity_weight=codes, kmeans_weight=1.0)
    with torch.no_grad():
        found = theirs(torch.stack(wavs))
        logits, wanted = theirs.get_logits(found), theirs.get_targets(None, found)
        expected = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        expected = expected / wanted.sum()
        if not quantised:
            return apart(ours.predict(wavs, others_BTN).total, expected)
        loss = ours.predict(wavs, others_BTN, generator=None)
        return apart(loss.total, expected + theirs.get_extra_losses(found))


PAIRS = [
    pair("cpc", "cpc_local", cpc, setting="channel norm, LSTM"),
    pair("cpc", "cpc_local", cpc, setting="batch norm, GRU", normMode="batchNorm", arMode="GRU"),
    pair("wav2vec", "wav2vec_custom", wav2vec, setting="", loss=wav2vec_loss),
    pair("vq_wav2vec", "vq_wav2vec_custom", wav2vec, setting="gumbel", loss=wav2vec_loss, **GUMBEL),
    pair("vq_wav2vec", "vq_wav2vec_custom", wav2vec, setting="kmeans", loss=wav2vec_loss, **KMEANS),
]
