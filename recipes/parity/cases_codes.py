"""Pairs with s3prl where an entry of its hub does not do: BERT on codes, BYOL-A's clips."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mynah.recipes.parity import cases_wave
from mynah.recipes.parity.compare import Measured, Pair, apart, built, relative, waves
from mynah.recipes.parity.s3prl_pairs import saved

if TYPE_CHECKING:
    from torch import Tensor

CODES = 7  # of each of two groups


def roberta(folder: Path) -> tuple[Any, Any]:
    """Write a small RoBERTa and its vq-wav2vec; return it and s3prl's upstream of both."""
    import torch
    from s3prl.hub import vq_wav2vec_custom
    from s3prl.upstream.roberta.dictionary import Dictionary
    from s3prl.upstream.roberta.expert import UpstreamExpert
    from s3prl.upstream.roberta.hubconf import _vq_wav2vec_codeids_wrapper
    from s3prl.upstream.roberta.roberta_model import RobertaEncoder, RobertaModel

    coder, _ = saved(folder, cases_wave.wav2vec, **cases_wave.KMEANS)
    coder = coder.rename(folder / "vq-wav2vec_kmeans.pt")
    args = argparse.Namespace(
        encoder_layers=2, encoder_embed_dim=16, encoder_ffn_embed_dim=32, max_positions=64,
        encoder_attention_heads=2, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    text = "".join(f"{i}-{j} 1\n" for i in range(CODES) for j in range(CODES) if (i + j) % 5)
    (folder / "dict.txt").write_text(text, encoding="utf-8")
    dictionary = Dictionary.load(str(folder / "dict.txt"))
    dictionary.add_symbol("<mask>")
    model = built(lambda: RobertaModel(args, RobertaEncoder(args, dictionary)))
    content: dict[str, Any] = {
        "task_cfg": {"mask_prob": 0.5, "mask_multiple_length": 10},
        "model_cfg": vars(args),
        "model_weight": model.state_dict(),
        "text_dictionary": text,
    }
    torch.save(content, folder / "ours.pt")
    task = {**content["task_cfg"], "data": "", "seed": 0}
    torch.save({**content, "model_cfg": args, "task_cfg": task}, folder / "theirs.pt")
    words = _vq_wav2vec_codeids_wrapper(vq_wav2vec_custom(str(coder)))
    return model, UpstreamExpert(str(folder / "theirs.pt"), words).eval()


def code_bert(folder: Path) -> Measured:
    """Compare states and the loss of filled in words."""
    import torch

    from mynah.upstream.interop import s3prl, s3prl_hub

    s3prl.ensure_importable()
    with s3prl_hub.quietly(), s3prl_hub.reading_safely():
        model, theirs = roberta(folder)
    ours: Any = s3prl.convert(folder / "ours.pt").eval()
    lost = code_bert_loss(ours, model)
    ours.freeze()
    worst = 0.0
    for wav in waves():
        with torch.no_grad(), s3prl_hub.quietly():
            expected = [state[0, 1:-1] for state in theirs([wav])["hidden_states"]]  # <s>, </s>
        for got, want in zip(ours.hidden_states([wav]), expected, strict=True):
            worst = max(worst, relative(got, want))
    return Measured(worst, lost)


def code_bert_loss(ours: Any, theirs: Any) -> float:
    """Compare the cross-entropy of masked words; which are masked or swapped is drawn by ours."""
    import torch
    from torch.nn import functional as F

    from mynah.upstream.core.masked_words import BEGIN, END

    words: list[Tensor] = ours.frame_words(waves((9000,)))
    mask = torch.arange(len(words[0])) % 3 == 0
    generator = torch.Generator().manual_seed(0)
    loss = ours.fill_in(words, [mask], generator=generator)
    seen = ours.corrupted(words[0], mask, torch.Generator().manual_seed(0))
    tokens = torch.cat([torch.tensor([BEGIN]), seen, torch.tensor([END])])
    with torch.no_grad():
        logits = theirs(tokens[None], masked_tokens=F.pad(mask, (1, 1))[None])[0]
    return apart(loss.total, F.cross_entropy(logits, words[0][mask]))


def byol(folder: Path) -> Measured:
    """Compare the embedding of a clip of one second, and the loss of two views."""
    import torch

    from mynah.upstream.interop import s3prl, s3prl_hub

    s3prl.ensure_importable()
    from s3prl.upstream.byol_a import expert
    from s3prl.upstream.byol_a.byol_a import AudioNTT2020

    model = built(lambda: AudioNTT2020(n_mels=64, d=96))
    path = folder / "AudioNTT2020-BYOLA-64x96d96.pth"
    torch.save(model.state_dict(), path)
    settings = Path(expert.__file__).with_name("config.yaml")
    ours: Any = s3prl.convert(path).eval()
    (wav,) = waves((16000,))
    with torch.no_grad(), s3prl_hub.quietly():
        theirs = expert.UpstreamExpert(str(path), str(settings), 96).eval()
        expected = theirs([wav])["hidden_states"][0][0, 0]
        got = ours.encoder.embed(ours.spectrum(wav)[None])[0]
    return Measured(relative(got, expected), byol_loss())


def byol_loss() -> float:
    """Compare the distance of predictions from targets, with a target network of its own weights."""
    import torch
    from s3prl.upstream.byol_a.byol_a import AudioNTT2020
    from s3prl.upstream.byol_s.byol_a.augmentations import NormalizeBatch
    from s3prl.upstream.byol_s.byol_a.byol_pytorch import BYOL

    from mynah.upstream.byol import Byol, Config

    theirs: Any = built(
        lambda: BYOL(
            AudioNTT2020(n_mels=16, d=24),
            (16, 31),
            projection_size=10,
            projection_hidden_size=20,
            moving_average_decay=0.9,
        )
    )
    ours = Byol(Config(num_mels=16, embed_dim=24, projector=(20, 10), predictor=20)).eval()
    for encoder, heads, other in (
        (ours.encoder, ours.projector, theirs.online_encoder),
        (ours.target_encoder, ours.target_projector, theirs.target_encoder),
    ):
        copy_audiontt(encoder, other.net)
        copy_mlp(heads, other.projector)
    copy_mlp(ours.predictor, theirs.online_predictor)
    generator = torch.Generator().manual_seed(0)
    a_BMT, b_BMT = torch.randn(2, 8, 16, 31, generator=generator)
    with torch.no_grad():
        both = NormalizeBatch()(torch.cat([a_BMT, b_BMT])[:, None])
        return apart(ours.compare(a_BMT, b_BMT).total, theirs(both[:8], both[8:]))


def copy_audiontt(ours: Any, theirs: Any) -> None:
    """Copy a published encoder, the bias of its convolutions into the batch norms' means."""
    for depth, block in enumerate(ours.blocks):
        conv, norm = theirs.features[4 * depth], theirs.features[4 * depth + 1]
        block.conv.weight.data.copy_(conv.weight.data)
        block.norm.load_state_dict(norm.state_dict())
        block.norm.running_mean.sub_(conv.bias.data)
    ours.fc1.load_state_dict(theirs.fc[0].state_dict())
    ours.fc2.load_state_dict(theirs.fc[3].state_dict())


def copy_mlp(ours: Any, theirs: Any) -> None:
    """Copy a published head of two layers with a batch norm between, likewise.

    A last bias that ours does not have is set to zero in theirs: it gets no gradient.
    """
    import torch

    with torch.no_grad():
        ours[0].weight.copy_(theirs.lin1.weight)
        ours[1].load_state_dict(theirs.bn.state_dict())
        ours[1].running_mean.sub_(theirs.lin1.bias)
        ours[3].weight.copy_(theirs.lin2.weight)
        if ours[3].bias is None:
            theirs.lin2.bias.zero_()
        else:
            ours[3].bias.copy_(theirs.lin2.bias)


PAIRS = [
    Pair(
        family="code_bert",
        reference="s3prl discretebert",
        setting="kmeans",
        measure=code_bert,
    ),
    Pair(family="byol", reference="s3prl byol_a", setting="clips", measure=byol),
]
