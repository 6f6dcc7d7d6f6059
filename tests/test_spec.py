"""Specs: what they name, what they are called, what is refused."""

import logging
import re
import shutil
from pathlib import Path

import pytest
import torch

import mynah.upstream
from mynah.upstream import apc
from mynah.upstream.core import modelfolder, spec
from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop import torchaudio


def small(seed: int) -> Upstream:
    torch.manual_seed(seed)
    return apc.Apc(apc.Config(num_mels=8, width=8, layers=2))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with three checkpoints (seeds 1, 2, 10) and a final model (seed 11)."""
    folder = tmp_path / "my run"
    for step in (1, 2, 10):
        modelfolder.save(small(step), folder / "checkpoints" / f"step-{step:08}")
    (folder / "checkpoints" / "step-00000020.partial").mkdir()
    modelfolder.save(small(11), folder / "final")
    return folder


def same(a: Upstream, b: Upstream) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def damage(folder: Path) -> None:
    path = folder / modelfolder.WEIGHTS
    path.write_bytes(path.read_bytes()[:-3])


def test_family_is_random_from_the_seed_and_frozen() -> None:
    a, b, c = spec.load("apc/tiny"), spec.load("apc/tiny"), spec.load("apc/tiny", seed=1)
    assert a.fingerprint() == b.fingerprint() != c.fingerprint()
    assert a.frozen
    assert a.precision == "fp32"
    assert not any(p.requires_grad for p in a.parameters())
    assert spec.load("apc/tiny", precision="bf16").precision == "bf16"
    assert spec.load("fbank").config == mynah.upstream.get("fbank").CONFIGS["base"]


def test_newest_whole_checkpoint_of_a_run(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert same(spec.load(str(run)), small(11))
    assert not caplog.records

    damage(run / "final")
    assert same(spec.load(str(run)), small(10))
    assert "final" in caplog.text
    assert "damaged" in caplog.text

    caplog.clear()
    (run / "checkpoints" / "step-00000010" / modelfolder.CONFIG).unlink()
    assert same(spec.load(str(run)), small(2))
    assert "final" in caplog.text
    assert "step-00000010" in caplog.text

    for step in (1, 2):
        damage(run / "checkpoints" / f"step-{step:08}")
    with pytest.raises(
        modelfolder.DamagedError, match=r"(?s)no whole model.*final.*00000010.*00000002.*00000001"
    ):
        spec.load(str(run))


def test_a_run_in_training_is_taken_with_a_warning(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run / "final").rename(run.parent / "elsewhere")
    assert same(spec.load(str(run)), small(10))
    assert "my run has no final model, its training has not ended: step-00000010" in caplog.text
    caplog.clear()
    assert same(spec.load(str(run / "checkpoints" / "step-00000010")), small(10))
    assert same(spec.load(str(run.parent / "elsewhere")), small(11))
    assert not caplog.records


def test_a_loaded_model_knows_which_one_it_is(run: Path) -> None:
    shutil.rmtree(run / "final")
    loaded = spec.load(str(run))
    assert loaded.source == str(run / "checkpoints" / "step-00000010")
    modelfolder.save(small(11), run / "final")  # the run goes on
    assert spec.describe(loaded.source).split("@")[1] == (
        f"my_run-step-00000010-{modelfolder.verify(Path(loaded.source))['sha256'][:6]}"
    )
    assert spec.load(loaded.source).fingerprint() == loaded.fingerprint()
    assert spec.load(str(run)).source == str(run / "final")
    assert spec.load("fbank").source == "fbank"


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in ("9", "10", "100"):
        modelfolder.save(small(int(step)), tmp_path / "checkpoints" / f"step-{step}")
    assert spec.newest(tmp_path).name == "step-100"


def test_model_folder(run: Path) -> None:
    assert same(spec.load(str(run / "checkpoints" / "step-00000002")), small(2))


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("apcc/tiny", LookupError, r"unknown upstream 'apcc/tiny'\. Closest: apc"),
        ("apc/tinny", LookupError, "variant of 'apc': 'tinny'. Closest: tiny"),
        ("hff:some/dir", ValueError, "unknown kind of upstream spec 'hff'. Closest: hf"),
        ("hf:", ValueError, "nothing after the colon"),
        ("./no/such/run", FileNotFoundError, "no such folder"),
        ("exp/deep/run", FileNotFoundError, "no such folder"),
        ("exp/nowhere", FileNotFoundError, "no such folder: exp/nowhere; it is no upstream either"),
        ("model.safetensors", FileNotFoundError, "no such folder: model.safetensors"),
        ("hubret/base", LookupError, "Closest: hubert"),
        ("wavlm/tiny", LookupError, "As a variant: hubert/wavlm"),
        ("torchaudio:wav2vec_base", LookupError, "Closest: wav2vec2_base"),
    ],
)
def test_what_is_refused(text: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        spec.load(text)


@pytest.mark.parametrize(
    ("device", "match"),
    [
        ("cuda:99", r"no GPU number 99 here \(\d+ found\); use --device cpu"),
        ("foo", r"device must be auto, cpu, cuda or cuda:N, got 'foo'"),
    ],
)
def test_a_device_that_is_not_there_is_refused(device: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        spec.load("fbank", device=device)


def test_a_file_and_a_folder_without_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a model folder"):
        spec.load(str(tmp_path))
    file = tmp_path / "model.pt"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="is a file"):
        spec.load(str(file))


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_hugging_face_folder_needs_its_prefix(tmp_path: Path, weights: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    (tmp_path / weights).write_bytes(b"")
    with pytest.raises(ValueError, match=f"looks like a Hugging Face model .*use hf:{tmp_path}"):
        spec.newest(tmp_path)


def test_a_name_below_a_folder_that_is_there_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hubret").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder: hubret/tiny"):
        spec.load("hubret/tiny")


def test_a_family_wins_over_a_folder_of_its_name(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(run, run.parent / "fbank")
    monkeypatch.chdir(run.parent)
    assert spec.load("fbank").name == "fbank"
    assert spec.load("./fbank").name == "apc"


def test_descriptions_are_short_unique_and_safe_as_file_names(run: Path) -> None:
    assert spec.describe("apc/tiny") == "apc-tiny-untrained"
    assert spec.describe("apc") == "apc-base-untrained"
    assert spec.describe("apc/tiny", seed=3) == "apc-tiny-untrained-seed3"
    assert spec.describe("fbank") == "fbank-base"
    sha = modelfolder.verify(run / "final")["sha256"][:6]
    assert spec.describe(str(run)) == f"apc-custom@my_run-final-{sha}"
    step = run / "checkpoints" / "step-00000002"
    assert re.fullmatch(r"apc-custom@my_run-step-00000002-\w{6}", spec.describe(str(step)))
    assert spec.describe(str(run / "final")) == spec.describe(str(run))
    foreign = [
        "hf:models/w2v2",
        "hf:other/w2v2",
        "fairseq:a b/x.pt",
        "torchaudio:hubert_base,ckpt=a/b.pt",
        "python:my/file.py:Class",
    ]
    names = [spec.describe(text) for text in foreign]
    assert len(set(names)) == len(names)
    assert names[3].startswith("torchaudio-hubert_base-b-")
    for name in [*names, spec.describe(str(run))]:
        assert re.fullmatch(r"[A-Za-z0-9._@-]{1,80}", name)


def test_torchaudio_without_weights_is_named_by_its_seed() -> None:
    names = [spec.describe("torchaudio:hubert_base", seed=seed) for seed in (0, 1)]
    assert re.fullmatch(r"torchaudio-hubert_base-\w{6}-untrained", names[0])
    assert names[1] == f"{names[0]}-seed1"
    assert "untrained" not in spec.describe("torchaudio:hubert_base,ckpt=a.pt", seed=1)


def test_torchaudio_without_weights_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torchaudio, "load", lambda rest: small(0))
    spec.load("torchaudio:hubert_base,ckpt=a.pt")
    assert not caplog.records
    spec.load("torchaudio:hubert_base", seed=3)
    assert "torchaudio:hubert_base has random weights, drawn from seed 3" in caplog.text


def test_how_long_a_model_was_trained_is_read_from_its_folder(run: Path) -> None:
    step = run / "checkpoints" / "step-00000002"
    assert spec.training(str(step)) is None  # its config says nothing of it
    modelfolder.save(small(2), step, extra={"step": 2})
    assert spec.training(str(step)) == ("apc-custom@my_run", 2)
    modelfolder.save(small(11), run / "final", extra={"trained": {"steps": 30}})
    assert spec.training(str(run)) == ("apc-custom@my_run", 30)
    modelfolder.save(small(11), run / "final", extra={"trained": "long"})
    assert spec.training(str(run)) is None
    assert spec.training("apc/tiny") is None


@pytest.mark.parametrize("family", mynah.upstream.available())
def test_every_family_can_be_described(family: str) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    name = spec.describe(f"{family}/tiny")
    assert name == f"{family}-tiny" + ("-untrained" if family != "fbank" else "")
    assert torch.equal(torch.get_rng_state(), before)
