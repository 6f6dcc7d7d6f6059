"""Corpora of mixtures: what is on disk, the same bytes for the same request, what is refused, the command."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from voices import RATE, write_voices

from mynah.recipes import cli, errors
from mynah.tasks.corpora import mixdown, mixtures
from mynah.tasks.corpora.audio import BadAudioError
from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.mixture_plan import Mixture, Options
from mynah.tasks.corpora.mixtures import Noises, build
from mynah.tasks.corpora.utterance import Utterance


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_voices(tmp_path_factory.mktemp("data") / "voices")


def sounds(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.wav"))}


def integers(path: Path) -> np.ndarray:
    wav, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE
    return wav.astype(np.int64)


# -- corpora --------------------------------------------------------------------------------


def test_separation_on_disk(voices: Corpus, tmp_path: Path) -> None:
    made = build(tmp_path / "a", voices, Options(kind="separation"))
    assert made.name == "voices-separation"
    assert made.splits == ("dev", "test", "train")
    assert len(made) == 12
    speaker = {u.speaker: u.split for u in voices.utterances()}
    for u in made.utterances():
        folder = Path(u.path).parent
        first, second = (integers(folder / u.labels[s]) for s in ("s1", "s2"))
        assert np.array_equal(integers(Path(u.path)), first + second)
        assert u.labels["s1_speaker"] != u.labels["s2_speaker"]
        assert {speaker[u.labels[f"s{i}_speaker"]] for i in (1, 2)} == {u.split}
        levels = [mixdown.active_level(x / 2**15, RATE) for x in (first, second)]
        assert all(-28.5 < level < -21.5 for level in levels)
    assert made.page["extra"]["kind"] == "separation"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_the_same_request_gives_the_same_bytes_anywhere(voices: Corpus, tmp_path: Path) -> None:
    for kind in ("separation", "enhancement", "diarization"):
        options = Options(kind=kind, count=4, seconds=3.0)  # type: ignore[arg-type]
        one = build(tmp_path / f"{kind}1", voices, options)
        two = build(tmp_path / "deeper" / f"{kind}2", voices, options)
        assert one.version == two.version
        assert sounds(one.folder) == sounds(two.folder)
        other = build(tmp_path / f"{kind}3", voices, dataclasses.replace(options, seed=1))
        assert other.version != one.version


def test_enhancement_on_disk(voices: Corpus, tmp_path: Path) -> None:
    made = build(tmp_path / "a", voices, Options(kind="enhancement", snr=(5.0, 6.0)))
    source = {u.id: u for u in voices.utterances()}
    assert {u.id for u in made.utterances()} == set(source)
    for u in made.utterances():
        assert (u.speaker, u.text, u.split) == (source[u.id].speaker, "la la", source[u.id].split)
        assert u.labels["gender"] == source[u.id].labels["gender"]
        clean = integers(Path(u.path).parent / u.labels["clean"])
        noise = integers(Path(u.path)) - clean
        power = 10 * np.log10(np.mean((noise / 2**15) ** 2))
        assert 4.9 < mixdown.active_level(clean / 2**15, RATE) - power < 6.1


def test_diarization_on_disk(voices: Corpus, tmp_path: Path) -> None:
    made = build(tmp_path / "a", voices, Options(kind="diarization", seconds=6.0, overlap=0.5))
    split = {u.speaker: u.split for u in voices.utterances()}
    for u in made.utterances():
        turns = u.intervals["speakers"]
        assert {split[t.symbol] for t in turns} == {u.split}
        assert len({t.symbol for t in turns}) == 2
        assert max(t.end for t in turns) <= u.duration
        assert u.duration > 6.0
        wav = integers(Path(u.path)) / 2**15
        quiet = np.ones(len(wav), dtype=bool)
        for t in turns:
            quiet[int(t.start * RATE) : int(t.end * RATE) + 1] = False
        assert np.abs(wav[quiet]).max() < 0.01 < 0.1 < np.abs(wav).max()


def test_floats_other_rates_and_sources_of_any_length(voices: Corpus, tmp_path: Path) -> None:
    three = [u for u in voices.utterances() if u.speaker in ("v0", "v1", "v2")][::4]
    asked = Options(kind="separation", speakers=3)
    mixture = Mixture(id="m", split="train", utterances=tuple(three))
    assert list(mixtures.render(mixture, asked).parts) == ["s1", "s2", "s3"]
    options = Options(kind="separation", bits=32, rate=8000, mode="max", count=6, speakers=2)
    (u, *_) = build(tmp_path / "a", voices, options).utterances()
    info = soundfile.info(u.path)
    assert (info.subtype, info.samplerate) == ("FLOAT", 8000)
    parts = [soundfile.read(Path(u.path).parent / u.labels[s], dtype="float32")[0] for s in ("s1", "s2")]  # fmt: skip
    np.testing.assert_allclose(soundfile.read(u.path)[0], parts[0] + parts[1], atol=1e-6)


def test_recorded_noise_is_apart_too(voices: Corpus, tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    for i in range(7):
        wave = np.full(4000, 0.01 * (i + 1), np.float32)
        wave[::2] *= -1
        soundfile.write(tmp_path / "noise" / f"n{i}.wav", wave, RATE)
    from mynah.recipes.mix import recordings

    found = recordings(tmp_path / "noise")
    sizes = {"train": 12, "dev": 6, "test": 6}
    noises = Noises.shared_out(found, sizes, seed=0)
    ids = [u.id for part in noises.by_split.values() for u in part]
    assert sorted(ids) == [f"n{i}" for i in range(7)]
    assert all(noises.by_split.values())
    drawn = noises.draw("dev", 10_000, RATE, np.random.default_rng(0))
    assert len(drawn) == 10_000  # a quarter of a second, again and again
    assert np.abs(drawn).min() > 0
    with pytest.raises(ValueError, match="2 recordings of noise for the parts train, dev, test"):
        Noises.shared_out(found[:2], sizes, seed=0)
    named = [dataclasses.replace(u, split="dev" if i else "train") for i, u in enumerate(found)]
    kept = Noises.shared_out(named, {"train": 1, "dev": 1}, seed=0)
    assert [u.id for u in kept.by_split["train"]] == ["n0"]
    made = build(tmp_path / "a", voices, Options(kind="separation", count=3), noise=found)
    (u, *_) = made.utterances()
    folder = Path(u.path).parent
    rest = integers(Path(u.path)) - sum(integers(folder / u.labels[s]) for s in ("s1", "s2"))
    assert np.ptp(np.abs(rest)) <= 2  # a square wave, but for rounding
    assert np.abs(rest).min() > 100
    assert made.page["extra"]["noise"] == "recorded"


def test_stretches_of_noise_that_are_silence_are_drawn_again(tmp_path: Path) -> None:
    """Collections of sounds fill short recordings up with zeros."""
    for name, loud in (("padded", 0.25), ("empty", 0.0)):
        wave = np.zeros(4 * RATE, np.float32)
        wave[: int(loud * len(wave))] = 0.1
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE)
    own = {name: [Utterance(id=name, path=str(tmp_path / f"{name}.wav"), start=0.0, duration=4.0,
                            sample_rate=RATE)] for name in ("padded", "empty")}  # fmt: skip
    rng = np.random.default_rng(0)
    noises = Noises(by_split={"train": own["padded"] + own["empty"]})
    drawn = [noises.draw("train", RATE // 2, RATE, rng) for _ in range(30)]
    assert all(one.any() and len(one) == RATE // 2 for one in drawn)
    with pytest.raises(BadAudioError, match=r"noise of dev: 100 stretches of 0\.5 s .*empty\.wav"):
        Noises(by_split={"dev": own["empty"]}).draw("dev", RATE // 2, RATE, rng)


def test_nothing_is_left_of_what_fails(
    voices: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render, calls = mixtures.render, iter(range(100))

    def broken(*args: object) -> object:
        if next(calls) == 3:
            raise OSError(28, "no space left")
        return render(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(mixtures, "render", broken)
    with pytest.raises(OSError, match="no space"):
        build(tmp_path / "a", voices, Options(kind="separation"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_folder_is_not_touched(voices: Corpus, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="is not empty: name a new folder"):
        build(tmp_path, voices, Options(kind="separation"))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_silence_is_named(tmp_path: Path) -> None:
    utterances = []
    for i in range(2):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, (0.1 * i * np.ones(RATE)).astype(np.float32), RATE)
        utterances.append(
            Utterance(id=f"u{i}", path=str(path), start=0.0, duration=1.0, sample_rate=RATE,
                      speaker=f"s{i}", split="train")
        )  # fmt: skip
    corpus = write_corpus(tmp_path / "c", utterances, name="c")
    with pytest.raises(BadAudioError, match="utterance 'u0': digital silence"):
        build(tmp_path / "a", corpus, Options(kind="separation"))


# -- the command ----------------------------------------------------------------------------


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    capsys.readouterr()
    yield capsys


def test_the_command(voices: Corpus, tmp_path: Path, shown: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a"
    asked = ["mix", "enhancement", str(voices.folder), str(out), "--count", "5", "--snr", "0", "5",
             "--corpus-name", "hiss"]  # fmt: skip
    assert cli.main(asked) == 0
    assert "corpus hiss" in shown.readouterr().out
    assert Corpus.open(out).page["extra"]["snr"] == [0.0, 5.0]
    assert cli.main(asked) == errors.USAGE
    assert "is not empty" in shown.readouterr().err


def test_chosen_parts(voices: Corpus, tmp_path: Path) -> None:
    asked = ["mix", "separation", str(voices.folder), str(tmp_path / "a"), "--count", "6"]
    assert cli.main([*asked, "--split", "train", "--split", "dev"]) == 0
    made = Corpus.open(tmp_path / "a")
    assert made.page["extra"]["splits"] == ["train", "dev"]
    assert {u.split for u in made.utterances()} == {"train", "dev"}
    assert len(made.utterances()) == 6
    spoken = {u.speaker for u in voices.utterances() if u.split != "test"}
    assert {
        u.label(name) for u in made.utterances() for name in ("s1_speaker", "s2_speaker")
    } <= spoken


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["separation", "--seconds", "3"], "--seconds is for diarization"),
        (["enhancement", "--speakers", "3"], "--speakers is for separation and diarization"),
        (["diarization", "--mode", "max"], "--mode is for separation"),
        (["separation", "--snr", "0", "5"], "--snr needs --noise"),
        (["separation", "--noise", "/nowhere"], "/nowhere is not a folder"),
        (["separation", "--count", "1"], "1 mixtures cannot fill"),
        (
            ["enhancement", "--split", "eval"],
            "no utterance of part 'eval': the corpus has dev, test",
        ),
    ],
)
def test_options_that_do_not_go_together(
    voices: Corpus, tmp_path: Path, shown: pytest.CaptureFixture[str],
    asked: list[str], message: str,
) -> None:  # fmt: skip
    kind, *rest = asked
    status = cli.main(["mix", kind, str(voices.folder), str(tmp_path / "a"), *rest])
    assert status == errors.USAGE
    assert message in " ".join(shown.readouterr().err.split())
    assert not (tmp_path / "a").exists()
