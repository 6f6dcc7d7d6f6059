"""The driver: compute what is missing, keep it, and open a reader over all of it.

Shape suffixes: B batch, L layers, T frames, D width, N frames of a ragged batch end to end.

Hidden states come from the upstream one layer at a time and are pooled or coded at once, so a
batch never holds all of them in float32. Audio is read ahead in a thread. Whatever was finished
when an extraction ends, however it ends, is not computed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.store.choose import choose_kind, disk_budget, expected_bytes
from mynah.upstream.store.codec import Dtype, Kind
from mynah.upstream.store.folder import FeatureStore, Folder
from mynah.upstream.store.lock import lock
from mynah.upstream.store.reader import Item, Reader, Stats, StoredReader
from mynah.upstream.store.sink import Sink
from mynah.upstream.store.stream import StreamReader

Progress = Callable[[Sequence[list[Item]], str], Iterable[list[Item]]]

FRAME_BUFFER_BYTES = 128 << 20
MAX_BATCH_ITEMS = 512


def _finite(name: str, batch: Sequence[Item], layer: int, parts: Sequence[Tensor]) -> ValueError:
    bad = [
        item.id for item, p in zip(batch, parts, strict=True) if not bool(torch.isfinite(p).all())
    ]
    return ValueError(
        f"upstream {name!r} gave NaN or infinite features at layer {layer} for utterance "
        f"{bad[0]!r} ({len(bad)} of this batch): check the weights (mynah check upstream) and "
        "the audio (mynah prepare --validate); nothing of this batch was kept"
    )


def layers_of(
    upstream: Upstream, batch: Sequence[Item], wavs: Sequence[np.ndarray]
) -> Iterator[tuple[Sequence[Tensor], float]]:
    """Yield, layer by layer, each utterance's (T, D) float32 states on the CPU and their peak.

    Raises:
        ValueError: audio of another length than promised, states of another shape than promised,
            or states that are not finite.
    """
    for item, wav in zip(batch, wavs, strict=True):
        if wav.ndim != 1 or len(wav) != item.num_samples:
            raise ValueError(
                f"utterance {item.id!r} promises {item.num_samples} samples at "
                f"{upstream.sample_rate} Hz and its audio has shape {wav.shape}: run "
                "'mynah prepare --validate' on the corpus"
            )
    lengths = [upstream.num_frames(item.num_samples) for item in batch]
    device = upstream.device
    tensors = [torch.from_numpy(np.ascontiguousarray(w, dtype=np.float32)).to(device) for w in wavs]
    layer = -1
    with torch.no_grad():
        for layer, given_ND in enumerate(upstream.hidden_states(tensors)):
            if tuple(given_ND.shape) != (sum(lengths), upstream.dim):
                raise ValueError(
                    f"upstream {upstream.name!r} gave states of shape {tuple(given_ND.shape)} at "
                    f"layer {layer}, its contract says {(sum(lengths), upstream.dim)}: run "
                    "'mynah check upstream' on it"
                )
            states_ND = given_ND.detach().float().cpu()
            parts = states_ND.split(lengths)
            peak = max(-float(states_ND.min()), float(states_ND.max()))
            if not np.isfinite(peak):
                raise _finite(upstream.name, batch, layer, parts)
            yield parts, peak
    if layer + 1 != upstream.num_layers:
        raise ValueError(
            f"upstream {upstream.name!r} gave {layer + 1} layers, its contract says "
            f"{upstream.num_layers}: run 'mynah check upstream' on it"
        )


def make_batches(items: Sequence[Item], *, max_samples: int) -> list[list[Item]]:
    """Cut items, in their order, into batches of at most ``max_samples`` (or one item each)."""
    batches: list[list[Item]] = []
    room = 0
    for item in items:
        if not batches or item.num_samples > room or len(batches[-1]) >= MAX_BATCH_ITEMS:
            batches.append([])
            room = max_samples
        batches[-1].append(item)
        room -= item.num_samples
    return batches


def _read_ahead(
    batches: Iterable[list[Item]], upcoming: Sequence[list[Item]]
) -> Iterator[tuple[list[Item], list[np.ndarray]]]:
    """Yield each batch with its audio, loading the next one in a thread."""

    def load(batch: list[Item]) -> list[np.ndarray]:
        out = []
        for item in batch:
            try:
                out.append(item.load())
            except Exception as error:
                error.add_note(f"while reading the audio of utterance {item.id!r}")
                raise
        return out

    with ThreadPoolExecutor(1, thread_name_prefix="audio") as pool:
        pending: Future[list[np.ndarray]] | None = None
        for i, batch in enumerate(batches):
            wavs = (pending or pool.submit(load, batch)).result()
            more = i + 1 < len(upcoming)
            pending = pool.submit(load, upcoming[i + 1]) if more else None
            yield batch, wavs


def open_or_extract(
    root: str | Path,
    upstream: Upstream,
    items: Sequence[Item],
    *,
    kind: Kind | str = "pooled",
    dtype: Dtype | None = None,
    resolution: str = "frame",
    budget: int | None = None,
    batch_seconds: float = 80.0,
    shard_bytes: int = 256 << 20,
    shard_seconds: float = 120.0,
    part: tuple[int, int] = (1, 1),
    wait: bool = True,
    spot_check: bool = True,
    memory: int = 0,
    progress: Progress | None = None,
) -> Reader:
    """Compute the features that a store lacks and return a reader over the items.

    Extracting frames keeps the means too: they cost one part in T and save a second pass.

    Args:
        root: the store's folder.
        upstream: a frozen upstream, on the device where it shall run.
        items: the utterances; those that share an audio key are computed once.
        kind: ``pooled``, ``frames``, ``stream`` (keep nothing), or ``auto``.
        dtype: of frames: ``float16`` (default), ``int8`` or ``float32``.
        resolution: for ``auto``: what the heads read, ``utterance`` or ``frame``.
        budget: for ``auto``: bytes that frames may take; default half of what is free.
        batch_seconds: seconds of audio per forward.
        shard_bytes: size at which a shard is finished.
        shard_seconds: age at which a shard is finished: the most work that a kill can undo.
        part: (i, n): compute and open only the i-th of n parts (from 1), for job arrays; the
            parts are disjoint and complete, whatever is in the store already.
        wait: wait for another writer of the same features; otherwise raise BlockingIOError.
        spot_check: compute one stored record again and compare.
        memory: for ``stream``: bytes of the latest features that are kept in memory.
        progress: wraps the batches to show progress: (batches, description) -> batches.

    Raises:
        ValueError: unknown kind or dtype, an upstream that is not frozen or breaks its contract,
            features that are not finite, or stored features that this upstream does not give.
        OSError: the disk is full (ENOSPC); what was finished is kept.
        BlockingIOError: another writer holds the folder and ``wait`` is off.
    """
    started, cpu = time.monotonic(), time.process_time()
    choice = ""
    if not upstream.frozen:
        raise ValueError("features are taken of frozen upstreams only: call upstream.freeze()")
    items = _part(items, part)
    if kind == "auto":
        expected = expected_bytes(upstream, items, "frames", "float16")
        budget = disk_budget(root) if budget is None else budget
        chosen = choose_kind(resolution, expected, budget)
        choice, kind, dtype = chosen.sentence, chosen.kind, dtype or chosen.dtype
    if kind == "stream":
        stream = StreamReader(upstream, items, memory=memory)
        stream.choice = choice
        return stream
    if kind not in ("pooled", "frames"):
        raise ValueError(f"kind must be 'pooled', 'frames', 'stream' or 'auto', got {kind!r}")
    dtype = dtype or ("float32" if kind == "pooled" else "float16")
    store = FeatureStore(root)
    fingerprint = upstream.fingerprint()
    kept = store.folder(
        upstream, "frames" if kind == "frames" else "pooled", dtype, fingerprint=fingerprint
    )
    also = store.folder(upstream, "pooled", "float32", fingerprint=fingerprint)
    stats = Stats()
    table = kept.table()
    present = table.find([item.key for item in items]) >= 0
    if not present.all():
        _fill(
            kept,
            upstream,
            items,
            stats,
            also=[] if kind == "pooled" else [also],
            label="all" if part[1] == 1 else f"part{part[0]}of{part[1]}",
            limits=(shard_bytes, shard_seconds),
            wait=wait,
            batch_seconds=batch_seconds,
            progress=progress,
        )
        table = kept.table()
    reader = StoredReader(kept, table, items)
    stats.reused = len(items) - stats.computed
    reader.choice = choice
    if spot_check and present.any():
        _spot_check(reader, upstream, [items[i] for i in np.flatnonzero(present).tolist()])
    stats.cpu_seconds = time.process_time() - cpu
    stats.wall_seconds = time.monotonic() - started
    reader.stats = stats
    return reader


def _fill(
    kept: Folder,
    upstream: Upstream,
    items: Sequence[Item],
    stats: Stats,
    *,
    also: Sequence[Folder],
    label: str,
    limits: tuple[int, float],
    wait: bool,
    batch_seconds: float,
    progress: Progress | None,
) -> None:
    """Compute what a folder lacks, and keep it in others too that nobody else is writing.

    Args:
        kept: the folder that is wanted.
        upstream: frozen.
        items: of which those are computed that the folder lacks.
        stats: is added to.
        also: folders that are filled on the way.
        label: of this writer's shards and lock.
        limits: bytes and seconds at which a shard is finished.
        wait: for another writer of the folder that is wanted.
        batch_seconds: seconds of audio per forward.
        progress: wraps the batches to show progress.

    Raises:
        BlockingIOError: another writer holds the folder and ``wait`` is off.
    """
    with ExitStack() as stack:
        sinks = []
        for folder in (kept, *also):
            folder.path.mkdir(parents=True, exist_ok=True)
            own = folder is kept
            if not stack.enter_context(lock(folder.path / f"{label}.lock", wait=wait and own)):
                if own:
                    raise BlockingIOError(f"{folder.path} is being written by another process")
                continue
            folder.prepare(label)
            # Looked up under the lock: another writer may just have finished.
            rows = folder.table().find([item.key for item in items])
            wanted = {items[i].key for i in np.flatnonzero(rows < 0).tolist()}
            sinks.append(Sink(folder, label, wanted, stats, limits))
        _extract(
            upstream,
            _unique(items, sinks[0].wanted),
            sinks,
            stats,
            batch_seconds=batch_seconds,
            progress=progress,
        )


def _part(items: Sequence[Item], part: tuple[int, int]) -> Sequence[Item]:
    i, n = part
    if not 1 <= i <= n:
        raise ValueError(f"part must be (i, n) with 1 <= i <= n, got {part}")
    if n == 1:
        return items
    keys = sorted({(-item.num_samples, item.key) for item in items})
    mine = {key for _, key in keys[i - 1 :: n]}
    return [item for item in items if item.key in mine]


def _unique(items: Sequence[Item], keys: set[bytes]) -> list[Item]:
    """Return one item per wanted key, longest first."""
    first: dict[bytes, Item] = {}
    for item in items:
        if item.key in keys:
            first.setdefault(item.key, item)
    return sorted(first.values(), key=lambda item: (-item.num_samples, item.key))


def _extract(
    upstream: Upstream,
    items: Sequence[Item],
    sinks: Sequence[Sink],
    stats: Stats,
    *,
    batch_seconds: float,
    progress: Progress | None,
) -> None:
    max_samples = int(batch_seconds * upstream.sample_rate)
    if any(sink.folder.meta.kind == "frames" for sink in sinks):
        row = upstream.num_layers * upstream.dim * 4
        max_samples = min(max_samples, FRAME_BUFFER_BYTES // row * upstream.stride)
    batches = make_batches(items, max_samples=max(1, max_samples))
    shown: Iterable[list[Item]] = batches
    if progress is not None:
        shown = progress(batches, f"extract {upstream.name}")
    try:
        for batch, wavs in _read_ahead(shown, batches):
            lengths = [upstream.num_frames(item.num_samples) for item in batch]
            for sink in sinks:
                sink.begin(batch, lengths)
            for layer, (parts, peak) in enumerate(layers_of(upstream, batch, wavs)):
                for sink in sinks:
                    sink.put(layer, parts, peak)
            for sink in sinks:
                sink.end(batch, lengths)
            stats.forwards += 1
            stats.computed += len(batch)
            stats.audio_seconds += sum(i.num_samples for i in batch) / upstream.sample_rate
    finally:
        for sink in sinks:
            sink.commit()


def _spot_check(reader: StoredReader, upstream: Upstream, items: Sequence[Item]) -> None:
    """Compute the shortest utterance again; a code change behind the store's back shows here."""
    item = min(items, key=lambda item: (item.num_samples, item.key))
    parts = [p[0].mean(0) for p, _ in layers_of(upstream, [item], [item.load()])]
    now_LD = torch.stack(parts)
    then_LD = reader.pooled([item.id])[0]
    scale = float(now_LD.norm()) or 1.0
    off = float((now_LD - then_LD).norm()) / scale
    allowed = 0.05 if upstream.precision == "bf16" else 1e-3
    allowed += {"float32": 0.0, "float16": 2e-3, "int8": 3e-2}[reader.folder.meta.dtype]
    if not off <= allowed:
        raise ValueError(
            f"the stored features of utterance {item.id!r} differ by {off:.2g} (relative) from "
            f"what upstream {upstream.name!r} gives now: the code changed since they were "
            f"extracted; remove {reader.folder.path} or choose another store"
        )
