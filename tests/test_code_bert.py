"""BERT on codes: its coder frozen inside, codes in, words out, the objective."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from small_coder import CODES, sounds, teacher
from waveforms import relative

import mynah.upstream
from mynah.upstream import vq_wav2vec
from mynah.upstream.code_bert import CONFIGS, CodeBert, Config
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Batch
from mynah.upstream.core.masked_words import UNKNOWN, sentences

CALM = {"dropout": 0.0, "attention_dropout": 0.0}
SMALL = Config(
    coder=modelfolder.plain(CODES), dim=16, layers=2, heads=2, ffn=32, max_positions=64, **CALM
)


def batch(*lengths: int, seed: int = 0) -> Batch:
    return Batch(
        wav_BS=nn.utils.rnn.pad_sequence(sounds(*lengths, seed=seed), batch_first=True),
        lengths_B=torch.tensor(lengths),
        ids=tuple(str(n) for n in lengths),
        generator=torch.Generator().manual_seed(seed),
    )


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
