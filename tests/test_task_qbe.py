"""QbE: scores against dtw written out, rows by hand, end to end."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, sound
from parts import BOTH
from searching import loaded
from tones import RATE, tone

from mynah.recipes import probe
from mynah.recipes.probing.settings import Settings
from mynah.tasks.core.contract import DataError
from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.term_search import decode_scores
from mynah.tasks.qbe import TASK as QBE

# -- search -------------------------------------------------------------------------------------


def frames(seed: int = 0) -> dict[str, Tensor]:
    """Two layers of frames: in the second one the queries are parts of their documents."""
    rng = np.random.RandomState(seed)
    made = {f"d{i}": rng.standard_normal((2, 30 + 7 * i, 6)) for i in range(5)}
    for query, doc in (("q1", "d1"), ("q2", "d2"), ("q3", "d0"), ("q4", "d4")):
        made[query] = rng.standard_normal((2, 9, 6))
        made[query][1] = made[doc][1, 5:14] + 0.1 * rng.standard_normal((9, 6))
    made["d3"][1, 2:11] = made["q1"][1]
    return {name: torch.tensor(3 + 2 * x, dtype=torch.float32) for name, x in made.items()}


def slowly(queries: list[Tensor], docs: list[Tensor]) -> np.ndarray:
    """The protocol written out for one layer, in float64."""
    both = np.concatenate([x.double().numpy() for x in (*queries, *docs)])
    mean, deviation = both.mean(0), both.std(0, ddof=1)
    scores = np.zeros((len(queries), len(docs)))
    for row, query in enumerate(queries):
        for column, doc in enumerate(docs):
            x, y = ((z.double().numpy() - mean) / deviation for z in (query, doc))
            x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
            far = np.exp(1 - x @ y.T) - 1
            low, high = far.min(1, keepdims=True), far.max(1, keepdims=True)
            far = (far - low) / (high - low)
            cost = far[0]
            for step in far[1:]:
                cost = np.array([step[j] + min(cost[max(0, j - 2) : j + 1]) for j in range(len(step))])  # fmt: skip
            scores[row, column] = -cost.min() / len(x)
    return (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)


def test_scores_are_those_of_the_protocol_layer_by_layer() -> None:
    task, made = loaded(), frames()
    asked: list[int] = []

    def reader(utterances: list[Utterance]) -> list[Tensor]:
        asked.append(len(utterances))
        return [made[u.id] for u in utterances]

    for split in task.loaded.folds[""][1:]:
        found = task.decode_layers(split, reader)  # type: ignore[arg-type]
        assert len(found) == 2
        queries = [u.id for u in task.searches[split.name].queries]
        for layer in range(2):
            expected = slowly(
                [made[q][layer] for q in queries], [made[f"d{i}"][layer] for i in range(5)]
            )
            said = dict(zip((u.id for u in split.utterances), found[layer], strict=True))
            assert all(isinstance(said[f"d{i}"], str) for i in range(5))
            for q, row in zip(queries, expected, strict=True):
                np.testing.assert_allclose(said[q], row, atol=2e-5)
    assert max(asked) <= 5


def test_rows_and_scores_by_hand() -> None:
    task = loaded()
    test = task.loaded.folds[""][2]
    scores = {"q3": [3.0, 1, 0, -1, 0.5], "q4": [2.5, 0, 2.0, -1, -2]}
    said = [
        np.array(scores[u.id], dtype=np.float32) if u.id in scores else "" for u in test.utterances
    ]
    rows = task.rows(test, said)
    assert (list(rows.ids), list(rows.units), rows.unit) == (["q3", "q4"], ["q3", "q4"], "query")
    assert list(rows.references) == ["d0", "d0 d2 d4"]
    assert decode_scores(rows.predictions[1]) == {"d0": 2.5, "d1": 0, "d2": 2, "d3": -1, "d4": -2}
    found = task.score(rows.references, rows.predictions)
    # accepting what is at least 2: no false alarm, q3 whole, q4 two of three
    assert found["mtwv"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["map"] == pytest.approx((1 + (1 + 1 + 3 / 5) / 3) / 2)
    assert set(found) == {"mtwv", "map", "eer"}
    assert task.metrics()[0].name == task.SPEC.metric == task.dev_metric().name


def test_superb_rounds_as_its_file_of_scores_does() -> None:
    value = np.array([1.23456789, 0, 0, 0, 0], dtype=np.float32)
    shown = {}
    for protocol in BOTH:
        task = loaded(protocol)
        test = task.loaded.folds[""][2]
        rows = task.rows(test, [value if u.id[0] == "q" else "" for u in test.utterances])
        shown[protocol] = decode_scores(rows.predictions[0])["d0"]
    assert shown == {"superb": 1.2346, "fixed": 1.234568}


def test_queries_too_short_for_the_upstream() -> None:
    task, made = loaded(), frames()
    dev = task.loaded.folds[""][1]
    made["q1"] = made["q1"][:, :4]
    found = task.decode_layers(dev, lambda us: [made[u.id] for u in us])
    assert np.asarray(found[0][5]).tolist() == [0.0] * 5  # it finds nothing
    assert float(np.abs(np.asarray(found[0][6])).max()) > 0
    made["q2"] = made["q2"][:, :4]
    with pytest.raises(DataError, match="every query of dev is shorter than 5 frames"):
        task.decode_layers(dev, lambda us: [made[u.id] for u in us])


def test_there_is_nothing_to_train() -> None:
    task = loaded()
    for call in (lambda: task.head(4), lambda: task.losses(torch.zeros(1), torch.ones(1), ()),
                 lambda: task.decode(torch.zeros(1), torch.ones(1), ())):  # fmt: skip
        with pytest.raises(NotImplementedError, match="see decode_layers"):
            call()
    other = QBE()
    other.restore(json.loads(json.dumps(task.state())))
    assert other.loaded.classes == ()


# -- end to end ---------------------------------------------------------------------------------


def tunes(folder: Path) -> Corpus:
    """Three speakers sing tunes of two words of two notes; two others sing single words."""
    (folder / "audio").mkdir(parents=True)
    rng = np.random.RandomState(0)
    spelled = {"up": (150, 400), "down": (400, 150), "rise": (900, 1700), "fall": (1700, 900),
               "climb": (2900, 5000), "sink": (5000, 2900)}  # fmt: skip
    utterances = []

    def sing(name: str, speaker: int, split: str, spoken: list[str]) -> None:
        path = folder / "audio" / f"{name}.wav"
        waves = [
            tone(pitch * (1 + 0.02 * speaker), speaker / 5, 0.15 + 0.03 * rng.rand(), len(utterances))
            for word in spoken
            for pitch in spelled[word]
        ]  # fmt: skip
        soundfile.write(path, np.concatenate(waves), RATE, subtype="PCM_16")
        seconds = sum(map(len, waves)) / RATE
        utterances.append(
            Utterance(id=name, path=str(path), start=0.0, duration=seconds, sample_rate=RATE,
                      speaker=f"s{speaker}", text=" ".join(spoken), split=split)
        )  # fmt: skip

    for i in range(18):
        sing(f"tune{i}", i % 3, "train", rng.choice(list(spelled), size=2, replace=False).tolist())
    for speaker, split in ((3, "dev"), (4, "test")):
        for word in spelled:
            sing(f"{split}-{word}", speaker, split, [word])
    return write_corpus(folder, utterances, name="tunes")


def test_end_to_end_words_are_found_in_tunes(tmp_path: Path) -> None:
    corpus = tunes(tmp_path / "tunes")
    (found,) = probe.run("fbank", "qbe", corpus.folder, tmp_path / "out")
    assert found.metrics["map"].value > 0.9
    assert found.main.value > 0.4
    assert found.choices[0].layer == 0
    assert (found.n_train, found.head_params, found.steps) == (0, 0, 0)
    assert found.main.unit == "query"
    (layers,) = probe.run(
        "apc/tiny", "qbe", corpus.folder, tmp_path / "out", settings=Settings(protocol="superb")
    )
    assert len(layers.sweep) == len(layers.layer_weights) > 1
    best = max(layers.sweep, key=lambda p: (p.dev, -(p.layer or 0)))
    assert layers.choices[0].layer == best.layer
    assert layers.layer_weights[best.layer or 0] == 1.0


def test_the_official_corpus_in_miniature(tmp_path: Path) -> None:
    home = tmp_path / "quesst14Database"
    docs = [f"quesst14_0000{i}" for i in range(3)]
    for i, name in enumerate(docs):
        sound(home / "Audio" / f"{name}.wav", 0.4, seed=i)
    lines(home / "scoring/language_key_utterances.lst",
          *(f"quesst14Database/Audio/{name}.wav nnenglish" for name in docs))  # fmt: skip
    for part, seed in (("dev", 1), ("eval", 2)):
        name = f"quesst14_{part}_0001"
        sound(home / f"{part}_queries/{name}.wav", 0.2, seed=seed)  # how document `seed` begins
        lines(home / f"scoring/language_key_{part}.lst",
              f"quesst14Database/{part}_queries/{name}.wav nnenglish")  # fmt: skip
        lines(home / f"scoring/groundtruth_quesst14_{part}/quesst14_{part}.rttm",
              f"LEXEME {docs[seed]} 1 0.00 0.20 {name} lex unknown 0.5 <NA>")  # fmt: skip
    assert prepare("quesst14", home, tmp_path / "prepared") == 0
    (found,) = probe.run("fbank", "qbe", tmp_path / "prepared", tmp_path / "out")
    assert found.main.value == pytest.approx(1.0)
    assert (found.n_dev, found.n_test) == (4, 4)
