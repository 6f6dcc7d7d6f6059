"""The upstream registry: a file is a name, and every file keeps the form."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mynah import registry, upstream
from mynah.upstream.core.contract import Upstream

FAMILIES = upstream.available()


def test_available_is_the_folder_and_imports_nothing(root: Path) -> None:
    files = sorted(p.stem for p in (root / "upstream").glob("*.py") if p.stem != "__init__")
    assert files == FAMILIES
    assert len(files) >= 4
    code = (
        "import sys, mynah.upstream as u; names = u.available(); "
        "loaded = [m for m in sys.modules if m == 'torch' or m.startswith('mynah.upstream.')]; "
        "assert names and not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root.parent)


def test_unknown_names_get_the_closest_and_the_list() -> None:
    with pytest.raises(LookupError, match=r"unknown upstream 'abc'. Closest: apc.* Available: apc"):
        upstream.get("abc")
    with pytest.raises(LookupError, match="variant of 'apc': 'bass'. Closest: base"):
        upstream.build("apc/bass")
    with pytest.raises(LookupError, match="unknown upstream 'core'"):
        upstream.get("core")
    assert "Closest" not in registry.unknown("upstream", "nosuch", FAMILIES)
    assert registry.unknown("x", "zzz", ["abc"]) == "unknown x 'zzz'. Available: abc."


@pytest.mark.parametrize(
    ("given", "variants"),
    [
        ("wavlm/tiny", "hubert/wavlm, hubert/wavlm-large, hubert/tiny-wavlm"),
        ("tera", "mockingjay/tera, mockingjay/tiny-tera"),
        ("audioalbert/tiny", "mockingjay/audio_albert, mockingjay/tiny-albert"),
        ("TERA", "mockingjay/tera, mockingjay/tiny-tera"),
    ],
)
def test_a_variant_given_as_a_family_is_found(given: str, variants: str) -> None:
    with pytest.raises(LookupError, match=rf"As a variant: {variants}\. Available: apc"):
        upstream.build(given)


@pytest.mark.parametrize("name", FAMILIES)
def test_form_of_a_family(name: str) -> None:
    module = upstream.get(name)
    assert module.MODEL.name == name
    assert issubclass(module.MODEL, Upstream)
    assert dataclasses.is_dataclass(module.Config)
    assert module.Config.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(module.Config))
    assert {"base", "tiny"} <= set(module.CONFIGS)
    assert module.CONFIGS["base"] == module.Config()
    assert all(type(config) is module.Config for config in module.CONFIGS.values())
    assert (module.__doc__ or "").strip()


@pytest.mark.parametrize("name", FAMILIES)
def test_build_is_a_function_of_the_seed(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = upstream.build(f"{name}/tiny", seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert a.fingerprint() == upstream.build(f"{name}/tiny", seed=5).fingerprint()
    if any(True for _ in a.parameters()):
        assert a.fingerprint() != upstream.build(f"{name}/tiny", seed=6).fingerprint()
