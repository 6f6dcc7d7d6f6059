"""BERT on codes from fairseq-style checkpoints of RoBERTa.

Such a checkpoint holds neither the vq-wav2vec that makes the codes nor, unless s3prl converted it,
the dictionary. Both are looked for in its folder: ``dict.txt``, and the vq-wav2vec under its
published name, ``vq-wav2vec_kmeans.pt`` or ``vq-wav2vec.pt``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.modelfolder import config_from
from mynah.upstream.interop.filling import fill
from mynah.upstream.interop.settings import only, renamed

CODERS = ("vq-wav2vec_kmeans.pt", "vq-wav2vec.pt")
DICTIONARY = "dict.txt"

_FIXED = {
    "activation_fn": ("gelu",),
    "no_token_positional_embeddings": (False,),
    "encoder_learned_pos": (True,),
    "layernorm_embedding": (True,),
    "no_scale_embedding": (True,),
    "encoder_normalize_before": (False,),
    "untie_weights_roberta": (False,),
    "encoder_layers_to_keep": (None,),
}
_TASK = {
    "mask_prob": "mask_prob",
    "mask_length": "mask_multiple_length",
    "keep_share": "leave_unmasked_prob",
    "swap_share": "random_token_prob",
}
_SENTENCE = "encoder.sentence_encoder."
_PARTS = {
    "words": f"{_SENTENCE}embed_tokens",
    "positions": f"{_SENTENCE}embed_positions",
    "encoder.norm": f"{_SENTENCE}layernorm_embedding",
    "head.0": "encoder.lm_head.dense",
    "head.2": "encoder.lm_head.layer_norm",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.o": "self_attn.out_proj",
    "norm1": "self_attn_layer_norm",
    "ff1": "fc1",
    "ff2": "fc2",
    "norm2": "final_layer_norm",
}


def fairseq(
    weights: Mapping[str, Tensor],
    model: Mapping[str, Any],
    task: Mapping[str, Any],
    path: str | Path,
) -> Upstream | None:
    """Return the BERT on codes of a fairseq-style checkpoint, None where it holds another model.

    Raises:
        FileNotFoundError: its dictionary or its vq-wav2vec is not beside it.
        ValueError: a setting that is not implemented, weights that do not fit, or a dictionary of
            other codes.
    """
    from mynah.upstream.code_bert import CodeBert, Config
    from mynah.upstream.core.modelfolder import plain

    state = _current(weights)
    if f"{_SENTENCE}embed_tokens.weight" not in state:
        return None
    only(model, _FIXED, where=path)
    coder = _coder(Path(path))
    words, dim = state[f"{_SENTENCE}embed_tokens.weight"].shape
    layers = {key.split(".")[3] for key in state if key.startswith(f"{_SENTENCE}layers.")}
    values = {
        "coder": plain(coder.config),
        "words": words,
        "dim": dim,
        "layers": len(layers),
        "heads": model.get("encoder_attention_heads", Config.heads),
        "ffn": len(state[f"{_SENTENCE}layers.0.fc1.bias"]),
        "dropout": model.get("dropout", Config.dropout),
        "attention_dropout": model.get("attention_dropout", Config.attention_dropout),
        "max_positions": len(state[f"{_SENTENCE}embed_positions.weight"]) - 2,
        **renamed(task, _TASK),
    }
    ours = CodeBert(config_from(Config, values, where=path))
    state[f"{_SENTENCE}embed_positions.weight"] = state[f"{_SENTENCE}embed_positions.weight"][2:]
    state.update({f"coder.{key}": value for key, value in coder.coder.state_dict().items()})
    state["seen_W"] = ours.seen_W
    state["word_P"] = word_numbers(
        _dictionary(Path(path)), words=words, codes=coder.config, where=path
    )
    return fill(ours, state, code_bert_key, path)


def code_bert_key(key: str) -> str:
    """Return fairseq's name of one of our BERT's weights; what it does not have keeps ours."""
    if key == "head_bias_W":
        return "encoder.lm_head.bias"
    part, _, leaf = key.rpartition(".")
    if part in _PARTS:
        return f"{_PARTS[part]}.{leaf}"
    if not part.startswith("encoder.layers."):
        return key
    _, _, layer, inner = part.split(".", 3)
    return f"{_SENTENCE}layers.{layer}.{_PARTS[inner]}.{leaf}"


def word_numbers(text: str, *, words: int, codes: Any, where: object) -> Tensor:
    """Return the word of each combination of codes, int64 (P,), from the text of a dictionary.

    Args:
        text: a line "i-j count" per word, in the order of their numbers.
        words: size of the vocabulary, with four special words before and one after the lines.
        codes: settings of the vq-wav2vec.
        where: what error messages name.

    Raises:
        ValueError: not as many lines as words, or codes that the vq-wav2vec does not have.
    """
    from mynah.upstream.core.masked_words import SPECIAL, UNKNOWN

    lines = text.splitlines()
    if len(lines) + SPECIAL + 1 != words:
        raise ValueError(
            f"{where} has {words} words, its dictionary {len(lines)} and {SPECIAL + 1} special ones"
        )
    numbers = torch.full((codes.codes**codes.groups,), UNKNOWN)
    for number, line in enumerate(lines, start=SPECIAL):
        word, *_ = line.split() or [""]
        if word.startswith("madeupword"):  # fills the vocabulary up to a multiple of eight
            continue
        chosen = [int(code) for code in word.split("-") if code.isdecimal()]
        fits = len(chosen) == codes.groups and all(code < codes.codes for code in chosen)
        if not fits or word != "-".join(map(str, chosen)):
            raise ValueError(
                f"{where}: {word!r} of its dictionary does not name {codes.groups} of "
                f"{codes.codes} codes as in 17-203: it is for another vq-wav2vec"
            )
        combination = 0
        for code in chosen:
            combination = combination * codes.codes + code
        numbers[combination] = number
    return numbers


def _current(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under the names of today's fairseq, without its version and ties."""
    state = {}
    for name, value in weights.items():
        key = name.replace("emb_layer_norm", "layernorm_embedding")
        if key.startswith("decoder."):
            key = key.replace("decoder.", "encoder.", 1)
        if key not in (f"{_SENTENCE}version", "encoder.lm_head.weight"):
            state[key] = value
    return state


def _coder(path: Path) -> Any:
    from mynah.upstream.interop import fairseq as checkpoints
    from mynah.upstream.vq_wav2vec import VqWav2Vec

    file = next((path.with_name(name) for name in CODERS if path.with_name(name).is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"{path} holds a BERT on codes but not the vq-wav2vec that makes them: put "
            f"{' or '.join(CODERS)} into {path.parent}"
        )
    coder = checkpoints.load(file)
    if not isinstance(coder, VqWav2Vec):
        raise ValueError(f"{file} must hold a vq_wav2vec, it holds a {coder.name}")
    return coder


def _dictionary(path: Path) -> str:
    """Return the dictionary that s3prl keeps in the checkpoint, or the one beside it."""
    from mynah.upstream.interop.unpickle import read

    text = read(path).get("text_dictionary")
    if isinstance(text, str):
        return text
    file = path.with_name(DICTIONARY)
    if not file.is_file():
        raise FileNotFoundError(
            f"{path} has no dictionary: put fairseq's {DICTIONARY} into {path.parent}"
        )
    return file.read_text(encoding="utf-8")
