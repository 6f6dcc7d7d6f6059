"""What mini says, to whom it gives it and how the parts are kept apart."""

import hashlib
import json
from collections import Counter, defaultdict

import numpy as np
import pytest

from mynah.tasks.corpora.mini import commands, lexicon, plan, speakers, texts
from mynah.tasks.corpora.mini.script import PHONES, stream

SMALL = plan.plan("small", seed=0)


def rows(label):
    return [line for line in SMALL.lines if label in line.labels]


def split_of(line):
    return SMALL.speakers[line.speaker].split


def by_split(lines, value):
    found = defaultdict(set)
    for line in lines:
        found[split_of(line)].add(value(line))
    return found


def test_lexicon_knows_every_word_and_all_39_phones_are_heard():
    said = {word for line in SMALL.lines for word in line.text.split()}
    assert said <= set(texts.vocabulary())
    phones = {p for word in texts.vocabulary() for p in lexicon.pronounce(word)}
    assert phones == set(PHONES)
    assert len(PHONES) == 39
    with pytest.raises(LookupError, match=r"'xylophone' is not in lexicon\.txt"):
        lexicon.pronounce("xylophone")


def test_ids_are_unique_and_speakers_are_enough_of_both_genders_in_one_split_each():
    assert len({line.id for line in SMALL.lines}) == len(SMALL.lines)
    main = [s for s in SMALL.speakers.values() if s.accent not in speakers.FAR_ACCENTS]
    assert len(main) >= 24
    for split in ("train", "dev", "test"):
        assert Counter(s.gender for s in main if s.split == split).keys() == {"m", "f"}
    used = {line.speaker for line in SMALL.lines}
    assert used == set(SMALL.speakers)


def test_keywords_are_the_twelve_classes_said_alike_by_everyone():
    words = rows("keyword")
    classes = {*texts.KEYWORDS, texts.UNKNOWN, texts.SILENCE}
    assert len(classes) == 12
    for found in by_split(words, lambda line: line.labels["keyword"]).values():
        assert found == classes
    assert all((line.text == "") == (line.labels["keyword"] == texts.SILENCE) for line in words)
    unknown = {line.text for line in words if line.labels["keyword"] == texts.UNKNOWN}
    assert not unknown & set(texts.KEYWORDS)


def test_sid_hears_every_speaker_in_all_parts_but_no_session_twice():
    lines = rows("sid_split")
    where = defaultdict(set)
    for line in lines:
        where[line.speaker, line.labels["sid_split"]].add(line.session)
    people = {line.speaker for line in lines}
    assert len(people) == 24
    for speaker in people:
        train, dev, test = (where[speaker, s] for s in ("train", "dev", "test"))
        assert train and dev and test
        assert not train & dev and not train & test and not dev & test


def test_intents_of_dev_and_test_are_trained_and_held_out_phrasings_are_heard_in_test_only():
    said_commands = rows("intent")
    found = by_split(said_commands, lambda line: line.labels["intent"])
    assert len(found["train"]) == 28
    assert found["dev"] | found["test"] <= found["train"]
    said = by_split(said_commands, lambda line: line.text)
    kinds = Counter((split_of(c), c.labels["phrasing"]) for c in said_commands)
    assert kinds["test", "unseen"] > 10 and kinds["test", "seen"] > 10
    assert kinds["train", "unseen"] == kinds["dev", "unseen"] == 0
    unseen = {c.text for c in said_commands if c.labels["phrasing"] == "unseen"}
    assert not unseen & (said["train"] | said["dev"])
    texts_of = defaultdict(set)  # a text must not mean two things
    for intent, phrasings in commands.INTENTS.items():
        for phrase in phrasings:
            texts_of[phrase].add(intent)
    assert all(len(intents) == 1 for intents in texts_of.values())


def test_every_word_of_a_slot_sentence_has_a_tag():
    for line in rows("slots"):
        tags = line.labels["slots"].split()
        assert len(tags) == len(line.text.split())
        for before, tag in zip(["O", *tags], tags, strict=False):
            if tag.startswith("I-"):
                assert before[2:] == tag[2:]
    found = by_split(rows("slots"), lambda line: line.labels["domain"])
    assert found["test"] <= found["train"]


def test_no_read_sentence_is_in_two_splits_and_each_has_its_translation():
    found = by_split(rows("translation"), lambda line: line.text)
    assert not found["train"] & found["test"] and not found["dev"] & found["test"]
    german = [line.labels["translation"] for line in rows("translation")]
    assert all(text[0].isupper() and text.endswith(".") for text in german)


def test_german_is_declined():
    rng = np.random.RandomState(0)
    pairs = {}
    for _ in range(3000):
        sentence = texts.sentence(rng)
        pairs[sentence.text] = sentence.translation
    for english, german in pairs.items():
        if " boy " in english:
            assert "Junge " in german  # the subject stays nominative
        if english.startswith("the old teacher"):
            assert german.startswith("Der alte Lehrer")
        if english.startswith("a young child"):
            assert german.startswith("Ein junges Kind")
        if english.endswith("the heavy key") or " the heavy key " in english:
            assert "den schweren Schlüssel" in german
        if english.startswith("they say that"):
            assert german.startswith("Sie sagen, dass") and german.endswith("t.")


def test_emotion_is_not_in_the_text_and_is_balanced():
    lines = rows("emotion")
    counts = Counter((line.speaker, line.labels["emotion"]) for line in lines)
    assert len(counts) == 24 * 4 and set(counts.values()) == {4}
    found = defaultdict(set)
    for line in lines:
        found[line.labels["emotion"]].add(line.text)
    assert all(said == set(texts.EMOTION_TEXTS) for said in found.values())


def test_emotions_differ_on_average_but_overlap():
    pitch = defaultdict(list)
    for line in rows("emotion"):
        pitch[line.labels["emotion"]].append(line.prosody.pitch)
    assert np.mean(pitch["happy"]) > np.mean(pitch["neutral"]) + 4
    assert np.mean(pitch["sad"]) < np.mean(pitch["neutral"]) - 3
    assert min(pitch["happy"]) < max(pitch["neutral"])


def test_everyone_reads_the_parallel_sentences():
    said = defaultdict(dict)
    for line in rows("parallel"):
        said[line.speaker][line.labels["parallel"]] = line.text
    assert len(said) == 24
    assert all(own == said["train000"] for own in said.values())


def test_queries_occur_in_a_document_of_their_split_and_accents_are_heard_nowhere_else():
    documents = by_split(
        [x for x in SMALL.lines if x.subset == "sentences"], lambda line: line.text
    )
    for line in rows("term"):
        assert split_of(line) in ("dev", "test")
        assert any(f" {line.text} " in f" {d} " for d in documents[split_of(line)])
    far = {n for n, s in SMALL.speakers.items() if s.accent in speakers.FAR_ACCENTS}
    assert {line.subset for line in SMALL.lines if line.speaker in far} == {"accent"}


def test_the_plan_depends_on_the_seed_and_nothing_else():
    assert plan.plan("tiny", seed=3) == plan.plan("tiny", seed=3)
    assert plan.plan("tiny", seed=3).lines != plan.plan("tiny", seed=4).lines
    with pytest.raises(LookupError, match="size must be one of tiny, small"):
        plan.plan("huge")


def test_streams_are_independent_of_each_other_and_frozen():
    assert stream(0, "a", "b").randint(10**6) == 893526
    assert stream(0, "ab").randint(10**6) != stream(0, "a", "b").randint(10**6)


def test_the_small_plan_is_that_of_generator_version_1():
    """Whoever changes what is said must raise ``generate.VERSION`` and mend this hash."""
    facts = [[x.id, x.speaker, x.text, x.session, sorted(x.labels.items())] for x in SMALL.lines]
    digest = hashlib.sha256(json.dumps(facts, ensure_ascii=False).encode()).hexdigest()
    assert digest[:16] == "bb6a32a312307198"
