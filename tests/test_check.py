"""``mynah check upstream SPEC`` and the upstreams that are not ours."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mynah.recipes import check as recipe
from mynah.recipes import cli
from mynah.upstream.core import spec
from mynah.upstream.core.clauses import check
from mynah.upstream.core.single import SingleUtterance
from mynah.upstream.interop import python as python_interop
from mynah.upstream.interop import torchaudio as torchaudio_interop

TINY = {
    "extractor_conv_layer_config": [(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2,
    "encoder_embed_dim": 24,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_ff_interm_features": 32,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 2,
}


def example(folder: Path) -> Path:
    """The example of the docstring, as a file."""
    doc = python_interop.__doc__ or ""
    block = doc.split("::\n", 1)[1].split("\nSaved as", 1)[0]
    path = folder / "energy.py"
    path.write_text("\n".join(line[4:] for line in block.splitlines()))
    return path


def test_exit_status_and_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    good = example(tmp_path)
    assert cli.main(["check", "upstream", f"python:{good}:Energy"]) == 0
    out = capsys.readouterr().out
    assert "7 kept, 0 broken, 3 not applicable" in out  # bf16 changes none of its bits
    assert len(re.findall(r"\bPASS\b", out)) == 7

    bad = tmp_path / "loud.py"
    bad.write_text(good.read_text().replace("frames.square()", "torch.rand(()) + frames"))
    assert cli.main(["check", "upstream", f"python:{bad}:Energy"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"determinism.*FAIL.*two calls differ", out)


def test_unknown_spec_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "upstream", "apcc"]) == 2
    assert "Closest: apc" in capsys.readouterr().err


def test_arguments() -> None:
    import tyro

    args = tyro.cli(recipe.Args, args=["upstream", "apc/tiny", "--seed", "3"])
    assert (args.what, args.spec, args.seed) == ("upstream", "apc/tiny", 3)


def test_program_imports_no_torch() -> None:
    code = "import sys, mynah.recipes.check; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# -- python: ------------------------------------------------------------------------------------

UPSTREAM = """
from dataclasses import dataclass
import torch
from mynah.upstream.core.contract import Batch, Loss, Upstream

@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 3

class Mine(Upstream):
    name, stride, dim, num_layers = "mine", 160, 3, 1
    def __init__(self, width: int = 3) -> None:
        super().__init__(Config(width=width))
    def num_frames(self, n_samples):
        return -(-n_samples // 160)
    def hidden_states(self, wavs):
        pads = [torch.nn.functional.pad(w, (0, -len(w) % 160)) for w in wavs]
        yield torch.cat([p.unfold(0, 160, 160)[:, :3] for p in pads])
    def loss(self, batch):
        raise TypeError("nothing to train")

class Needy(torch.nn.Module):
    def __init__(self, width, *, depth):
        super().__init__()

class Strideless(torch.nn.Module):
    pass
"""


def test_own_upstream_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(UPSTREAM)
    model = spec.load(f"python:{path}:Mine")
    assert model.frozen
    assert [c.name for c in check(model) if c.status == "FAIL"] == []
    before = model.fingerprint()
    path.write_text(UPSTREAM.replace(":3]", "3:6]"))
    assert spec.load(f"python:{path}:Mine").fingerprint() != before


def test_example_of_the_docstring(tmp_path: Path) -> None:
    model = spec.load(f"python:{example(tmp_path)}:Energy")
    assert (model.stride, model.dim, model.num_layers, model.sample_rate) == (160, 1, 1, 16000)
    wav = torch.arange(1.0, 401.0)
    features = model(wav[None], torch.tensor([400]))
    expected = torch.stack([part.square().mean() for part in wav[:320].split(160)])
    torch.testing.assert_close(features.layers_LBTD[0, 0, :2, 0], expected)
    assert features.lengths_B.tolist() == [3]


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("Mien", LookupError, "Closest: Mine"),
        ("Config", LookupError, "unknown torch module"),
        ("Needy", ValueError, "cannot be built without width, depth"),
        ("Strideless", ValueError, "needs the attribute 'stride'"),
        ("not a name", ValueError, "expected python:<file.py>:<Class>"),
    ],
)
def test_what_python_refuses(tmp_path: Path, name: str, error: type[Exception], match: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(UPSTREAM)
    with pytest.raises(error, match=match):
        spec.load(f"python:{path}:{name}")
    with pytest.raises(FileNotFoundError, match="no such file"):
        spec.load(f"python:{tmp_path / 'nowhere.py'}:Mine")


class Convolution(nn.Module):
    """Two convolutions: 10 samples every 5, then 3 every 2."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(1, 4, 10, 5)
        self.b = nn.Conv1d(4, 4, 3, 2)

    def forward(self, wav: Tensor) -> list[Tensor]:
        x = self.b(self.a(wav[:, None]))
        return [x.transpose(1, 2), x.transpose(1, 2) + 1]


def test_wrapper_finds_the_shortest_input_and_counts() -> None:
    model = SingleUtterance(Convolution(), name="c", stride=10)
    for n in (1, 19, 20, 29, 30, 39, 40, 12345):
        padded = max(n, 20)
        assert model.num_frames(n) == ((padded - 10) // 5 + 1 - 3) // 2 + 1
    assert [c.name for c in check(model) if c.status == "FAIL"] == []
    with pytest.raises(ValueError, match="at least one sample"):
        model.num_frames(0)


def test_the_readme_has_the_example_of_the_docstring(root: Path, tmp_path: Path) -> None:
    text = (root / "upstream" / "README.md").read_text(encoding="utf-8")
    assert f"```python\n{example(tmp_path).read_text().strip()}\n```" in text


class Returning(nn.Module):
    """Returns whatever it is told to make of a waveform."""

    def __init__(self, make: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.make = make

    def forward(self, wav: Tensor) -> object:
        return self.make(wav)


def test_wrapper_takes_a_dict_of_hidden_states() -> None:
    model = SingleUtterance(
        Returning(lambda wav: {"hidden_states": (wav[:, :, None], 2 * wav[:, :, None]), "a": 1}),
        name="d",
        stride=1,
    )
    assert (model.num_layers, model.dim) == (2, 1)


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda wav: {"x": wav, "y": wav}, "a dict of x, y"),
        (lambda wav: {"hidden_states": None}, "a dict of hidden_states"),
        (lambda wav: None, "got NoneType"),
        (lambda wav: [1, 2], "got list"),
    ],
)
def test_wrapper_says_what_forward_must_return(make: Callable[[Tensor], object], got: str) -> None:
    with pytest.raises(ValueError, match=f"Returning.forward must return .* {got}"):
        SingleUtterance(Returning(make), name="r", stride=1)


def test_wrapper_refuses_states_of_different_shapes() -> None:
    class Uneven(nn.Module):
        def forward(self, wav: Tensor) -> list[Tensor]:
            return [wav[:, :, None], wav[:, ::2, None]]

    with pytest.raises(ValueError, match="hidden states of one shape"):
        SingleUtterance(Uneven(), name="u", stride=1)


# -- torchaudio: --------------------------------------------------------------------------------


def tiny(factory: str) -> SingleUtterance:
    """A torchaudio model of the factory's arrangement and of our size."""
    import torchaudio

    torch.manual_seed(0)
    base = "base" in factory
    model = torchaudio.models.wav2vec2_model(
        extractor_mode="group_norm" if base else "layer_norm",
        extractor_conv_bias=not base,
        encoder_layer_norm_first=not base,
        encoder_projection_dropout=0.1,
        encoder_attention_dropout=0.1,
        encoder_ff_interm_dropout=0.1,
        encoder_dropout=0.1,
        encoder_layer_drop=0.5,
        aux_num_out=None,
        **TINY,
    )
    normalise = torchaudio_interop.is_normalised(factory)
    wrapped = torchaudio_interop.wrap(model, name=factory, normalise=normalise)
    assert isinstance(wrapped, SingleUtterance)
    return wrapped


@pytest.mark.parametrize("factory", ["wav2vec2_base", "wav2vec2_large_lv60k"])
def test_torchaudio_states_are_superbs(factory: str) -> None:
    model = tiny(factory).freeze()
    assert (model.num_layers, model.dim, model.stride) == (3, 24, 320)
    wav = 0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(1))
    states = model(wav, torch.tensor([16000])).layers_LBTD[:, 0]
    assert states.shape == (3, 49, 24)
    module: Any = model.module
    inner = wav
    if factory.endswith("lv60k"):
        inner = (wav - wav.mean()) / (wav.var(unbiased=False) + 1e-5).sqrt()
    with torch.no_grad():
        theirs, _ = module.extract_features(inner)
        final, _ = module(inner)
    torch.testing.assert_close(states[1], theirs[0][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(states[-1], final[0], rtol=1e-4, atol=1e-5)
    if factory.endswith("lv60k"):
        assert (states[-1] - theirs[-1][0]).abs().max() > 1e-3


def test_torchaudio_keeps_the_contract() -> None:
    assert [c.name for c in check(tiny("wav2vec2_base")) if c.status == "FAIL"] == []


def test_torchaudio_factories_and_their_normalisation() -> None:
    names = torchaudio_interop.factories()
    assert {"wav2vec2_base", "hubert_large", "wavlm_base", "wav2vec2_xlsr_300m"} <= set(names)
    assert not {"wav2vec2_model", "hubert_pretrain_base"} & set(names)
    normalised = {name for name in names if torchaudio_interop.is_normalised(name)}
    assert {"wav2vec2_base", "wav2vec2_large", "hubert_base", "wavlm_base"}.isdisjoint(normalised)
    assert {"wav2vec2_large_lv60k", "hubert_large", "wavlm_large"} <= normalised


def test_torchaudio_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = tiny("wav2vec2_base").module
    state = source.state_dict()
    torch.save({**state, "aux.weight": torch.zeros(2)}, tmp_path / "a.pt")
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        other = tiny("wav2vec2_base").module
        for p in other.parameters():
            nn.init.zeros_(p)
        torchaudio_interop.load_weights(other, tmp_path / name)
        assert all(torch.equal(other.state_dict()[key], state[key]) for key in state)

    torch.save({k: v for k, v in state.items() if "attention" not in k}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match="missing: encoder.transformer.layers.0.attention"):
        torchaudio_interop.load_weights(source, tmp_path / "b.pt")
    torch.save(nn.Linear(1, 1), tmp_path / "c.pt")
    with pytest.raises(ValueError, match="without executing it"):
        torchaudio_interop.load_weights(source, tmp_path / "c.pt")
    (tmp_path / "d.safetensors").write_bytes(b"\x01\x02")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        torchaudio_interop.load_weights(source, tmp_path / "d.safetensors")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        torchaudio_interop.load_weights(source, tmp_path / "e.pt")


def test_torchaudio_options() -> None:
    with pytest.raises(LookupError, match="Closest: wav2vec2_base"):
        torchaudio_interop.load("wav2vec_base")
    with pytest.raises(ValueError, match="unknown option 'weights=x'"):
        torchaudio_interop.load("wav2vec2_base,weights=x")
