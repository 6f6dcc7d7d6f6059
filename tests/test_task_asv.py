"""ASV: trials given and drawn, what is chosen on what, the loss by hand, scores, bad data, end to end."""

import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from official import lines, prepare, sound
from utterances import people, utterance

from mynah.downstream.core.featurizer import Featurizer, Probe
from mynah.downstream.xvector import MIN_FRAMES, XVector
from mynah.recipes import probe
from mynah.recipes.probing.job import load_task
from mynah.recipes.probing.settings import Settings
from mynah.recipes.probing.train import usable
from mynah.tasks.asv import TASK as ASV
from mynah.tasks.core.contract import DataError, Facts, ProtocolName, Split
from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.manifest import ManifestError
from mynah.tasks.corpora.official.core.trials import Trial, dump
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.ks import TASK as KS

BOTH: tuple[ProtocolName, ...] = ("superb", "fixed")
FACTS = Facts(dim=4, layers=2, stride=320, sample_rate=16000)


def corpus() -> list[Utterance]:
    return [*people(8, split="train"), *people(2, split="test", first=8)]


LISTED = [
    Trial(True, "p08-0", "p08-1"),
    Trial(False, "p08-0", "p09-0"),
    Trial(True, "p09-0", "p09-2"),
]


def loaded(protocol: ProtocolName = "fixed", **kwargs: str) -> ASV:
    task = ASV(protocol, **kwargs)
    task.take_trials(LISTED)
    task.load(corpus())
    return task


def test_numbers_of_superb() -> None:
    p = ASV.PROTOCOLS["superb"]
    assert (p.optimizer, p.weight_decay, p.eps) == ("adamw", 0.01, 1e-8)
    assert (p.batch_size, p.accumulate, p.clip) == (10, 5, 1e3)
    assert (p.steps, p.eval_every, p.crop_seconds, p.ties) == (200_000, 20_000, 8.0, "first")
    assert MIN_FRAMES == 15


# -- data ---------------------------------------------------------------------------------------


def test_superb_selects_on_the_test_trials_and_says_so() -> None:
    task = loaded("superb")
    train, dev, test = task.loaded.folds[""]
    assert dev.utterances == test.utterances
    assert task.trials["dev"] == task.trials["test"] == tuple(LISTED)
    assert [u.id for u in test.utterances] == ["p08-0", "p08-1", "p09-0", "p09-2"]
    assert {u.speaker for u in train.utterances} == {f"p{s:02d}" for s in range(8)}
    assert task.outputs == 8
    assert any("chosen on the test trials themselves" in note for note in task.loaded.notes)
    assert "3 trials of test, 2 of them target trials, the corpus's own" in task.loaded.notes


def test_fixed_holds_speakers_out_and_gives_them_trials() -> None:
    task = loaded()
    train, dev, test = (split.utterances for split in task.loaded.folds[""])
    names = [{u.speaker for u in part} for part in (train, dev, test)]
    assert [len(n) for n in names] == [6, 2, 2]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    assert task.trials["test"] == tuple(LISTED)
    used = {name for t in task.trials["dev"] for name in (t.enrolment, t.test)}
    assert used == {u.id for u in dev}
    assert task.loaded.classes == tuple(sorted(str(n) for n in names[0]))
    assert "dev was carved out" in task.loaded.notes[0]


def test_a_dev_part_of_the_corpus_is_used_by_fixed_and_trained_on_by_superb() -> None:
    parts = [*corpus(), *people(3, split="dev", first=20)]
    fixed, superb = ASV(), ASV("superb")
    assert {u.speaker for u in fixed.load(parts).folds[""][1].utterances} == {"p20", "p21", "p22"}
    assert "p20" in superb.load(parts).classes


@pytest.mark.parametrize("protocol", BOTH)
def test_made_splits_ignore_the_list_and_have_two_speakers_each(protocol: ProtocolName) -> None:
    task = loaded(protocol, splits="made")
    assert "made here" in task.loaded.notes[0]
    assert task.trials["test"] != tuple(LISTED)
    for split in task.loaded.folds[""]:
        assert len({u.speaker for u in split.utterances}) >= 2
    again = loaded(protocol, splits="made")
    assert again.trials == task.trials
    other = ASV(protocol)
    other.load(people()[::-1])
    ordered = ASV(protocol)
    ordered.load(people())
    assert other.trials == ordered.trials


def test_short_utterances_are_left_out_and_counted() -> None:
    short = [utterance("two", speaker="p00", seconds=2.0, split="train"),
             utterance("tiny", speaker="p00", seconds=0.4, split="train")]  # fmt: skip
    superb, fixed = ASV("superb"), ASV()
    reason = "it is not longer than 2 s, as those of train must be"
    assert superb.load([*corpus(), *short]).skipped == {"two": reason, "tiny": reason}
    assert set(fixed.load([*corpus(), *short]).skipped) == {"tiny"}
    with pytest.raises(
        DataError, match=r"no utterance of train is longer than 2 s: p00-0.* in all"
    ):
        ASV("superb").load(people(seconds=1.0))


def test_training_sees_crops_of_eight_seconds() -> None:
    long = utterance("long", speaker="p", seconds=20.0)
    for protocol, count in (("superb", 8), ("fixed", 4)):
        crops = ASV(protocol).views(long)  # type: ignore[arg-type]
        assert len(crops) == count
        assert all(c.duration == 8.0 and 0 <= c.start <= 12.0 for c in crops)
    short = utterance("short", speaker="p", seconds=8.0)
    assert ASV().views(short) == (short,)
    assert ASV().too_short(short, 15) is None
    assert ASV().too_short(short, 14) == "14 frames, the head needs 15"


def test_what_is_seen_in_crops_is_judged_by_its_crops() -> None:
    class Kept:
        """Features of crops, and of short utterances whole."""

        def lengths(self, utterances: list[Utterance]) -> list[int]:
            return [{"long@8sx4.1": 400, "short": 14, "good": 15}[u.id] for u in utterances]

    train = [utterance(n, speaker="p", seconds=s) for n, s in (("long", 9.0), ("short", 1.0), ("good", 1.0))]  # fmt: skip
    kept, skipped = usable(ASV(), Split(name="train", utterances=train), Kept())  # type: ignore[arg-type]
    assert [u.id for u in kept] == ["long", "good"]
    assert skipped == {"short": "14 frames, the head needs 15"}


@pytest.mark.parametrize(
    ("change", "trials", "message"),
    [
        ([utterance("bare")], LISTED, "without it: bare"),
        ([], [*LISTED, Trial(True, "p00-0", "gone")], "not in test: gone, p00-0"),
        ([], [*LISTED, Trial(True, "p08-0", "p09-1")], r"contradict the speakers: p08-0 and p09-1 \(target\)"),
        ([], LISTED[::2], "all of one kind"),
        (people(1, split="train", first=8, each=1), LISTED, "share utterance p08-0"),
        ([utterance("other", speaker="p09", seconds=3.0, split="train")], LISTED, "share speaker p09"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", BOTH)
def test_bad_data_is_named(
    change: list[Utterance], trials: list[Trial], message: str, protocol: ProtocolName
) -> None:
    task = ASV(protocol)
    task.take_trials(trials)
    with pytest.raises(DataError, match=message):
        task.load([*corpus(), *change])


def test_too_few_speakers() -> None:
    with pytest.raises(DataError, match="only one speaker to tell apart: p00"):
        ASV("superb").load([*people(1, split="train"), *people(2, split="test", first=8)])
    with pytest.raises(DataError, match="train and dev need two speakers each, and 3 .*dev part"):
        ASV().load([*people(3, split="train"), *people(2, split="test", first=8)])
    with pytest.raises(DataError, match="two speakers at least, test has those of p08"):
        ASV().load([*people(8, split="train"), *people(1, split="test", first=8)])
    with pytest.raises(DataError, match="no speaker of test has two: p08, p09"):
        ASV().load([*people(8, split="train"), *people(2, each=1, split="test", first=8)])


def test_utterances_shorter_than_the_head() -> None:
    task = ASV()
    parts = [*people(8, split="train"), *people(2, split="test", first=8, seconds=0.25)]
    task.take_trials(LISTED)
    task.load(parts)
    with pytest.raises(DataError, match=r"15 frames \(0.30 s\).*in test: p08-0 \(0.25 s\)"):
        task.bind(FACTS)
    task.bind(dataclasses.replace(FACTS, stride=160))
    net = Probe(Featurizer(2), task.head(4))
    with pytest.raises(DataError, match=r"p00-1 \(14 frames\)"):
        task.infer(net, torch.randn(2, 2, 20, 4), torch.tensor([20, 14]), people()[:2])


def test_other_tasks_have_no_use_for_trials() -> None:
    with pytest.raises(ValueError, match="task 'ks' has no use for trials"):
        KS().take_trials(LISTED)


# -- training and scoring -----------------------------------------------------------------------


def test_losses_by_hand() -> None:
    torch.manual_seed(0)
    task = loaded()
    speakers = task.loaded.classes
    batch = [utterance("a", speaker=speakers[1]), utterance("b", speaker=speakers[4])]
    cosines = torch.rand(3, 2, 6) * 2 - 1
    found = task.losses(cosines, torch.ones(2), batch)
    for k in range(3):
        for b, y in enumerate((1, 4)):
            own = math.exp(30 * (float(cosines[k, b, y]) - 0.4))
            rest = sum(math.exp(30 * float(c)) for j, c in enumerate(cosines[k, b]) if j != y)
            assert float(found[k, b]) == pytest.approx(-math.log(own / (own + rest)), rel=1e-4)


def test_dev_has_no_loss_unless_a_head_diverged() -> None:
    outputs = torch.randn(2, 3, 6)
    outputs[1, 2, 0] = math.nan
    found = loaded().dev_losses(outputs, torch.ones(3), people()[:3])
    assert found[0].tolist() == [0, 0, 0]
    assert found[1].isnan().tolist() == [False, False, True]


def test_infer_gives_unit_embeddings_of_the_first_layer() -> None:
    torch.manual_seed(0)
    task = loaded(heads="small")
    task.bind(FACTS)
    head = task.head(4)
    assert isinstance(head, XVector)
    assert head.first.out_features == 128
    assert head.amsoftmax.weight.shape == (128, 6)
    assert loaded().head(4).first.out_features == 512  # type: ignore[union-attr]
    net = Probe(Featurizer(2), head).eval()
    features, lengths = torch.randn(2, 3, 30, 4), torch.tensor([30, 20, 15])
    found = task.infer(net, features, lengths, people()[:3])
    assert [v.dtype for v in found] == [np.float32] * 3  # type: ignore[union-attr]
    mixed = features.mean(0)  # weights are alike at first
    for b, n in enumerate(lengths.tolist()):
        alone = head.embed(mixed[b : b + 1, :n])[0].detach().numpy()
        np.testing.assert_allclose(found[b], alone, atol=1e-5)
        assert np.linalg.norm(found[b]) == pytest.approx(1.0, abs=1e-5)  # type: ignore[arg-type]


def test_rows_are_trials_with_cosines() -> None:
    task = loaded()
    test = task.loaded.folds[""][2]
    angles = {"p08-0": 0.0, "p08-1": 60.0, "p09-0": 90.0, "p09-2": 45.0}
    vectors = [
        np.array([math.cos(math.radians(a)), math.sin(math.radians(a))], dtype=np.float32)
        for a in (angles[u.id] for u in test.utterances)
    ]
    rows = task.rows(test, vectors)
    assert list(rows.ids) == ["p08-0_p08-1", "p08-0_p09-0", "p09-0_p09-2"]
    assert list(rows.units) == ["p08", "p08", "p09"]
    assert rows.unit == "speaker"
    assert list(rows.references) == ["target", "nontarget", "target"]
    assert [float(p) for p in rows.predictions] == pytest.approx(
        [0.5, 0.0, math.sqrt(0.5)], abs=1e-6
    )
    assert task.score(rows.references, rows.predictions) == {"eer": 0.0, "min_dcf": 0.0}
    assert task.score(rows.references, ["0.1", "0.2", "0.3"])["eer"] == pytest.approx(1 / 2)
    dev = task.loaded.folds[""][1]
    drawn = task.rows(
        Split(name="dev", utterances=dev.utterances), vectors[:1] * len(dev.utterances)
    )
    assert len(drawn.ids) == len(task.trials["dev"])


def test_state_is_enough_to_build_the_head() -> None:
    task, other = loaded(), ASV()
    other.restore(json.loads(json.dumps(task.state())))
    other.bind(FACTS)
    other.head(4).load_state_dict(task.head(4).state_dict())
    assert other.loaded.classes == task.loaded.classes


# -- end to end ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def voxceleb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six speakers with two files each, noises; the last two are in the trials."""
    home = tmp_path_factory.mktemp("asv") / "VoxCeleb1"
    rows = []
    for n in range(6):
        part = "test" if n > 3 else "dev"
        for k in range(2):
            sound(home / part / f"wav/id{n}/v{k}/00001.wav", 2.1, seed=10 * n + k)
            rows.append(f"1 id{n}/v{k}/00001.wav")
    lines(home / "iden_split.txt", *rows)
    lines(
        home / "voxceleb1_test_v2.txt",
        "1 id4/v0/00001.wav id4/v1/00001.wav",
        "0 id4/v0/00001.wav id5/v1/00001.wav",
        "1 id5/v0/00001.wav id5/v1/00001.wav",
        "0 id5/v0/00001.wav id4/v1/00001.wav",
    )
    assert prepare("voxceleb1", home, home.parent / "out") == 0
    return home.parent / "out"


@pytest.mark.parametrize("protocol", BOTH)
def test_the_official_corpus_in_miniature(
    voxceleb: Path, tmp_path: Path, protocol: ProtocolName
) -> None:
    settings = Settings(protocol=protocol, steps=2, learning_rates=(1e-3, 1e-4), heads="small")
    (result,) = probe.run("fbank", "asv", voxceleb, tmp_path, settings=settings)
    assert result.main.n == 4
    assert set(result.metrics) == {"eer", "min_dcf"}
    assert (result.n_train, result.n_dev, result.n_test) == ((8, 4, 4) if protocol == "superb" else (4, 4, 4))  # fmt: skip
    assert result.confusion == ()
    shown = (tmp_path / "fbank-base" / result.predictions).read_text().splitlines()
    assert shown[1].startswith("id4-v0-00001_id4-v1-00001\t\tid4\ttarget\t")


def test_another_list_is_another_corpus(voxceleb: Path, tmp_path: Path) -> None:
    corpus = Corpus.open(voxceleb)
    same, other, none = (
        write_corpus(tmp_path / name, corpus.utterances(), name="v", extra=extra)
        for name, extra in (
            ("a", corpus.page["extra"]), ("b", {"trials": {"sha256": "0"}}), ("c", {}),
        )
    )  # fmt: skip
    assert same.version == corpus.version
    assert len({same.version, other.version, none.version}) == 3
    assert none.trials() == []


def test_the_list_is_part_of_the_corpus(voxceleb: Path, tmp_path: Path) -> None:
    corpus = Corpus.open(voxceleb)
    assert len(corpus.trials()) == 4
    assert load_task("asv", Settings(), corpus).trials["test"] == tuple(corpus.trials())  # type: ignore[attr-defined]
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in voxceleb.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "trials.tsv").write_bytes(dump(corpus.trials()[:2]))
    with pytest.raises(ManifestError, match=r"trials.tsv is not the file that corpus.json speaks"):
        Corpus.open(copy).trials()
    (copy / "trials.tsv").write_text("target\tenrolment\ttest\n2\ta\tb\n")
    with pytest.raises(ManifestError, match="trials.tsv:2: wanted 0 or 1"):
        Corpus.open(copy).trials()
    (copy / "trials.tsv").unlink()
    with pytest.raises(ManifestError, match="has no list of trials"):
        Corpus.open(copy).trials()
