"""The feature store under faults: killed, bit-flipped, full, raced, overflowing."""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mynah.recipes.errors import DISK, exit_code
from mynah.upstream.store import DamagedRecordError, open_or_extract
from mynah.upstream.store import shard as shards
from mynah.upstream.store.lock import lock


@pytest.fixture(scope="module")
def cheap(root: Path) -> ModuleType:
    path = root / "tests" / "doubles" / "cheap_upstream.py"
    spec = importlib.util.spec_from_file_location("cheap_upstream_faults", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cheap_upstream_faults"] = module
    spec.loader.exec_module(module)
    return module


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_killed_extraction_resumes_at_the_last_whole_shard(
    cheap: ModuleType, root: Path, tmp_path: Path
) -> None:
    program = root / "tests" / "doubles" / "cheap_upstream.py"
    command = [sys.executable, str(program), str(tmp_path), "40", "0.1"]
    child = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("*/frames-*/*.shard"))) < 4:
            assert child.poll() is None, child.stderr and child.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        if child.stderr:
            child.stderr.close()
    folder = next(tmp_path.glob("*/frames-float16"))
    (folder / "all-000000000000.part").write_bytes(b"half a shard")
    kept = {p.name: p.read_bytes() for p in folder.glob("*.shard")}
    model = cheap.Cheap().freeze()
    items = cheap.items(40, low=3000)
    before = len(kept)
    assert before < 40
    reader = open_or_extract(tmp_path, model, items, kind="frames", spot_check=False)
    assert (reader.stats.computed, reader.stats.reused) == (40 - before, before)
    assert sum(model.calls) == 40 - before
    assert {n: (folder / n).read_bytes() for n in kept} == kept
    assert not list(folder.glob("*.part"))
    fresh = open_or_extract(tmp_path / "fresh", model, items, kind="frames")
    for item in items:
        assert torch.equal(reader.frames([item.id])[0], fresh.frames([item.id])[0])


@pytest.mark.parametrize("kind", ["pooled", "frames"])
def test_a_flipped_bit_is_named_and_repaired(cheap: ModuleType, tmp_path: Path, kind: str) -> None:
    model = cheap.Cheap().freeze()
    items = cheap.items(10)
    reader = open_or_extract(tmp_path, model, items, kind=kind)
    good = reader.pooled([i.id for i in items])
    index, ids = shards.read_index(reader.folder.shards()[0])
    row = ids.index("u4")
    flip(reader.folder.shards()[0], int(index[row]["offset"]) + 3)
    reader = open_or_extract(tmp_path, model, items, kind=kind, spot_check=False)
    with pytest.raises(DamagedRecordError, match=r"'u4'.*--repair") as caught:
        reader.pooled(["u4"])
    assert exit_code(caught.value) == DISK
    assert str(reader.folder.path) in str(caught.value)
    torch.testing.assert_close(reader.pooled(["u5"])[0], good[5], rtol=0, atol=0)
    damage = list(reader.folder.damage())
    assert [d.id for d in damage] == ["u4"]
    reader.folder.drop(damage)
    assert list(reader.folder.damage()) == []
    model.calls.clear()
    mended = open_or_extract(tmp_path, model, items, kind=kind, spot_check=False)
    assert mended.stats.computed == 1
    assert torch.equal(mended.pooled([i.id for i in items]), good)


@pytest.mark.parametrize("where", ["index", "short", "empty"])
def test_a_damaged_shard_counts_as_missing(
    cheap: ModuleType, tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = cheap.Cheap().freeze()
    items = cheap.items(10)
    reader = open_or_extract(tmp_path, model, items[:5])
    want = reader.pooled(["u0"])
    victim = reader.folder.shards()[0]
    open_or_extract(tmp_path, model, items)
    if where == "index":
        flip(victim, victim.stat().st_size - shards.TAIL.size - 20)
    else:
        victim.write_bytes(victim.read_bytes()[: 0 if where == "empty" else -1])
    again = open_or_extract(tmp_path, model, items, spot_check=False)
    assert again.stats.computed == 5
    assert victim.name in caplog.text
    assert torch.equal(again.pooled(["u0"]), want)
    damage = list(again.folder.damage())
    assert [(d.path, d.id) for d in damage] == [(victim, None)]
    again.folder.drop(damage)
    assert not victim.exists()


@pytest.mark.parametrize("after", [0, 3_000, 20_000])
def test_a_full_disk_leaves_what_was_there(
    cheap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    model = cheap.Cheap().freeze()
    items = cheap.items(60)
    options = {"kind": "frames", "batch_seconds": 0.5, "shard_bytes": 4_000, "spot_check": False}
    open_or_extract(tmp_path, model, items[:20], **options)
    kept = {p: p.read_bytes() for p in tmp_path.rglob("*.shard")}
    room = after
    true_write = os.write

    def write(fd: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = true_write(fd, data[:room])
        room -= done
        return done

    monkeypatch.setattr(shards.os, "write", write)
    with pytest.raises(OSError, match="free some space") as caught:
        open_or_extract(tmp_path, model, items, **options)
    assert exit_code(caught.value) == DISK
    assert caught.value.filename.startswith(str(tmp_path))
    monkeypatch.setattr(shards.os, "write", true_write)
    assert {p: p.read_bytes() for p in kept} == kept
    assert not list(tmp_path.rglob("*.part"))
    gained = len(list(tmp_path.glob("*/frames-*/*.shard"))) - sum("frames" in str(p) for p in kept)
    assert gained == 0 if after < 4_000 else gained > 0
    done = open_or_extract(tmp_path, model, items, **options)
    assert done.stats.computed <= 40
    assert done.lengths([i.id for i in items]).min() >= 1


def test_what_float16_cannot_hold_becomes_float32(cheap: ModuleType, tmp_path: Path) -> None:
    model = cheap.Cheap().freeze()
    items = cheap.items(6, low=300, high=900)
    quiet = items[2].load
    items[2] = items[2]._replace(load=lambda: quiet() * np.float32(1e6))
    reader = open_or_extract(tmp_path, model, items, kind="frames")
    assert reader.stats.fallbacks == 1
    got = reader.frames(["u2"])[0]
    want = torch.stack(list(model.hidden_states([torch.from_numpy(items[2].load())])))
    assert want.abs().max() > 65504
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got, want, rtol=6e-4, atol=1e-6)
    codes = reader.folder.table().entries["code"]
    assert sorted(codes.tolist()) == [0, 1, 1, 1, 1, 1]


def test_features_that_are_not_finite_are_refused(cheap: ModuleType, tmp_path: Path) -> None:
    model = cheap.Cheap().freeze()
    items = cheap.items(5)
    n = items[3].num_samples
    items[3] = items[3]._replace(load=lambda: np.full(n, np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match=r"NaN.*layer 0.*'u3'"):
        open_or_extract(tmp_path, model, items)
    assert not list(tmp_path.rglob("*.shard"))


def test_audio_of_another_length_is_refused(cheap: ModuleType, tmp_path: Path) -> None:
    model = cheap.Cheap().freeze()
    items = cheap.items(5)
    items[1] = items[1]._replace(num_samples=items[1].num_samples + 1)
    with pytest.raises(ValueError, match="'u1' promises"):
        open_or_extract(tmp_path, model, items)


def test_unreadable_audio_keeps_what_was_done(cheap: ModuleType, tmp_path: Path) -> None:
    def broken() -> np.ndarray:
        raise ValueError("no such file")

    model = cheap.Cheap().freeze()
    items = cheap.items(10)
    shortest = min(range(10), key=lambda i: items[i].num_samples)
    whole = items[shortest]
    items[shortest] = whole._replace(load=broken)
    with pytest.raises(ValueError, match="no such file") as caught:
        open_or_extract(tmp_path, model, items, batch_seconds=1e-6)
    assert caught.value.__notes__ == [f"while reading the audio of utterance {whole.id!r}"]
    items[shortest] = whole
    assert open_or_extract(tmp_path, model, items, spot_check=False).stats.computed == 1


def test_an_upstream_that_breaks_its_contract_is_named(cheap: ModuleType, tmp_path: Path) -> None:
    model = cheap.Cheap().freeze()
    whole = model.hidden_states
    model.hidden_states = lambda wavs: iter(list(whole(wavs))[:2])
    with pytest.raises(ValueError, match="2 layers, its contract says 3"):
        open_or_extract(tmp_path, model, cheap.items(3))
    model = cheap.Cheap().freeze()
    model.dim = 7
    with pytest.raises(ValueError, match="states of shape"):
        open_or_extract(tmp_path / "wide", model, cheap.items(3))


def test_two_writers_share_the_work(cheap: ModuleType, tmp_path: Path) -> None:
    items = cheap.items(12)
    models = [cheap.Cheap().freeze() for _ in range(2)]
    models[0].pause = models[1].pause = 0.05
    readers = {}

    def work(i: int) -> None:
        readers[i] = open_or_extract(
            tmp_path, models[i], items, batch_seconds=0.5, spot_check=False
        )

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(r.stats.computed for r in readers.values()) == [0, 12]
    assert sum(sum(m.calls) for m in models) == 12


def test_a_lock_names_its_holder_and_dies_with_it(
    cheap: ModuleType, root: Path, tmp_path: Path
) -> None:
    model = cheap.Cheap().freeze()
    items = cheap.items(3)
    folder = open_or_extract(tmp_path, model, items[:1]).folder.path
    code = (
        "import sys, time; from pathlib import Path; from mynah.upstream.store.lock import lock\n"
        "with lock(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "all.lock")], stdout=subprocess.PIPE, cwd=root
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert str(child.pid) in (folder / "all.lock").read_text()
        with pytest.raises(BlockingIOError, match="another process"):
            open_or_extract(tmp_path, model, items, wait=False)
        # what needs no writing needs no lock
        assert open_or_extract(tmp_path, model, items[:1], wait=False).lengths(["u0"]).numel() == 1
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()
    assert open_or_extract(tmp_path, model, items, wait=False).stats.computed == 2
    with lock(folder / "all.lock") as held:
        assert held


def test_readers_see_whole_shards_only_while_a_writer_runs(
    cheap: ModuleType, tmp_path: Path
) -> None:
    model = cheap.Cheap().freeze()
    items = cheap.items(30, low=1000)
    seen: list[int] = []
    first = open_or_extract(tmp_path, model, items[:1], kind="frames")

    def watch(batches, _):
        for batch in batches:
            yield batch
            table = first.folder.table()
            seen.append(len(table.entries))
            assert list(first.folder.damage()) == []
            done = [i for i in items if table.find([i.key])[0] >= 0]
            reader = open_or_extract(tmp_path, model, done, kind="frames", wait=False)
            assert all(torch.isfinite(f).all() for f in reader.frames([i.id for i in done]))

    open_or_extract(
        tmp_path,
        model,
        items,
        kind="frames",
        batch_seconds=1e-6,
        shard_bytes=20_000,
        progress=watch,
    )
    assert seen == sorted(seen)
    assert 1 < len(set(seen)) < len(seen)


def test_a_folder_of_other_features_is_refused(cheap: ModuleType, tmp_path: Path) -> None:
    model = cheap.Cheap().freeze()
    folder = open_or_extract(tmp_path, model, cheap.items(2)).folder.path
    said = folder / "meta.json"
    said.write_text(said.read_text().replace('"dim": 6', '"dim": 5'))
    with pytest.raises(ValueError, match="dim is 5, expected 6"):
        open_or_extract(tmp_path, model, cheap.items(2))
