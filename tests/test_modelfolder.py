"""Model folders: same bytes, whole or refused, nothing executed."""

import dataclasses
import errno
import hashlib
import json
import os
import pickle
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from mynah import upstream
from mynah.recipes import errors
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Batch, Loss, Upstream


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 4
    strides: tuple[int, ...] = (5, 2)
    dropout: float = 0.1


class Toy(Upstream):
    name: ClassVar[str] = "toy"
    stride = 320
    num_layers = 1

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.dim = config.width
        self.linear = nn.Linear(2, config.width)
        self.tied = self.linear.weight
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("every_other", torch.arange(6.0)[::2])

    def num_frames(self, n_samples: int) -> int:
        return max(1, n_samples // 320)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        rows = [w.mean().expand(self.num_frames(len(w)), 2) for w in wavs]
        yield self.linear(torch.cat(rows))

    def loss(self, batch: Batch) -> Loss:
        return Loss(total=self.linear.weight.sum())


@pytest.fixture(autouse=True)
def toy_family(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(
        Config=Config, CONFIGS={"base": Config(width=8), "tiny": Config()}, MODEL=Toy
    )
    monkeypatch.setattr(upstream, "available", lambda: ["toy"])
    monkeypatch.setattr(upstream, "get", lambda name: {"toy": module}[name])


def make(seed: int = 0, **config: Any) -> Toy:
    torch.manual_seed(seed)
    return Toy(Config(**config))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rewrite(folder: Path, **changes: Any) -> None:
    """Edit config.json, keeping the sha256 in agreement with the weights."""
    path = folder / modelfolder.CONFIG
    head = json.loads(path.read_text())
    head["sha256"] = hashlib.sha256((folder / modelfolder.WEIGHTS).read_bytes()).hexdigest()
    head.update(changes)
    path.write_text(json.dumps(head))


def test_round_trip_and_same_bytes(tmp_path: Path) -> None:
    model = make(strides=(3, 1), width=6)
    modelfolder.save(model, tmp_path / "a", extra={"step": 7})
    modelfolder.save(model, tmp_path / "b", extra={"step": 7})
    for name in (modelfolder.WEIGHTS, modelfolder.CONFIG):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert names(tmp_path / "a") == [modelfolder.CONFIG, modelfolder.WEIGHTS]
    mode = (tmp_path / "b" / modelfolder.WEIGHTS).stat().st_mode
    (tmp_path / "as usual").touch()
    assert mode == (tmp_path / "as usual").stat().st_mode  # others read what the umask lets them

    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = modelfolder.load(tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)
    assert again.config == model.config
    assert isinstance(again.config.strides, tuple)
    assert again.fingerprint() == model.fingerprint()
    modelfolder.save(again, tmp_path / "c", extra={"step": 7})
    weights = modelfolder.WEIGHTS
    assert (tmp_path / "a" / weights).read_bytes() == (tmp_path / "c" / weights).read_bytes()
    head = modelfolder.verify(tmp_path / "a")
    assert (head["format"], head["upstream"], head["variant"]) == (1, "toy", "custom")
    assert head["step"] == 7


def test_variant_is_named(tmp_path: Path) -> None:
    modelfolder.save(make(), tmp_path)
    assert modelfolder.verify(tmp_path)["variant"] == "tiny"


def test_truncated_flipped_and_missing_are_refused(tmp_path: Path) -> None:
    modelfolder.save(make(), tmp_path)
    weights = tmp_path / modelfolder.WEIGHTS
    good = weights.read_bytes()
    for bad in (good[:-1], b"", good[:-9] + bytes([good[-9] ^ 1]) + good[-8:], good + b"\0"):
        weights.write_bytes(bad)
        with pytest.raises(modelfolder.DamagedError, match="damaged") as caught:
            modelfolder.load(tmp_path)
        assert errors.exit_code(caught.value) == errors.BAD_DATA
    weights.unlink()
    with pytest.raises(modelfolder.DamagedError, match=r"no model\.safetensors"):
        modelfolder.load(tmp_path)
    weights.write_bytes(good)
    modelfolder.load(tmp_path)
    (tmp_path / modelfolder.CONFIG).unlink()
    with pytest.raises(ValueError, match=r"no config\.json"):
        modelfolder.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        modelfolder.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="not a whole model folder") as none:
        modelfolder.load(tmp_path / "empty")
    assert errors.exit_code(none.value) == errors.USAGE


def test_keys_shapes_and_types_that_differ_are_listed(tmp_path: Path) -> None:
    model = make()
    original = model.state_dict()

    def attempt(state: dict[str, Tensor], match: str) -> None:
        modelfolder._write_tensors(state, tmp_path / modelfolder.WEIGHTS)
        rewrite(tmp_path)
        with pytest.raises(ValueError, match=match):
            modelfolder.load(tmp_path)

    modelfolder.save(model, tmp_path)
    without = {k: v for k, v in original.items() if k != "linear.bias"}
    attempt(without, r"1 missing: linear\.bias$")
    attempt({**original, "more": torch.zeros(1)}, "1 unexpected: more")
    attempt(
        {**original, "linear.bias": torch.zeros(5)},
        r"linear\.bias \(is F32 \(5,\), must be F32 \(4,\)\)",
    )
    attempt({**original, "linear.bias": torch.zeros(4).half()}, "is F16")
    many = {**original, **{f"x{i:05}": torch.zeros(1) for i in range(20_000)}}
    attempt(many, "20000 unexpected: x00000, x00001, x00002, x00003, x00004 and 19995 more")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": 2}, "reads format 1"),
        ({"format": None}, "states no format number"),
        ({"upstream": "toyy"}, "unknown upstream 'toyy'. Closest: toy"),
        ({"upstream": ["toy"]}, "'upstream' must be of type str"),
        ({"config": [1]}, "'config' must be of type dict"),
        ({"sha256": 3}, "'sha256' must be of type str"),
        ({"config": {"widht": 4}}, "unknown config field 'widht'. Closest: width"),
        ({"config": {"width": "wide"}}, "width: Input should be a valid integer"),
        ({"config": {"width": 5}}, r"linear\.weight \(is F32 \(4, 2\), must be F32 \(5, 2\)\)"),
    ],
)
def test_bad_config_is_refused(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    modelfolder.save(make(), tmp_path)
    rewrite(tmp_path, **changes)
    with pytest.raises(ValueError, match=match):
        modelfolder.load(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "null", "[" * 200_000, "\ufffe", "{" + " " * 2**20]
)
def test_config_that_is_no_config(tmp_path: Path, text: str) -> None:
    modelfolder.save(make(), tmp_path)
    (tmp_path / modelfolder.CONFIG).write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        modelfolder.load(tmp_path)


def test_hostile_weights_are_not_executed(tmp_path: Path) -> None:
    modelfolder.save(make(), tmp_path)
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {canary}",)

    header = json.dumps({"linear.bias": {"dtype": "F32", "shape": [4], "data_offsets": [0, 64]}})
    hostile = [
        pickle.dumps(Evil()),
        b"PK\x03\x04" + pickle.dumps(Evil()),
        struct.pack("<Q", len(header)) + header.encode() + b"\0" * 16,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**8 + 1) + b"{}",
        b"\x02",
    ]
    for payload in hostile:
        (tmp_path / modelfolder.WEIGHTS).write_bytes(payload)
        rewrite(tmp_path)
        with pytest.raises(modelfolder.DamagedError, match="is not a whole safetensors file"):
            modelfolder.load(tmp_path)
    assert not canary.exists()


@pytest.mark.parametrize("fail_at", [0, 1])
def test_crash_at_every_rename_leaves_old_new_or_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    old, new = make(seed=0), make(seed=1)
    modelfolder.save(old, tmp_path / "over")
    rename = Path.replace

    def crash_while_saving(folder: Path) -> None:
        done: list[Path] = []

        def replace(self: Path, target: Path) -> Path:
            if len(done) == fail_at:
                raise KeyboardInterrupt
            done.append(target)
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            with pytest.raises(KeyboardInterrupt):
                modelfolder.save(new, folder)
        assert not list(folder.glob(".*"))

    crash_while_saving(tmp_path / "fresh")
    with pytest.raises(ValueError, match="is not a whole model folder"):
        modelfolder.load(tmp_path / "fresh")
    crash_while_saving(tmp_path / "over")
    if fail_at == 0:
        assert modelfolder.load(tmp_path / "over").fingerprint() == old.fingerprint()
    else:
        with pytest.raises(ValueError, match="belongs to another"):
            modelfolder.load(tmp_path / "over")


def test_full_disk_is_an_oserror_and_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make(seed=0)
    modelfolder.save(old, tmp_path)

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise modelfolder.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(modelfolder, "save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        modelfolder.save(make(seed=1), tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == [modelfolder.CONFIG, modelfolder.WEIGHTS]
    assert modelfolder.load(tmp_path).fingerprint() == old.fingerprint()


def test_what_may_not_be_saved(tmp_path: Path) -> None:
    class Foreign(Toy):
        name = "stranger"

    class Impostor(Toy):
        pass

    with pytest.raises(ValueError, match="may not hold"):
        modelfolder.save(make(), tmp_path, extra={"sha256": "x"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        modelfolder.save(make(), tmp_path, extra={"loss": float("nan")})
    for kind in (Foreign, Impostor):
        with pytest.raises(ValueError, match="is not a family"):
            modelfolder.save(kind(Config()), tmp_path)
    assert not list(tmp_path.iterdir())
