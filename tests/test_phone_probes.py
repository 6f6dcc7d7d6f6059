"""Probes of phones in the frames of codes: what they can read, what they cannot, what is left out."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.nn import functional as F

from mynah.recipes import cli
from mynah.recipes.conversion.code_probes import CAPACITIES, deal
from mynah.recipes.conversion.phone_probes import (
    PhoneFrames,
    Tally,
    phone_frames,
    probe_phones,
    windows,
)
from mynah.tasks.corpora.corpus import write_corpus
from mynah.tasks.corpora.utterance import Interval, Utterance

RATE = 16000
PHONES = {"a": 300.0, "i": 900.0, "s": 2700.0}
NAMES = sorted(PHONES)


def told(phones: str) -> PhoneFrames:
    """Return frames that all have a phone, each a letter."""
    index_N = np.arange(len(phones))
    tally = Tally(utterances=1, frames=len(phones), outside=0, pauses=0, thinned=0)
    return PhoneFrames(index_N=index_N, phones=tuple(phones), tally=tally)


@pytest.fixture(scope="module")
def frames() -> tuple[list[PhoneFrames], list[str]]:
    """Frames of phones at random, a third more of them ``a``, and the speaker of each utterance."""
    draw = np.random.default_rng(0)
    said = ["".join(draw.choice(list("aisa"), size=60)) for _ in range(24)]
    return [told(phones) for phones in said], [f"s{i % 6}" for i in range(24)]


def one_hot(one: PhoneFrames) -> Tensor:
    return F.one_hot(torch.tensor([NAMES.index(p) for p in one.phones]), len(NAMES))


def test_frames_outside_labels_and_pauses_are_left_out_and_counted() -> None:
    symbols = (". x", "a 1", "-sth", "SIL", "i")
    tier = tuple(Interval(s, 0.1 * n, 0.1 * (n + 1)) for n, s in enumerate(symbols))
    utterance = Utterance(
        id="u", path="", start=0.0, duration=0.6, sample_rate=RATE, intervals={"phones": tier}
    )
    middle_T = np.arange(60) * 0.01 + 0.005
    found = phone_frames(utterance, "phones", middle_T)
    assert found.index_N.tolist() == [*range(10, 30), *range(40, 50)]
    assert found.phones == ("a",) * 10 + ("-sth",) * 10 + ("i",) * 10
    assert found.tally == Tally(utterances=1, frames=30, outside=10, pauses=20, thinned=0)
    found = phone_frames(utterance, "phones", middle_T, not_phones=("[+-]*",), most=5)
    assert found.index_N.tolist() == [10, 14, 18, 42, 46]  # every fourth of those that are left
    assert found.tally == Tally(utterances=1, frames=5, outside=10, pauses=30, thinned=15)
    none = phone_frames(utterance, "words", middle_T)
    assert (none.phones, none.tally.utterances, none.tally.outside) == ((), 0, 60)
    assert Tally.of([found.tally, none.tally]).outside == 70


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_codes_that_are_the_phone_are_read_and_noise_is_not(
    capacity: str, frames: tuple[list[PhoneFrames], list[str]]
) -> None:
    said, speakers = frames
    draw = torch.Generator().manual_seed(0)
    noise = [torch.randn(60, 3, generator=draw) for _ in said]
    kind = {"capacity": capacity, "unit": "speaker", "steps": 100}
    found = probe_phones([one_hot(one) for one in said], said, speakers, **kind)  # type: ignore[arg-type]
    assert found.accuracy.value > 0.99
    assert (found.accuracy.unit, found.accuracy.units, found.accuracy.n) == ("speaker", 6, 24)
    assert found.classes == 3
    share = sum(p == "a" for one in said for p in one.phones) / (24 * 60)
    assert found.chance == pytest.approx(share)
    found = probe_phones(noise, said, speakers, **kind)  # type: ignore[arg-type]
    assert abs(found.accuracy.value - found.chance) < 0.08
    assert probe_phones(noise, said, speakers, **kind) == found  # type: ignore[arg-type]


def test_only_the_larger_probe_hears_neighbours(
    frames: tuple[list[PhoneFrames], list[str]],
) -> None:
    said, speakers = frames
    late = [one_hot(one).roll(3, 0) for one in said]
    linear = probe_phones(late, said, speakers, capacity="linear", unit="speaker")
    cnn = probe_phones(late, said, speakers, capacity="cnn", unit="speaker")
    assert linear.accuracy.value < linear.chance + 0.08
    assert cnn.accuracy.value > 0.9


def test_speakers_are_held_out(frames: tuple[list[PhoneFrames], list[str]]) -> None:
    said, speakers = frames
    # whoever had heard a speaker would know what that speaker's codes mean
    own = [
        torch.cat([F.one_hot(torch.full((60,), int(s[1])), 6), one_hot(one).roll(int(s[1]), 1)], 1)
        for one, s in zip(said, speakers, strict=True)
    ]
    found = probe_phones(own, said, speakers, capacity="cnn", unit="speaker")
    assert found.accuracy.value < found.chance + 0.1
    assert (
        deal(speakers, folds=5, seed=0).tolist()[:6] == deal(speakers[:6], folds=5, seed=0).tolist()
    )


def test_a_speaker_vector_stands_for_every_frame(
    frames: tuple[list[PhoneFrames], list[str]],
) -> None:
    said, speakers = frames
    draw = torch.Generator().manual_seed(1)
    voices = [torch.randn(1, 8, generator=draw) for _ in said]
    found = probe_phones(voices, said, speakers, capacity="linear", unit="speaker")
    assert found.accuracy.value < found.chance + 0.02
    all_one = [told(p * 60) for p in "ai" * 12]
    knows = [torch.tensor([[float(i % 2)]]) for i in range(24)]
    pairs = [f"s{i // 4}" for i in range(24)]
    found = probe_phones(knows, all_one, pairs, capacity="linear", unit="speaker")
    assert found.accuracy.value == 1.0


def test_windows_repeat_the_edges_and_keep_only_what_is_near() -> None:
    code_TC = torch.arange(1000.0)[:, None]
    rows_RC, window_NW = windows(
        [code_TC, -code_TC[:3]], [np.array([0, 500]), np.array([2])], reach=2
    )
    assert rows_RC[window_NW][..., 0].tolist() == [
        [0, 0, 0, 1, 2],
        [498, 499, 500, 501, 502],
        [0, -1, -2, -2, -2],
    ]
    assert len(rows_RC) == 3 + 5 + 3


def test_what_cannot_be_probed_is_said(frames: tuple[list[PhoneFrames], list[str]]) -> None:
    said, speakers = frames
    codes = [one_hot(one) for one in said]
    with pytest.raises(ValueError, match="two phones and two speakers, there are 1 and 6"):
        probe_phones(codes, [told("a" * 60)] * 24, speakers, capacity="cnn", unit="speaker")
    with pytest.raises(ValueError, match="one fold of speakers has all labelled frames"):
        alone = [one if s == "s0" else told("") for one, s in zip(said, speakers, strict=True)]
        probe_phones(codes, alone, speakers, capacity="cnn", unit="speaker")


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers say three sequences of tones, each tone a phone, with a pause at the end."""
    folder = tmp_path_factory.mktemp("tones")
    draw = np.random.default_rng(0)
    utterances = []
    for sentence, order in enumerate(("aisais", "ssaaii", "isaisa")):
        for speaker in range(3):
            t = np.arange(RATE // 5) / RATE
            hertz = [PHONES[p] * (1 + 0.03 * speaker) for p in order]
            parts = [0.1 * np.sin(2 * np.pi * f * t) for f in hertz]
            wav = np.concatenate([*parts, np.zeros(RATE // 5)])
            wav += 1e-3 * draw.standard_normal(len(wav))
            path = folder / f"{speaker}{sentence}.wav"
            soundfile.write(path, wav.astype(np.float32), RATE)
            tier = [Interval(p, 0.2 * n, 0.2 * (n + 1)) for n, p in enumerate(order)]
            tier.append(Interval("sil", 0.2 * len(order), 0.2 * len(order) + 0.1))
            utterances.append(
                Utterance(
                    id=path.stem,
                    path=str(path),
                    start=0.0,
                    duration=len(wav) / RATE,
                    sample_rate=RATE,
                    speaker=f"s{speaker}",
                    text=order,
                    intervals={} if path.stem == "00" else {"phones": tuple(tier)},
                )
            )
    write_corpus(folder / "corpus", utterances, name="tones", source="made", skipped={})
    return folder / "corpus"


def test_judge_codes_has_columns_of_phones(
    tmp_path: Path, tones: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "codes.json"
    command = ["judge", "codes", "copy", "fbank", "--corpus", str(tones), "--out", str(out)]
    few = ["--phones", "phones", "--steps", "40", "--folds", "2"]
    assert cli.main([*command, *few]) == 0
    shown = capsys.readouterr()
    assert "left out of the probes of phones: 1 of 9 utterances" in shown.err
    # 141 centred frames an utterance: 120 of phones, 10 of the pause, 11 after it; the ninth has none
    assert (
        f"phones: 960 frames of 8 utterances; left out: {8 * 11 + 141} outside of all labels, "
        "80 in pauses and other labels that are no phone, 0 beyond 200 of an utterance"
    ) in shown.err
    lines = [line.strip("| ").split(" | ") for line in shown.out.splitlines()]
    assert lines[0][-3:] == ["code → phone, linear", "code → phone, cnn", "voice → phone"]
    assert [line[0] for line in lines[2:]] == ["copy", "fbank", "chance"]
    assert {len(line) for line in (lines[0], *lines[2:])} == {12}
    page = json.loads(out.read_text())
    assert page["phones"] == "phones"
    # the middles of FBANK's uncentred frames begin at 12.5 ms: one frame of the first phone fewer
    assert [row["phones"]["frames"] for row in page["rows"]] == [960, 952]
    for row in page["rows"]:
        assert row["probes"]["code|phone|linear"]["accuracy"]["value"] > 0.9
        assert row["probes"]["code|phone|cnn"]["accuracy"]["value"] > 0.9
        assert row["probes"]["voice|phone"]["accuracy"]["value"] < 0.6
    command.remove("fbank")
    assert cli.main([*command, *few, "--not-phone", "s*", "--frames", "10"]) == 0
    page = json.loads(out.read_text())
    assert page["rows"][0]["phones"] | {"outside": 0} == {
        "utterances": 8, "frames": 80, "outside": 0, "pauses": 8 * 50, "thinned": 8 * 70,
    }  # fmt: skip
    assert page["rows"][0]["probes"]["code|phone|cnn"]["classes"] == 2


def test_judge_codes_says_which_timed_labels_there_are(
    tmp_path: Path, tones: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["judge", "codes", "copy", "--corpus", str(tones), "--out", str(tmp_path / "x.json")]
    assert cli.main([*command, "--phones", "phone"]) == 3
    said = capsys.readouterr().err
    assert "no utterance has the timed labels 'phone'; there are: phones" in said
    assert "--intervals phone=FOLDER" in said
    assert not (tmp_path / "x.json").exists()
