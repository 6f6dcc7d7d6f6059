"""``mynah export``: folders that s3prl, torch.hub and the challenge take, and their card."""

import importlib
import importlib.util
import json
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from exportable import saved, states, wave

from mynah.recipes import cli, errors, export
from mynah.upstream.core import spec
from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.nasty import relative


@pytest.fixture(scope="module")
def for_s3prl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Upstream]:
    source, model = saved("wav2vec2", tmp_path_factory.mktemp("s3prl") / "source")
    out = source.with_name("out")
    assert cli.main(["export", str(source), "--as", "s3prl", "--out", str(out)]) == errors.DONE
    return out, model


@pytest.fixture
def hub(for_s3prl: tuple[Path, Upstream]) -> Iterator[Any]:
    """s3prl's hub, in which the folder stands in place of s3prl's example, as the card says."""
    from mynah.upstream.interop.s3prl_hub import ensure_importable

    ensure_importable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("s3prl.hub")
        package = importlib.import_module("s3prl.upstream")
    copied = for_s3prl[0].with_name("packages")
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(for_s3prl[0], copied / "from_mynah")
    package.__path__.append(str(copied))
    before = module.customized_upstream
    entry = importlib.import_module("s3prl.upstream.from_mynah.hubconf")
    module.customized_upstream = entry.customized_upstream
    yield module
    module.customized_upstream = before
    package.__path__.remove(str(copied))
    for name in [name for name in sys.modules if name.startswith("s3prl.upstream.from_mynah")]:
        del sys.modules[name]


def test_s3prl_takes_the_folder(hub: Any, for_s3prl: tuple[Path, Upstream]) -> None:
    from s3prl.nn import Featurizer, S3PRLUpstream
    from s3prl.upstream import interfaces

    _, model = for_s3prl
    wavs = [wave(16000), wave(9000, seed=4)]
    theirs = S3PRLUpstream("customized_upstream").eval()
    assert theirs.num_layers == model.num_layers
    assert theirs.hidden_sizes == [model.dim] * model.num_layers
    assert theirs.downsample_rates == [320] * model.num_layers
    padded_BS = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    with torch.no_grad():
        all_hs, all_lens = theirs(padded_BS, torch.tensor([16000, 9000]))
        summed, lens = Featurizer(theirs)(all_hs, all_lens)
    for row, wav_S in enumerate(wavs):
        frames = model.num_frames(len(wav_S))
        got_LTD = torch.stack(all_hs)[:, row, :frames]
        assert relative(got_LTD, states(model, wav_S)) < 1e-5
    mean_TD = states(model, wavs[0]).mean(dim=0)
    assert torch.allclose(summed[0, : len(mean_TD)], mean_TD, atol=1e-4)
    assert int(lens[0]) == 50
    # what run_downstream.py builds: the entry with these three, and the older featurizer
    expert = hub.customized_upstream(ckpt=None, model_config=None, refresh=False)
    featurizer = interfaces.Featurizer(expert, upstream_device="cpu")
    assert (featurizer.output_dim, featurizer.downsample_rate) == (model.dim, 320)
    parts = featurizer(wavs, expert(wavs))
    assert [len(part) for part in parts] == [49, 28]


def test_torch_hub_takes_the_folder_and_another_model(
    for_s3prl: tuple[Path, Upstream], tmp_path: Path
) -> None:
    folder, model = for_s3prl
    expert = torch.hub.load(str(folder), "customized_upstream", source="local")
    (got,) = [torch.cat(expert([wave(5000)])["hidden_states"])]
    assert torch.equal(got, states(model, wave(5000)))
    assert not any(p.requires_grad for p in expert.parameters())
    other, changed = saved("apc", tmp_path / "other")
    expert = torch.hub.load(str(folder), "customized_upstream", source="local", ckpt=str(other))
    assert torch.equal(
        torch.cat(expert([wave(5000)])["hidden_states"]), states(changed, wave(5000))
    )
    assert expert.get_downsample_rates("hidden_states") == 160
    shutil.copytree(folder, tmp_path / "damaged")
    weights = tmp_path / "damaged" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="is damaged"):
        torch.hub.load(str(tmp_path / "damaged"), "customized_upstream", source="local")


def test_the_challenge_folder_needs_torch_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, model = saved("cpc", tmp_path / "source")
    out = tmp_path / "out"
    args = export.Args(spec=str(source), target="hf-challenge", out=out)
    assert export.main(args) == errors.DONE
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md", "expert.py", "model.pt", "requirements.txt",
    ]  # fmt: skip
    code = (out / "expert.py").read_text()
    assert {line.split()[1].partition(".")[0] for line in re.findall(r"^(?:from|import) .*", code, re.M)} == {
        "__future__", "json", "pathlib", "typing", "torch",
    }  # fmt: skip
    # as the challenge's runner does it
    monkeypatch.syspath_prepend(str(out))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expert = importlib.import_module("expert").UpstreamExpert(
            ckpt=str(out / "model.pt"), model_config=None, refresh=False
        )
    sys.modules.pop("expert")
    wavs = [wave(16000), wave(5000), wave(100)]
    found = expert(wavs)
    assert set(found) >= {"hidden_states", "PR", "QbE", "secret"}
    for row, wav_S in enumerate(wavs):
        frames = model.num_frames(len(wav_S))
        stacked = torch.stack(found["hidden_states"])[:, row]
        assert relative(stacked[:, :frames], states(model, wav_S)) < 1e-5
        assert not stacked[:, frames:].any()
    assert expert.get_downsample_rates("SID") == model.stride


def test_the_card_says_what_the_model_is(for_s3prl: tuple[Path, Upstream]) -> None:
    folder, model = for_s3prl
    text = (folder / "README.md").read_text()
    size = sum(p.numel() for p in model.parameters())
    for part in (
        "# out", "`wav2vec2`, variant `custom`", f"{size:,}", "16000 Hz", "320 samples = 20 ms",
        "2 of width 16", model.fingerprint(), "Not known to the program", "| 16000 | 49 |",
        'torch.hub.load("out"', "run_downstream.py -m train -u customized_upstream",
    ):  # fmt: skip
        assert part in text, part
    assert spec.load(str(folder / "model")).fingerprint() == model.fingerprint()
    assert json.loads((folder / "model" / "config.json").read_text())["source"]["kind"] == "export"
