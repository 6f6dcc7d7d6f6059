"""Rates of the watermark: intervals by hand, what must be found, what must not, and the command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mynah.recipes import cli
from mynah.recipes.conversion import watermark, watermark_check, watermark_survival
from mynah.recipes.conversion.watermark_survival import CHANGES, CLEAN, Rate, Rates, rates, wilson
from mynah.recipes.errors import BadDataError
from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.utterance import Utterance

RATE = watermark.RATE


def noise(seconds: float, seed: int) -> np.ndarray:
    """Coloured noise whose level moves as speech does."""
    rng = np.random.default_rng(seed)
    wave = np.convolve(rng.standard_normal(round(seconds * RATE)), np.ones(4) / 4, mode="same")
    swell = 0.3 + np.sin(2 * np.pi * 3 * np.arange(len(wave)) / RATE) ** 2
    return (0.05 * wave * swell).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two speakers with 8 recordings of 2 s each."""
    folder = tmp_path_factory.mktemp("noises")
    found = []
    for number in range(16):
        path = folder / f"{number:02d}.wav"
        soundfile.write(path, noise(2.0, number), RATE, subtype="PCM_16")
        found.append(
            Utterance(id=path.stem, path=str(path), start=0.0, duration=2.0, sample_rate=RATE,
                      speaker="ab"[number % 2])
        )  # fmt: skip
    return write_corpus(folder / "corpus", found, name="noises")


def test_wilson_by_hand() -> None:
    # 10 of 100, and none or all of 20, from (p + z²/2n ± z sqrt(...)) / (1 + z²/n)
    assert wilson(10, 100) == pytest.approx((0.05522914, 0.17436566), abs=1e-6)
    assert wilson(0, 20) == pytest.approx((0.0, 0.16113), abs=1e-5)
    assert wilson(20, 20) == pytest.approx((1 - 0.16113, 1.0), abs=1e-5)
    for wrong, total in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="a rate is of 1 or more"):
            wilson(wrong, total)


def test_wilson_holds_the_rates_that_are_as_likely() -> None:
    # the interval is where |p - share| <= z sqrt(p (1 - p) / n): its ends solve that equation
    for wrong, total in ((3, 17), (50, 60)):
        for p in wilson(wrong, total):
            assert abs(p - wrong / total) == pytest.approx(
                1.959964 * np.sqrt(p * (1 - p) / total), rel=1e-9
            )


def test_stretches_are_of_one_speaker_and_one_length(corpus: Corpus) -> None:
    utterances = corpus.utterances()
    found = watermark_survival.stretches(utterances, seconds=3.0, count=100)
    assert {len(wav_S) for wav_S in found} == {3 * RATE}
    assert len(found) == 10  # 16 s of each speaker
    again = watermark_survival.stretches(list(reversed(utterances)), seconds=3.0, count=4)
    assert all(np.array_equal(a, b) for a, b in zip(found[:4], again, strict=True))
    own = [soundfile.read(u.path, dtype="float32")[0] for u in utterances if u.speaker == "a"]
    heard = [w for w in found if any(np.array_equal(w[: 2 * RATE], one) for one in own)]
    for wav_S in heard:  # what follows is of the same speaker
        rest = wav_S[2 * RATE :]
        assert any(np.array_equal(rest, one[: len(rest)]) for one in own)
    assert heard
    with pytest.raises(ValueError, match="no 17 seconds of speech of one speaker"):
        watermark_survival.stretches(utterances, seconds=17.0, count=1)


def test_silence_is_no_stretch(tmp_path: Path) -> None:
    path = tmp_path / "s.wav"
    soundfile.write(path, np.zeros(4 * RATE), RATE)
    u = Utterance(id="s", path=str(path), start=0.0, duration=4.0, sample_rate=RATE)
    with pytest.raises(ValueError, match="no 3 seconds"):
        watermark_survival.stretches([u], seconds=3.0, count=1)


def test_rates_of_noises() -> None:
    waves = [noise(6.0, seed) for seed in range(100, 106)]
    changes = [CLEAN, "half as loud", "cut at both ends", "16 bits", "2 % faster"]
    found = rates(waves, changes=changes)
    assert [rate.what for rate in found.misses] == changes
    wrong = {rate.what: rate.wrong for rate in found.misses}
    # shaped noise hides the mark least; who changes the speed takes the period away
    assert wrong == {
        CLEAN: 0, "half as loud": 0, "cut at both ends": 0, "16 bits": 0, "2 % faster": 6
    }  # fmt: skip
    assert [(rate.what, rate.wrong, rate.total) for rate in found.false_alarms] == [
        ("unmarked", 0, 6),
        ("marked by another key", 0, 6),
    ]
    assert found.seconds == 6.0
    assert 25 < found.speech_to_mark_db < 40
    by_hand = [watermark.detect(watermark.mark(wav_S, RATE), RATE).score for wav_S in waves]
    assert found.misses[0].score == pytest.approx(np.median(by_hand))
    clean = found.misses[0]
    assert (clean.low, clean.high) == wilson(0, 6)
    with pytest.raises(ValueError, match="no recordings"):
        rates([])


@pytest.mark.parametrize("name", list(CHANGES))
def test_changes_do_what_they_say(name: str) -> None:
    if name in watermark_survival.unwritable():
        pytest.skip(f"this libsndfile writes no {name}")
    wave = noise(3.0, 1)
    found, again = (CHANGES[name](wave, np.random.default_rng(5)) for _ in range(2))
    assert found.dtype == np.float32
    assert np.array_equal(found, again)
    if name == "half as loud":
        assert np.array_equal(found, wave / 2)
    elif name == "cut at both ends":
        place = int(np.flatnonzero(wave == found[0])[0])
        assert np.array_equal(found, wave[place : place + len(found)])
        assert len(wave) / 2 < len(found) < len(wave)
    elif name == "2 % faster":
        assert len(found) == pytest.approx(len(wave) / 1.02, abs=2)
    elif name.startswith("noise"):
        ratio = 10 * np.log10(np.mean(wave**2) / np.mean((found - wave) ** 2))
        assert ratio == pytest.approx(float(name.split()[1]), abs=0.2)
    elif name == "8 kHz and back":
        high = np.abs(np.fft.rfft(found))[len(found) * 5 // 16 :]  # above 5 kHz
        assert np.mean(high**2) < 1e-4 * np.mean(np.abs(np.fft.rfft(wave)) ** 2)
        assert len(found) == len(wave)
    elif name in (CLEAN, "16 bits"):
        assert np.abs(found - wave).max() <= (0 if name == CLEAN else 0.51 / 32767)
    else:  # coders and the vocoder: alike, and not the same
        size = min(len(found), len(wave))
        spectra = [np.abs(np.fft.rfft(x[:size])) for x in (found, wave)]
        assert np.corrcoef(*spectra)[0, 1] > 0.3
        assert not np.array_equal(found[:size], wave[:size])


def test_the_command_prints_and_writes_rates(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w.json"
    words = ["check", "watermark", "--corpus", str(corpus.folder), "--cases", "2"]
    assert cli.main([*words, "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    (clean,) = (line for line in shown.splitlines() if line.startswith("| nothing |"))
    assert clean.split(" | ")[3] == "0/2, 0.0 % [0.0, 65.8]"  # of 6 s
    assert "| unmarked | 0/2, 0.0 % [0.0, 65.8] |" in shown
    assert "dB below the speech" in shown
    page = json.loads(out.read_text(encoding="utf-8"))
    assert page["corpus_version"] == corpus.version
    assert [one["seconds"] for one in page["rates"]] == [3.0, 6.0]
    names = [rate["what"] for rate in page["rates"][0]["misses"]]
    assert names == [name for name in CHANGES if name not in watermark_survival.unwritable()]
    assert all(rate["total"] == 2 for one in page["rates"] for rate in one["misses"])


def test_the_exit_status_says_what_is_certain() -> None:
    def one(wrong: int, total: int, what: str = CLEAN) -> Rate:
        low, high = wilson(wrong, total)
        return Rate(what=what, wrong=wrong, total=total, low=low, high=high, score=0.0)

    def found(missed: Rate, accused: Rate) -> list[Rates]:
        return [Rates(seconds=6.0, misses=[missed], false_alarms=[accused], speech_to_mark_db=30.0)]

    assert not watermark_check.broken(found(one(0, 100), one(0, 100)))
    assert not watermark_check.broken(found(one(1, 10), one(0, 100)))  # may be chance
    assert watermark_check.broken(found(one(20, 100), one(0, 100)))
    assert watermark_check.broken(found(one(0, 100), one(5, 100)))
    worse = dataclasses.replace(found(one(50, 100), one(0, 100))[0], seconds=3.0)
    assert not watermark_check.broken([worse, *found(one(0, 100), one(0, 100))])


def test_corpora_that_cannot_be_used(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", "watermark"]) == 2
    assert "--corpus DIR" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="mynah prepare"):
        watermark_check.run(tmp_path / "none", count=1)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        watermark_check.run(corpus.folder, count=0)
    short = write_corpus(tmp_path / "short", corpus.utterances()[:1], name="short")
    with pytest.raises(BadDataError, match="no 3 seconds of speech of one speaker"):
        watermark_check.run(short.folder, count=1)
