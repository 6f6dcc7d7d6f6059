"""What ``mynah info`` says of tasks is what the protocol says."""

import pytest

from mynah import tasks
from mynah.downstream import conversion, vocoders
from mynah.downstream.conversion import adain
from mynah.downstream.conversion.core.contract import Sizes
from mynah.downstream.core.melspec import MelSpec
from mynah.recipes import cli, info_conversion
from mynah.recipes.info import describe_task, head_size, recipe_values
from mynah.recipes.training import config


def lstm(inputs: int, hidden: int) -> int:
    return 4 * hidden * (inputs + hidden + 2)


def linear(inputs: int, outputs: int) -> int:
    return outputs * (inputs + 1)


def blstm_ctc(symbols: int) -> int:
    layers = 2 * lstm(1024, 1024) + 2 * lstm(2048, 1024)
    return linear(768, 1024) + layers + linear(2048, symbols)


def xvector(speakers: int) -> int:
    widths = [(5 * 512, 512), (3 * 512, 512), (3 * 512, 512), (512, 512), (512, 1500)]
    body = linear(768, 512) + sum(linear(*width) for width in widths)
    return body + linear(3000, 512) + linear(512, 512) + 512 * speakers


def masks(sources: int) -> int:
    body = 2 * lstm(768, 896) + 4 * lstm(1792, 896)
    return body + sources * linear(1792, 257)


@pytest.mark.parametrize(
    ("name", "parameters", "outputs"),
    [
        ("ks", linear(768, 256) + linear(256, 12), 12),
        ("sid", linear(768, 256) + linear(256, 1251), 1251),
        ("er", linear(768, 256) + linear(256, 4), 4),
        ("ic", linear(768, 256) + linear(256, 24), 24),
        ("pr", linear(768, 256) + linear(256, 74), 74),
        ("asr", blstm_ctc(32), 32),
        ("sf", blstm_ctc(109), 109),
        ("asv", xvector(1211), 1211),
        ("sd", lstm(768, 512) + linear(512, 2), 2),
        ("se", masks(1), 1),
        ("ss", masks(2), 2),
    ],
)
def test_heads_have_the_sizes_of_the_protocol(name: str, parameters: int, outputs: int) -> None:
    assert head_size(name) == (parameters, outputs)
    (said,) = [value for key, value in describe_task(name) if key == "head"]
    assert f"{parameters:,} parameters" in said


@pytest.mark.parametrize("name", ["apc/tiny", "hubert/tiny", "code_bert/tiny"])
def test_what_a_recipe_takes_is_listed_as_overrides_are_spelt(name: str) -> None:
    lines = recipe_values(name)
    keys = {key for key, _ in lines}
    assert {"model.dropout", "train.lr", "train.schedule.kind", "train.optimizer.betas"} <= keys
    assert ("labels.clusters" in keys) == (name == "hubert/tiny")
    overrides = [f"{key}={value}" for key, value in lines]
    assert config.load(name, overrides=overrides) == config.load(name)


@pytest.mark.parametrize("name", tasks.available())
def test_every_task_is_described(name: str) -> None:
    lines = dict(describe_task(name))
    assert lines["name"] == name
    assert {"protocol superb", "protocol fixed", "licence", "citation", "about"} <= set(lines)


@pytest.mark.parametrize("name", [*conversion.available(), *vocoders.available()])
def test_every_converter_and_vocoder_is_described(name: str) -> None:
    package = conversion if name in conversion.available() else vocoders
    lines = dict(info_conversion.describe(name))
    assert lines["name"] == name
    for variant in getattr(package.get(name), "CONFIGS", {}):
        assert f"variant {variant}" in lines
    assert lines["about"] == (package.get(name).__doc__ or "").strip()


def test_a_variant_is_described_as_pretrain_calls_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "vc/adain-tiny"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "trained by `mynah pretrain vc/adain-tiny`" in shown
    assert "model.noise_snr=[5,20]" in shown
    model = adain.CONVERTER(adain.CONFIGS["adain-tiny"], Sizes(dim=80, spec=MelSpec(), speakers=9))
    assert f"variant adain-tiny {sum(p.numel() for p in model.parameters()):,} parameters" in shown


def test_untrained_methods_have_no_parameters() -> None:
    assert "parameters" not in dict(info_conversion.describe("vc/mkl"))["variant mkl"]


def test_an_unknown_name_names_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "vc/adian"]) == 2
    assert "Closest: vc/adain" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["exp/nowhere", "/tmp/no/where", "./x/model.safetensors"])
def test_a_path_that_is_not_there_is_called_one(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", name]) == 2
    assert f"no such folder: {name}" in capsys.readouterr().err


def test_an_unknown_name_lists_each_converter_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "nosuch"]) == 2
    said = capsys.readouterr().err
    assert "unknown upstream, task or converter 'nosuch'. Available:" in said
    assert said.count("vc/adain,") == 1
    assert " adain," not in said
