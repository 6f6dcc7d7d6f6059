"""From a voice to a recording: unsteadiness, room, colour, noise and level.

Everything here is a function of arrays and a random stream; later corpora (mixtures, noisy pairs)
are made with the same functions. Times of labels stay exact: a room's direct sound has no delay,
and the only function that moves time, :func:`waver`, returns the map.

Levels add up: 0 dry, 1 gain, 2 rooms and equalisation, 3 noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter, oaconvolve, sosfilt

from mynah.tasks.corpora.mini.script import stream

SAMPLE_RATE = 16000
LEVELS = (0, 1, 2, 3)
NOISES = ("white", "pink", "babble", "hum")
SPEECH_DBFS = -26.0  # active level of speech before gain (ITU-T P.56's usual level)
FLOOR_DBFS = -76.0  # a recorder's own noise, at every level
PEAK = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Where and with what a speaker was recorded on one occasion.

    Attributes:
        rt60: reverberation time, seconds.
        direct_to_reverb: dB.
        room_seed: seed of the room's impulse response.
        equalisation: (centre Hz, gain dB, Q) of peaking filters.
        noise: kind of noise.
        snr: dB, over the active speech.
        gain: dB.
    """

    rt60: float
    direct_to_reverb: float
    room_seed: int
    equalisation: tuple[tuple[float, float, float], ...]
    noise: str
    snr: float
    gain: float


def draw_session(seed: int, speaker: str, index: int) -> Session:
    """Return the session of that number of that speaker."""
    rng = stream(seed, "session", speaker, index)
    centres = (150.0, 600.0, 1800.0, 4500.0)
    return Session(
        rt60=float(rng.uniform(0.12, 0.42)),
        direct_to_reverb=float(rng.uniform(0.0, 9.0)),
        room_seed=int(rng.randint(2**31)),
        equalisation=tuple(
            (
                c * float(rng.uniform(0.7, 1.4)),
                float(rng.choice([-1, 1]) * rng.uniform(1.0, 7.0)),
                float(rng.uniform(0.5, 1.0)),
            )
            for c in centres
        ),
        noise=str(rng.choice(NOISES)),
        snr=float(rng.uniform(10.0, 30.0)),
        gain=float(rng.uniform(-4.0, 4.0)),
    )


def waver(samples: np.ndarray, rate: int, rng: RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Play a waveform at a slightly unsteady speed, as a voice's pitch and tempo drift and shake.

    Speed is 1 plus a slow drift (about 2 %), a faster jitter (about 1 %) and, in one utterance of
    six, a tremor of 4 to 7 Hz.

    Args:
        samples: (S,).
        rate: Hz.
        rng: draws the speed.

    Returns:
        the new waveform (S',) and, for each of its samples, the position in the old one.
    """
    n = len(samples)
    seconds = n / rate
    along = np.linspace(0, 1, n)

    def curve(hertz: float) -> np.ndarray:
        knots = np.clip(rng.normal(size=int(seconds * hertz) + 3), -2, 2)
        return np.interp(along, np.linspace(0, 1, len(knots)), knots)

    speed = 1 + 0.015 * curve(1.0) + 0.008 * curve(12.0)
    tremor, hertz, phase = rng.uniform(), rng.uniform(4, 7), rng.uniform(0, 2 * np.pi)
    if tremor < 1 / 6:
        speed += 0.015 * np.sin(phase + 2 * np.pi * hertz * seconds * along)
    position = np.concatenate([[0.0], np.cumsum(speed)])
    position = position[position <= n - 1]
    return _cubic(samples, position), position


def _cubic(samples: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Interpolate at fractional positions (Catmull-Rom)."""
    x = np.pad(samples.astype(np.float64), (1, 3), mode="edge")
    i = position.astype(np.int64)
    t = position - i
    a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


def room(session: Session) -> np.ndarray:
    """Return the impulse response (K,) of the session's room, direct sound of 1 at sample 0.

    A direct sound, ten early reflections and an exponentially decaying noise tail whose energy
    gives the session's direct-to-reverb ratio.
    """
    rng = RandomState(session.room_seed)
    n = int(session.rt60 * 0.8 * SAMPLE_RATE)
    time = np.arange(n) / SAMPLE_RATE
    tail = rng.normal(size=n) * np.exp(-6.908 * time / session.rt60)
    tail[: int(0.012 * SAMPLE_RATE)] = 0
    for _ in range(10):
        at = rng.uniform(0.002, 0.03)
        tail[int(at * SAMPLE_RATE)] += rng.choice([-1, 1]) * rng.uniform(3, 9) * np.exp(-40 * at)
    tail = lfilter([0.7, 0.3], [1.0], tail)  # walls absorb treble
    tail[0] = 0
    tail *= 10 ** (-session.direct_to_reverb / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return np.asarray(tail)


def equalise(samples: np.ndarray, bands: tuple[tuple[float, float, float], ...]) -> np.ndarray:
    """Apply peaking filters (R. Bristow-Johnson's Audio EQ Cookbook) to (S,) at 16 kHz."""
    sections = []
    for centre, gain, q in bands:
        w = 2 * np.pi * centre / SAMPLE_RATE
        a = 10 ** (gain / 40)
        alpha = np.sin(w) / (2 * q)
        b = np.array([1 + alpha * a, -2 * np.cos(w), 1 - alpha * a])
        d = np.array([1 + alpha / a, -2 * np.cos(w), 1 - alpha / a])
        sections.append(np.concatenate([b / d[0], d / d[0]]))
    filtered: np.ndarray = sosfilt(np.array(sections), samples)
    return filtered


def noise(kind: str, n: int, rng: RandomState) -> np.ndarray:
    """Return noise (n,) of unit power.

    Args:
        kind: ``white``, ``pink`` (-3 dB per octave), ``babble`` (speech-shaped, six voices rising
            and falling at the rate of syllables) or ``hum`` (mains and its harmonics over a little
            pink noise).
        n: samples.
        rng: random stream.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "white":
        out = rng.normal(size=n)
    elif kind == "pink":
        out = _pink(n, rng)
    elif kind == "babble":
        out = np.zeros(n)
        knots = max(4, int(5 * n / SAMPLE_RATE) + 2)
        for _ in range(6):
            f = rng.uniform(300, 2200)
            r = np.exp(-np.pi * 350 / SAMPLE_RATE)
            poles = [1.0, -2 * r * np.cos(2 * np.pi * f / SAMPLE_RATE), r * r]
            voice = lfilter([1.0], poles, _pink(n, rng))
            loud = np.interp(
                np.linspace(0, 1, n), np.linspace(0, 1, knots), rng.uniform(size=knots)
            )
            out += voice / (np.std(voice) + 1e-9) * loud**2
    elif kind == "hum":
        mains = rng.choice([50.0, 60.0])
        time = np.arange(n) / SAMPLE_RATE
        out = 0.25 * _pink(n, rng)
        for k in range(1, 9):
            amplitude = rng.uniform(0.3, 1.0) / k**0.7
            out += amplitude * np.sin(2 * np.pi * (k * mains * time + rng.uniform()))
    else:
        raise ValueError(f"noise must be one of {', '.join(NOISES)}, got {kind!r}")
    scaled: np.ndarray = out / np.sqrt(np.mean(out**2) + 1e-12)
    return scaled


def _pink(n: int, rng: RandomState) -> np.ndarray:
    # Two poles and zeros close to -3 dB per octave from 40 Hz to 8 kHz at 16 kHz.
    b, a = [0.0499, -0.0960, 0.0506, -0.0044], [1.0, -2.4950, 2.0173, -0.5222]
    coloured = lfilter(b, a, rng.normal(size=n + 1000))[1000:]
    return np.asarray(coloured / (np.std(coloured) + 1e-12))


def active_level(samples: np.ndarray) -> float:
    """Return the root mean square (linear) of the frames within 30 dB of the loudest."""
    if len(samples) == 0:
        return 0.0
    power = uniform_filter1d(samples.astype(np.float64) ** 2, 400, mode="nearest")[::160]
    loud = power[power >= power.max() * 1e-3]
    return float(np.sqrt(loud.mean()))


def record(samples: np.ndarray, session: Session, level: int, rng: RandomState) -> np.ndarray:
    """Return the recording (S,) of dry speech (S,) at 16 kHz, float64 within ±0.98.

    Loudness is normalised first, so it tells nothing of what is said. An input without speech gives
    the session's noise alone. ``rng`` is consumed alike at every level, so the recordings of a line
    at two levels differ by what the level adds.

    Raises:
        ValueError: an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {LEVELS}, got {level!r}")
    n = len(samples)
    floor, hiss = rng.normal(size=n), noise(session.noise, n, rng)
    gain, snr = session.gain + rng.uniform(-1.5, 1.5), session.snr + rng.uniform(-3, 3)
    target = 10 ** (SPEECH_DBFS / 20)
    loud = active_level(samples)
    out = np.asarray(samples, dtype=np.float64)
    if level >= 2 and loud > 0:
        out = oaconvolve(out, equalise(room(session), session.equalisation))[:n]
        loud = active_level(out)
    if loud > 0:
        out = out * (target / loud)
    if level >= 3:
        out = out + hiss * target * 10 ** (-snr / 20)
    if level >= 1:
        out = out * 10 ** (gain / 20)
    out = out + floor * 10 ** (FLOOR_DBFS / 20)
    peak = float(np.max(np.abs(out))) if n else 0.0
    return out * (PEAK / peak) if peak > PEAK else out
