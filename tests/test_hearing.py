"""How protocol superb hears utterances: 3 dB softer, for verification without silences."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parent / "doubles"))
from utterances import keywords, people, utterance

from mynah.recipes import cli
from mynah.recipes.listening import Listener
from mynah.tasks.asv import TASK as ASV
from mynah.tasks.core.contract import Task
from mynah.tasks.corpora import audio, hearing
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.shape import cut_silence, gain
from mynah.tasks.corpora.utterance import Interval, Utterance
from mynah.tasks.er import TASK as ER
from mynah.tasks.ks import TASK as KS
from mynah.tasks.qbe import TASK as QBE
from mynah.tasks.sid import TASK as SID
from mynah.upstream.core import spec

RATE = 16000
PIECES = [(0, 0.3), (0.2, 0.5), (0, 0.25), (0.4, 0.4), (0.0005, 0.3), (0.1, 0.35), (0, 0.2)]


def tone(pieces: list[tuple[float, float]] = PIECES) -> np.ndarray:
    level_S = np.concatenate([np.full(round(s * RATE), level) for level, s in pieces])
    return (level_S * np.sin(np.arange(len(level_S)) * 0.2)).astype(np.float32)


@pytest.fixture
def pausing(tmp_path: Path) -> Iterator[Utterance]:
    """An utterance of 2 s out of a recording whose second channel holds sounds and silences."""
    wav_S = tone()
    soundfile.write(tmp_path / "a.wav", np.stack([0 * wav_S, wav_S], 1), RATE, subtype="FLOAT")
    yield Utterance(
        id="a", path=str(tmp_path / "a.wav"), start=0.1, duration=2.0, sample_rate=RATE, channel=1
    )


def test_what_is_heard_is_what_the_effects_give(pausing: Utterance) -> None:
    whole_S = audio.read(pausing)
    ([softer], ([cut], skipped)) = hearing.softer([pausing]), hearing.without_silence([pausing])
    np.testing.assert_array_equal(audio.read(softer), gain(whole_S, -3.0))
    wanted_S = cut_silence(gain(whole_S, -3.0), RATE)
    np.testing.assert_array_equal(audio.read(cut), wanted_S)
    assert skipped == {}
    assert 0.5 < len(wanted_S) / len(whole_S) < 0.8
    assert audio.num_samples(cut) == len(wanted_S) == round(cut.duration * RATE)
    keys = {audio.content_key(u) for u in (pausing, softer, cut, replace(cut, gain=0.0))}
    assert len(keys) == 4


@pytest.mark.parametrize(("offset", "seconds"), [(0, 1.2), (0.3, 0.5), (0.6, 0.05), (0.0, 0.001)])
def test_a_crop_is_of_what_is_heard(pausing: Utterance, offset: float, seconds: float) -> None:
    [cut], _ = hearing.without_silence([pausing])
    crop = cut.crop(offset, seconds, name="b")
    first, size = round(offset * RATE), round(seconds * RATE)
    np.testing.assert_array_equal(audio.read(crop), audio.read(cut)[first : first + size])
    assert (crop.id, crop.duration) == ("b", size / RATE)
    plain = pausing.crop(offset, seconds, name="b")
    np.testing.assert_array_equal(audio.read(plain), audio.read(pausing)[first : first + size])
    with pytest.raises(ValueError, match=r"leave 'a'"):
        cut.crop(1.0, 1.0, name="b")


def test_another_rate_than_the_file(pausing: Utterance) -> None:
    [cut], _ = hearing.without_silence([pausing])
    assert len(audio.read(cut, 8000)) == audio.num_samples(cut, 8000)
    assert abs(audio.num_samples(cut, 8000) - audio.num_samples(cut) / 2) <= 1


def test_a_file_that_became_shorter_is_refused(pausing: Utterance) -> None:
    [cut], _ = hearing.without_silence([pausing])
    wav_SC, _ = soundfile.read(pausing.path)
    soundfile.write(pausing.path, wav_SC[: RATE // 2], RATE, subtype="FLOAT")
    with pytest.raises(audio.BadAudioError, match="wanted for utterance 'a', the file has 8000"):
        audio.read(cut)


def test_the_tier_is_taken_where_it_is() -> None:
    tier = (Interval("sound", 0.5, 0.75), Interval("sound", 1.0, 1.5))
    known = replace(utterance("a", seconds=2.0), intervals={"sounds": tier})
    silent = replace(utterance("b"), intervals={"sounds": ()})
    kept, skipped = hearing.without_silence([known, silent])
    assert [(u.id, u.sounds, u.start, u.duration, u.gain) for u in kept] == [
        ("a", ((8000, 12000), (16000, 24000)), 0.5, 0.75, -3.0)
    ]
    assert skipped == {"b": "nothing is left of it when silences are cut out"}


def test_hours_without_the_tier_are_refused_before_they_are_read() -> None:
    long = [replace(u, intervals={}) for u in people(20, each=30, seconds=61.0)]
    with pytest.raises(ValueError, match=r"10\.2 hours .* prepare the corpus again with --sounds"):
        ASV("superb").load(long)


def test_which_tasks_hear_it() -> None:
    said = keywords()
    words = [
        utterance(f"{n}-{i}", text=n, seconds=0.5, split="dev") for i, n in enumerate("ab" * 4)
    ]
    for task in (KS, QBE, SID, ER):
        assert task("fixed").heard(said) == said
    for task in (SID, ER):
        assert task("superb").heard(said) == said
    for task in (KS, QBE, ASV):
        assert {u.gain for u in task("superb").heard(words)} == {-3.0}
    assert {u.sounds for u in ASV("superb").heard(words)} == {((0, 8000),)}
    for protocol, heard in (("superb", -3.0), ("fixed", 0.0)):
        task = KS(protocol)  # type: ignore[arg-type]
        parts = task.load(said).folds[""]
        assert {u.gain for part in parts for u in part.utterances} == {heard}


def test_silence_counts_for_no_length() -> None:
    sounds = {"sounds": (Interval("sound", 0.0, 1.9),)}
    quiet = replace(utterance("quiet", speaker="p00", seconds=9.0, split="train"), intervals=sounds)
    parts = [*people(3, split="train"), *people(2, split="test", first=8), quiet]
    task = ASV("superb")
    task.load(parts)
    assert "longer than 2 s" in task.loaded.skipped["quiet"]
    fixed = ASV()
    fixed.load([*parts, *people(2, split="dev", first=20)])
    assert fixed.loaded.skipped == {}


@pytest.mark.parametrize("options", [(), ("--sounds",)])
def test_preparing_notes_where_there_is_sound(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "s-1.wav", tone(), RATE, subtype="FLOAT")
    given = ["prepare", "folder", str(tmp_path / "in"), str(tmp_path / "out"), *options]
    assert cli.main(given) == 0
    (u,) = Corpus.open(tmp_path / "out").utterances()
    assert ("sounds" in u.intervals) == bool(options)
    ([cut], _) = hearing.without_silence([u])
    np.testing.assert_array_equal(audio.read(cut), cut_silence(gain(tone(), -3.0), RATE))


def test_sounds_want_decoded_audio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["prepare", "folder", str(tmp_path), str(tmp_path / "out"), "--sounds", "--quick"]
    assert cli.main(given) == 2
    assert "leave out --quick" in capsys.readouterr().err


def test_a_trained_head_hears_as_it_was_trained(pausing: Utterance) -> None:
    def features(task: Task) -> Tensor:
        card = SimpleNamespace(protocol=task.protocol_name, spec="fbank", layer_norm=False)
        listener = Listener(card=card, task=task, probe=None, upstream=model)  # type: ignore[arg-type]
        return listener.features(pausing)[0]

    model = spec.load("fbank")
    soft_S, loud_S = gain(audio.read(pausing), -3.0), audio.read(pausing)
    for protocol, wav_S in (("superb", soft_S), ("fixed", loud_S)):
        states = list(model.hidden_states([torch.from_numpy(wav_S)]))
        wanted_LD = torch.stack([x_ND.mean(0) for x_ND in states])
        torch.testing.assert_close(features(KS(protocol))[0], wanted_LD)  # type: ignore[arg-type]
