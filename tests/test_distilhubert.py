"""DistilHuBERT: s3prl's student on the same weights, its loss, teachers of every kind."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import mynah.upstream
from mynah.recipes import pretrain
from mynah.recipes.training import config
from mynah.upstream.core.contract import Batch, Upstream
from mynah.upstream.distilhubert import Config, Distilhubert


def small(**changes: Any) -> Config:
    values: dict[str, Any] = {
        "conv_channels": 16,
        "dim": 32,
        "heads": 4,
        "ffn": 48,
        "pos_kernel": 16,
        "pos_groups": 4,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "teacher_dim": 32,
        "teacher_layers": (1, 2),
    }
    return Config(**{**values, **changes})


def batch_of(*sizes: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    wav_BS = torch.randn(len(sizes), max(sizes), generator=generator) * 0.1
    return Batch(
        wav_BS=wav_BS,
        lengths_B=torch.tensor(sizes),
        ids=("a", "b")[: len(sizes)],
        generator=generator,
    )


def teacher(name: str = "wav2vec2/tiny") -> Upstream:
    return mynah.upstream.build(name).freeze()


def s3prl_student(model: Distilhubert) -> Any:
    importlib.import_module("mynah.upstream.interop.s3prl").ensure_importable()
    module = importlib.import_module("s3prl.upstream.distiller.model")
    config = model.config
    layers = list(zip(config.conv_kernels, config.conv_strides, strict=True))
    theirs = module.DistillerModel(
        module.DistillerConfig(
            {
                "extractor_mode": "default",
                "extractor_conv_feature_layers": str([(16, k, s) for k, s in layers]),
                "feature_grad_mult": 1.0,
                "conv_pos": 16,
                "conv_pos_groups": 4,
                "encoder_layers": 2,
                "encoder_embed_dim": 32,
                "encoder_ffn_embed_dim": 48,
                "encoder_attention_heads": 4,
                "activation_fn": "gelu",
                "layer_norm_first": False,
                "attention_type": "original",
                "dropout": 0.0,
                "attention_dropout": 0.0,
                "activation_dropout": 0.0,
                "encoder_layerdrop": 0.0,
                "final_dim": 32,
                "out_layer_type": "expand-last",
                "n_tasks": 2,
                "task_emb_type": "expand-last",
                "layer_emb_size": 0,
                "loss_type": "l1",
                "feat_pen_loss": 0.0,
                "cosine_loss": 1.0,
                "pred_layer_id": [1, 2],
                "init_teacher_conv_layers": False,
                "init_teacher_encoder_layers": False,
            }
        )
    ).eval()
    names = {
        "frontend.proj.weight": "post_extract_proj.weight",
        "frontend.proj.bias": "post_extract_proj.bias",
        "encoder.pos.bias": "encoder.pos_conv.0.bias",
        "encoder.norm.weight": "encoder.layer_norm.weight",
        "encoder.norm.bias": "encoder.layer_norm.bias",
        "widen.weight": "output_layer.0.weight",
        "widen.bias": "output_layer.0.bias",
    }
    inner = {
        "attn.q": "self_attn.q_proj",
        "attn.k": "self_attn.k_proj",
        "attn.v": "self_attn.v_proj",
        "attn.o": "self_attn.out_proj",
        "norm1": "self_attn_layer_norm",
        "ff1": "fc1",
        "ff2": "fc2",
        "norm2": "final_layer_norm",
    }
    new: dict[str, Tensor] = {}
    given = theirs.state_dict()
    for key, value in model.state_dict().items():
        part, _, leaf = key.rpartition(".")
        words = key.split(".")
        if key in names:
            new[names[key]] = value
        elif key == "encoder.pos.gain":
            new[
                next(
                    k for k in given if "pos_conv" in k and k.endswith(("0.weight_g", "original0"))
                )
            ] = value
        elif key == "encoder.pos.direction":
            new[
                next(
                    k for k in given if "pos_conv" in k and k.endswith(("0.weight_v", "original1"))
                )
            ] = value
        elif part.startswith("encoder.layers"):
            new[f"encoder.layers.{words[2]}.{inner['.'.join(words[3:-1])]}.{leaf}"] = value
        elif part.startswith("frontend.conv"):
            place = "0" if words[3] == "conv" else "2"
            new[f"feature_extractor.conv_layers.{words[2]}.{place}.{leaf}"] = value
        elif key == "heads_HDE":
            new["output_layer.2.weight"] = value
        elif key == "heads_bias_HE":
            new["output_layer.2.bias"] = value[None, None]
    for key, value in new.items():
        assert given[key].numel() == value.numel(), key
    theirs.load_state_dict({k: new[k].reshape(given[k].shape) for k in given})
    return theirs


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_states_equal_s3prl() -> None:
    torch.manual_seed(0)
    model = Distilhubert(small()).eval()
    theirs = s3prl_student(model)
    wav = batch_of(9000).wav_BS
    with torch.no_grad():
        _, feat, pred, _, layers = theirs(
            wav, torch.ones_like(wav, dtype=torch.bool), get_hidden=True
        )
        states = list(model.hidden_states([wav[0]]))
    assert model.num_layers == len(states) == 1 + 2 + 2
    want = [feat[0], *[h[0] for h in layers], pred[0, 0], pred[0, 1]]
    assert len(want) == len(states)
    for ours, other in zip(states, want, strict=True):
        assert float((ours - other).abs().max() / other.abs().max()) < 1e-5


def test_loss_is_l1_and_log_sigmoid_of_cosine() -> None:
    torch.manual_seed(0)
    big = teacher()
    config = Distilhubert.adopt_config(small(front="mel", from_teacher=False), big)
    assert config.teacher_dim == big.dim
    model = Distilhubert(config).eval()
    model.take_teacher(big)
    data = batch_of(16000, 9000)
    with torch.no_grad():
        loss = model.loss(data)
        states = list(big.hidden_states(data.wavs()))
        last = list(model.hidden_states(data.wavs()))[2]
        terms = []
        for head, layer in enumerate(config.teacher_layers):
            predicted, wanted = model.head(last, head).double(), states[layer].double()
            l1 = (predicted - wanted).abs().mean()
            cosine = F.cosine_similarity(predicted, wanted, dim=-1)
            terms.append(l1 - cosine.sigmoid().log().mean())
    assert float(loss.total) == pytest.approx(float(torch.stack(terms).mean()), rel=1e-5)
    assert loss.weight == len(last)


def test_a_teacher_with_other_frames_is_read_where_it_starts_next() -> None:
    big = teacher("apc/tiny")
    model = Distilhubert(
        Distilhubert.adopt_config(small(from_teacher=False, teacher_layers=(-1,)), big)
    )
    model.take_teacher(big)
    data = batch_of(16000, 7000)
    counts = [model.num_frames(n) for n in (16000, 7000)]
    targets = model.targets(data.wavs(), counts)
    last = list(big.hidden_states(data.wavs()))[-1]
    assert len(targets) == 1
    assert len(targets[0]) == sum(counts)
    assert torch.equal(targets[0][10], last[10])
    assert torch.equal(targets[0][counts[0]], last[big.num_frames(16000)])
    assert torch.isfinite(model.loss(data).total)


def test_the_student_starts_from_the_teachers_weights() -> None:
    torch.manual_seed(0)
    big = teacher("hubert/tiny")
    config = Distilhubert.adopt_config(small(front="mel", teacher_layers=(2, 3)), big)
    model = Distilhubert(config)
    model.take_teacher(big)
    assert (model.dim, config.ffn, config.layers) == (big.dim, big.config.ffn, 2)
    for key in ("frontend.proj.weight", "encoder.layers.1.ff1.weight", "encoder.pos.direction"):
        assert torch.equal(model.state_dict()[key], big.state_dict()[key])
    before = big.fingerprint()
    model.train()
    model.loss(batch_of(16000)).total.backward()
    assert big.fingerprint() == before
    assert not any(key.startswith("_teacher") for key in model.state_dict())


def test_an_untrained_teacher_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    args = pretrain.Args(
        model="distilhubert/tiny", corpus=(), out=Path("out"), teacher="hubert/tiny"
    )
    recipe = config.load(args.model)
    _, found = pretrain.fetch_teacher(args, recipe, torch.device("cpu"))
    assert found is not None
    assert "the teacher hubert/tiny is untrained" in caplog.text


def test_bad_teachers_are_refused() -> None:
    model = Distilhubert(small())
    with pytest.raises(ValueError, match="--teacher SPEC"):
        model.loss(batch_of(16000))
    with pytest.raises(ValueError, match="must be frozen"):
        model.take_teacher(mynah.upstream.build("wav2vec2/tiny"))
    with pytest.raises(ValueError, match="4 states of width 192"):
        model.take_teacher(teacher())
    with pytest.raises(ValueError, match="hidden states 0 to 3"):
        Distilhubert.adopt_config(small(teacher_layers=(9,)), teacher())
    with pytest.raises(ValueError, match="takes no teacher"):
        mynah.upstream.build("apc/tiny").take_teacher(teacher())
