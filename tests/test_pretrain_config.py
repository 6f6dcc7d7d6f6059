"""Recipes: each one that ships, and every way to get one wrong."""

from importlib import resources
from pathlib import Path

import pytest

from mynah import upstream
from mynah.recipes.conversion import families
from mynah.recipes.pretrain import build_model
from mynah.recipes.training import config
from mynah.recipes.training.config import ConfigError

families.register()


def shipped_names() -> list[str]:
    folder = resources.files("mynah.recipes") / "conf" / "pretrain"
    return sorted(f"{f.name}/{y.name[:-5]}" for f in folder.iterdir() for y in f.iterdir())


def problems(*overrides: str, file: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load("apc/tiny", overrides=overrides, file=file)
    return caught.value.problems


@pytest.mark.parametrize("name", shipped_names())
def test_every_recipe_that_ships_loads(name: str) -> None:
    recipe = config.load(name)
    assert recipe.model == upstream.get(recipe.family).CONFIGS[recipe.variant]
    text = config.shipped(recipe.family, recipe.variant)
    assert text is not None
    assert "model" not in config.read_yaml(text, name)  # a variant's own config is its model


def test_every_family_that_learns_ships_base_and_tiny() -> None:
    names = shipped_names()
    assert len(names) >= 9
    for family in ("apc", "mockingjay", "wav2vec2"):
        assert {f"{family}/base", f"{family}/tiny"} <= set(names)


def test_later_layers_win_and_only_name_what_they_change(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("model: {width: 32}\ntrain: {lr: 1e-3, optimizer: {eps: 1e-7}, steps: 70}\n")
    recipe = config.load("apc/tiny", file=file, overrides=["train.lr=2e-3"], steps=80, seed=None)
    assert recipe.model.width == 32
    assert recipe.model.num_mels == upstream.get("apc").CONFIGS["tiny"].num_mels
    assert (recipe.train.lr, recipe.train.steps, recipe.train.optimizer.eps) == (2e-3, 80, 1e-7)
    assert recipe.train.optimizer.betas == (0.9, 0.98)  # from the recipe that ships


def test_every_problem_is_told_at_once_with_the_closest_name(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("model: {widht: 3}\ntrain: {steps: -4, schedule: {warmpu: 1}}\n")
    told = "\n".join(problems("train.lr=nan", "lr=3", "train.optimizer.kind=rmsprop", file=file))
    assert f"model.widht: unknown key ({file}). Closest: model.width" in told
    assert "train.schedule.warmpu: unknown key" in told
    assert "Closest: train.schedule.warmup" in told
    assert "train.steps: input should be greater than or equal to 1, got -4" in told
    assert "train.lr: input should be a finite number, got 'nan' (command line)" in told
    assert "lr: unknown key (command line). Closest: train.lr" in told
    assert (
        "train.optimizer.kind: input should be 'adam', 'adamw', 'sgd' or 'lars', got 'rmsprop'"
        in told
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.crop_seconds=100", "crop_seconds must not exceed batch_seconds"),
        ("train.min_seconds=5", "min_seconds must not exceed crop_seconds"),
        ("train.schedule.warmup=1500", "leave nothing of 1500 steps"),
        ("train.schedule.warmup=1.5", "must be whole"),
        ("train.schedule.kind=tri-stage", "floor must be above 0"),
        ("train.optimizer.kind=sgd", "no use for betas (leave it at (0.9, 0.999))"),
        ("train.lr=.inf", "finite"),
        ("train.lr=.nan", "finite"),
        ("train.lr", "expected key.sub=value"),
        ("train.lr.=3", "expected key.sub=value"),
        ("train=3", "valid dictionary"),
        ("model.layers=2.5", "integer"),
        ("train.lr=!!python/object:os.system {}", "could not determine a constructor"),
    ],
)
def test_values_that_cannot_be_are_refused(override: str, message: str) -> None:
    assert message in "\n".join(problems(override))


def test_the_same_key_twice_is_refused() -> None:
    assert "set twice" in problems("train.lr=1", "train.lr=2")[0]
    assert "set twice" in problems("train=1", "train.lr=2")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [1, 1]\nb: [*a, *a]\n", "aliases are not allowed (line 2)"),
        ("train: {lr: 1, lr: 2}\n", "'lr' is set twice (line 1)"),
        ("train: !!python/object/apply:os.system [echo]\n", "could not determine a constructor"),
        ("- 1\n", "expected 'model:' and 'train:'"),
        ("train: {lr: [\n", "while parsing"),
        ("a: " + "[" * 100_000, "own.yaml"),
        ("#" * (2**20 + 1), "longer than 1 MiB"),
    ],
)
def test_yaml_holds_plain_values_only(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    assert message in problems(file=file)[0]


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("")
    assert config.load("apc/tiny", file=file) == config.load("apc/tiny")


def test_unknown_families_and_variants_name_the_closest() -> None:
    with pytest.raises(LookupError, match="Closest: cpc, apc"):
        config.load("acp/tiny")
    with pytest.raises(LookupError, match="Closest: tiny"):
        config.load("apc/tinny")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.width=-5", "apc/tiny does not work with model.width=-5: hidden_size must be"),
        ("model.dropout=2", "apc/tiny does not work with model.dropout=2.0: dropout probability"),
    ],
)
def test_a_setting_that_the_model_refuses_is_named_as_given(override: str, message: str) -> None:
    recipe = config.load("apc/tiny", overrides=[override])
    with pytest.raises(ValueError, match=message):
        build_model(recipe)


def test_only_settings_that_were_given_are_blamed() -> None:
    given = config.load("apc/tiny", overrides=["model.layers=2"])
    assert dict(given.given) == {"layers": 2}
    with (
        pytest.raises(ValueError, match="^no$"),
        config.blaming(config.load("apc/tiny"), ValueError),
    ):
        raise ValueError("no")
    with pytest.raises(UnicodeError, match="^no$"), config.blaming(given, ValueError):
        raise UnicodeError("no")


def test_one_number_is_a_list_of_one() -> None:
    recipe = config.load("hubert/tiny", overrides=["labels.clusters=10"])
    assert recipe.labels is not None
    assert recipe.labels.clusters == (10,)
    model = config.load("distilhubert/tiny", overrides=["model.teacher_layers=2"]).model
    assert model.teacher_layers == (2,)
    with pytest.raises(config.ConfigError, match="train.optimizer.betas"):
        config.load("apc/tiny", overrides=["train.optimizer.betas=0.9"])
