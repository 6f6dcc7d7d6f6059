"""``mynah predict``: trained heads asked about audio they never saw, and about audio that is none."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from tones import PITCHES, RATE, tone, write_tones

from mynah.recipes import cli
from mynah.recipes.listening import open_listener, utterance_of
from mynah.recipes.probing import job
from mynah.recipes.probing.settings import Settings
from mynah.recipes.probing.trained import HeadCard
from mynah.tasks.core.ctc import Emission, greedy, greedy_times
from mynah.tasks.corpora.corpus import Corpus, write_corpus

FAST = Settings(steps=60, learning_rates=(1e-2,))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Tones; each utterance also carries an intent of three parts, for IC."""
    made = write_tones(tmp_path_factory.mktemp("data") / "tones", seconds=0.5)
    parts = {"low": ("on", "lamp", "hall"), "mid": ("off", "lamp", "bath"), "high": ("on", "oven", "bath")}  # fmt: skip
    marked = [
        dataclasses.replace(
            u,
            labels={
                **u.labels,
                **dict(zip(("action", "object", "location"), parts[str(u.text)], strict=True)),
            },
        )
        for u in made.utterances()
    ]
    return write_corpus(made.folder, marked, name="tones")


@pytest.fixture(scope="module")
def heads(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained head of several tasks."""
    out = tmp_path_factory.mktemp("out")
    found = {}
    for task in ("ks", "pr", "ic", "asv"):
        settings = dataclasses.replace(FAST, heads="small", steps=6 if task == "asv" else 60)
        (result,) = job.run("fbank", task, corpus.folder, out, settings=settings)
        (name,) = result.heads.values()
        found[task] = out / "fbank-base" / name
    return found


@pytest.fixture
def high(tmp_path: Path) -> Path:
    return sound(tmp_path / "a high one.wav", "high")


def sound(path: Path, pitch: str, *, seconds: float = 0.4, rate: int = RATE) -> Path:
    wave = tone(PITCHES[pitch], 0.3, seconds, seed=99)
    soundfile.write(path, soxr.resample(wave, RATE, rate), rate, subtype="PCM_16")
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str], str]:
    """Run the command; returns its status, the lines it printed and what it said of errors."""
    status = cli.main(["predict", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out.splitlines(), said.err


# -- answers --------------------------------------------------------------------------------------


def test_classes_with_probabilities(
    heads: dict[str, Path], high: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    low = sound(tmp_path / "low.wav", "low")
    status, lines, _ = run(capsys, heads["ks"], high, low)
    assert status == 0
    assert [line.split("\t")[0] for line in lines] == [str(high), str(low)]
    (word, p), (other, _) = (line.split("\t")[1].split() for line in lines)
    assert (word, other) == ("high", "low")
    _, lines, _ = run(capsys, heads["ks"], high, "--json")
    (page,) = map(json.loads, lines)
    assert (page["audio"], page["task"]) == (str(high), "ks")
    answer = page["class"]
    assert (answer["answer"], f"{answer['probability']:.3f}") == ("high", p)
    assert set(answer["likeliest"]) == {"low", "mid", "high"}
    assert sum(answer["likeliest"].values()) == pytest.approx(1)
    assert list(answer["likeliest"].values()) == sorted(answer["likeliest"].values(), reverse=True)


def test_several_questions_at_once(
    heads: dict[str, Path], high: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines, _ = run(capsys, heads["ic"], high, "--json")
    (page,) = map(json.loads, lines)
    assert [page[slot]["answer"] for slot in ("action", "object", "location")] == ["on", "oven", "bath"]  # fmt: skip
    assert sum(page["action"]["likeliest"].values()) == pytest.approx(1)
    _, lines, _ = run(capsys, heads["ic"], high)
    assert lines[0].split("\t")[1].startswith("action=on ")


def test_phones_with_times(
    heads: dict[str, Path], high: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines, _ = run(capsys, heads["pr"], high, "--json")
    assert status == 0
    (page,) = map(json.loads, lines)
    assert page["text"].split() == [one["phone"] for one in page["phones"]]
    assert {"I"} <= set(page["text"].split()) <= {"H", "I"}
    times = [t for one in page["phones"] for t in (one["start"], one["end"])]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= 0.41
    assert all(round(t / 0.01, 6) == round(t / 0.01) for t in times)  # frames of 10 ms
    _, lines, _ = run(capsys, heads["pr"], high)
    assert lines == [f"{high}\t{page['text']}"]


def test_voices_are_compared_with_the_first(
    heads: dict[str, Path], high: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    low = sound(tmp_path / "low.wav", "low")
    status, lines, _ = run(capsys, heads["asv"], high, low, high)
    assert status == 0
    names, scores = zip(*(line.split("\t") for line in lines), strict=True)
    assert names == (str(low), str(high))
    assert float(scores[1]) == pytest.approx(1, abs=1e-4)
    assert -1 <= float(scores[0]) < 0.9999
    _, lines, _ = run(capsys, heads["asv"], high, low, "--json")
    (page,) = map(json.loads, lines)
    assert page["against"] == str(high)
    assert "embedding" not in page
    status, _, error = run(capsys, heads["asv"], high)
    assert status == 2
    assert "give two at least" in error


def test_a_corpus_gets_what_the_probe_scored(
    heads: dict[str, Path], corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in ("ks", "pr"):
        _, lines, _ = run(capsys, heads[task], "--corpus", corpus.folder, "--json")
        pages = {page["audio"]: page for page in map(json.loads, lines)}
        assert len(pages) == 54
        table = heads[task].with_name(heads[task].name.replace(".head.safetensors", ".tsv"))
        rows = [line.split("\t") for line in table.read_text().splitlines()[1:]]
        assert len(rows) > 5
        for row in rows:
            page = pages[row[0]]
            assert (page["class"]["answer"] if task == "ks" else page["text"]) == row[-1]


def test_any_rate_and_length(
    heads: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = sound(tmp_path / "fast.flac", "high", rate=44100)
    long = sound(tmp_path / "long.wav", "high", seconds=120.0)
    slow = sound(tmp_path / "slow.wav", "high", rate=8000)
    status, lines, _ = run(capsys, heads["ks"], fast, long, slow)
    assert (status, len(lines)) == (0, 3)
    assert [line.split("\t")[1].split()[0] for line in lines[:2]] == ["high"] * 2
    status, lines, _ = run(capsys, heads["pr"], long, "--json")
    assert status == 0
    assert json.loads(lines[0])["phones"][-1]["end"] <= 120.01


# -- what cannot be ----------------------------------------------------------------------------


def test_bad_audio_is_named_and_the_rest_answered(
    heads: dict[str, Path], high: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.wav"
    text.write_text("not audio at all, whatever its name says")
    nan = tmp_path / "nan.wav"
    wave = tone(300.0, 0.1, 0.4, 1)
    wave[77] = np.nan
    soundfile.write(nan, wave, RATE, subtype="FLOAT")
    short = tmp_path / "short.wav"
    soundfile.write(short, np.zeros(100, np.float32), RATE)
    stereo = tmp_path / "stereo.wav"
    soundfile.write(stereo, np.stack([wave[:50], wave[:50]], 1).repeat(99, 0), RATE)
    missing = tmp_path / "missing.wav"
    bad = [text, nan, short, stereo, missing]
    status, lines, error = run(capsys, heads["ks"], *bad, high)
    assert status == 3
    assert [line.split("\t")[0] for line in lines] == [str(high)]
    assert "5 of 6 could not be used" in error
    for path, why in zip(
        bad,
        ("not readable as audio", "sample 77 is not a finite number",
         "100 samples at 16000 Hz are less than one frame of 160",
         "2 channels: say which, --channel 0 is the first", "cannot be opened"),
        strict=True,
    ):  # fmt: skip
        assert any(str(path) in line and why in line for line in error.splitlines()), path
    _, lines, _ = run(capsys, heads["ks"], nan, high, "--json")
    pages = list(map(json.loads, lines))
    assert "not a finite number" in pages[0]["error"]
    assert pages[1]["class"]["answer"] == "high"
    status, lines, _ = run(capsys, heads["ks"], stereo, "--channel", 1)
    assert (status, len(lines)) == (0, 1)
    status, _, error = run(capsys, heads["asv"], short, high)
    assert status == 3


def test_too_short_for_a_task(
    heads: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brief = sound(tmp_path / "brief.wav", "low", seconds=0.1)
    status, _, error = run(capsys, heads["asv"], brief, brief)
    assert status == 3
    assert "15 frames" in error


def test_too_short_for_a_head(
    corpus: Corpus, high: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = dataclasses.replace(FAST, heads="small", steps=2)
    (result,) = job.run("fbank", "ood_asr", corpus.folder, tmp_path, settings=settings)
    head = next(tmp_path.rglob(next(iter(result.heads.values()))))
    brief = sound(tmp_path / "brief.wav", "low", seconds=0.0125)  # one frame; the head wants two
    status, lines, error = run(capsys, head, brief, high)
    assert (status, [line.split("\t")[0] for line in lines]) == (3, [str(high)])
    assert "1 of 2 could not be used" in error
    assert f"{brief}: this head needs at least 2 frames" in error


def test_heads_that_are_none(
    heads: dict[str, Path], high: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, error = run(capsys, tmp_path / "no.head.safetensors", high)
    assert (status, "does not exist" in error) == (2, True)
    broken = tmp_path / "broken.head.safetensors"
    broken.write_bytes(heads["ks"].read_bytes()[:-50])
    status, _, error = run(capsys, broken, high)
    assert (status, "not a trained head" in error) == (2, True)
    status, _, error = run(capsys, heads["ks"])
    assert (status, "nothing to listen to" in error) == (2, True)
    assert "Traceback" not in error


def with_card(head: Path, out: Path, **changes: object) -> Path:
    """Write the same head with another card."""
    with safe_open(head, framework="pt") as file:
        card = HeadCard.model_validate_json(file.metadata()["mynah_head"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    changed = card.model_copy(update=changes).model_dump_json()
    save_file(tensors, out, metadata={"mynah_head": changed})
    return out


def test_only_its_own_upstream(
    heads: dict[str, Path], high: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, error = run(capsys, heads["ks"], high, "--upstream", "apc/tiny")
    assert status == 2
    assert "the head means nothing on another upstream" in error
    moved = with_card(heads["ks"], tmp_path / "moved.head.safetensors", spec="exp/gone/final")
    status, _, error = run(capsys, moved, high)
    assert status == 2
    assert "cannot be loaded here" in error
    assert "--upstream SPEC" in error
    status, lines, _ = run(capsys, moved, high, "--upstream", "fbank")
    assert (status, lines[0].split()[-2]) == (0, "high")


def test_no_file_is_executed_unasked(
    heads: dict[str, Path], high: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n")
    spec = f"python:{trap}:Model"
    head = with_card(heads["ks"], tmp_path / "trap.head.safetensors", spec=spec)
    status, _, error = run(capsys, head, high)
    assert status == 2
    assert f"if you trust it, say --upstream {spec}" in error
    assert not (tmp_path / "sprung").exists()


def test_random_weights_are_told_apart_by_seed(
    corpus: Corpus, tmp_path: Path, high: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = dataclasses.replace(FAST, steps=2)
    (result,) = job.run("apc/tiny", "ks", corpus.folder, tmp_path, settings=settings, upstream_seed=3)  # fmt: skip
    (name,) = result.heads.values()
    head = next(tmp_path.rglob(name))
    with pytest.raises(ValueError, match=r"apc/tiny \(seed 0, fp32\) has"):
        open_listener(head)
    status, _, error = run(capsys, head, high)
    assert status == 2
    assert "with --upstream, --upstream-seed, --precision" in error
    assert run(capsys, head, high, "--upstream-seed", 3)[0] == 0
    listener = open_listener(head, seed=3)
    assert open_listener(head, beside=listener).upstream is listener.upstream
    assert listener.presented(utterance_of(high, name="x")).json["class"]["answer"] in PITCHES


def test_features_that_are_not_numbers(heads: dict[str, Path], high: Path) -> None:
    listener = open_listener(heads["ks"])

    def poisoned(wavs: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        frames = listener.upstream.num_frames(len(wavs[0]))
        yield torch.full((frames, listener.upstream.dim), float("nan"))

    listener.upstream.hidden_states = poisoned  # type: ignore[method-assign,assignment]
    with pytest.raises(ValueError, match="fbank gives features of .* NaN or infinite"):
        listener.presented(utterance_of(high, name="x"))


# -- times of CTC -----------------------------------------------------------------------------


def test_greedy_times() -> None:
    path = torch.tensor([[0, 1, 1, 0, 1, 2, 2, 0, 3]])
    logits = torch.nn.functional.one_hot(path, 4).float()
    assert greedy_times(logits, torch.tensor([9])) == [
        [Emission(1, 1, 3), Emission(1, 4, 5), Emission(2, 5, 7), Emission(3, 8, 9)]
    ]
    assert greedy_times(logits, torch.tensor([6]))[0][-1] == Emission(2, 5, 6)
    torch.manual_seed(0)
    noise, lengths = torch.randn(8, 30, 4), torch.arange(23, 31)
    symbols = [[one.symbol for one in found] for found in greedy_times(noise, lengths)]
    assert symbols == greedy(noise, lengths)
    for found, length, row in zip(greedy_times(noise, lengths), lengths.tolist(), noise, strict=True):  # fmt: skip
        for one in found:
            assert 0 <= one.first < one.end <= length
            assert set(row[one.first : one.end].argmax(-1).tolist()) == {one.symbol}
