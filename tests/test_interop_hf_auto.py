"""Hugging Face models that are none of our families: wrapped, whole, and never their own code."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mynah.recipes import cli, errors
from mynah.upstream.core import spec
from mynah.upstream.core.clauses import check
from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.narrow_convs import bf16_is_right
from mynah.upstream.interop import hf
from mynah.upstream.interop.wrapped import Wrapped

SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
STACK: dict[str, Any] = {"conv_dim": [16] * 7, "num_conv_pos_embedding_groups": 4}


def save(folder: Path, kind: str, **settings: Any) -> Path:
    """Write a random model of a type, as transformers saves it."""
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**SIZE, **settings})
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.02 * torch.randn_like(p)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def conformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Wav2Vec2FeatureExtractor

    folder = save(tmp_path_factory.mktemp("conformer"), "wav2vec2-conformer", **STACK)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def alone(model: Upstream, wav: Tensor) -> list[Tensor]:
    return list(model.hidden_states([wav]))


def test_a_conformer_is_wrapped_and_the_check_names_what_it_breaks(conformer: Path) -> None:
    from transformers import AutoFeatureExtractor, AutoModel

    model = spec.load(f"hf:{conformer}")
    assert isinstance(model, Wrapped)
    assert model._count is not None  # the formula was found
    assert (model.dim, model.num_layers, model.stride, model.sample_rate) == (32, 3, 320, 16000)
    wav = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    extractor = AutoFeatureExtractor.from_pretrained(conformer)
    inputs = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        out = AutoModel.from_pretrained(conformer).eval()(**inputs, output_hidden_states=True)
    states = alone(model, wav)
    for got, want in zip(states[:-1], out.hidden_states[:-1], strict=True):
        assert torch.equal(got, want[0])
    assert torch.equal(states[-1], out.last_hidden_state[0])
    # its table of relative positions stays in bfloat16 once it was used in it: transformers' own
    used = bf16_is_right(
        model.module, model.device
    )  # not on CPUs that add its convolutions up wrongly
    assert [c.name for c in check(model) if c.status == "FAIL"] == (["bf16"] if used else [])


def test_the_last_state_is_after_the_final_norm(tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = save(tmp_path, "unispeech-sat", do_stable_layer_norm=True, **STACK)
    module = AutoModel.from_pretrained(folder).eval()
    wav = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = module(wav[None], output_hidden_states=True)
    states = alone(spec.load(f"hf:{folder}"), wav)
    assert torch.equal(states[-1], out.last_hidden_state[0])
    assert torch.equal(states[-2], out.hidden_states[-2][0])
    assert not torch.equal(states[-1], out.hidden_states[-1][0])


def test_a_model_that_hears_filterbanks(tmp_path: Path) -> None:
    from transformers import SeamlessM4TFeatureExtractor

    folder = save(tmp_path, "wav2vec2-bert", conv_depthwise_kernel_size=5)
    SeamlessM4TFeatureExtractor().save_pretrained(folder)
    model = spec.load(f"hf:{folder}")
    assert (model.stride, model.num_layers, model.dim) == (320, 3, 32)
    wavs = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (700, 16000)]
    for state in model.hidden_states(wavs):
        assert len(state) == sum(model.num_frames(len(wav)) for wav in wavs)
        assert state.isfinite().all()


def test_weights_that_are_missing_are_not_made_up(conformer: Path, tmp_path: Path) -> None:
    state = load_file(conformer / "model.safetensors")
    name = "encoder.layers.0.conv_module.pointwise_conv1.weight"
    del state[name]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((conformer / "config.json").read_text())
    with pytest.raises(ValueError, match=rf"1 missing: {name}"):
        hf.load(tmp_path)


def test_a_model_that_pads_everything_to_one_length_is_refused(tmp_path: Path) -> None:
    from transformers import WhisperFeatureExtractor

    folder = save(
        tmp_path, "whisper", d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=48,
        decoder_ffn_dim=48, vocab_size=20, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, num_mel_bins=80,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"type 'whisper'.* takes input_features.*as wav2vec2, hu"):
        hf.load(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    with pytest.raises(ValueError, match="1500 frames of 2 s and 1500 of 4 s"):
        hf.load(folder)


def test_code_that_comes_with_a_model_is_not_run(conformer: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    settings = json.loads((conformer / "config.json").read_text())
    settings["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (tmp_path / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    (tmp_path / "model.safetensors").write_bytes((conformer / "model.safetensors").read_bytes())
    for kind in ("wav2vec2-conformer", "evil"):
        (tmp_path / "config.json").write_text(json.dumps({**settings, "model_type": kind}))
        if kind == "evil":
            with pytest.raises(ValueError, match="no family reads model_type 'evil'"):
                hf.load(tmp_path)
        else:
            assert isinstance(hf.load(tmp_path), Wrapped)
    assert not trace.exists()


def test_a_wrapped_model_is_not_imported(
    conformer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["import", f"hf:{conformer}", str(tmp_path / "out")]) == errors.USAGE
    assert "is run by its own code and is none of our families" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
