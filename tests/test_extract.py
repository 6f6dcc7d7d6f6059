"""``mynah extract`` on a real (small) corpus and upstream."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mynah.recipes import extract
from mynah.recipes.cli import main as cli
from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.utterance import Utterance
from mynah.upstream.core import spec as specs
from mynah.upstream.store import FeatureStore, open_or_extract


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files at two rates, one of them cut into segments of two channels."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    rows = []
    for name, rate, channels in (("a", 16000, 1), ("b", 8000, 1), ("c", 16000, 2)):
        path = folder / f"{name}.wav"
        soundfile.write(path, rng.uniform(-0.3, 0.3, (rate * 2, channels)), rate)
        base = Utterance(
            id=name, path=str(path), start=0.0, duration=2.0, sample_rate=rate, split="train"
        )
        rows.append(base)
        if channels == 2:
            rows.append(replace(base, id="c-1", channel=1, split="test"))
            rows.append(replace(base, id="c-2", start=0.5, duration=0.7, split="test"))
            rows.append(replace(base, id="c-twin"))
    write_corpus(folder, rows, name="six")
    return folder


def run(*words: object) -> int:
    return cli(["extract", *map(str, words)])


@pytest.mark.parametrize("seconds", ["0", "-3", "nan", "inf"])
def test_batches_have_a_length(
    corpus: Path, tmp_path: Path, seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--corpus", corpus, "--store", tmp_path / "features")
    assert run("fbank", *where, f"--batch-seconds={seconds}") == 2
    assert f"--batch-seconds must be above 0, got {seconds}" in capsys.readouterr().err


def test_a_file_given_for_a_folder_is_called_one(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run("fbank", "--corpus", corpus, "--store", tmp_path / "file") == 2
    said = capsys.readouterr().err
    assert said == f"mynah extract: {tmp_path / 'file'} is a file: give a folder for the features\n"
    page = corpus / "corpus.json"
    assert run("fbank", "--corpus", page, "--store", tmp_path / "features") == 2
    assert f"{page} is a file: give the folder, {corpus}" in capsys.readouterr().err


def test_extract_then_reuse(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "features"
    assert run("fbank", "--corpus", corpus, "--store", store) == 0
    said = capsys.readouterr().out
    assert "frames in float16" in said
    assert "5 computed" in said
    assert "1 there already" in said
    assert run("fbank", "--corpus", corpus, "--store", store, "--kind", "pooled") == 0
    assert "0 computed" in capsys.readouterr().out
    upstream = specs.load("fbank")
    items = extract.items_of(Corpus.open(corpus).utterances(), upstream.sample_rate)
    assert [i.num_samples for i in items] == [32000, 32000, 32000, 32000, 11200, 32000]
    with open_or_extract(store, upstream, items, kind="frames") as reader:
        assert reader.stats.computed == 0
        part = reader.frames(["c-2"])[0]
        alone = torch.stack(list(upstream.hidden_states([torch.from_numpy(items[4].load())])))
        assert part.shape == alone.shape
        torch.testing.assert_close(part, alone, rtol=1e-3, atol=1e-3)
        assert not torch.equal(reader.pooled(["c"]), reader.pooled(["c-1"]))
        assert torch.equal(reader.pooled(["c"]), reader.pooled(["c-twin"]))


def test_shards_of_a_job_array_make_the_whole(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "features"
    for i in (1, 2):
        assert run("fbank", "--corpus", corpus, "--store", store, "--shard", f"{i}/2") == 0
    capsys.readouterr()
    assert run("fbank", "--corpus", corpus, "--store", store) == 0
    assert "0 computed" in capsys.readouterr().out
    assert run("fbank", "--corpus", corpus, "--store", store, "--shard", "3/2") == 2
    assert "--shard must be i/n" in capsys.readouterr().err


def test_torchrun_sets_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extract.parse_shard(None) == (1, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert extract.parse_shard(None) == (3, 4)
    assert extract.parse_shard("1/2") == (1, 2)
    for bad in ("0/2", "x/2", "1", "1/", "-1/2"):
        with pytest.raises(ValueError, match="i/n"):
            extract.parse_shard(bad)


def test_verify_names_and_repair_mends(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "features"
    words = ("fbank", "--corpus", corpus, "--store", store, "--kind", "pooled")
    assert run(*words) == 0
    assert run(*words, "--verify") == 0
    assert "5 records are whole" in capsys.readouterr().out
    (folder,) = FeatureStore(store).folders()
    victim = folder.shards()[0]
    data = bytearray(victim.read_bytes())
    data[11] ^= 4
    victim.write_bytes(data)
    assert run(*words, "--verify") == 3
    said = capsys.readouterr().err
    assert "1 damaged" in said
    assert victim.name in said
    assert "--repair" in said
    assert run(*words, "--repair") == 0
    said = capsys.readouterr().out
    assert "dropped" in said
    assert "1 computed" in said
    assert run(*words, "--verify") == 0


def test_usage_errors(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fbnk", "--corpus", corpus, "--store", tmp_path) == 2
    assert "fbank" in capsys.readouterr().err
    assert run("fbank", "--corpus", tmp_path / "no", "--store", tmp_path) == 2
    assert "mynah prepare" in capsys.readouterr().err
    assert run("fbank", "--corpus", corpus, "--store", tmp_path, "--split", "dev") == 2
    assert "train" in capsys.readouterr().err


def test_help_imports_nothing_heavy(root: Path) -> None:
    code = (
        "import sys, mynah.recipes.extract\n"
        "print(sorted(m for m in sys.modules if m in ('torch', 'numpy', 'soundfile')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "[]"
