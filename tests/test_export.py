"""``mynah export``: plain forms and graphs hear what the model hears, and what goes wrong."""

import dataclasses
import importlib
import importlib.util
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from exportable import PUBLISHED, build, saved, states, wave

from mynah import upstream
from mynah.recipes import cli, errors, export
from mynah.recipes.exporting import compare, folders, graphs
from mynah.recipes.exporting.plain import DECIDES, plain
from mynah.upstream.core.nasty import relative

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
        (["python:x.py:X", "--as", "onnx"], "so there is nothing to export: use 'python:x.py:X'"),
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
