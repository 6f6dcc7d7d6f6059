"""The corpus recipes: what their dry runs would do are commands that exist, with options that parse."""

import importlib
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import tyro

from mynah.recipes import (
    bench,
    cli,
    convert,
    judge,
    judge_methods,
    pairs,
    prepare,
    prepare_options,
    pretrain,
)
from mynah.tasks.corpora import official

ROOT = Path(__file__).resolve().parents[1]


def dry_run(name: str, *options: str) -> list[list[str]]:
    """Return the commands of a dry run, word by word."""
    done = subprocess.run(
        ["bash", str(ROOT / "egs" / name / "run.sh"), "--dry-run", "true", *options],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith("==")]
    return [shlex.split(line) for line in lines]


def parsed(words: list[str]) -> object:
    """Parse a command as ``mynah`` would."""
    start = words.index("mynah") + 1
    command = cli.resolve(words[start:])
    assert command is not None, words
    name, rest = command
    module = importlib.import_module(f"mynah.recipes.{cli.COMMANDS[name][0]}")
    return tyro.cli(module.Args, args=rest)


def test_librispeech(tmp_path: Path) -> None:
    options = ["--corpus", "LS", "--parts", "train-clean-100 dev-clean", "--exp", str(tmp_path)]
    commands = dry_run("librispeech", *options, "--model", "hubert/base", "--iterations", "2")
    assert [words[1] for words in commands] == ["prepare", "prepare", "pretrain", "check"]
    for words in commands:
        parsed(words)
    launched = dry_run("librispeech", *options, "--gpus", "4", "--stage", "2", "--stop-stage", "2")
    assert launched[0][:4] == ["torchrun", "--nproc-per-node", "4", "-m"]
    parsed(launched[0])


def test_fsdd(tmp_path: Path) -> None:
    commands = dry_run("fsdd", "--corpus", "fsdd", "--exp", str(tmp_path), "--seeds", "0 1")
    assert [words[1] for words in commands] == ["prepare", "gain"]
    for words in commands:
        parsed(words)


# Recipe -> options, and what each `mynah prepare` and each `mynah bench` of it is asked for.
OFFICIAL: dict[str, tuple[list[str], list[list[str]], list[str]]] = {
    "librispeech_asr": ([], [["librispeech"]], ["asr"]),
    "speech_commands": ([], [["speech_commands"]], ["ks"]),
    "voxceleb1": ([], [["voxceleb1"]], ["sid asv"]),
    "librimix": (
        ["--diarisation", "KALDI"],
        [["librimix", "--variant", "ss"], ["librimix", "--variant", "sd", "--audio-root"]],
        ["ss", "sd"],
    ),
    "fluent_speech_commands": ([], [["fluent_speech_commands"]], ["ic"]),
    "iemocap": ([], [["iemocap"]], ["er"]),
    "audio_snips": ([], [["audio_snips"]], ["sf"]),
    "quesst14": ([], [["quesst14"]], ["qbe"]),
    "voicebank_demand": ([], [["voicebank_demand"]], ["se"]),
    "covost2": ([], [["covost2"]], ["st"]),
    "commonvoice": (
        ["--languages", "es ar"],
        [["commonvoice", "--variant", "es"], ["commonvoice", "--variant", "ar"]],
        ["ood_asr"],
    ),
    "sbcsae": ([], [["sbcsae"]], ["ood_asr"]),
}


def test_vcc2020_trains_a_converter_to_each_target(tmp_path: Path) -> None:
    options = ["--corpus", "SRC", "--upstream", "hubert/base", "--vocoder", "griffin_lim"]
    commands = dry_run("vcc2020", "--exp", str(tmp_path), *options, "--asv", "H.safetensors")
    assert commands[0][1:] == ["prepare", "vcc2020", "SRC", str(tmp_path / "corpus")]
    lists = parsed(commands[1])
    assert isinstance(lists, pairs.Args)
    assert (lists.sources, lists.references) == ("role=source", "role=reference")
    assert [words[1] for words in commands[2:]] == [*("pretrain", "convert") * 4, "judge"]
    for words, target in zip(commands[2:-1:2], ("TEF1", "TEF2", "TEM1", "TEM2"), strict=True):
        args = parsed(words)
        assert isinstance(args, pretrain.Args)
        assert (args.model, args.teacher, args.speaker) == (
            "vc/taco2_ar",
            "hubert/base",
            (target,),
        )
    for words in commands[3:-1:2]:
        args = parsed(words)
        assert isinstance(args, convert.Args)
        assert args.vocoder == "griffin_lim"
    args = parsed(commands[-1])
    assert isinstance(args, judge.Args)
    assert args.list == tmp_path / "lists/judge.tsv"


def test_vcc2020_judges_what_was_converted_elsewhere(tmp_path: Path) -> None:
    options = ["--list", "L.tsv", "--asv", "H.safetensors", "--protocol", "superb"]
    made, _, judged = dry_run("vcc2020", "--exp", str(tmp_path), "--corpus", "SRC", *options)
    assert made[1:] == ["prepare", "vcc2020", "SRC", str(tmp_path / "corpus")]
    args = parsed(judged)
    assert isinstance(args, judge.Args)
    assert (args.list, args.asv) == (Path("L.tsv"), Path("H.safetensors"))
    assert (args.protocol, args.asr, args.real) == ("superb", None, tmp_path / "corpus")


def test_vctk(tmp_path: Path) -> None:
    options = ["--corpus", "SRC", "--exp", str(tmp_path), "--methods", "autoencoder vq"]
    made, *trained, judged = dry_run("vctk", *options, "--teacher", "fbank", "--pairs", "7")
    args = parsed(made)
    assert isinstance(args, prepare.Args)
    prepare_options.check(args)
    assert [words[2] for words in trained] == ["vc/autoencoder", "vc/vq"]
    for words in trained:
        parsed(words)
    args = parsed(judged)
    assert isinstance(args, judge_methods.Args)
    runs = tuple(str(tmp_path / "run" / name) for name in ("autoencoder", "vq"))
    assert args.methods == ("stats", "mkl", "knn", *runs)
    assert (args.split, args.pairs, args.sentence) == (("test",), 7, "text")


def test_mini_vc(tmp_path: Path) -> None:
    commands = dry_run("mini_vc", "--exp", str(tmp_path), "--methods", "adain")
    assert [words[1:3] for words in commands[:2]] == [
        ["prepare", "mini"],
        ["pretrain", "vc/adain-tiny"],
    ]
    for words in commands:
        parsed(words)
    only = ["--exp", str(tmp_path), "--stage", "4", "--stop-stage", "4"]
    (tmp_path / "audio").mkdir()  # of a run that was cut short
    assert [words[1:3] for words in dry_run("mini_vc", *only)] == [["judge", "methods"]]
    (tmp_path / "methods.json").write_text("{}")
    assert dry_run("mini_vc", *only) == []


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_corpora(name: str, tmp_path: Path) -> None:
    options, prepared, tasks = OFFICIAL[name]
    models = ["--models", "fbank hubert/base", "--protocol", "superb"]
    commands = dry_run(name, "--corpus", "SRC", "--exp", str(tmp_path), *models, *options)
    found = [words for words in commands if words[1] == "prepare"]
    assert len(found) == len(prepared)
    for words, wanted in zip(found, prepared, strict=True):
        args = parsed(words)
        assert isinstance(args, prepare.Args)
        assert set(wanted) <= set(words)
        prepare_options.check(args)  # the name and the kind exist, the options go together
    benches = [parsed(words) for words in commands if words[1] == "bench"]
    assert [" ".join(args.tasks) for args in benches if isinstance(args, bench.Args)] == tasks
    for args in benches:
        assert isinstance(args, bench.Args)
        assert (args.specs, args.protocol) == (("fbank", "hubert/base"), "superb")
        assert {str(path) for path in args.corpus} <= {words[4] for words in found}
    assert [words[1] for words in commands][-1] == "table"
    parsed(commands[-1])


def test_every_official_corpus_has_a_recipe() -> None:
    covered = {wanted[0] for _, prepared, _ in OFFICIAL.values() for wanted in prepared}
    assert covered | {"vcc2020", "vctk"} == set(official.available())


@pytest.mark.parametrize("name", OFFICIAL)
def test_what_is_prepared_is_not_prepared_again(name: str, tmp_path: Path) -> None:
    options = ["--corpus", "SRC", "--exp", str(tmp_path), *OFFICIAL[name][0]]
    only = ["--stage", "1", "--stop-stage", "1"]
    for words in dry_run(name, *options, *only):
        out = Path(words[4])
        out.mkdir(parents=True)
        (out / "corpus.json").write_text("{}")
    assert dry_run(name, *options, *only) == []
    assert dry_run(name, *options)[0][1] == "bench"


@pytest.mark.parametrize("name", [*OFFICIAL, "vcc2020", "vctk"])
def test_options_for_prepare_are_handed_on(name: str, tmp_path: Path) -> None:
    options = ["--corpus", "SRC", "--exp", str(tmp_path), *OFFICIAL.get(name, ([],))[0]]
    handed = ["--prepare", "--max-bad 0.1 --audio-root A"]
    found = [w for w in dry_run(name, *options, *handed) if w[1] == "prepare"]
    assert found
    for words in found:
        args = parsed(words)
        assert isinstance(args, prepare.Args)
        assert args.max_bad == 0.1
        assert args.audio_root[-1] == "A"


def test_diarisation_alone(tmp_path: Path) -> None:
    options = ["--corpus", "SRC", "--exp", str(tmp_path), "--tasks", "sd"]
    made, benched, _ = dry_run("librimix", *options, "--diarisation", "KALDI")
    assert made[2:5] == ["librimix", "KALDI", str(tmp_path / "sd")]
    args = parsed(benched)
    assert isinstance(args, bench.Args)
    assert (args.tasks, args.corpus) == (("sd",), (tmp_path / "sd",))
    script = str(ROOT / "egs" / "librimix" / "run.sh")
    without = subprocess.run(["bash", script, *options], capture_output=True, text=True)
    assert (without.returncode, "sd needs --diarisation" in without.stderr) == (2, True)


def test_phones_need_a_lexicon(tmp_path: Path) -> None:
    options = ["--corpus", "SRC", "--exp", str(tmp_path), "--lexicon", "lexicon.txt"]
    args = parsed(dry_run("librispeech_asr", *options, "--stage", "2", "--stop-stage", "2")[0])
    assert isinstance(args, bench.Args)
    assert (args.tasks, str(args.lexicon)) == (("pr", "asr"), "lexicon.txt")


@pytest.mark.parametrize("name", ["librispeech", "fsdd", "vcc2020", "vctk", *OFFICIAL])
def test_what_is_missing_or_unknown_is_said(name: str) -> None:
    script = str(ROOT / "egs" / name / "run.sh")
    assert os.access(script, os.X_OK)
    without = subprocess.run(["bash", script], capture_output=True, text=True)
    assert without.returncode == 2
    assert "--corpus is needed" in without.stderr
    unknown = subprocess.run(["bash", script, "--nope", "1"], capture_output=True, text=True)
    assert unknown.returncode == 2
    assert "--stop-stage" in unknown.stderr
    valueless = subprocess.run(["bash", script, "--corpus"], capture_output=True, text=True)
    assert (valueless.returncode, valueless.stderr) == (2, unknown.stderr)
    given = ["bash", script, "--corpus", "X", "--stage", "one"]
    named = subprocess.run(given, capture_output=True, text=True)
    assert (named.returncode, named.stderr) == (2, "--stage and --stop-stage want numbers\n")
    given = ["bash", script, "--corpus", "X", "--dry-run", "maybe"]
    named = subprocess.run(given, capture_output=True, text=True)
    assert (named.returncode, named.stderr) == (2, "--dry-run wants true or false\n")


def test_a_failing_command_ends_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mynah").write_text(
        "#!/bin/sh\necho $1 >> " + str(tmp_path / "called") + "\nexit 3\n"
    )
    (tmp_path / "mynah").chmod(0o755)
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    given = ["bash", str(ROOT / "egs/iemocap/run.sh"), "--corpus", "X", "--exp", str(tmp_path)]
    assert subprocess.run(given, env=path, capture_output=True).returncode == 3
    assert (tmp_path / "called").read_text() == "prepare\n"


def test_mini(tmp_path: Path) -> None:
    commands = dry_run("mini", "--exp", str(tmp_path / "mini"), "--steps", "7")
    trained = [words[2:] for words in commands if words[1] == "pretrain"]
    assert [words[0] for words in trained] == ["apc/tiny", "mockingjay/tiny", "wav2vec2/tiny"]
    assert all(words[words.index("--steps") + 1] == "7" for words in trained)
    for words in commands:
        if words[0] == "mynah":
            parsed(words)
    assert not (tmp_path / "mini").exists()
