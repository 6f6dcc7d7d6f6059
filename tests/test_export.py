"""``mynah export``: what comes out, loaded in the target's own way, hears what the model hears."""

import dataclasses
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
from torch import Tensor

from mynah import upstream
from mynah.recipes import cli, errors, export
from mynah.recipes.exporting import compare, folders, graphs
from mynah.recipes.exporting.plain import DECIDES, plain
from mynah.upstream.core import modelfolder, spec
from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.nasty import relative

SHAPE: dict[str, Any] = {
    "conv_channels": 16, "dim": 16, "layers": 1, "heads": 2, "ffn": 32, "pos_kernel": 8,
    "pos_groups": 4,
}  # fmt: skip
# as published in everything but size: (family, variant, changes)
PUBLISHED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "wav2vec2": ("wav2vec2", "base", SHAPE | {"objective": False}),
    "wav2vec2 large": ("wav2vec2", "large", SHAPE | {"objective": False}),
    "hubert": ("hubert", "base", SHAPE),
    "wavlm": ("hubert", "wavlm", SHAPE),
    "data2vec": ("data2vec", "base", SHAPE | {"top_layers": 1}),
    "data2vec 2": ("data2vec", "base2", SHAPE | {"objective": False, "top_layers": 1}),
    "distilhubert": ("distilhubert", "base", SHAPE | {"teacher_dim": 16}),
    "autoencoder": ("autoencoder", "vae", {"dim": 16, "layers": 1, "heads": 2, "ffn": 32, "pos_groups": 4}),
    "apc": ("apc", "base", {"width": 16}),
    "mockingjay": ("mockingjay", "base", {"dim": 16, "layers": 1, "heads": 2, "ffn": 32}),
    "audio_albert": ("mockingjay", "audio_albert", {"dim": 16, "layers": 2, "heads": 2, "ffn": 32, "max_frames": 40}),
    "cpc": ("cpc", "base", {"channels": 16, "width": 12}),
    "cpc modified": ("cpc", "modified", {"channels": 16, "width": 16, "objective": False}),
    "wav2vec": ("wav2vec", "base", {"channels": 16}),
    "npc": ("npc", "base", {"dim": 16, "codes": (), "code_dims": ()}),
    "small apc": ("apc", "base", {"width": 16, "layers": 1}),
    "fbank": ("fbank", "base", {}),
    "fbank cmvn": ("fbank", "cmvn", {}),
    "byol": ("byol", "base", {"channels": (8, 8, 8), "embed_dim": 24, "objective": False}),
    "delores": ("delores", "base", {"channels": (8, 8, 8), "embed_dim": 24, "objective": False}),
}  # fmt: skip


def build(name: str) -> Upstream:
    family, variant, changes = PUBLISHED[name]
    module = upstream.get(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Upstream = module.MODEL(dataclasses.replace(module.CONFIGS[variant], **changes))
    with torch.no_grad():
        for tensor in model.state_dict().values():  # batch norm as after training
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor += 0.5 * torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1))
    return model.freeze()


def saved(name: str, folder: Path) -> tuple[Path, Upstream]:
    model = build(name)
    modelfolder.save(model, folder)
    return folder, model


def wave(samples: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    tone = torch.sin(torch.arange(samples) * 0.05) * torch.linspace(0, 0.3, samples)
    return tone + 0.02 * torch.randn(samples, generator=generator)


def states(model: Upstream, wav_S: Tensor) -> Tensor:
    return torch.stack(list(model.hidden_states([wav_S])))


# -- the plain forms ----------------------------------------------------------------------------


QUICK = (
    "wav2vec2",
    "apc",
    "mockingjay",
    "audio_albert",
    "cpc modified",
    "wav2vec",
    "fbank cmvn",
    "byol",
)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in PUBLISHED]
)
def test_every_published_form_is_plain_and_traced(name: str, tmp_path: Path) -> None:
    model = build(name)
    function = plain(model)
    script = graphs.TARGETS["torchscript"]
    path = tmp_path / script.file
    script.write(function, path, {"upstream": name})
    heard = script.read(path)
    for samples in (function.shortest, 9001, 20011):
        wav_S = wave(samples)
        expected_LTD = states(model, wav_S)
        assert relative(heard(wav_S[None]), expected_LTD) < 2e-5
        if function.longest is None or samples <= function.longest:
            with torch.no_grad():
                assert relative(function(wav_S[None]), expected_LTD) < 2e-5


@pytest.mark.parametrize("family", upstream.available())
def test_every_family_has_a_plain_form_or_a_reason(family: str) -> None:
    model = upstream.build(f"{family}/tiny").freeze()
    if family in DECIDES:
        with pytest.raises(ValueError, match=rf"{family} cannot be exported.*code is a decision"):
            plain(model)
        return
    with torch.no_grad():
        assert relative(plain(model)(wave(8000)[None]), states(model, wave(8000))) < 2e-5


def test_digital_silence_is_heard_alike() -> None:
    for name in ("apc", "mockingjay", "wav2vec2", "fbank cmvn"):
        model = build(name)
        with torch.no_grad():
            got_LTD = plain(model)(torch.zeros(1, 8000))
        assert relative(got_LTD, states(model, torch.zeros(8000))) < 2e-5


def test_truncated_attention_is_refused() -> None:
    config = dataclasses.replace(upstream.get("hubert").CONFIGS["tiny"], window=20)
    with pytest.raises(ValueError, match=r"truncated \(window=20\).*--as s3prl takes every family"):
        plain(upstream.get("hubert").MODEL(config).freeze())


# -- graphs -------------------------------------------------------------------------------------


def test_onnx_runs_in_onnxruntime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    source, model = saved("small apc", tmp_path / "source")
    out = tmp_path / "out"
    assert cli.main(["export", str(source), "--as", "onnx", "--out", str(out)]) == errors.DONE
    said = capsys.readouterr().out
    assert re.search(r"16000 samples, 98 frames: \d\.\de-0\d relative", said)
    assert "the same to" in said
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "model.onnx"]
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    assert session.get_inputs()[0].shape == [1, "samples"]
    assert session.get_outputs()[0].shape == [model.num_layers, "frames", model.dim]
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["fingerprint"] == model.fingerprint()
    assert int(facts["stride"]) == model.stride
    for samples in (4321, 16000, 40000):
        wav_S = wave(samples)
        (got,) = session.run(["states"], {"wav": wav_S[None].numpy()})
        assert got.shape == (model.num_layers, model.num_frames(samples), model.dim)
        assert relative(torch.from_numpy(got), states(model, wav_S)) < 1e-4


def test_torch_export_loads_with_torch_alone(tmp_path: Path) -> None:
    source, model = saved("fbank cmvn", tmp_path / "source")
    out = tmp_path / "out"
    args = export.Args(spec=str(source), target="torch-export", out=out)
    assert export.main(args) == errors.DONE
    inside = {"facts.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(out / "model.pt2", extra_files=inside).module()
    facts = json.loads(inside["facts.json"])
    for samples in (int(facts["shortest"]) + 200, 7777, 35000):
        assert relative(module(wave(samples)[None]), states(model, wave(samples))) < 1e-4
    assert "at least 560 samples |" in (out / "README.md").read_text()
    with pytest.raises((AssertionError, RuntimeError)):
        module(wave(559)[None])


def test_longer_than_one_piece_is_refused_and_not_misheard() -> None:
    for name in ("mockingjay", "audio_albert"):
        function = plain(build(name))
        assert function.longest is not None
        function(wave(function.longest)[None])
        with pytest.raises(RuntimeError, match="must match the size"):
            function(wave(function.longest + 1)[None])


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "torch-export"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_form_is_recorded(name: str, target: Any, tmp_path: Path) -> None:
    source, _ = saved(name, tmp_path / "source")
    args = export.Args(spec=str(source), target=target, out=tmp_path / "out")
    assert export.main(args) == errors.DONE  # which compares at six lengths


# -- folders ------------------------------------------------------------------------------------


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


# -- what goes wrong ----------------------------------------------------------------------------


def test_a_wrong_export_is_found_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = saved("fbank", tmp_path / "source")
    right = folders.read_expert
    monkeypatch.setattr(
        folders, "read_expert", lambda folder: lambda wav: 1.001 * right(folder)(wav)
    )
    out = tmp_path / "out"
    assert cli.main(["export", str(source), "--as", "s3prl", "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "--as s3prl is not fbank: at 1 samples a hidden state differs by 1.0e-03" in said
    assert "allowed 1e-04" in said
    monkeypatch.setattr(
        folders, "read_expert", lambda folder: lambda wav: right(folder)(wav)[:, 1:]
    )
    assert cli.main(["export", str(source), "--as", "s3prl", "--out", str(out)]) == 1
    assert "makes states of shape (1, 0, 240)" in capsys.readouterr().err
    monkeypatch.setattr(
        folders, "read_expert", lambda folder: lambda wav: right(folder)(wav) * float("nan")
    )
    assert cli.main(["export", str(source), "--as", "s3prl", "--out", str(out)]) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["vq_wav2vec/tiny", "--as", "onnx"], "code is a decision"),
        (["python:x.py:X", "--as", "onnx"], "is run by its own code"),
        (["apc/tinny", "--as", "onnx"], "unknown variant"),
        (["no/such/folder", "--as", "torchscript"], "no such folder"),
    ],
)
def test_what_is_refused(
    argv: list[str], match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", *argv, "--out", str(tmp_path / "out")]) == errors.USAGE
    assert match in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_taken_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("x")
    assert cli.main(["export", "fbank", "--as", "s3prl", "--out", str(tmp_path)]) == errors.USAGE
    assert "already there" in capsys.readouterr().err


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "onnxscript" else real(name, *a),
    )
    args = export.Args(spec="fbank", target="onnx", out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"needs onnxscript: pip install 'mynah\[export\]'"):
        export.main(args)
    monkeypatch.delattr(torch.jit, "trace")
    with pytest.raises(ValueError, match=r"has no torch.jit.trace any more: choose --as torch-"):
        export.main(dataclasses.replace(args, target="torchscript"))
    assert not list(tmp_path.iterdir())


def test_lengths_cover_the_edges() -> None:
    assert compare.lengths(400, None, limited=False) == [400, 401, 5000, 16000, 23457, 52801]
    assert compare.lengths(201, 20000, limited=True) == [201, 202, 5000, 16000, 20000]
    assert compare.lengths(201, 20000, limited=False)[-4:] == [20001, 23457, 25000, 52801]
