"""The feature store: what the frozen upstream said, kept once."""

from mynah.upstream.store.choose import Choice, choose_kind, disk_budget, expected_bytes
from mynah.upstream.store.codec import Dtype, Kind
from mynah.upstream.store.extraction import open_or_extract
from mynah.upstream.store.folder import DamagedRecordError, FeatureStore
from mynah.upstream.store.reader import Item, Reader, Stats, StoredReader
from mynah.upstream.store.stream import StreamReader

__all__ = [
    "Choice",
    "DamagedRecordError",
    "Dtype",
    "FeatureStore",
    "Item",
    "Kind",
    "Reader",
    "Stats",
    "StoredReader",
    "StreamReader",
    "choose_kind",
    "disk_budget",
    "expected_bytes",
    "open_or_extract",
]
