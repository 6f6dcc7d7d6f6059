"""HuBERT and WavLM: losses against torchaudio and s3prl, labels, mixing, the relative bias."""

import dataclasses
import importlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import mynah.upstream
from mynah.upstream.core.bias import Alibi, RelativeBias, distances, rows, slopes
from mynah.upstream.core.contract import Batch
from mynah.upstream.core.mfcc import Mfcc
from mynah.upstream.core.mixing import mix_utterances
from mynah.upstream.hubert import CONFIGS, Config, Hubert


def small(**changes: Any) -> Config:
    values: dict[str, Any] = {
        "conv_channels": 16,
        "dim": 32,
        "layers": 2,
        "heads": 4,
        "ffn": 48,
        "pos_kernel": 16,
        "pos_groups": 4,
        "clusters": 12,
        "final_dim": 8,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
        "input_dropout": 0.0,
    }
    return Config(**{**values, **changes})


def waves(*sizes: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator) * 0.1 for n in sizes]


def batch_of(wavs: list[Tensor], labels: list[Tensor] | None, seed: int = 0) -> Batch:
    return Batch(
        wav_BS=torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True),
        lengths_B=torch.tensor([len(w) for w in wavs]),
        ids=tuple(f"u{i}" for i in range(len(wavs))),
        generator=torch.Generator().manual_seed(seed),
        labels=None if labels is None else tuple(labels),
    )


def test_the_loss_is_the_published_noise_contrastive_one() -> None:
    """-log of exp(cos(a_t, e_c) / 0.1) over the sum over clusters, term by term in float64."""
    model = Hubert(small(penalty_weight=0.0)).eval()
    wavs = waves(8000, 8000)
    frames = [model.num_frames(len(w)) for w in wavs]
    generator = torch.Generator().manual_seed(3)
    labels_BT = torch.randint(12, (2, frames[0]), generator=generator)
    mask_BT = torch.rand(2, frames[0], generator=generator) < 0.5
    with torch.no_grad():
        loss = model.predict(wavs, mask_BT, labels_BT)
        states = model.states(model.frames(wavs), mask_BT)[-1]
        total, right = 0.0, 0
        for b, t in mask_BT.nonzero().tolist():
            a = model.final_proj(states[b, t]).double()
            cosines = [float(a @ e / a.norm() / e.norm()) / 0.1 for e in model.clusters_VF.double()]
            want = int(labels_BT[b, t])
            total -= cosines[want] - torch.tensor(cosines).logsumexp(0).item()
            right += max(range(12), key=cosines.__getitem__) == want
    assert float(loss.total) == pytest.approx(total / int(mask_BT.sum()), rel=1e-5)
    assert float(loss.parts["accuracy"]) == pytest.approx(right / int(mask_BT.sum()))
    assert loss.weight == float(mask_BT.sum())


def test_loss_and_features_equal_torchaudio() -> None:
    torchaudio = pytest.importorskip("torchaudio.models")
    config = small(penalty_weight=0.0, unmasked_weight=0.0)
    model = Hubert(config).eval()
    theirs = torchaudio.hubert_pretrain_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[
            (16, k, s) for k, s in zip(config.conv_kernels, config.conv_strides, strict=True)
        ],
        extractor_conv_bias=False,
        encoder_embed_dim=32,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=16,
        encoder_pos_conv_groups=4,
        encoder_num_layers=2,
        encoder_num_heads=4,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=48,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        mask_prob=0.5,
        mask_selection="static",
        mask_other=0.0,
        mask_length=4,
        no_mask_overlap=False,
        mask_min_space=1,
        mask_channel_prob=0.0,
        mask_channel_selection="static",
        mask_channel_other=0.0,
        mask_channel_length=10,
        no_mask_channel_overlap=False,
        mask_channel_min_space=1,
        skip_masked=False,
        skip_nomask=True,
        num_classes=12,
        final_dim=8,
        feature_grad_mult=None,
    ).eval()
    copy_torchaudio(model, theirs)
    wavs = waves(6400, 6400)
    count = model.num_frames(6400)
    labels_BT = torch.randint(12, (2, count), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    with torch.no_grad():
        logits, _, _ = theirs(torch.stack(wavs), labels_BT)
        torch.manual_seed(0)
        x, _ = theirs.wav2vec2.feature_extractor(torch.stack(wavs), None)
        mask_BT = draw_mask(theirs, theirs.wav2vec2.encoder.feature_projection(x))
        loss = model.predict(wavs, mask_BT, labels_BT)
    # torchaudio's logits hold the positive first and -inf where a candidate equals it
    wanted = F.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.int64))
    assert float(loss.total) == pytest.approx(float(wanted), rel=1e-5)


def draw_mask(theirs: Any, x: Tensor) -> Tensor:
    _, mask = theirs.mask_generator(x, None)
    return mask


def copy_torchaudio(model: Hubert, theirs: Any) -> None:
    own = model.state_dict()
    given = theirs.state_dict()
    layer = {
        "attn.q": "attention.q_proj",
        "attn.k": "attention.k_proj",
        "attn.v": "attention.v_proj",
        "attn.o": "attention.out_proj",
        "norm1": "layer_norm",
        "ff1": "feed_forward.intermediate_dense",
        "ff2": "feed_forward.output_dense",
        "norm2": "final_layer_norm",
    }
    pos = "wav2vec2.encoder.transformer.pos_conv_embed.conv."
    fixed = {
        "mask_emb": "mask_generator.mask_embedding",
        "clusters_VF": "logit_generator.label_embeddings",
        "encoder.pos.bias": pos + "bias",
    }
    for key in own:
        part, _, leaf = key.rpartition(".")
        words = key.split(".")
        if key in fixed:
            name = fixed[key]
        elif key == "encoder.pos.gain":
            name = next(k for k in given if k.startswith(pos) and k.endswith(("original0", "_g")))
        elif key == "encoder.pos.direction":
            name = next(k for k in given if k.startswith(pos) and k.endswith(("original1", "_v")))
        elif key.startswith("encoder.layers."):
            inner = layer[".".join(words[3:-1])]
            name = f"wav2vec2.encoder.transformer.layers.{words[2]}.{inner}.{leaf}"
        elif key.startswith("frontend.conv."):
            kind = "conv" if words[3] == "conv" else "layer_norm"
            name = f"wav2vec2.feature_extractor.conv_layers.{words[2]}.{kind}.{leaf}"
        else:
            name = {
                "frontend.norm": "wav2vec2.encoder.feature_projection.layer_norm",
                "frontend.proj": "wav2vec2.encoder.feature_projection.projection",
                "encoder.norm": "wav2vec2.encoder.transformer.layer_norm",
                "final_proj": "logit_generator.final_proj",
            }[part] + f".{leaf}"
        assert given[name].shape == own[key].shape, (key, name)
        own[key] = given[name]
    model.load_state_dict(own)


def test_mfcc_equals_torchaudio() -> None:
    kaldi = importlib.import_module("torchaudio.compliance.kaldi")
    wavs = waves(16000, 401, 5000)
    x_ND, counts = Mfcc()(wavs)
    functional = importlib.import_module("torchaudio.functional")
    for wav, x_TD in zip(wavs, x_ND.split(counts), strict=True):
        want = kaldi.mfcc(wav[None], sample_frequency=16000.0, use_energy=False).T
        first = functional.compute_deltas(want)
        full = torch.cat([want, first, functional.compute_deltas(first)]).T
        assert x_TD.shape == full.shape
        assert float((x_TD - full).abs().max() / full.abs().max()) < 1e-5


def test_labels_must_fit_the_frames_and_the_clusters() -> None:
    model = Hubert(small()).train()
    wavs = waves(8000, 6000)
    right = [torch.zeros(model.num_frames(len(w)), dtype=torch.int64) for w in wavs]
    assert torch.isfinite(model.loss(batch_of(wavs, right)).total)
    with pytest.raises(ValueError, match="names none"):
        model.loss(batch_of(wavs, None))
    with pytest.raises(ValueError, match=r"u1: 3 labels for \d+ frames"):
        model.loss(batch_of(wavs, [right[0], right[1][:3]]))
    with pytest.raises(ValueError, match="label 12 for a model with 12 clusters"):
        model.loss(batch_of(wavs, [right[0] + 12, right[1]]))
    reader = Hubert(small(objective=False))
    with pytest.raises(ValueError, match="objective=False"):
        reader.loss(batch_of(wavs, right))


def test_frames_without_a_label_are_not_predicted() -> None:
    model = Hubert(small(penalty_weight=0.0)).eval()
    wavs = waves(8000)
    count = model.num_frames(8000)
    labels_BT = torch.randint(12, (1, count), generator=torch.Generator().manual_seed(0))
    mask_BT = torch.ones(1, count, dtype=torch.bool)
    half_BT = labels_BT.clone()
    half_BT[:, count // 2 :] = -1
    with torch.no_grad():
        loss = model.predict(wavs, mask_BT, half_BT)
        none = model.predict(wavs, mask_BT, torch.full_like(labels_BT, -1))
    assert loss.weight == count // 2
    assert float(none.total) == 0.0


def test_mixing_keeps_length_and_ratio() -> None:
    wavs = waves(16000, 12000, 9000)
    same = mix_utterances(wavs, share=0.0, decibels=5.0, generator=torch.Generator())
    assert all(torch.equal(a, b) for a, b in zip(wavs, same, strict=True))
    mixed = mix_utterances(
        wavs, share=1.0, decibels=5.0, generator=torch.Generator().manual_seed(0)
    )
    for before, after in zip(wavs, mixed, strict=True):
        changed = (after != before).nonzero().flatten()
        assert len(after) == len(before)
        stretch = int(changed[-1] - changed[0]) + 1
        assert 0 < stretch <= len(before) // 2 + 1
        added = (after - before)[changed[0] : changed[-1] + 1]
        ratio = 10 * torch.log10(before.square().mean() / added.square().mean())
        assert abs(float(ratio)) < 6.5  # the source is white noise: a stretch is like the whole
    silent = mix_utterances(
        [wavs[0], torch.zeros(8000)], share=1.0, decibels=5.0, generator=torch.Generator()
    )
    assert all(torch.isfinite(w).all() for w in silent)
    assert not silent[1].any()
    alone = mix_utterances(wavs[:1], share=1.0, decibels=5.0, generator=torch.Generator())
    assert torch.equal(alone[0], wavs[0])


def test_relative_bias_buckets_are_wavlms() -> None:
    s3prl = importlib.import_module("mynah.upstream.interop.s3prl")
    s3prl.ensure_importable()
    modules = importlib.import_module("s3prl.upstream.wavlm.modules")
    theirs = modules.MultiheadAttention(
        16, 4, has_relative_attention_bias=True, num_buckets=32, max_distance=80
    )
    ours = RelativeBias(4, buckets=32, max_distance=80)
    ours.values.weight.data.copy_(theirs.relative_attention_bias.weight.data)
    want = theirs.compute_bias(200, 200)
    with torch.no_grad():
        got = ours(distances(200, torch.device("cpu")))
        table = ours(torch.arange(-199, 200))
    assert torch.equal(got, want)
    assert torch.equal(rows(table, 50, 120, 200), want[:, 50:120])


def test_alibi_slopes() -> None:
    assert slopes(4) == [2**-2, 2**-4, 2**-6, 2**-8]
    assert len(slopes(12)) == 12
    assert slopes(12)[8:] == [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    bias = Alibi(4)(distances(5, torch.device("cpu"))).detach()
    assert torch.equal(bias[1], bias[1].T)
    assert float(bias[1, 0, 3]) == -3 * 2**-4


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_packed_features_equal_the_training_path_with_every_switch(norm: str) -> None:
    """Gated bias, window, stacks and shared layers: the two forms of the encoder are one function."""
    for changes in (
        {"bias": "gated", "relative_buckets": 32, "relative_distance": 80},
        {"bias": "relative", "window": 9},
        {"bias": "alibi"},
        {"window": 7},
        {"window": 200},
        {"position": "conv-stack", "pos_kernel": 5},
        {"shared": True, "layers": 4},
    ):
        torch.manual_seed(0)
        model = Hubert(small(front="mel", norm=norm, penalty_weight=0.0, **changes)).eval()
        if model.encoder.bias is not None:
            for p in model.encoder.bias.parameters():
                p.data.uniform_(0.2, 2.0)
        wavs = waves(32000, 4000, 52000, 52000)
        with torch.no_grad():
            frames = model.frames(wavs)
            trained = [s[frames.valid_BT] for s in model.states(frames)]
            packed = list(model.hidden_states(wavs))
        assert len(trained) == len(packed) == model.num_layers
        for a, b in zip(trained, packed, strict=True):
            assert float((a - b).abs().max() / a.abs().max()) < 2e-5, changes


def test_a_window_hides_what_is_far_and_nothing_else() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(small(front="mel", window=4, position="none", layers=1))
    model = Hubert(config).eval()
    x_BTD = torch.randn(1, 40, 32)
    changed_BTD = x_BTD.clone()
    changed_BTD[:, 20] = 3 * torch.randn(32)
    with torch.no_grad():
        before, after = (model.encoder(x)[-1] for x in (x_BTD, changed_BTD))
    moved = (before != after).any(-1)[0].nonzero().flatten()
    assert moved.tolist() == list(range(16, 25))


def test_published_sizes() -> None:
    with torch.device("meta"):
        sizes = {
            name: sum(p.numel() for p in mynah.upstream.build(f"hubert/{name}").parameters())
            for name in ("base", "large", "wavlm")
        }
    # transformers' HubertModel (base) has 94,371,712; ours adds projection and cluster vectors
    extra = 768 * 256 + 256 + 100 * 256
    assert sizes["base"] - extra == 94_371_712
    assert sizes["large"] > 310_000_000
    # per layer 64 x 8 + 8 + 12 for the gate, once 320 x 12 for the buckets
    assert sizes["wavlm"] - sizes["base"] == 12 * (64 * 8 + 8 + 12) + 320 * 12 + 400 * 256


def test_variants() -> None:
    assert {"base", "large", "wavlm", "wavlm-large", "tiny", "tiny-wavlm"} <= set(CONFIGS)
