"""BLEU and chrF: equal to sacrebleu on whole corpora and on every draw of the bootstrap."""

import random

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics.bleu import BLEU

from mynah.tasks.metrics.bootstrap import bootstrap
from mynah.tasks.metrics.translation import bleu, chrf

WORDS = ["Der", "Hund,", "läuft", "schnell", "nach", "Hause.", "der", "U.S.-Mann", "&quot;", "3,5"]
SIGNS = list("我们今天去学校，不是吗？abc")


def corpus(seed: int, *, chinese: bool = False) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    tokens, space = (SIGNS, "") if chinese else (WORDS, " ")
    refs, hyps = [], []
    for _ in range(rng.randint(1, 12)):
        ref = rng.choices(tokens, k=rng.randint(1, 14))
        hyp = [token if rng.random() < 0.75 else rng.choice(tokens) for token in ref]
        refs.append(space.join(ref))
        hyps.append(space.join(hyp[: rng.randint(0, len(hyp) + 3)]))
    return refs, hyps


def test_equals_sacrebleu() -> None:
    between = 0
    for seed in range(200):
        refs, hyps = corpus(seed)
        theirs = sacrebleu.corpus_bleu(hyps, [refs]).score
        assert 100 * bleu().score(refs, hyps) == pytest.approx(theirs), seed
        between += 5 < theirs < 95
    assert between > 100


def test_equals_sacrebleu_in_chinese() -> None:
    different = 0
    for seed in range(100):
        refs, hyps = corpus(seed, chinese=True)
        theirs = sacrebleu.corpus_bleu(hyps, [refs], tokenize="zh").score
        assert 100 * bleu("zh").score(refs, hyps) == pytest.approx(theirs), seed
        different += bleu().score(refs, hyps) != pytest.approx(theirs / 100)
    assert different > 50  # the tokenizer matters


def test_by_hand() -> None:
    # 6 of 7 words, 4 of 6, 2 of 5 and 1 of 4 n-grams; as long as the reference
    ref, hyp = "a b c d e f g", "a b c d x f g"
    score = bleu().score([ref], [hyp])
    assert score == pytest.approx((6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25)
    # cut to 4 words: all right, but the brevity penalty of 4 to 7
    assert bleu().score([ref], ["a b c d"]) == pytest.approx(np.exp(1 - 7 / 4))
    assert bleu().score([ref], [ref]) == pytest.approx(1)
    assert bleu().score([ref], [ref.upper()]) == 0  # case counts


def test_empty_text() -> None:
    assert bleu().score(["a b c d e"], [""]) == 0
    refs, hyps = ["a b c d e", ""], ["a b c d e", ""]
    assert bleu().score(refs, hyps) == pytest.approx(1)
    with pytest.raises(ValueError, match="bleu is not defined"):
        bleu().score(["", ""], ["a", ""])


def test_signature_is_sacrebleus() -> None:
    for tokenizer in ("13a", "zh"):
        theirs = BLEU(tokenize=tokenizer)
        theirs.corpus_score(["a"], [["a"]])
        metric = bleu(tokenizer)  # type: ignore[arg-type]
        assert metric.signature == f"bleu|{theirs.get_signature()}|scale:1|v1"
        assert f"tok:{tokenizer}" in metric.signature
        assert "case:mixed" in metric.signature
        assert metric.higher_is_better


def test_other_tokenizers_are_refused() -> None:
    with pytest.raises(ValueError, match="expected tokenizer '13a' or 'zh', got 'flores200'"):
        bleu("flores200")  # type: ignore[arg-type]


def test_bootstrap_equals_sacrebleu_of_repeated_sentences() -> None:
    refs, hyps = corpus(5)
    n = len(refs)
    assert n >= 5
    units = [f"{i:02d}" for i in range(n)]
    found = bootstrap(bleu(), refs, hyps, units, unit="utterance", resamples=60, seed=1)
    values = []
    for times in np.random.default_rng(1).multinomial(n, np.full(n, 1 / n), size=60):
        rows = np.repeat(np.arange(n), times)
        values.append(
            sacrebleu.corpus_bleu([hyps[i] for i in rows], [[refs[i] for i in rows]]).score / 100
        )
    low, high = np.quantile(values, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


# -- chrF -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chinese", [False, True])
def test_chrf_equals_sacrebleu(chinese: bool) -> None:
    between = 0
    for seed in range(100):
        refs, hyps = corpus(seed, chinese=chinese)
        theirs = sacrebleu.corpus_chrf(hyps, [refs]).score
        assert 100 * chrf().score(refs, hyps) == pytest.approx(theirs), seed
        between += 5 < theirs < 95
    assert between > 50


def test_chrf_by_hand() -> None:
    # letters: 2 of 3 right both ways; pairs: 1 of 2; "abc" against "abd": none
    assert chrf().score(["a bc"], ["ab d"]) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    # recall counts twice: all of what is said is right, but half is missing
    score = chrf().score(["ab"], ["a"])
    assert score == pytest.approx(5 * 1 * 0.5 / (4 * 1 + 0.5))
    assert chrf().score(["abc"], ["abc"]) == pytest.approx(1)


def test_chrf_of_empty_text_and_draws() -> None:
    assert chrf().score(["abc", ""], ["", ""]) == 0
    with pytest.raises(ValueError, match="chrf is not defined"):
        chrf().score(["", " "], ["a", ""])
    refs, hyps = corpus(5)
    n = len(refs)
    units = [f"{i:02d}" for i in range(n)]
    found = bootstrap(chrf(), refs, hyps, units, unit="utterance", resamples=40, seed=1)
    values = []
    for times in np.random.default_rng(1).multinomial(n, np.full(n, 1 / n), size=40):
        rows = np.repeat(np.arange(n), times)
        values.append(
            sacrebleu.corpus_chrf([hyps[i] for i in rows], [[refs[i] for i in rows]]).score / 100
        )
    low, high = np.quantile(values, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
