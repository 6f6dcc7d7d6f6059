"""HuBERT, WavLM, DistilHuBERT and data2vec from elsewhere: heads kept where they are whole.

That every hidden state is the reference's is in test_parity.py.
"""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mynah.recipes.parity import cases_hf, cases_s3prl, cases_torchaudio
from mynah.recipes.parity.compare import built
from mynah.recipes.parity.s3prl_pairs import saved
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Batch, Upstream
from mynah.upstream.interop import fairseq, families, hf, s3prl

WAV = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def importable() -> None:
    s3prl.ensure_importable()


def make(maker: Any, folder: Path, **settings: Any) -> tuple[Path, dict[str, Any]]:
    path, _ = saved(folder, maker, **settings)
    return path, torch.load(path, weights_only=True)


def last(model: Upstream) -> Tensor:
    *_, state = model.freeze().hidden_states([WAV])
    return state


def batch(**more: Any) -> Batch:
    return Batch(
        wav_BS=WAV[None],
        lengths_B=torch.tensor([len(WAV)]),
        ids=("a",),
        generator=torch.Generator().manual_seed(0),
        **more,
    )


def test_cluster_vectors_are_kept(tmp_path: Path) -> None:
    path, content = make(cases_s3prl.hubert, tmp_path, classes=9)
    model = s3prl.convert(path)
    assert (model.config.objective, model.config.clusters, model.config.final_dim) == (True, 9, 8)
    assert torch.equal(
        model.state_dict()["clusters_VF"], content["model_weight"]["label_embs_concat"]
    )
    labels = torch.zeros(model.num_frames(len(WAV)), dtype=torch.int64)
    assert model.loss(batch(labels=(labels,))).total.isfinite()


def test_several_sets_of_labels_are_dropped_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, content = make(cases_s3prl.hubert, tmp_path)
    whole = last(s3prl.convert(path))
    weights = content["model_weight"]
    weights["final_proj.weight"] = torch.cat([weights["final_proj.weight"]] * 2)
    weights["final_proj.bias"] = torch.cat([weights["final_proj.bias"]] * 2)
    torch.save(content, path)
    with caplog.at_level(logging.WARNING):
        model = s3prl.convert(path)
    assert "several sets of labels" in caplog.text
    assert not model.config.objective
    assert torch.equal(last(model), whole)


def test_a_fine_tuned_hubert_is_its_encoder(tmp_path: Path) -> None:
    path, content = make(cases_s3prl.hubert, tmp_path)
    whole = last(s3prl.convert(path))
    weights = {
        f"w2v_encoder.w2v_model.{key}": value
        for key, value in content["model_weight"].items()
        if key != "label_embs_concat"
    }
    weights["w2v_encoder.proj.weight"] = torch.ones(5, 32)
    settings = {"model": content["model_cfg"], "task": {}}
    cfg = {"model": {"_name": "hubert_ctc", "w2v_args": settings}, "task": {"normalize": False}}
    torch.save({"cfg": cfg, "model": weights}, path)
    model = fairseq.load(path)
    assert model.name == "hubert"
    assert not model.config.objective
    assert torch.equal(last(model), whole)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"target_glu": True}, "target_glu is True"), ({"activation_fn": "relu"}, "activation_fn")],
)
def test_settings_that_ours_lacks_are_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path, content = make(cases_s3prl.hubert, tmp_path)
    content["model_cfg"].update(change)
    torch.save(content, path)
    with pytest.raises(ValueError, match=said):
        s3prl.convert(path)


def test_the_bias_of_wavlm_is_what_its_settings_say(tmp_path: Path) -> None:
    path, content = make(cases_s3prl.wavlm, tmp_path)
    model = fairseq.load(path)
    assert (model.config.bias, model.config.relative_buckets) == ("gated", 32)
    assert model.config.relative_distance == 80
    lost = content["model"].pop("encoder.layers.1.self_attn.grep_a")
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"1 missing: encoder\.layers\.1\.self_attn\.grep_a"):
        fairseq.load(path)
    content["model"]["encoder.layers.1.self_attn.grep_a"] = lost[:, :1]
    torch.save(content, path)
    with pytest.raises(ValueError, match="1 different"):
        fairseq.load(path)


def test_a_head_of_another_kind_is_dropped(tmp_path: Path) -> None:
    import transformers

    config = transformers.WavLMConfig(
        **cases_hf.SIZE, tdnn_dim=[8] * 5, classifier_proj_size=8, xvector_output_dim=8
    )
    for head in (
        transformers.WavLMForSequenceClassification,
        transformers.WavLMForCTC,
        transformers.WavLMForXVector,
    ):
        folder = tmp_path / head.__name__
        model: Any = built(lambda head=head: head(config))  # type: ignore[misc]
        model.save_pretrained(folder)
        with torch.no_grad():
            want = model.wavlm(WAV[None]).last_hidden_state[0]
        torch.testing.assert_close(last(hf.load(folder)), want, rtol=1e-4, atol=1e-5)


def test_torchaudio_has_no_cluster_vectors(tmp_path: Path) -> None:
    del tmp_path
    import torchaudio.models

    model = built(
        lambda: torchaudio.models.wav2vec2_model(
            extractor_mode="group_norm",
            extractor_conv_bias=False,
            encoder_layer_norm_first=False,
            **cases_torchaudio.SIZE,
        )
    )
    ours = families.from_torchaudio(model, "hubert_base")
    assert ours is not None
    assert (ours.name, ours.config.objective) == ("hubert", False)
    assert families.from_torchaudio(model, "emformer_rnnt_base") is None


def test_the_teacher_of_data2vec_goes_on(tmp_path: Path) -> None:
    path, content = make(cases_s3prl.data2vec, tmp_path)
    features = s3prl.convert(path)
    assert not features.config.objective  # s3prl's has no head
    path, content = make(cases_s3prl.data2vec_whole, tmp_path)
    model = s3prl.convert(path)
    state, weights = model.state_dict(), content["model_weight"]
    for ours, theirs in (("ff1.bias", "fc1.bias"), ("attn.q.weight", "self_attn.q_proj.weight")):
        teacher = weights["_ema"][f"layers.0.{theirs}"]
        assert torch.equal(state[f"teacher.layers.0.{ours}"], teacher)
        assert not torch.equal(state[f"encoder.layers.0.{ours}"], teacher)
    assert model.loss(batch()).total.isfinite()
    assert torch.equal(last(model), last(features))
    content["model_cfg"]["layer_norm_targets"] = True
    torch.save(content, path)
    assert not s3prl.convert(path).config.objective


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task_emb_type": "add"}, "task_emb_type is 'add'"),
        ({"out_layer_inter_dim": 16}, "out_layer_inter_dim is 16"),
    ],
)
def test_a_distiller_of_another_kind_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path, content = make(cases_s3prl.distiller, tmp_path)
    content["Config"]["distiller"].update(change)
    torch.save(content, path)
    with pytest.raises(ValueError, match=said):
        s3prl.convert(path)


def test_a_distilhubert_without_heads_has_features_only(tmp_path: Path) -> None:
    model = hf.load(cases_hf.save(tmp_path, "hubert", feat_proj_layer_norm=False))
    assert (model.name, model.num_layers) == ("distilhubert", 4)
    with pytest.raises(ValueError, match="read without its heads"):
        model.loss(batch())
    modelfolder.save(model, tmp_path / "ours")
    assert torch.equal(last(modelfolder.load(tmp_path / "ours")), last(model))
