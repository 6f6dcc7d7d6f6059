"""``mynah judge methods``: which pairs are drawn, and its intervals and scores by hand."""

from __future__ import annotations

import dataclasses
import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from sayings import made

from mynah.downstream import conversion
from mynah.downstream.conversion.core.contract import Heard, Sizes
from mynah.downstream.core.melspec import MelSpec
from mynah.recipes.conversion.checks import SHORTEST
from mynah.recipes.conversion.method_scores import perplexity
from mynah.recipes.conversion.pair_intervals import interval
from mynah.recipes.conversion.pairs import ENOUGH, draw, witnesses
from mynah.recipes.conversion.systems import (
    code_ids,
)
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.metrics import detection
from mynah.tasks.metrics.mean import mean_metric


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return made(tmp_path_factory.mktemp("speech") / "audio")


# -- pairs ----------------------------------------------------------------------------------------


def test_pairs_are_deterministic_and_even(corpus: Corpus) -> None:
    utterances = corpus.utterances()
    found = draw(utterances, sentence="text", pairs=40, seed=3)
    assert found == draw(list(reversed(utterances)), sentence="text", pairs=40, seed=3)
    assert found != draw(utterances, sentence="text", pairs=40, seed=4)
    assert len({p.id for p in found}) == 40
    two = [(p.source.speaker, p.target.speaker) for p in found]
    # 20 of two speakers: 8 within (ab, ba, and 6 of cde) and 12 across, three sentences each
    assert {two.count(one) for one in two} <= {1, 2, 3}
    assert len(set(two)) == 20
    assert [p.genders for p in found[:6]] == ["across", "within"] * 3
    assert draw(utterances, sentence="text", pairs=5, seed=3) == found[:5]
    every = draw(utterances, sentence="text", pairs=1000)
    assert len(every) == 20 * 3 * 2  # of two takes of each sentence
    for one in set(two):  # every sentence before the second take of any
        own = [p for p in every if (p.source.speaker, p.target.speaker) == one]
        assert [len({p.source.text for p in part}) for part in (own[:3], own[3:])] == [3, 3]
        assert len({p.source.id for p in own}) == len({p.target.id for p in own}) == 6


def test_pairs_are_what_they_are_said_to_be(corpus: Corpus) -> None:
    for pair in draw(corpus.utterances(), sentence="text", pairs=1000, targets=1, own=2):
        source, target = pair.source, pair.target
        assert source.speaker != target.speaker
        assert source.text == target.text
        assert {u.speaker for u in pair.references} == {target.speaker}
        assert {u.speaker for u in pair.own} == {source.speaker}
        assert source.text not in {u.text for u in (*pair.references, *pair.own)}
        assert sum(u.duration for u in pair.references) >= ENOUGH  # one reference is not enough
        assert len({u.id for u in pair.references}) == len(pair.references) == 4
        assert len(pair.own) == 2
        assert pair.again is not None
        assert pair.again.id != target.id
        assert (pair.again.speaker, pair.again.text) == (target.speaker, target.text)
        assert (source.label("gender") == target.label("gender")) == (pair.genders == "within")


def test_labels_that_pairs_share(corpus: Corpus) -> None:
    for pair in draw(corpus.utterances(), sentence="text", same=("mood",), pairs=100, own=1):
        shared = {u.label("mood") for u in (pair.target, *pair.references, *pair.own)}
        assert shared == {pair.source.label("mood")}
        assert pair.again is None  # the other take is of another mood


def test_short_recordings_are_left_out_and_genders_may_be_unknown(corpus: Corpus) -> None:
    short = [
        dataclasses.replace(u, labels={}, duration=0.9 * SHORTEST if u.speaker == "a" else 1.0)
        for u in corpus.utterances()
    ]
    found = draw(short, sentence="text", pairs=100)
    assert {p.source.speaker for p in found} == set("bcde")
    assert {p.target.speaker for p in found} == set("bcde")  # it is copied as well
    assert {p.genders for p in found} == {None}


def test_witnesses_are_first_those_that_no_converter_hears(corpus: Corpus) -> None:
    utterances = corpus.utterances()
    pairs = draw(utterances, sentence="text", pairs=2, targets=1)
    found = witnesses(utterances, pairs, count=3)
    assert found == witnesses(utterances, pairs, count=3)
    speakers = {u.speaker for p in pairs for u in (p.source, p.target)}
    heard = {u.id for p in pairs for u in (p.source, *p.references)}
    for speaker in speakers:
        own = [u for u in found if u.speaker == speaker]
        free = [u for u in utterances if u.speaker == speaker and u.id not in heard]
        assert len(own) == 3
        assert sum(u.id not in heard for u in own) == min(3, len(free))


def test_corpora_without_pairs(corpus: Corpus) -> None:
    utterances = corpus.utterances()
    one = [u for u in utterances if u.speaker == "a"]
    apart = [dataclasses.replace(u, text=f"{u.speaker} {u.text}") for u in utterances]
    only = [u for u in utterances if u.text == "one"]
    for given, message in (
        (utterances[:0], "none of 0 utterances"),
        (one, "one speaker only, a: .*--split"),
        (apart, "no two speakers share a 'text' and say others.*30 utterances of 5 speakers"),
        (only, "no two speakers share"),  # nothing is left to know a target by
    ):
        with pytest.raises(ValueError, match=message):
            draw(given, sentence="text")
    with pytest.raises(ValueError, match="both a speaker and the label 'words'.*--sentence"):
        draw(utterances, sentence="words")
    with pytest.raises(ValueError, match="at least 1"):
        draw(utterances, sentence="text", pairs=0)


# -- scores ---------------------------------------------------------------------------------------


def test_intervals_draw_speakers_and_a_pair_needs_both() -> None:
    metric = mean_metric("x", higher_is_better=False)
    names = "abcde"
    speakers = [(a, b) for a in names for b in names if a != b]
    # a conversion is as bad as its target: by hand, the mean of a draw is a sum of products
    values = [float(names.index(b)) for _, b in speakers]
    found = interval(metric, [""] * 20, list(map(repr, values)), speakers, resamples=500, seed=7)
    counts_RS = np.random.default_rng(7).multinomial(5, np.full(5, 0.2), size=500)
    by_hand = []
    for counts in counts_RS:
        weights = [counts[names.index(a)] * counts[names.index(b)] for a, b in speakers]
        if sum(weights):
            by_hand.append(np.dot(weights, values) / sum(weights))
    assert found.value == 2.0
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])))
    assert (found.n, found.units, found.unit) == (20, 5, "speaker")
    assert "ci:speaker-pair-bootstrap-500" in found.signature
    few = interval(metric, [""] * 2, ["1.0", "2.0"], [("a", "b"), ("b", "a")])
    assert (few.value, few.low, few.high, few.unit) == (1.5, 1.0, 2.0, "conversion")


def test_intervals_of_a_ranking() -> None:
    labels = [detection.TARGET] * 3 + [detection.NONTARGET] * 3
    scores = ["0.9", "0.8", "0.3", "0.5", "0.2", "0.1"]
    speakers = [(c, c) for c in "abc"] + [("d", "a"), ("e", "b"), ("d", "c")]
    found = interval(detection.eer(), labels, scores, speakers)
    assert found.value == pytest.approx(1 / 3)
    assert found.low <= found.value <= found.high


def test_perplexity() -> None:
    assert perplexity([5, 5, 5, 5]) == pytest.approx(4)
    assert perplexity([3, 1]) == pytest.approx(
        math.exp(-(0.75 * math.log(0.75)) - 0.25 * math.log(0.25))
    )
    assert perplexity([]) is None


@pytest.mark.parametrize("method", ["vq", "gumbel", "binary", "autoencoder"])
def test_codes_are_told_apart(method: str) -> None:
    module = conversion.get(method)
    sizes = Sizes(dim=12, spec=MelSpec(num_mels=12), speakers=2)
    options = {"codes": 8} if method in ("vq", "gumbel") else {}
    config = module.Config(hidden=8, code=3, voice=4, **options)
    torch.manual_seed(0)
    converter = module.CONVERTER(config, sizes).eval()
    mel_TM = torch.randn(60, 12)
    code_TC = converter.encode_content(Heard(x_TD=mel_TM, mel_TM=mel_TM)).detach()
    found = code_ids(converter, code_TC)
    if method == "autoencoder":
        assert found == []
        return
    assert len(found) == 60
    apart = torch.cdist(code_TC, code_TC) > 1e-3
    for i, j in pairwise(range(60)):
        assert (found[i] != found[j]) == bool(apart[i, j])
