"""BERT on codes: states and losses equal to RoBERTa's on the same words, and what is refused."""

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from small_coder import CODES, sounds, teacher
from waveforms import relative

from mynah.upstream.code_bert import CodeBert
from mynah.upstream.core import spec
from mynah.upstream.core.masked_words import BEGIN, END, UNKNOWN
from mynah.upstream.interop import s3prl, unpickle
from mynah.upstream.interop.families.code_bert import word_numbers

PAIRS = [(i, j) for i in range(6) for j in range(6) if (i + j) % 5]  # those that "occurred"


def roberta(folder: Path) -> tuple[Any, Any]:
    """A small RoBERTa of s3prl and its dictionary, saved beside its vq-wav2vec."""
    s3prl.ensure_importable()
    from s3prl.upstream.roberta.dictionary import Dictionary
    from s3prl.upstream.roberta.roberta_model import RobertaEncoder, RobertaModel

    args = argparse.Namespace(
        encoder_layers=2, encoder_embed_dim=16, encoder_ffn_embed_dim=32, max_positions=64,
        encoder_attention_heads=2, dropout=0.1, attention_dropout=0.1,
    )  # fmt: skip
    text = "".join(f"{i}-{j} 1\n" for i, j in PAIRS) + "madeupword0000 0\n"
    (folder / "dict.txt").write_text(text)
    dictionary = Dictionary.load(str(folder / "dict.txt"))
    dictionary.add_symbol("<mask>")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = RobertaModel(args, RobertaEncoder(args, dictionary))
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p)
    torch.save(
        {
            "task_cfg": {"mask_prob": 0.5, "mask_multiple_length": 10},
            "model_cfg": args,
            "model_weight": model.state_dict(),
            "text_dictionary": text,
        },
        folder / "bert.pt",
    )
    return model.eval(), dictionary


def coder_checkpoint(folder: Path) -> None:
    """The teacher as fairseq's vq-wav2vec."""
    from mynah.upstream.interop.families.vq_wav2vec import vq_wav2vec_key

    state = {
        vq_wav2vec_key(key, config=CODES): value for key, value in teacher().state_dict().items()
    }
    maps = "wav2vec_predictions.project_to_steps.weight"
    state[maps] = state[maps].permute(2, 1, 0)[:, :, None].contiguous()
    embedding = "vector_quantizer.embedding"
    state[embedding] = state[embedding].transpose(0, 1).contiguous()
    layers = [(12, k, s) for k, s in zip(CODES.kernels, CODES.strides, strict=True)]
    settings = {
        "conv_feature_layers": str(layers), "conv_aggregator_layers": "[(12, 2, 1)]",
        "prediction_steps": 2, "activation": "gelu", "vq_type": "kmeans", "vq_vars": 6,
    }  # fmt: skip
    torch.save(
        {"task_cfg": {}, "model_cfg": settings, "model_weight": state},
        folder / "vq-wav2vec_kmeans.pt",
    )


@pytest.fixture
def both(tmp_path: Path) -> tuple[CodeBert, Any, Any]:
    """Ours read from a checkpoint, s3prl's model, and its dictionary."""
    coder_checkpoint(tmp_path)
    theirs, dictionary = roberta(tmp_path)
    ours = s3prl.convert(tmp_path / "bert.pt")
    assert isinstance(ours, CodeBert)
    return ours, theirs, dictionary


def their_words(dictionary: Any, wav: Tensor) -> Tensor:
    """The words that s3prl makes of the codes: strings, looked up in the dictionary."""
    (codes_TG,) = teacher().codes([wav])
    line = "<s> " + " ".join(f"{i}-{j}" for i, j in codes_TG.tolist()) + " </s>"
    words: Tensor = dictionary.encode_line(line, append_eos=False, add_if_not_exist=False).long()
    return words


@pytest.mark.parametrize("n", [465, 9000, 16000], ids=["1 frame", "1 piece", "2 pieces"])
def test_states_equal_s3prl_s(both: tuple[CodeBert, Any, Any], n: int) -> None:
    ours, theirs, dictionary = both
    (wav,) = sounds(n)
    words_T = their_words(dictionary, wav)
    assert torch.equal(ours.frame_words([wav])[0], words_T[1:-1])
    if n > 465:
        assert len(words_T.unique()) > 10
        assert UNKNOWN in words_T
    with torch.no_grad():  # as s3prl's expert cuts it
        parts = [
            theirs(piece[None], features_only=True, return_all_hiddens=True)[1]["inner_states"]
            for piece in words_T.split(64)
        ]
    wanted = [torch.cat([part[layer][:, 0] for part in parts])[1:-1] for layer in range(3)]
    for got, want in zip(ours.freeze().hidden_states([wav]), wanted, strict=True):
        assert got.shape == want.shape
        assert relative(got, want) < 1e-5


def test_loss_equals_s3prl_s_and_hugging_face_s(both: tuple[CodeBert, Any, Any]) -> None:
    ours, theirs, _ = both
    hugging = hugging_face(theirs)
    wavs = sounds(9000, 5000, seed=1)
    words = ours.frame_words(wavs)
    generator = torch.Generator().manual_seed(0)
    masks = [torch.rand(len(word_T), generator=generator) < 0.4 for word_T in words]
    # one draw for both: ours of the corruption is repeated here
    loss = ours.eval().fill_in(words, masks, generator=torch.Generator().manual_seed(7))
    whole, mask = torch.cat(words), torch.cat(masks)
    seen = ours.corrupted(whole, mask, torch.Generator().manual_seed(7)).split(
        [len(word_T) for word_T in words]
    )
    ends = torch.tensor([BEGIN]), torch.tensor([END])
    tokens_BT = nn.utils.rnn.pad_sequence(
        [torch.cat([ends[0], word_T, ends[1]]) for word_T in seen],
        batch_first=True,
        padding_value=1,
    )
    inside_BT = nn.utils.rnn.pad_sequence(
        [F.pad(mask_T, (1, 1)) for mask_T in masks], batch_first=True
    )
    with torch.no_grad():
        logits = theirs(tokens_BT, masked_tokens=inside_BT)[0]
        expected = F.cross_entropy(logits, whole[mask])
        labels_BT = torch.full_like(tokens_BT, -100)
        labels_BT[inside_BT] = whole[mask]
        other = hugging(tokens_BT, attention_mask=tokens_BT.ne(1), labels=labels_BT).loss
    assert float(loss.total.detach()) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss.total.detach()) == pytest.approx(float(other), rel=1e-5)
    assert loss.weight == int(mask.sum())


def hugging_face(theirs: Any) -> Any:
    from transformers import RobertaConfig, RobertaForMaskedLM

    state = theirs.state_dict()
    model = RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=len(state["encoder.lm_head.bias"]), hidden_size=16, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=32, max_position_embeddings=66,
            type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5,
        )
    ).eval()  # fmt: skip
    sentence = "encoder.sentence_encoder."
    names = {
        "roberta.embeddings.word_embeddings": f"{sentence}embed_tokens",
        "roberta.embeddings.position_embeddings": f"{sentence}embed_positions",
        "roberta.embeddings.LayerNorm": f"{sentence}layernorm_embedding",
        "lm_head.dense": "encoder.lm_head.dense",
        "lm_head.layer_norm": "encoder.lm_head.layer_norm",
    }
    inner = {
        "attention.self.query": "self_attn.q_proj",
        "attention.self.key": "self_attn.k_proj",
        "attention.self.value": "self_attn.v_proj",
        "attention.output.dense": "self_attn.out_proj",
        "attention.output.LayerNorm": "self_attn_layer_norm",
        "intermediate.dense": "fc1",
        "output.dense": "fc2",
        "output.LayerNorm": "final_layer_norm",
    }
    for layer in range(2):
        for name, foreign in inner.items():
            names[f"roberta.encoder.layer.{layer}.{name}"] = f"{sentence}layers.{layer}.{foreign}"
    new = {}
    for name, foreign in names.items():
        for leaf in ("weight", "bias"):
            if f"{foreign}.{leaf}" in state:
                new[f"{name}.{leaf}"] = state[f"{foreign}.{leaf}"]
    new["roberta.embeddings.token_type_embeddings.weight"] = torch.zeros(1, 16)
    new["lm_head.decoder.weight"] = state[f"{sentence}embed_tokens.weight"]
    new["lm_head.bias"] = new["lm_head.decoder.bias"] = state["encoder.lm_head.bias"]
    missing, unexpected = model.load_state_dict(new, strict=False)
    assert not unexpected
    assert all("position_ids" in key or "token_type_ids" in key for key in missing)
    return model


def test_what_a_checkpoint_lacks_is_named(tmp_path: Path) -> None:
    roberta(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"put vq-wav2vec_kmeans\.pt or vq-wav2vec\.pt"):
        spec.load(f"s3prl:{tmp_path / 'bert.pt'}")
    coder_checkpoint(tmp_path)
    content = dict(unpickle.read(tmp_path / "bert.pt"))
    del content["text_dictionary"]
    content["model_cfg"] = unpickle.plain(content["model_cfg"])
    torch.save(content, tmp_path / "bert.pt")
    spec.load(f"s3prl:{tmp_path / 'bert.pt'}")  # the dictionary is beside it
    (tmp_path / "dict.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no dictionary: put fairseq's dict\.txt"):
        spec.load(f"s3prl:{tmp_path / 'bert.pt'}")


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("0-1 5\n2-3 4\n", 8, "has 8 words, its dictionary 2 and 5 special ones"),
        ("0-1 5\n2-6 4\n", 7, "'2-6' of its dictionary does not name 2 of 6 codes"),
        ("0-1 5\nhello 4\n", 7, "'hello' of its dictionary"),
        ("0-1 5\n1-2-3 4\n", 7, "'1-2-3' of its dictionary"),
        ("0-1 5\n\n", 7, "'' of its dictionary"),
    ],
)
def test_dictionaries_of_other_codes_are_refused(text: str, words: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        word_numbers(text, words=words, codes=CODES, where="bert.pt")
