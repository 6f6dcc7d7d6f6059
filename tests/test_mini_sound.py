"""mini's engines and acoustics, listened to by measuring."""

import librosa
import numpy as np
import pytest

from mynah.tasks.corpora.mini import acoustics, espeak, phones, speakers, texts
from mynah.tasks.corpora.mini.formant import Formant
from mynah.tasks.corpora.mini.script import SILENCE, VOWELS, Line, stream

needs_espeak = pytest.mark.skipif(not espeak.available(), reason="needs the extra synth")
BACKENDS = [Formant, pytest.param(espeak.Espeak, marks=needs_espeak)]
PEOPLE = [speakers.draw(0, f"p{i}", "train", "mf"[i % 2]) for i in range(4)]


def line(text, name="x", **prosody):
    manner = speakers.EMOTIONS[prosody["emotion"]] if "emotion" in prosody else speakers.Prosody()
    return Line(id=name, subset="x", speaker="p", text=text, session=0, prosody=manner)


def sentences(count):
    rng = np.random.RandomState(5)
    return [texts.sentence(rng).text for _ in range(count)]


@pytest.fixture(params=BACKENDS, scope="module")
def engine(request):
    running = request.param()
    yield running
    running.close()


def median_f0(speech):
    f0 = librosa.yin(speech.samples, fmin=50, fmax=500, sr=speech.rate)
    power = librosa.feature.rms(y=speech.samples)[0]
    return float(np.median(f0[power > np.median(power)]))


def test_phones_are_contiguous_and_words_are_those_of_the_text(engine):
    for text in sentences(4):
        speech = engine.speak(PEOPLE[0], line(text), 1)
        assert speech.phones[0][1] == 0 and speech.phones[-1][2] == len(speech.samples)
        for (_, _, end), (_, start, _) in zip(speech.phones, speech.phones[1:], strict=False):
            assert end == start
        assert all(b > a for _, a, b in speech.phones)
        assert [w for w, _, _ in speech.words] == text.split()
        assert all(a < b for _, a, b in speech.words)
        assert len(speech.samples) / speech.rate / len(text.split()) < 0.8


def test_f0_lies_in_the_speakers_range(engine):
    for person in PEOPLE:
        found = median_f0(engine.speak(person, line(sentences(1)[0]), 1))
        assert person.pitch[0] * 0.85 < found < person.pitch[1] * 1.15


def test_moods_are_heard(engine):
    text = texts.EMOTION_TEXTS[0]
    made = {m: engine.speak(PEOPLE[1], line(text, emotion=m), 1) for m in speakers.EMOTIONS}
    f0 = {mood: median_f0(speech) for mood, speech in made.items()}
    assert f0["happy"] > f0["neutral"] * 1.05 > f0["sad"] * 1.1
    assert len(made["sad"].samples) > len(made["neutral"].samples) > len(made["angry"].samples)

    def treble(speech):
        power = np.abs(np.fft.rfft(speech.samples)) ** 2
        hertz = np.fft.rfftfreq(len(speech.samples), 1 / speech.rate)
        return power[(hertz > 1500) & (hertz < 4000)].sum() / power[hertz < 1500].sum()

    assert treble(made["angry"]) > 1.3 * treble(made["sad"])


def test_phone_times_match_the_sound(engine):
    """Vowels are loud, pauses silent, and S has its energy high, AA low: labels are in place."""
    loud, high = {}, {}
    for k, text in enumerate(sentences(8)):
        speech = engine.speak(PEOPLE[k % 4], line(text), 1)
        level = np.sqrt(np.mean(speech.samples**2))
        for symbol, a, b in speech.phones:
            part = speech.samples[a:b]
            loud.setdefault(symbol, []).append(np.sqrt(np.mean(part**2)) / level)
            power = np.abs(np.fft.rfft(part)) ** 2 + 1e-12
            hertz = np.fft.rfftfreq(len(part), 1 / speech.rate)
            high.setdefault(symbol, []).append(power[hertz > 3500].sum() / power.sum())
    assert np.median(loud[SILENCE]) < 0.25
    vowels = [x for v in VOWELS for x in loud.get(v, [])]
    stops = [x for s in "PTK" for x in loud.get(s, [])]
    assert np.median(vowels) > 1.5 * np.median(stops)
    assert np.median(high["S"]) > 0.5
    assert max(np.median(high[v]) for v in ("AE", "EH", "OW") if v in high) < 0.3


def test_speech_does_not_depend_on_what_was_said_before(engine):
    jobs = [(p, line(t), k) for k, t in enumerate(sentences(3)) for p in PEOPLE[:2]]
    first = [engine.speak(*job) for job in jobs]
    second = [engine.speak(*job) for job in reversed(jobs)][::-1]
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.samples, b.samples)
        assert a.phones == b.phones and a.words == b.words


def test_accents_and_speakers_differ(engine):
    said = line("the old teacher finds the car".replace("car", "boat"))
    person = speakers.draw(0, "q", "test", "m", "us")
    there = speakers.draw(0, "q", "test", "m", "caribbean")
    assert person.pitch == there.pitch
    a, b = engine.speak(person, said, 1), engine.speak(there, said, 1)
    assert len(a.samples) != len(b.samples) or not np.allclose(a.samples, b.samples)


@needs_espeak
def test_espeak_reports_what_it_refuses():
    running = espeak.Espeak()
    try:
        with pytest.raises(ValueError, match="no voice 'gmw/none'"):
            running._ask(
                {"voice": "gmw/none", "text": "a", "rate": 170, "pitch": 50, "range": 50, "seed": 1}
            )
        assert "1.52" in running.version and "0.2.4" in running.version
    finally:
        running.close()
    assert not running._folder.exists()


@needs_espeak
def test_an_engine_that_dies_is_reported():
    running = espeak.Espeak()
    running._process.kill()
    with pytest.raises(RuntimeError, match="process ended with status"):
        running.speak(PEOPLE[0], line("yes"), 1)
    running.close()


def test_without_the_wheel_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "espeakng_loader", None)
    with pytest.raises(ValueError, match=r"pip install 'mynah\[synth\]'.*backend='formant'"):
        espeak.Espeak()


def test_align_returns_closures_to_stops_splits_joined_words_and_merged_vowels():
    samples = np.ones(1000, dtype=np.float32)
    samples[250:300] = 0.0  # closure before the t of "at"
    events = [
        ("'a", 100),
        ("t", 300),
        ("D", 400),
        ("@2", 450),
        ("b", 500),
        ("'e@", 600),
        ("_:", 900),
    ]
    speech = espeak.align("at the bear", samples, 1000, events, [(1, 100), (8, 500)], rhotic=True)
    assert speech.phones == (
        ("SIL", 0, 100),
        ("AE", 100, 250),
        ("T", 250, 400),
        ("DH", 400, 450),
        ("AH", 450, 500),
        ("B", 500, 600),
        ("EH", 600, 780),
        ("R", 780, 900),
        ("SIL", 900, 1000),
    )
    assert speech.words == (("at", 100, 400), ("the", 400, 500), ("bear", 500, 900))


def test_mnemonics_follow_the_accent():
    assert phones.arpabet("'A@", "k", rhotic=True) == ("AA", "R")
    assert phones.arpabet("'A@", "k", rhotic=False) == ("AA",)
    assert phones.arpabet("'i@", "r", rhotic=True) == ("IH",)
    assert phones.arpabet("@L", "", rhotic=True) == ("AH", "L")
    assert phones.arpabet(";", "", rhotic=True) == ()
    with pytest.raises(LookupError, match="'Q9' has no ARPAbet phone"):
        phones.arpabet("Q9", "", rhotic=True)


def test_waver_keeps_times_exact():
    samples = np.zeros(16000)
    clicks = [2000, 8000, 14000]
    samples[clicks] = 1.0
    moved, position = acoustics.waver(samples, 16000, np.random.RandomState(2))
    assert len(moved) == len(position)
    assert abs(len(moved) / len(samples) - 1) < 0.05
    for click in clicks:
        at = round(float(np.interp(click, position, np.arange(len(position)))))
        near = slice(at - 40, at + 40)
        assert abs(int(np.argmax(np.abs(moved[near]))) - 40) <= 1
    assert np.abs(np.diff(position) - 1).max() > 0.005


def test_room_has_its_direct_sound_first_and_its_ratio():
    for k in range(5):
        session = acoustics.draw_session(0, "s", k)
        response = acoustics.room(session)
        assert response[0] == 1.0
        ratio = -10 * np.log10(np.sum(response[1:] ** 2))
        assert ratio == pytest.approx(session.direct_to_reverb, abs=1e-6)
        assert np.sum(response[len(response) // 2 :] ** 2) < 0.1 * np.sum(response[1:] ** 2)


def test_equaliser_lifts_its_band():
    rng = np.random.RandomState(0)
    x = rng.normal(size=16000)
    y = acoustics.equalise(x, ((1000.0, 6.0, 1.0),))
    gain = 20 * np.log10(np.abs(np.fft.rfft(y)) / np.abs(np.fft.rfft(x)))
    assert np.median(gain[990:1010]) == pytest.approx(6.0, abs=0.2)
    assert abs(np.median(gain[7000:7900])) < 0.3


@pytest.mark.parametrize("kind", acoustics.NOISES)
def test_noise_has_unit_power_and_its_colour(kind):
    x = acoustics.noise(kind, 64000, np.random.RandomState(1))
    assert np.mean(x**2) == pytest.approx(1.0, rel=1e-6)
    power = (np.abs(np.fft.rfft(x.reshape(-1, 16000), axis=1)) ** 2).mean(0)
    low, middle, high = (10 * np.log10(power[a : 2 * a].mean()) for a in (150, 600, 2400))
    if kind == "white":
        assert abs(low - high) < 1
    else:
        assert low > middle > high
    if kind == "pink":
        assert low - high == pytest.approx(12.0, abs=1.5)  # four octaves


def test_unknown_noise_and_level_are_refused():
    with pytest.raises(ValueError, match="noise must be one of white"):
        acoustics.noise("rain", 10, np.random.RandomState(0))
    session = acoustics.draw_session(0, "s", 0)
    with pytest.raises(ValueError, match="level must be one of"):
        acoustics.record(np.zeros(10), session, 4, np.random.RandomState(0))


def test_levels_add_up_and_stay_aligned():
    rng = np.random.RandomState(3)
    speech = np.concatenate([np.zeros(3200), rng.normal(size=16000), np.zeros(3200)])
    session = acoustics.draw_session(0, "s", 1)
    made = [
        acoustics.record(speech, session, level, stream(0, "recording")) for level in (0, 1, 2, 3)
    ]
    reference = 10 ** (acoustics.SPEECH_DBFS / 20)
    assert acoustics.active_level(made[0]) == pytest.approx(reference, rel=0.02)
    gain = 20 * np.log10(acoustics.active_level(made[1]) / acoustics.active_level(made[0]))
    assert abs(gain - session.gain) <= 1.6
    noise = np.std((made[3] - made[2])[:3000])
    snr = 20 * np.log10(acoustics.active_level(made[2]) / noise)
    assert abs(snr - session.snr) < 4.5
    for wet in made[1:]:
        lag = np.argmax(np.correlate(wet, made[0], mode="same")) - len(speech) // 2
        assert lag == 0


def test_loudness_tells_nothing_and_nothing_clips():
    session = acoustics.draw_session(0, "s", 2)
    speech = np.random.RandomState(0).normal(size=8000)
    quiet, loud = (acoustics.record(speech * k, session, 3, stream(0, "r")) for k in (0.001, 100.0))
    assert np.allclose(quiet, loud, atol=1e-9)
    spiky = speech.copy()
    spiky[4000] = 1e4
    assert np.abs(acoustics.record(spiky, session, 0, stream(0, "r"))).max() <= 0.981
