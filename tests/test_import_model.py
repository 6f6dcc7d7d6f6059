"""``mynah import``: what comes out hears exactly what the source hears, whole or not at all."""

import argparse
import errno
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mynah.recipes import cli, errors, import_model
from mynah.upstream.core import modelfolder, spec
from mynah.upstream.interop import keymap
from mynah.upstream.wav2vec2 import Config, Wav2Vec2

SETTINGS: dict[str, Any] = {
    "conv_feature_layers": "[(32, 10, 5)] + [(32, 3, 2)] * 4 + [(32,2,2)] + [(32,2,2)]",
    "encoder_embed_dim": 64,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_embed_dim": 96,
}
SMALL = Config(conv_channels=32, dim=64, layers=2, heads=4, ffn=96, objective=False)


def fairseq_file(folder: Path) -> Path:
    torch.manual_seed(0)
    model = Wav2Vec2(SMALL)
    state = {}
    for key, value in model.state_dict().items():
        state[keymap.theirs(key, "fairseq", conv_norm="group")[0]] = value
    path = folder / "small.pt"
    torch.save({"args": argparse.Namespace(arch="wav2vec2", **SETTINGS), "model": state}, path)
    return path


def states(where: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    wavs = [0.1 * torch.randn(n, generator=generator) for n in (5000, 9001)]
    return list(spec.load(where).hidden_states(wavs))


def test_a_round_trip_is_bit_equal_and_carries_a_card(tmp_path: Path) -> None:
    source, out = fairseq_file(tmp_path), tmp_path / "models" / "small"
    assert cli.main(["import", f"fairseq:{source}", str(out)]) == errors.DONE
    for got, want in zip(states(str(out)), states(f"fairseq:{source}"), strict=True):
        assert torch.equal(got, want)
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    assert [p.name for p in out.parent.iterdir()] == ["small"]
    text = (out / "README.md").read_text()
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    model = modelfolder.load(out)
    size = sum(p.numel() for p in model.parameters())
    for part in (
        "# small", "`wav2vec2`, variant `custom`", f"{size:,}", "320 samples = 20 ms", "16000 Hz",
        "fairseq-style checkpoint", f"| `small.pt` | `{digest}` |", 'load("small")',
        "Licence: as the source", "    conv_channels: 32", model.fingerprint(),
    ):  # fmt: skip
        assert part in text, part
    head = json.loads((out / "config.json").read_text())
    assert head["source"] == {"kind": "fairseq", "files": {"small.pt": digest}}


def test_a_folder_and_random_weights(tmp_path: Path) -> None:
    assert cli.main(["import", "apc/tiny", str(tmp_path / "a"), "--seed", "3"]) == errors.DONE
    assert "random weights of seed 3" in (tmp_path / "a" / "README.md").read_text()
    (tmp_path / "b").mkdir()  # an empty folder will do
    assert cli.main(["import", str(tmp_path / "a"), str(tmp_path / "b")]) == errors.DONE
    first, second = spec.load(str(tmp_path / "a")), spec.load(str(tmp_path / "b"))
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() == spec.load("apc/tiny", seed=3).fingerprint()
    assert set(json.loads((tmp_path / "b" / "config.json").read_text())["source"]["files"]) == {
        "config.json", "model.safetensors",
    }  # fmt: skip


def test_a_hugging_face_directory_names_its_files(tmp_path: Path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        conv_dim=[16] * 7,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(tmp_path / "hf")
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path / "hf")
    out = tmp_path / "out"
    assert cli.main(["import", f"hf:{tmp_path / 'hf'}", str(out)]) == errors.DONE
    for got, want in zip(states(str(out)), states(f"hf:{tmp_path / 'hf'}"), strict=True):
        assert torch.equal(got, want)
    assert set(json.loads((out / "config.json").read_text())["source"]["files"]) == {
        "config.json", "preprocessor_config.json", "model.safetensors",
    }  # fmt: skip


@pytest.fixture
def small_factory(monkeypatch: pytest.MonkeyPatch) -> str:
    """A factory of torchaudio that builds a small model."""
    import torchaudio.models

    def wav2vec2_small(aux_num_out: int | None = None) -> torch.nn.Module:
        model: torch.nn.Module = torchaudio.models.wav2vec2_model(
            extractor_mode="group_norm",
            extractor_conv_layer_config=[(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2,
            extractor_conv_bias=False, encoder_embed_dim=32, encoder_projection_dropout=0.1,
            encoder_pos_conv_kernel=128, encoder_pos_conv_groups=16, encoder_num_layers=2,
            encoder_num_heads=2, encoder_attention_dropout=0.1, encoder_ff_interm_features=48,
            encoder_ff_interm_dropout=0.0, encoder_dropout=0.1, encoder_layer_norm_first=False,
            encoder_layer_drop=0.05, aux_num_out=aux_num_out,
        )  # fmt: skip
        return model

    monkeypatch.setattr(torchaudio.models, "wav2vec2_small", wav2vec2_small, raising=False)
    return "torchaudio:wav2vec2_small"


def test_random_weights_are_warned_of(
    tmp_path: Path, small_factory: str, caplog: pytest.LogCaptureFixture
) -> None:
    out = str(tmp_path / "out")
    assert cli.main(["import", small_factory, out, "--seed", "4"]) == errors.DONE
    assert "the model is untrained, with random weights of seed 4" in caplog.text


def test_torchaudio_becomes_our_own(tmp_path: Path, small_factory: str) -> None:
    torch.manual_seed(5)
    model = import_model.convert(small_factory)
    file = tmp_path / "weights.pt"
    from mynah.upstream.interop import torchaudio

    _, theirs = torchaudio.build(small_factory.partition(":")[2])
    torch.save(theirs.state_dict(), file)
    given = f"{small_factory},ckpt={file}"
    assert cli.main(["import", given, str(tmp_path / "out")]) == errors.DONE
    for got, want in zip(states(str(tmp_path / "out")), states(given), strict=True):
        assert (got - want).norm() / want.norm() < 1e-5
    assert model.config.layerdrop == 0.05
    source = json.loads((tmp_path / "out" / "config.json").read_text())["source"]
    assert set(source["files"]) == {"weights.pt"}


def test_a_place_that_is_taken_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    for taken in ("out", "out/mine"):
        assert cli.main(["import", "hf:nowhere", str(tmp_path / taken)]) == errors.USAGE
        assert "already there" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize("source", ["s3prl:fbank", "python:{file}:Any"])
def test_a_model_run_by_its_own_code_is_refused(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, trace = tmp_path / "any.py", tmp_path / "executed"
    file.write_text(f"open({str(trace)!r}, 'w').close()\n")
    given = source.format(file=file)
    assert cli.main(["import", given, str(tmp_path / "out")]) == errors.USAGE
    said = capsys.readouterr().err
    assert "none of our families (apc, " in said
    assert repr(given) in said
    assert not trace.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3prl:missing.pt", "no such checkpoint: missing.pt"),
        ("s3prl:no/such", "no such checkpoint: no/such"),
        ("s3prl:fbnak", "unknown s3prl upstream 'fbnak'. Closest: fbank"),
    ],
)
def test_what_s3prl_does_not_have_is_refused_as_such(
    tmp_path: Path, source: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["import", source, str(tmp_path / "out")]) == errors.USAGE
    said = capsys.readouterr().err
    assert message in said
    assert "nothing to import" not in said


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_weights_that_are_no_numbers_are_refused_by_name(
    tmp_path: Path, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Wav2Vec2(SMALL)
    name, weight = list(model.named_parameters())[3]
    with torch.no_grad():
        weight.view(-1)[1] = float(value)
    modelfolder.save(model, tmp_path / "bad")
    code = cli.main(["import", str(tmp_path / "bad"), str(tmp_path / "out")])
    assert code == errors.BAD_DATA
    assert f"1 of the {weight.numel()} values of {name} are NaN" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def failing(kind: type[BaseException], *args: Any) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise kind(*args)

    return fail


@pytest.mark.parametrize("where", ["save", "replacing"])
def test_a_failure_leaves_nothing_behind(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "save":
        monkeypatch.setattr(modelfolder, "save_file", failing(OSError, errno.ENOSPC, "full"))
    else:
        monkeypatch.setattr(import_model, "card", failing(KeyboardInterrupt))
    code = cli.main(["import", "apc/tiny", str(tmp_path / "out")])
    assert code == (errors.DISK if where == "save" else 130)
    assert list(tmp_path.iterdir()) == []
