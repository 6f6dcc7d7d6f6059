"""What ``mynah predict`` makes of answers: files of audio and turns, lines of text, names."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from tones import RATE
from utterances import utterance

from mynah.recipes import predict
from mynah.recipes.listening import Listener
from mynah.recipes.probing.trained import HeadCard
from mynah.tasks.core.contract import Presented
from mynah.tasks.corpora.audio import BadAudioError
from mynah.tasks.metrics.rttm import Turn, read_rttm


class Says:
    """A listener that says the same of everything."""

    def __init__(self, said: Presented | Exception) -> None:
        self.card = HeadCard.model_construct(task="ss")
        self.upstream = type("Upstream", (), {"sample_rate": RATE})()
        self.said = said

    def presented(self, utterance: Any) -> Presented:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def answers(said: Presented, out: Path | None, *names: str) -> list[Any]:
    listener: Listener = Says(said)  # type: ignore[assignment]
    return list(predict.answers(listener, [(f"{n}.wav", utterance(n)) for n in names], out))


def test_audio_goes_to_files(tmp_path: Path) -> None:
    wave = np.linspace(-1.5, 1.5, 320).astype(np.float32)
    both = Presented(text="two voices", json={}, wavs={"s1": wave, "s2": -wave})
    with pytest.raises(ValueError, match="the answer of ss is audio: say where"):
        answers(both, None, "mix")
    out = tmp_path / "new" / "folder"
    ((_, text, page, usable),) = answers(both, out, "mix")
    files = [str(out / "mix.s1.wav"), str(out / "mix.s2.wav")]
    assert usable
    assert text == "\t".join(["two voices", *files])
    assert page == {"files": files}
    read, rate = soundfile.read(files[1], dtype="float32")
    np.testing.assert_array_equal(read, -wave)  # not clipped
    assert rate == RATE
    answers(Presented(text="", json={}, wavs={"clean": wave}), out, "one")
    assert (out / "one.wav").is_file()


def test_turns_go_to_rttm(tmp_path: Path) -> None:
    turns = [Turn(0.5, 1.0, "spk1"), Turn(1.0, 2.0, "spk2")]
    said = Presented(text="spk1 0.50-1.50", json={"turns": []}, rttm=turns)
    assert answers(said, None, "talk")[0][2] == {"turns": []}
    ((_, _, page, _),) = answers(said, tmp_path, "talk")
    assert page["files"] == [str(tmp_path / "talk.rttm")]
    assert read_rttm(tmp_path / "talk.rttm") == {"talk": tuple(turns)}


def test_text_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    said = Presented(text="one :smile:\ntwo\t[b]", json={"text": "Ü"})
    assert answers(said, None, "a")[0][1] == "one :smile: two [b]"


def test_an_unreadable_first_file_is_not_what_others_are_compared_with() -> None:
    vector = Presented(text="", json={}, embedding=np.array([1.0, 0.0], np.float32))
    listener: Listener = Says(vector)  # type: ignore[assignment]
    bad = ("bad.wav", BadAudioError("bad.wav: cannot be opened"))
    rest = [(f"{n}.wav", utterance(n)) for n in "ab"]
    found = list(predict.answers(listener, [bad, *rest], None))
    assert [(shown, usable) for shown, _, _, usable in found] == [("bad.wav", False), ("b.wav", True)]  # fmt: skip
    assert found[1][2] == {"against": "a.wav", "similarity": pytest.approx(1)}


def test_names_are_unique_and_have_no_spaces() -> None:
    paths = [Path("a/x y.wav"), Path("b/x y.flac"), Path("x_y-2.wav"), Path("z.wav")]
    assert predict.named(paths) == ["x_y", "x_y-2", "x_y-2-2", "z"]
