"""Voice converters: closed forms against oracles, losses against formulas, engine and command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.nn import functional as F

from mynah.downstream import conversion
from mynah.downstream.conversion.adversarial import Adversarial, confusion
from mynah.downstream.conversion.adversarial import Config as AdversarialConfig
from mynah.downstream.conversion.core.blocks import instance_norm, mask_of
from mynah.downstream.conversion.core.bottleneck import Gumbel, Variational, VectorQuantiser
from mynah.downstream.conversion.core.contract import ConversionBatch, Heard, Sizes
from mynah.downstream.conversion.core.statistics import Gaussian
from mynah.downstream.conversion.knn import KNN
from mynah.downstream.conversion.knn import Config as KNNConfig
from mynah.downstream.conversion.mkl import MKL, transport
from mynah.downstream.conversion.mkl import Config as MKLConfig
from mynah.downstream.conversion.stats import Config as StatsConfig
from mynah.downstream.conversion.stats import Stats
from mynah.downstream.core.melspec import MelSpec
from mynah.recipes import cli
from mynah.recipes.conversion import checks, families, trainee, watermark
from mynah.recipes.conversion.checks import Recording, RefusedError
from mynah.recipes.conversion.opening import Choice, open_engine
from mynah.recipes.conversion.stretches import cut, joined
from mynah.tasks.corpora.corpus import Corpus, write_corpus

SPEC = MelSpec(num_mels=12)
SIZES = Sizes(dim=12, spec=SPEC, speakers=3)
TRAINED = sorted(n for n in conversion.available() if conversion.get(n).CONVERTER.trained)


def heard(seed: int, frames: int = 90, shift: float = 0.0) -> Heard:
    """Return correlated frames that are all speech."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(12, 12, generator=torch.Generator().manual_seed(seed + 100)) * 0.3
    mel = torch.randn(frames, 12, generator=draw) @ mix - 4 + shift
    return Heard(x_TD=mel, mel_TM=mel)


def speech(seconds: float, *, pitch: float = 120.0, rate: int = 16000, seed: int = 0) -> Recording:
    """Return a buzz with moving formants and pauses."""
    t = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * pitch * t + 2 * np.sin(2 * np.pi * 3 * t)
    wave = sum(
        np.sin(k * phase) / k * (1 + np.sin(2 * np.pi * t * (k % 5 + 1) / 3)) for k in range(1, 20)
    )
    wave = wave * (np.sin(2 * np.pi * t * 1.3) > -0.7)
    noise = np.random.default_rng(seed).standard_normal(len(t)) * 0.01
    return Recording(wav_S=(0.05 * wave + 0.05 * noise).astype(np.float32), sample_rate=rate)


# -- closed forms ---------------------------------------------------------------------------------


def test_transport_carries_one_covariance_to_the_other() -> None:
    source, target = (Gaussian.of(heard(seed, 500).mel_TM, shrink=0.0) for seed in (1, 2))
    a = transport(source, target)
    torch.testing.assert_close(a @ source.covariance_DD @ a.T, target.covariance_DD)
    torch.testing.assert_close(a, a.T)  # the optimal map is symmetric


def test_mkl_of_a_diagonal_is_stats() -> None:
    source, target = heard(1), heard(2, shift=1.0)
    mkl = MKL(MKLConfig(shrink=1.0), SIZES).convert(source, [target])
    stats = Stats(StatsConfig(), SIZES).convert(source, [target])
    torch.testing.assert_close(mkl, stats, atol=1e-4, rtol=1e-4)


def test_stats_gives_the_target_its_own_mean_and_deviation() -> None:
    out = Stats(StatsConfig(), SIZES).convert(heard(1), [heard(2, shift=1.0)])
    wanted = heard(2, shift=1.0).mel_TM
    torch.testing.assert_close(out.mean(0), wanted.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        out.std(0, unbiased=False), wanted.std(0, unbiased=False), atol=1e-3, rtol=1e-3
    )


def test_knn_finds_what_scikit_learn_finds() -> None:
    from sklearn.neighbors import NearestNeighbors

    converter = KNN(KNNConfig(neighbours=3, normalise=False), SIZES)
    source, target = heard(1), heard(2)
    pool = converter.encode_speaker([target])
    found = converter.neighbours(converter.encode_content(source), pool)
    brute = NearestNeighbors(n_neighbors=3, metric="cosine").fit(pool.keys_ND.numpy())
    wanted = brute.kneighbors(source.x_TD.numpy(), return_distance=False)
    assert np.array_equal(found.numpy(), wanted)
    mel = converter.convert(source, [target])
    torch.testing.assert_close(mel, pool.mel_NM[torch.from_numpy(wanted)].mean(1))


# -- parts of the auto-encoders -------------------------------------------------------------------


def test_instance_norm_does_not_see_padding() -> None:
    x = torch.randn(2, 5, 20)
    lengths = torch.tensor([20, 11])
    found = instance_norm(x, mask_of(lengths, 20))
    wanted = F.instance_norm(x[1:, :, :11])
    torch.testing.assert_close(found[1:, :, :11], wanted)
    assert not found[1, :, 11:].any()


def test_the_divergence_is_the_closed_form() -> None:
    bottleneck = Variational(6, 4, weight=1.0).eval()
    bottleneck.after_step(1.0)
    h, mask = torch.randn(1, 6, 9), torch.ones(1, 1, 9)
    mean, logs = bottleneck.mean(h), bottleneck.log_variance(h)
    normal = torch.distributions.Normal(mean, (0.5 * logs).exp())
    wanted = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(bottleneck(h, mask).terms["kl"], wanted.sum(1).mean())


def test_the_codebook_takes_the_nearest_and_follows_by_moving_averages() -> None:
    bottleneck = VectorQuantiser(3, 3, codes=4, decay=0.5)
    torch.nn.init.eye_(bottleneck.into.weight[..., 0])
    torch.nn.init.zeros_(bottleneck.into.bias)
    h = torch.randn(1, 3, 50)
    bottleneck(h, torch.ones(1, 1, 50))
    bottleneck.after_step(0.1)  # the first batch gives the vectors
    before, counts = bottleneck.codebook_VC.clone(), bottleneck.counts_V.clone()
    passed = bottleneck(h, torch.ones(1, 1, 50))
    nearest = torch.cdist(h[0].T, before).argmin(1)
    torch.testing.assert_close(passed.code_BCT[0].T, before[nearest])
    bottleneck.after_step(0.2)
    usage = torch.bincount(nearest, minlength=4).float()
    sums = torch.zeros(4, 3).index_add_(0, nearest, h[0].T)
    wanted = (0.5 * before * counts[:, None] + 0.5 * sums) / (0.5 * counts + 0.5 * usage)[:, None]
    torch.testing.assert_close(bottleneck.codebook_VC, wanted)


def test_a_code_that_nobody_chooses_starts_again_at_a_frame() -> None:
    bottleneck = VectorQuantiser(3, 3, codes=4, decay=0.0)
    h = torch.randn(1, 3, 50)
    for share in (0.1, 0.2):
        bottleneck(h, torch.ones(1, 1, 50))
        bottleneck.after_step(share)
        bottleneck.codebook_VC[3] = 1e3  # where no frame is
    bottleneck(h, torch.ones(1, 1, 50))
    bottleneck.after_step(0.3)
    frames = bottleneck.into(h)[0].T.detach()
    assert float((frames - bottleneck.codebook_VC[3]).square().sum(1).min()) < 1e-8


def test_gumbel_draws_while_training_and_chooses_the_likeliest_after() -> None:
    bottleneck = Gumbel(3, 3, codes=8)
    h, mask = torch.randn(1, 3, 30), torch.ones(1, 1, 30)
    assert not torch.equal(bottleneck(h, mask).code_BCT, bottleneck(h, mask).code_BCT)
    bottleneck.eval()
    wanted = bottleneck.vectors.weight.T[bottleneck.logits(h).argmax(1)[0]]
    torch.testing.assert_close(bottleneck(h, mask).code_BCT[0].T, wanted)
    bottleneck.after_step(1.0)
    assert float(bottleneck.temperature) == pytest.approx(0.5)


def test_confusion_is_the_divergence_of_the_answer_from_a_guess() -> None:
    logits = torch.randn(5, 7, dtype=torch.float64)
    uniform = torch.full((5, 7), 1 / 7, dtype=torch.float64)
    wanted = F.kl_div(logits.log_softmax(1), uniform, reduction="batchmean")
    torch.testing.assert_close(confusion(logits), wanted)
    assert float(confusion(torch.zeros(2, 4))) == pytest.approx(0.0, abs=1e-6)


def batch() -> ConversionBatch:
    """Return two padded utterances."""
    x = torch.randn(2, 40, 12, generator=torch.Generator().manual_seed(3)) - 4
    return ConversionBatch(
        x_BTD=x,
        mel_BTM=x,
        lengths_B=torch.tensor([40, 25]),
        speakers_B=torch.tensor([0, 2]),
        generator=torch.Generator().manual_seed(0),
    )


def test_adversary_and_autoencoder_learn_in_turn() -> None:
    model = Adversarial(AdversarialConfig(hidden=8, code=4, voice=4, turns=1), SIZES)

    def touched() -> set[bool]:
        model.zero_grad(set_to_none=True)
        model.loss(batch()).total.backward()
        return {
            n.startswith("classifier") for n, p in model.named_parameters() if p.grad is not None
        }

    assert model.classifying
    assert touched() == {True}
    model.after_step(1, 10)
    assert touched() == {False}
    model.after_step(2, 10)
    assert touched() == {True}


@pytest.mark.parametrize("method", TRAINED)
def test_padding_changes_no_loss_and_no_code(method: str) -> None:
    module = conversion.get(method)
    small = {"hidden": 8}
    if method != "taco2_ar":
        small |= {"code": 4, "voice": 4}
    model = module.CONVERTER(module.Config(**small), SIZES).eval()
    if method == "adversarial":
        model.turn.fill_(model.config.turns)
    one = batch()
    dirty = one.x_BTD.clone()
    dirty[1, 25:] = 99.0
    other = ConversionBatch(
        x_BTD=dirty,
        mel_BTM=dirty,
        lengths_B=one.lengths_B,
        speakers_B=one.speakers_B,
        generator=torch.Generator().manual_seed(0),
    )
    with torch.no_grad():
        torch.testing.assert_close(model.loss(one).total, model.loss(other).total)
        alone = model.encode_content(Heard(x_TD=dirty[1, :25], mel_TM=dirty[1, :25]))
    assert alone.shape == (25, model.code_dim)
    mel = model.convert(Heard(x_TD=dirty[0], mel_TM=dirty[0]), [heard(2)])
    assert mel.shape == (40, 12)
    assert bool(torch.isfinite(mel).all())


# -- recordings -----------------------------------------------------------------------------------


def test_stretches_cover_and_join_to_the_same() -> None:
    wave = speech(21.0).wav_S
    found = cut(wave, 16000, longest=9.0, hop=160)
    assert len(found) > 2
    assert found[0][0] == 0
    assert found[-1][1] == len(wave)
    assert all(b - a <= 9 * 16000 for a, b in found)
    again = joined([wave[a:b] for a, b in found], found, len(wave))
    np.testing.assert_allclose(again, wave, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (speech(0.3), "needs 0.5 s or more"),
        (Recording(wav_S=np.zeros(16000, np.float32), sample_rate=16000), "silent"),
        (Recording(wav_S=np.full(16000, np.nan, np.float32), sample_rate=16000), "NaN"),
        (Recording(wav_S=speech(1.0).wav_S, sample_rate=4000), "8000 to 192000"),
        (speech(12.0), "more than 10"),
    ],
)
def test_a_source_that_cannot_be_converted_is_refused(source: Recording, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        checks.check_source(source, longest=10.0)


def test_a_target_must_be_heard_for_a_second() -> None:
    with pytest.raises(RefusedError, match="at least one"):
        checks.check_references([])
    with pytest.raises(RefusedError, match="of speech"):
        checks.check_references([speech(0.6)])
    _, warnings = checks.check_references([speech(2.0)])
    assert "5 s or more" in warnings[0]


@pytest.mark.parametrize("method", ["copy", "stats", "mkl", "knn"])
def test_the_engine_keeps_length_and_level_and_repeats_itself(method: str) -> None:
    engine = open_engine(Choice(method=method, vocoder="griffin_lim"))
    source, target = speech(1.5, rate=22050), speech(6.0, pitch=210.0)
    first, again = engine.convert(source, [target]), engine.convert(source, [target])
    assert np.array_equal(first.wav_S, again.wav_S)
    assert len(first.wav_S) == 24000
    level = checks.active_level(first.wav_S, 16000) / checks.active_level(source.wav_S, 22050)
    assert 0.8 < level < 1.25
    assert float(np.abs(first.wav_S).max()) <= 1.0


def test_the_mark_is_found_where_it_is_and_nowhere_else() -> None:
    wave = speech(6.0).wav_S
    marked = watermark.mark(wave, 16000)
    added = 10 * np.log10(np.mean((marked - wave) ** 2) / np.mean(wave**2))
    assert -40 < added < -25
    assert watermark.detect(marked, 16000).marked
    assert watermark.detect(marked[5000:60000] * 0.3, 16000).marked
    assert not watermark.detect(wave, 16000).marked
    assert not watermark.detect(marked, 16000, key="another").marked


# -- commands -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare a corpus of three speakers."""
    folder = tmp_path_factory.mktemp("speech")
    for speaker, pitch in (("x", 110.0), ("y", 160.0), ("z", 220.0)):
        (folder / speaker).mkdir()
        for number in range(3):
            one = speech(2.0, pitch=pitch, seed=number)
            soundfile.write(folder / speaker / f"{speaker}{number}.wav", one.wav_S, 16000)
    out = folder.parent / "corpus"
    command = ["prepare", "folder", str(folder), str(out), "--from-path", "speaker=parent"]
    assert cli.main(command) == 0
    return out


def files(folder: Path) -> tuple[Path, Path]:
    """Write a source and a target."""
    for name, one in (("a", speech(1.5)), ("b", speech(6.0, pitch=210.0))):
        soundfile.write(folder / f"{name}.wav", one.wav_S, 16000)
    return folder / "a.wav", folder / "b.wav"


def test_convert_writes_a_file_that_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = files(tmp_path)
    out = tmp_path / "c.wav"
    command = ["convert", "--method", "mkl", "--vocoder", "griffin_lim", "--source", str(a)]
    command += ["--target", str(b), "--out", str(out)]
    assert cli.main(command) == 0
    assert "synthetic voice" in soundfile.SoundFile(out).comment
    page = json.loads((tmp_path / "c.wav.json").read_text())
    assert page["converter"]["method"] == "mkl"
    assert page["watermark"] is True
    before = out.read_bytes()
    assert cli.main(command) == 0
    assert "there already" in capsys.readouterr().out
    out.write_bytes(before + b"x")
    assert cli.main(command) == 2
    assert "--force" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*"))


def test_a_list_goes_on_after_a_bad_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files(tmp_path)
    rows = ["source\ttarget\tout", "nothing.wav\tb.wav\tx.wav", "a.wav\tb.wav\ty.wav"]
    (tmp_path / "list.tsv").write_text("\n".join(rows) + "\n")
    command = ["convert", "--vocoder", "griffin_lim", "--list", str(tmp_path / "list.tsv")]
    assert cli.main(command) == 3
    assert "x.wav: not converted" in capsys.readouterr().err
    assert (tmp_path / "y.wav").is_file()
    assert not (tmp_path / "x.wav").exists()


def test_arguments_that_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert"]) == 2
    assert "--source, --target and --out" in capsys.readouterr().err
    assert (
        cli.main(["convert", "--method", "adain", "--source", "a", "--target", "b", "--out", "c"])
        == 2
    )
    assert "mynah pretrain vc/adain" in capsys.readouterr().err


def test_a_trained_converter_resumes_to_the_same_bits_and_converts(
    tmp_path: Path, tiny_corpus: Path
) -> None:
    families.register()
    base = [
        "pretrain",
        "vc/adversarial-tiny",
        "--corpus",
        str(tiny_corpus),
        "train.batch_seconds=4",
    ]
    small = ["model.hidden=8", "model.code=4", "model.voice=4", "train.log_every=1"]
    small += ["train.steps=7", "train.schedule.warmup=0", "train.save_every=4"]
    whole, cut_off = tmp_path / "whole", tmp_path / "cut"
    assert cli.main([*base, *small, "--out", str(whole)]) == 0
    assert cli.main([*base, *small, "--out", str(cut_off), "--minutes", "0.0001"]) == 75
    assert cli.main([*base, *small, "--out", str(cut_off), "--resume"]) == 0
    weights = [(run / "final" / "model.safetensors").read_bytes() for run in (whole, cut_off)]
    assert weights[0] == weights[1]
    engine = open_engine(Choice(model=whole, vocoder="griffin_lim"))
    found = engine.convert(speech(1.0), [speech(5.0, pitch=200.0)])
    assert found.code_TC.shape[1] == 4
    assert found.record["converter"]["method"] == "adversarial"


@pytest.mark.parametrize("gone", ["../gone/run", "apx/tiny"])
def test_an_upstream_that_moved_is_asked_for(gone: str) -> None:
    config = dataclasses.replace(trainee.CONFIGS["autoencoder-tiny"], upstream=gone, dim=16)
    model = trainee.MODEL(config)
    with pytest.raises((FileNotFoundError, LookupError), match=f"{gone}.*--upstream"):
        _ = model.hearing


def test_a_converter_is_an_upstream_whose_state_is_the_code(
    tmp_path: Path, tiny_corpus: Path
) -> None:
    from mynah.recipes.conversion.trainee import load_converter
    from mynah.upstream.core.spec import load

    command = ["pretrain", "vc/autoencoder-tiny", "--corpus", str(tiny_corpus), "--out"]
    small = ["train.steps=2", "train.schedule.warmup=0", "model.hidden=8", "model.code=4"]
    assert cli.main([*command, str(tmp_path / "run"), *small, "train.batch_seconds=4"]) == 0
    upstream = load(str(tmp_path / "run"))
    wav: Tensor = torch.from_numpy(speech(1.0).wav_S)
    features = upstream(wav[None], torch.tensor([16000]))
    assert features.layers_LBTD.shape == (1, 1, upstream.num_frames(16000), 4)
    model = load_converter(tmp_path / "run")
    code = model.converter.encode_content(model.hearing([wav])[0])
    torch.testing.assert_close(features.layers_LBTD[0, 0], code)


def test_codes_are_probed_on_groups_that_were_held_out() -> None:
    from mynah.recipes.conversion.code_probes import CAPACITIES, probe_codes

    draw = torch.Generator().manual_seed(0)
    labels = [str(i % 2) for i in range(40)]
    groups = [str(i // 8) for i in range(40)]
    told = [torch.randn(30, 4, generator=draw) + 3 * float(label) for label in labels]
    blind = [torch.randn(30, 4, generator=draw) for _ in labels]
    # the label of each group: a probe that had heard the groups would know it
    whose = [torch.randn(30, 4, generator=draw) + 5 * float(group) for group in groups]
    for capacity in CAPACITIES:
        found = probe_codes(told, labels, groups, capacity=capacity, unit="group", steps=60)
        assert found.accuracy.value > 0.9
        assert found.chance == 0.5
        assert found.accuracy.unit == "group"
        for codes in (blind, whose):
            found = probe_codes(codes, labels, groups, capacity=capacity, unit="group", steps=60)
            assert found.accuracy.value < 0.8
    with pytest.raises(ValueError, match="two classes"):
        probe_codes(told, ["a"] * 40, groups, capacity="linear", unit="group")


def test_judge_codes_prints_a_row_per_converter(
    tmp_path: Path, tiny_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "codes.json"
    command = ["judge", "codes", "stats", "copy", "--corpus", str(tiny_corpus), "--out", str(out)]
    assert cli.main([*command, "--sentence", "nothing"]) == 3
    assert "--sentence" in capsys.readouterr().err
    told = [
        dataclasses.replace(u, labels={**u.labels, "take": u.id[-1]} if u.id[-1] != "2" else {})
        for u in Corpus.open(tiny_corpus).utterances()
    ]
    write_corpus(tmp_path / "takes", told, name="takes")
    command[command.index(str(tiny_corpus))] = str(tmp_path / "takes")
    few = ["--sentence", "take", "--steps", "3", "--folds", "2"]
    assert cli.main([*command, *few]) == 0
    shown = capsys.readouterr()
    assert "left out: 3 of 9 utterances without a speaker or the label 'take'" in shown.err
    assert [line.split(" | ")[0] for line in shown.out.splitlines()[2:5]] == [
        "| stats",
        "| copy",
        "| chance",
    ]
    assert len(json.loads(out.read_text())["rows"]) == 2


def test_vocode_keeps_labels_and_length(tmp_path: Path, tiny_corpus: Path) -> None:
    out = tmp_path / "vocoded"
    assert cli.main(["vocode", str(tiny_corpus), str(out)]) == 0
    found = Corpus.open(out).utterances()
    assert len(found) == 18
    assert {u.label("vocoder") for u in found} == {"none", "griffin_lim"}
    copy = next(u for u in found if u.label("vocoder") == "griffin_lim")
    own = next(u for u in found if copy.id.startswith(u.id) and u is not copy)
    assert copy.speaker == own.speaker
    assert copy.duration == pytest.approx(own.duration, abs=0.001)
    assert cli.main(["vocode", str(tiny_corpus), str(out)]) == 2
    named = [str(tiny_corpus), str(tmp_path / "named"), "--vocoder", "world", "--only-copies"]
    assert cli.main(["vocode", *named]) == 0  # that one, and not the default one too
    assert {u.label("vocoder") for u in Corpus.open(tmp_path / "named").utterances()} == {"world"}
