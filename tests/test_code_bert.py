"""BERT on codes: equal to RoBERTa on the same words, its coder frozen inside, codes in, words out."""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mynah.upstream
from mynah.upstream import vq_wav2vec
from mynah.upstream.code_bert import CONFIGS, CodeBert, Config
from mynah.upstream.core import modelfolder, spec
from mynah.upstream.core.contract import Batch
from mynah.upstream.core.kmeans_quantizer import KmeansQuantizer
from mynah.upstream.core.masked_words import BEGIN, END, UNKNOWN, sentences
from mynah.upstream.interop import s3prl, unpickle
from mynah.upstream.interop.families.code_bert import word_numbers

CODES = vq_wav2vec.Config(
    channels=12, context_kernels=(2,), steps=2, codes=6, shared=False, quantizer="kmeans"
)
PAIRS = [(i, j) for i in range(6) for j in range(6) if (i + j) % 5]  # those that "occurred"
CALM = {"dropout": 0.0, "attention_dropout": 0.0}
SMALL = Config(
    coder=modelfolder.plain(CODES), dim=16, layers=2, heads=2, ffn=32, max_positions=64, **CALM
)


def sounds(*lengths: int, seed: int = 0) -> list[Tensor]:
    """Noise and a tone that glides, so that frames differ."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for n in lengths:
        time = torch.arange(n) / 16000
        tone = torch.sin(2 * torch.pi * (300 * time + 3000 * time**2))
        found.append(0.02 * torch.randn(n, generator=generator) + 0.3 * time * tone)
    return found


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def batch(*lengths: int, seed: int = 0) -> Batch:
    return Batch(
        wav_BS=nn.utils.rnn.pad_sequence(sounds(*lengths, seed=seed), batch_first=True),
        lengths_B=torch.tensor(lengths),
        ids=tuple(str(n) for n in lengths),
        generator=torch.Generator().manual_seed(seed),
    )


def teacher(config: vq_wav2vec.Config = CODES, seed: int = 3) -> vq_wav2vec.VqWav2Vec:
    """A vq-wav2vec that uses all of its codes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = vq_wav2vec.VqWav2Vec(config)
    quantizer = model.coder.quantizer
    if isinstance(quantizer, KmeansQuantizer):
        with torch.no_grad():
            z_TF = quantizer.project(model.coder.extractor(sounds(9000))[0], None)[0]
            some_VGC = z_TF[:: len(z_TF) // config.codes][: config.codes].unflatten(1, (2, -1))
            quantizer.vectors_GVC.copy_(some_VGC.transpose(0, 1))
    return model.freeze()


def build(config: Config = SMALL, seed: int = 0) -> CodeBert:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CodeBert(config)
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p)
    model.take_teacher(
        teacher(modelfolder.from_plain(vq_wav2vec.Config, config.coder, where="coder"))
    )
    return model


# -- the references -----------------------------------------------------------------------------


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


# -- the coder inside ---------------------------------------------------------------------------


def test_the_coder_is_the_teacher_s_and_stays_as_it_is() -> None:
    given = teacher()
    model = build().train()
    assert not model.coder.training
    assert model.encoder.training
    (wav,) = sounds(9000)
    codes_TG = given.codes([wav])[0]
    assert torch.equal(model.frame_words([wav])[0], 4 + codes_TG[:, 0] * 6 + codes_TG[:, 1])
    before = {k: v.clone() for k, v in model.coder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.loss(batch(9000, 6000)).total.backward()
    optimizer.step()
    assert all(torch.equal(before[k], v) for k, v in model.coder.state_dict().items())
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(name.startswith("coder.") for name in trained)
    assert [n for n in trained if model.get_parameter(n).grad is None] == []


def test_a_model_folder_holds_the_coder(tmp_path: Path) -> None:
    model = build().freeze()
    modelfolder.save(model, tmp_path)
    again = modelfolder.load(tmp_path).freeze()
    assert again.fingerprint() == model.fingerprint()
    for a, b in zip(
        model.hidden_states(sounds(9000)), again.hidden_states(sounds(9000)), strict=True
    ):
        assert torch.equal(a, b)


def test_words_are_those_of_inference_under_autocast() -> None:
    model = build(CONFIGS["tiny"]).train()
    words = model.frame_words(sounds(16000))[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.frame_words(sounds(16000))[0], words)
        assert math.isfinite(float(model.loss(batch(9000)).total.detach()))


def test_another_coder_is_another_model() -> None:
    model = build()
    words = model.frame_words(sounds(9000))[0]
    model.take_teacher(teacher(seed=8))
    assert not torch.equal(model.frame_words(sounds(9000))[0], words)
    state = build().state_dict()
    model.load_state_dict(state)
    assert torch.equal(model.frame_words(sounds(9000))[0], words)


def test_the_config_adopts_the_teacher_s() -> None:
    given = teacher(dataclasses.replace(CODES, codes=5))
    config = CodeBert.adopt_config(CONFIGS["tiny"], given)
    assert config.coder == modelfolder.plain(given.config)
    assert config.dim == CONFIGS["tiny"].dim
    model = CodeBert(config)
    model.take_teacher(given)
    assert len(model.words.weight) == 4 + 25 + 1
    with pytest.raises(ValueError, match="not those of this model's coder"):
        build().take_teacher(given)
    apc = mynah.upstream.build("apc/tiny")
    for call in (lambda: CodeBert.adopt_config(SMALL, apc), lambda: build().take_teacher(apc)):
        with pytest.raises(ValueError, match="codes of a vq_wav2vec, got 'apc' as teacher"):
            call()


@pytest.mark.parametrize("position", ["learned", "conv"])
def test_an_utterance_does_not_see_its_neighbours(position: Any) -> None:
    model = build(dataclasses.replace(SMALL, position=position)).freeze()
    lengths = [1, 465, 9000, 4321, 20000, 30000, 10320, 10480]  # some are cut; </s> alone as well
    wavs = sounds(*lengths)
    frames = [model.num_frames(n) for n in lengths]
    assert {62, 63} <= set(frames)
    together = list(model.hidden_states(wavs))
    assert len(together) == model.num_layers == 3
    for index, wav in enumerate(wavs):
        for layer, alone in zip(together, model.hidden_states([wav]), strict=True):
            assert alone.shape == (frames[index], 16)
            assert relative(layer.split(frames)[index], alone) < 1e-5


def test_packed_equals_the_training_forward_on_a_padded_batch() -> None:
    model = build().eval()
    words = model.frame_words(sounds(9000, 4000))
    pieces, frame_N = sentences(words, longest=model.config.max_positions)
    counts = [len(piece) for piece in pieces]
    with torch.no_grad():
        x_BTD = nn.utils.rnn.pad_sequence(model.embed(pieces).split(counts), batch_first=True)
        valid_BT = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
        dense = model.encoder(x_BTD, valid_BT)
    for got, want in zip(model.freeze().hidden_states(sounds(9000, 4000)), dense, strict=True):
        assert relative(got, want[valid_BT][frame_N]) < 1e-5


# -- the objective ------------------------------------------------------------------------------


def test_eight_of_ten_become_mask_one_another_one_stays() -> None:
    model = build()
    words = torch.randint(4, 40, (100_000,), generator=torch.Generator().manual_seed(0))
    mask = torch.rand(100_000, generator=torch.Generator().manual_seed(1)) < 0.5
    seen = model.corrupted(words, mask, torch.Generator().manual_seed(2))
    assert torch.equal(seen[~mask], words[~mask])
    share = float((seen[mask] == model.mask_word).float().mean())
    assert share == pytest.approx(0.8, abs=0.01)
    same = float((seen[mask] == words[mask]).float().mean())
    assert same == pytest.approx(0.1 + 0.1 / 36, abs=0.01)
    others = seen[mask & (seen != model.mask_word)]
    assert (int(others.min()), int(others.max())) == (4, model.mask_word - 1)


def test_masked_words_are_hidden_and_the_parts_are_right() -> None:
    model = build(dataclasses.replace(SMALL, keep_share=0.0, swap_share=0.0)).eval()
    words = model.frame_words(sounds(9000))
    mask = torch.zeros(len(words[0]), dtype=torch.bool)
    mask[10:20] = True
    changed = [words[0].clone()]
    changed[0][10:20] = 5
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    for given in (words, changed):
        found = model.fill_in(given, [mask], generator=torch.Generator().manual_seed(0))
    assert torch.equal(*seen)
    count = torch.stack([(changed[0] == word).sum() for word in changed[0].unique()]).double()
    share = count / count.sum()
    entropy = float(-(share * share.log()).sum())
    assert float(found.parts["code_perplexity"]) == pytest.approx(math.exp(entropy), rel=1e-5)
    assert found.weight == 10


def test_the_prior_is_what_frequencies_so_far_predict() -> None:
    model = build().eval()
    words, masks = [torch.tensor([4, 4, 4, 9])], [torch.tensor([True, False, False, True])]
    size = len(model.words.weight)

    def prior() -> float:
        generator = torch.Generator().manual_seed(0)
        return float(model.fill_in(words, masks, generator=generator).parts["prior"])

    assert prior() == pytest.approx(math.log(size), rel=1e-6)  # nothing seen yet
    model.train()
    prior()
    model.eval()
    expected = -(math.log(4 / (4 + size)) + math.log(2 / (4 + size))) / 2
    assert prior() == pytest.approx(expected, rel=1e-6)
    assert prior() == pytest.approx(expected, rel=1e-6)  # only training counts
    assert model.seen_W.tolist() == [0] * 4 + [3] + [0] * 4 + [1] + [0] * (size - 10)


def test_draws_are_from_the_generator() -> None:
    model = build().train()
    one, two = (model.loss(batch(9000, 6000, 700)) for _ in range(2))
    assert torch.equal(one.total, two.total)
    assert not torch.equal(one.total, model.loss(batch(9000, 6000, 700, seed=2)).total)


def test_codes_that_do_not_vary_are_below_the_floor() -> None:
    model = build()
    assert float(model.loss(batch(9000)).parts["code_perplexity"]) > 4
    model.coder.quantizer.vectors_GVC.data[:, 1:] += 100
    parts = model.loss(batch(9000)).parts
    assert float(parts["code_perplexity"]) == pytest.approx(1.0)
    assert model.floors["code_perplexity"] > 1.0


# -- bad input ----------------------------------------------------------------------------------


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="words must be between 6 and 41 .* got 42"):
        CodeBert(dataclasses.replace(SMALL, words=42))
    with pytest.raises(ValueError, match="max_positions must be at least 3, got 2"):
        CodeBert(dataclasses.replace(SMALL, max_positions=2))
    with pytest.raises(ValueError, match="position must be 'learned' or 'conv', got 'sine'"):
        CodeBert(dataclasses.replace(SMALL, position="sine"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every setting, activation, .*--teacher"):
        CodeBert(dataclasses.replace(SMALL, coder={"codes": 5}))
    wrong = {**SMALL.coder, "codes": "many"}
    with pytest.raises(ValueError, match="coder: codes"):
        CodeBert(dataclasses.replace(SMALL, coder=wrong))
    with pytest.raises(ValueError, match="at least one sample"):
        build().num_frames(0)


def test_fewer_words_than_combinations_leave_the_rest_unknown() -> None:
    model = CodeBert(dataclasses.replace(SMALL, words=10))
    assert model.word_P[:5].tolist() == [4, 5, 6, 7, 8]
    assert model.word_P[5:].unique().tolist() == [UNKNOWN]
