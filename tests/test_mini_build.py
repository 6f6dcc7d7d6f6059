"""mini as a corpus on disk: the same bytes again, whole labels, honest figures."""

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mynah.tasks.corpora.audio import read
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.mini import acoustics, build, espeak, generate, plan, table
from mynah.tasks.corpora.mini.formant import Formant
from mynah.tasks.corpora.mini.script import PHONES, SILENCE
from mynah.tasks.corpora.utterance import Interval, Utterance

MICRO = plan.Size(
    train=2,
    dev=1,
    test=2,
    keyword=1,
    unknown=1,
    silence=1,
    intents=2,
    commands=5,
    slots=1,
    sentences=1,
    emotion=1,
    parallel=1,
    queries=1,
    accent=1,
)


def digests(folder):
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def micro():
    plan.SIZES["micro"] = MICRO
    yield "micro"
    del plan.SIZES["micro"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, micro):
    out = tmp_path_factory.mktemp("mini") / "a"
    build(out, size=micro, backend="formant", workers=1)
    return out


@pytest.fixture(scope="module")
def corpus(folder):
    return Corpus.open(folder)


def test_two_builds_give_the_same_bytes_whatever_the_workers(folder, tmp_path, micro):
    seen = []
    build(
        tmp_path / "b",
        size=micro,
        backend="formant",
        workers=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    first, second = digests(folder), digests(tmp_path / "b")
    assert len(first) > 100
    assert first == second
    assert seen[-1][0] == seen[-1][1] == len(Corpus.open(folder))


@pytest.mark.skipif(not espeak.available(), reason="needs the extra synth")
def test_espeak_gives_the_same_recordings_in_any_order():
    script = plan.plan("tiny", seed=1)
    person = script.speakers["test001"]
    lines = [x for x in script.lines if x.speaker == person.id][:12:2]
    made = []
    for order in (lines, lines[::-1]):
        running = generate.engine("espeak")
        pairs = {x.id: generate.render(running, person, x, seed=1, level=3) for x in order}
        running.close()
        made.append(pairs)
    for name, (pcm, dry) in made[0].items():
        assert np.array_equal(pcm, made[1][name][0])
        assert dry.phones == made[1][name][1].phones
        assert pcm.dtype == np.int16 and np.abs(pcm.astype(int)).max() < 32400


def test_the_page_says_what_it_was_made_with(corpus):
    extra = corpus.page["extra"]
    assert extra["engine"] == "formant" and extra["engine_version"] == Formant.version
    assert extra["seed"] == 0 and extra["level"] == 3 and extra["version"] == generate.VERSION
    assert len(extra["labels_sha256"]) == len(extra["audio_sha256"]) == 64
    assert corpus.skipped == {}


def test_utterances_carry_what_the_tasks_read(corpus):
    utterances = corpus.utterances()
    assert {u.label("subset") for u in utterances} == set(plan.SUBSETS)
    for u in utterances:
        assert u.label("gender") in ("m", "f")
        assert u.label("session").startswith(u.speaker)
        tier = u.intervals["phones"]
        assert tier[0].start == 0 and tier[-1].end == pytest.approx(u.duration, abs=1e-4)
        for before, after in pairwise(tier):
            assert before.end == pytest.approx(after.start, abs=1e-6)
        assert {i.symbol for i in tier} <= {*PHONES, SILENCE}
        if u.text:
            assert [i.symbol for i in u.intervals["words"]] == u.text.split()
        if phones := u.label("phones"):
            assert phones.split() == [i.symbol for i in tier if i.symbol != SILENCE]
    marked = {u.label("subset") for u in utterances if u.label("phones")}
    assert marked == set(plan.PHONE_SUBSETS)


def test_audio_is_whole_not_clipped_and_mostly_speech(corpus):
    silent = total = 0.0
    for u in corpus.utterances()[::3]:
        wav = read(u)
        assert len(wav) == round(u.duration * 16000)
        assert np.abs(wav).max() < 0.99 and np.abs(wav).max() > 1e-5
        if u.text:
            gaps = [i.end - i.start for i in u.intervals["phones"] if i.symbol == SILENCE]
            silent, total = silent + sum(gaps), total + u.duration
            assert 0.3 < u.duration < 8
    assert 0.05 < silent / total < 0.4


def test_phones_stand_out_of_the_noise_where_the_labels_say(corpus):
    inside, outside = [], []
    for u in (u for u in corpus.utterances() if u.label("subset") == "sentences"):
        wav = read(u)
        tier = u.intervals["phones"]
        first, last = int(tier[0].end * 16000), int(tier[-1].start * 16000)
        inside.append(np.std(wav[first:last]))
        outside.append(np.std(wav[: first - 200]))
    assert np.median(np.array(inside) / np.array(outside)) > 2.5


def test_levels_make_pairs_of_clean_and_noisy(micro):
    script = plan.plan(micro)
    line = next(x for x in script.lines if x.subset == "sentences")
    person = script.speakers[line.speaker]
    clean, dry = generate.render(Formant(), person, line, seed=0, level=0)
    noisy, same = generate.render(Formant(), person, line, seed=0, level=3)
    assert len(clean) == len(noisy) and dry.phones == same.phones
    a, b = clean / 32768, noisy / 32768
    assert 0.3 < np.corrcoef(a, b)[0, 1] < 0.999
    assert acoustics.active_level(a) == pytest.approx(10 ** (-26 / 20), rel=0.05)


def test_an_earlier_mini_is_kept_if_the_same_and_replaced_if_not(tmp_path, micro, monkeypatch):
    monkeypatch.setitem(plan.SIZES, "nano", replace(MICRO, keyword=0, commands=1, test=1))
    first = build(tmp_path / "x", size="nano", backend="formant", workers=1)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "x").rglob("*.flac")}
    again = build(tmp_path / "x", size="nano", backend="formant", workers=1)
    assert again.version == first.version
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "x").rglob("*.flac")}
    other = build(tmp_path / "x", size="nano", backend="formant", level=0, workers=1)
    assert other.page["extra"]["level"] == 0 and other.version != first.version
    labels = [c.page["extra"]["labels_sha256"] for c in (first, other)]
    assert labels[0] == labels[1]  # levels share every label and every time
    (tmp_path / "x" / "corpus.json").unlink()  # as if it had been cut off
    (tmp_path / "x" / "audio" / "left.flac").write_bytes(b"half")
    mended = build(tmp_path / "x", size="nano", backend="formant", workers=1)
    assert mended.version == first.version
    assert not (tmp_path / "x" / "audio" / "left.flac").exists()


def test_other_peoples_folders_and_unknown_options_are_refused(tmp_path, micro):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"is not empty and holds no mini\.json"):
        build(tmp_path, size=micro, backend="formant")
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    with pytest.raises(ValueError, match="backend must be one of espeak, formant"):
        build(tmp_path / "x", size=micro, backend="flite")
    with pytest.raises(ValueError, match="level must be one of"):
        build(tmp_path / "x", size=micro, backend="formant", level=9)
    assert not (tmp_path / "x").exists()


def test_equal_error_rate():
    assert table.equal_error_rate(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 0.0
    assert table.equal_error_rate(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 100.0
    assert table.equal_error_rate(np.arange(100.0), np.arange(100.0) + 0.5) == pytest.approx(
        50, abs=2
    )


def test_filter_banks_and_the_phone_of_each_frame():
    wav = np.random.RandomState(0).normal(size=16000).astype(np.float32) * 0.1
    x = table.fbank(wav)
    assert x.shape == (98, 240)
    tier = (Interval("SIL", 0.0, 0.5), Interval("AA", 0.5, 1.0))
    u = Utterance(
        id="a", path="a", start=0, duration=1, sample_rate=16000, intervals={"phones": tier}
    )
    found = table.frame_phones(u, 98)
    assert found[:49] == ["SIL"] * 49 and found[49:] == ["AA"] * 49
    assert table.segments(x, 7).shape == (7 * 240,)
    assert table.segments(x[:3]).shape == (2400,)


def test_the_table_is_made_of_held_out_rows(corpus):
    rows = {r.task: r for r in table.table(corpus)}
    tests = [u for u in corpus.utterances() if u.split == "test"]
    assert rows["KS, mean"].n == sum(u.label("keyword") is not None for u in tests)
    assert rows["SID, mean"].n == sum(u.label("sid_split") == "test" for u in corpus.utterances())
    assert rows["PR, phone per frame"].found > rows["PR, phone per frame"].chance + 5
    assert rows["ER, mean"].n == 5 * 4
    text = table.markdown(list(rows.values()))
    assert text.startswith("| task | chance |") and len(text.splitlines()) == len(rows) + 2
