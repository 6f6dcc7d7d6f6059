"""Audio in: exact lengths, explicit channels, and a zoo of files that decoders get wrong."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.tasks.corpora import audio
from mynah.tasks.corpora.audio import BadAudioError
from mynah.tasks.corpora.utterance import Utterance


def tone(samples: int, rate: int = 16000, hertz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)).astype(np.float32)


def whole(path: Path, **changes: object) -> Utterance:
    info = audio.probe(path)
    facts = {"start": 0.0, "duration": info.duration, "sample_rate": info.sample_rate, **changes}
    return Utterance(id="u", path=str(path), **facts)  # type: ignore[arg-type]


def test_read_is_the_file(tmp_path: Path) -> None:
    wav = np.random.default_rng(0).integers(-32768, 32767, 5000).astype(np.int16)
    soundfile.write(tmp_path / "a.flac", wav, 16000)
    got = audio.read(whole(tmp_path / "a.flac"))
    assert got.dtype == np.float32
    assert np.array_equal(got, wav.astype(np.float32) / 32768)


def test_segment_and_channel_are_exact(tmp_path: Path) -> None:
    stereo = np.random.default_rng(1).integers(-9999, 9999, (9000, 2)).astype(np.int16)
    for suffix in ("wav", "flac"):
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, stereo, 16000)
        got = audio.read(whole(path, start=1234 / 16000, duration=777 / 16000, channel=1))
        assert np.array_equal(got, stereo[1234 : 1234 + 777, 1].astype(np.float32) / 32768)
    with pytest.raises(BadAudioError, match="no channel 2"):
        audio.read(whole(path, channel=2))


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(1, 3000),
    source=st.sampled_from([4000, 8000, 11025, 16000, 22050, 44100, 48000, 192000]),
    wanted=st.sampled_from([8000, 16000]),
)
def test_length_is_known_beforehand(
    tmp_path_factory: pytest.TempPathFactory, samples: int, source: int, wanted: int
) -> None:
    path = tmp_path_factory.mktemp("a") / "a.wav"
    soundfile.write(path, tone(samples, source), source)
    utterance = whole(path)
    assert len(audio.read(utterance, wanted)) == audio.num_samples(utterance, wanted)
    assert audio.num_samples(utterance, source) == samples


def test_resampling_keeps_the_tone(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(8000, 8000), 8000, subtype="FLOAT")
    got = audio.read(whole(tmp_path / "a.wav"), 16000)
    assert len(got) == 16000
    middle = slice(2000, 14000)  # away from the filter's edges
    assert np.max(np.abs(got[middle] - tone(16000)[middle])) < 1e-4


def test_key_follows_the_content_alone(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, tone(4000), 16000)
    soundfile.write(tmp_path / "c.wav", tone(4000, hertz=441), 16000)
    first = whole(tmp_path / "a.wav")
    key = audio.content_key(first)
    assert audio.content_key(whole(tmp_path / "b.wav")) == key
    others = [
        audio.content_key(whole(tmp_path / "c.wav")),
        audio.content_key(first, 8000),
        audio.content_key(whole(tmp_path / "a.wav", start=1 / 16000, duration=3999 / 16000)),
        audio.content_key(whole(tmp_path / "a.wav", duration=3999 / 16000)),
        audio.content_key(whole(tmp_path / "a.wav", channel=1)),
    ]
    assert len({key, *others}) == 6
    soundfile.write(tmp_path / "a.wav", tone(4000, hertz=439), 16000)  # the same name and size
    os.utime(tmp_path / "a.wav", ns=(1, 1))
    assert audio.content_key(first) != key


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(4000), 16000)
    utterance = whole(tmp_path / "a.wav")
    soundfile.write(tmp_path / "a.wav", tone(3000), 16000)
    with pytest.raises(BadAudioError, match="0 to 4000 wanted.*has 3000"):
        audio.read(utterance)
    soundfile.write(tmp_path / "a.wav", tone(4000), 8000)
    with pytest.raises(BadAudioError, match="8000 Hz, the manifest says 16000"):
        audio.read(utterance)


def wave_bytes(
    *, channels: int = 1, rate: int = 16000, bits: int = 16, data: bytes, size: int | None = None
) -> bytes:
    align = max(1, channels * bits // 8) & 0xFFFF
    chunk = struct.pack("<HHIIHH", 1, channels, rate, (rate * align) & 0xFFFFFFFF, align, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + chunk
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def make_zoo(folder: Path) -> dict[str, str]:
    """Write good and bad files; returns name -> "" (good) or a word of the refusal."""
    zoo: dict[str, str] = {}

    def put(name: str, data: bytes, expected: str) -> None:
        (folder / name).write_bytes(data)
        zoo[name] = expected

    wav = tone(32000)
    pcm = (wav * 32767).astype("<i2").tobytes()
    for name, subtype in (
        ("pcm16.wav", "PCM_16"), ("pcm24.wav", "PCM_24"), ("pcm8.wav", "PCM_U8"),
        ("float.wav", "FLOAT"), ("double.wav", "DOUBLE"), ("ulaw.wav", "ULAW"),
        ("good.flac", "PCM_16"), ("good.ogg", "VORBIS"), ("good.mp3", "MPEG_LAYER_III"),
        ("good.aiff", "PCM_16"), ("good.au", "PCM_16"), ("good.caf", "PCM_16"),
    ):  # fmt: skip
        soundfile.write(folder / name, wav, 16000, subtype=subtype)
        zoo[name] = ""
    for kind in ("WAVEX", "RF64", "W64", "NIST"):
        soundfile.write(folder / f"{kind}.wav", wav, 16000, format=kind, subtype="PCM_16")
        zoo[f"{kind}.wav"] = ""
    flac, mp3 = (folder / "good.flac").read_bytes(), (folder / "good.mp3").read_bytes()
    rf64 = (folder / "RF64.wav").read_bytes()
    put("hand made.wav", wave_bytes(data=pcm), "")
    put("truncated.wav", wave_bytes(data=pcm)[:10000], "declares 64000 bytes")
    put("truncated rf64.wav", rf64[:10000], "declares 64000 bytes")
    put("endless.wav", wave_bytes(data=pcm, size=0xFFFFFFF0), "declares 4294967280 bytes")
    put("streamed.wav", wave_bytes(data=pcm, size=0xFFFFFFFF), "declares 4294967295 bytes")
    put("odd.wav", wave_bytes(data=pcm[:-1]), "whole number")
    put("7 bits.wav", wave_bytes(data=pcm, bits=7), "7-bit")
    put("0 channels.wav", wave_bytes(data=pcm, channels=0), "")
    zoo["0 channels.wav"] = "not readable|channels"
    put("9 channels.wav", wave_bytes(data=pcm[:63000], channels=9), "9 channels")
    put("65535 channels.wav", wave_bytes(data=pcm, channels=65535), "frame|channels")
    put("rate 0.wav", wave_bytes(data=pcm, rate=0), "not readable|sample rate")
    put("rate 1000.wav", wave_bytes(data=pcm, rate=1000), "sample rate 1000")
    put("rate huge.wav", wave_bytes(data=pcm, rate=2**31 - 1), "sample rate 2147483647")
    put("header only.wav", wave_bytes(data=b""), "no samples")
    put("no data chunk.wav", wave_bytes(data=b"")[:36], "without a data chunk")
    put("cut in the header.wav", wave_bytes(data=pcm)[:18], "data chunk|cut short")
    put("flipped.flac", flac[:-2000] + bytes([flac[-2000] ^ 0x55]) + flac[-1999:], "decod")
    put("truncated.flac", flac[: len(flac) // 2], "decod|declared")
    put("2^36 samples.flac", flac[:21] + bytes([flac[21] | 15, 255, 255, 255, 255]) + flac[26:],
        "cannot hold")  # fmt: skip
    put("copied on a Mac.mp3", mp3, "")
    (folder / "._copied on a Mac.mp3").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00")
    put("truncated.mp3", mp3[: len(mp3) // 2], "32000 samples were declared")
    put("web page.wav", b"<!DOCTYPE html><html><body>404</body></html>" * 50, "not readable")
    put("noise.flac", np.random.default_rng(0).bytes(5000), "not readable")
    put("empty.wav", b"", "empty")
    holes = wav.copy()
    holes[12345] = np.nan
    soundfile.write(folder / "nan.wav", holes, 16000, subtype="FLOAT")
    zoo["nan.wav"] = "sample 12345 is not a finite"
    holes[12345] = np.inf
    soundfile.write(folder / "inf.wav", holes, 16000, subtype="FLOAT")
    zoo["inf.wav"] = "sample 12345 is not a finite"
    (folder / "folder.wav").mkdir()
    zoo["folder.wav"] = "not a regular file"
    (folder / "loop.wav").symlink_to("loop.wav")
    zoo["loop.wav"] = "cannot be opened"
    zoo["missing.wav"] = "cannot be opened"
    os.mkfifo(folder / "fifo.wav")
    zoo["fifo.wav"] = "not a regular file"
    (folder / "zero.wav").symlink_to("/dev/zero")
    zoo["zero.wav"] = "not a regular file"
    hours = 10 * 3600 * 16000 * 2
    with (folder / "10 hours.wav").open("wb") as file:  # a hole in the disk, not 1 GB
        file.write(wave_bytes(data=b"", size=hours))
        file.truncate(44 + hours)
    zoo["10 hours.wav"] = "cut it into segments"
    return zoo


VISITOR = """
import json, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from mynah.tasks.corpora import audio
from mynah.tasks.corpora.utterance import Utterance
report = {}
for name in json.loads(sys.argv[2]):
    path = Path(sys.argv[1]) / name
    try:
        info = audio.probe(path)
        found = audio.read(Utterance(id="u", path=str(path), start=0.0, duration=info.duration,
                                     sample_rate=info.sample_rate))
        report[name] = len(found)
    except audio.BadAudioError as error:
        report[name] = str(error)
print(json.dumps(report))
"""


def test_zoo(tmp_path: Path) -> None:
    """Every file is classified, none hangs, none takes 2 GB (the address space is limited)."""
    zoo = make_zoo(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", VISITOR, str(tmp_path), json.dumps(list(zoo))],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report.keys() == zoo.keys()
    assert len(zoo) >= 35
    for name, expected in zoo.items():
        found = report[name]
        if not expected:
            assert found == 32000, f"{name}: {found}"
            continue
        assert isinstance(found, str), f"{name} was read: {found} samples"
        assert any(word in found for word in expected.split("|")), f"{name}: {found}"
        assert name in found


def test_a_segment_of_a_long_file_is_read(tmp_path: Path) -> None:
    size = 10 * 3600 * 16000 * 2
    with (tmp_path / "long.wav").open("wb") as file:
        file.write(wave_bytes(data=b"", size=size))
        file.truncate(44 + size)
        file.seek(44 + size - 200)
        file.write(np.arange(100, dtype="<i2").tobytes())
    got = audio.read(whole(tmp_path / "long.wav", start=36000 - 100 / 16000, duration=100 / 16000))
    assert np.array_equal(got * 32768, np.arange(100))


def test_a_block_border_is_no_border(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wav = np.random.default_rng(2).integers(-9999, 9999, 10_000).astype(np.int16)
    soundfile.write(tmp_path / "a.flac", wav, 16000)
    monkeypatch.setattr(audio, "_BLOCK", 999)
    got = audio.read(whole(tmp_path / "a.flac", start=10 / 16000, duration=9000 / 16000))
    assert np.array_equal(got * 32768, wav[10:9010])
