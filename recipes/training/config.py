"""The recipe of a pretraining run: what may be set, and every mistake in it at once.

A recipe has two parts: ``model`` overrides fields of the family's ``Config`` dataclass, ``train``
sets those of :class:`~mynah.recipes.training.values.TrainConfig`. Values come, each over the one
before, from the defaults, the recipe that ships with the variant
(``recipes/conf/pretrain/<family>/<variant>.yaml``), a YAML file and the command line. YAML holds
values only: no tags, no aliases, no code.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, create_model

from mynah.recipes.training.values import STRICT, LabelsConfig, TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A checked recipe.

    Attributes:
        family: upstream family.
        variant: name of the config that ``model`` started from.
        model: the family's own config, complete.
        train: the rest.
        labels: how frames are labelled, for families that predict labels.
        given: fields of ``model`` that were set, by a file or on the command line, and their values.
    """

    family: str
    variant: str
    model: Any
    train: TrainConfig
    labels: LabelsConfig | None = None
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return every resolved value, ready for JSON."""
        values = {
            "family": self.family,
            "variant": self.variant,
            "model": dataclasses.asdict(self.model),
            "train": self.train.model_dump(mode="json"),
        }
        if self.labels is not None:
            values["labels"] = self.labels.model_dump(mode="json")
        return values


class ConfigError(ValueError):
    """All that is wrong with a recipe, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        noun = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{noun} in the recipe:", *(f"  {p}" for p in problems)]))


# -- reading --------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Plain values only: an alias could make a small file huge, a repeated key hides a value."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"aliases are not allowed (line {mark.line + 1})")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in {k for k in keys if isinstance(k, str) and keys.count(k) > 1}:
            raise yaml.YAMLError(f"{key!r} is set twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str, source: str) -> dict[str, Any]:
    """Parse a recipe's YAML.

    Raises:
        ConfigError: not YAML, more than 1 MiB, or anything but a mapping of plain values.
    """
    if len(text) > 2**20:
        raise ConfigError([f"{source}: longer than 1 MiB"])
    try:
        values = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError([f"{source}: {' '.join(str(error).split())}"]) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError([f"{source}: expected 'model:' and 'train:', got {values!r}"])
    return values


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Parse ``key.sub=value`` arguments into a nested mapping.

    Raises:
        ConfigError: an argument without ``=`` or with a malformed key.
    """
    tree: dict[str, Any] = {}
    problems = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", key):
            problems.append(f"{text!r}: expected key.sub=value, such as train.lr=1e-3")
            continue
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or leaf in node:
            problems.append(f"{text!r}: {key} is set twice")
            continue
        try:
            node[leaf] = yaml.load(value, Loader=_Loader)
        except yaml.YAMLError as error:
            problems.append(f"{text!r}: {' '.join(str(error).split())}")
    if problems:
        raise ConfigError(problems)
    return tree


def shipped(family: str, variant: str) -> str | None:
    """Return the text of the recipe that ships with a variant, None where there is none."""
    file = resources.files("mynah.recipes") / "conf" / "pretrain" / family / f"{variant}.yaml"
    return file.read_text("utf-8") if file.is_file() else None


# -- checking -------------------------------------------------------------------------------------


def _schema(config: Any, *, labels: bool = False) -> type[BaseModel]:
    """Return the model of a whole recipe for a family's config, whose values are the defaults."""
    hints = typing.get_type_hints(type(config))
    fields = {
        field.name: (hints[field.name], getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.init
    }
    overrides = create_model("Model", __config__=STRICT, **fields)  # type: ignore[call-overload]
    parts: dict[str, Any] = {
        "model": (overrides, overrides()),
        "train": (TrainConfig, TrainConfig()),
    }
    if labels:
        parts["labels"] = (LabelsConfig, LabelsConfig())
    return create_model("Recipe", __config__=STRICT, **parts)


def _paths(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in schema.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _paths(field.annotation, f"{prefix}{name}.")


def _wrapped(values: Mapping[str, Any], schema: type[BaseModel]) -> dict[str, Any]:
    """Return values in which one number or word, where any number of them may be, is a list of it."""
    wrapped = dict(values)
    for name, field in schema.model_fields.items():
        value, kind = wrapped.get(name), field.annotation
        if isinstance(value, Mapping) and isinstance(kind, type) and issubclass(kind, BaseModel):
            wrapped[name] = _wrapped(value, kind)
        elif typing.get_args(kind)[1:] == (...,) and isinstance(value, (int, float, str)):
            wrapped[name] = [value]
    return wrapped


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _find(tree: Any, path: Sequence[str]) -> bool:
    for name in path:
        if not isinstance(tree, Mapping) or name not in tree:
            return False
        tree = tree[name]
    return True


def _closest(path: str, known: Sequence[str]) -> str:
    leaf = path.rpartition(".")[2]
    close = [p for p in known if p.rpartition(".")[2] == leaf]
    close += difflib.get_close_matches(path, known, n=3, cutoff=0.6)
    by_leaf = {p.rpartition(".")[2]: p for p in known}
    close += [by_leaf[name] for name in difflib.get_close_matches(leaf, by_leaf, n=3, cutoff=0.6)]
    close = list(dict.fromkeys(close))[:3]
    return f" Closest: {', '.join(close)}." if close else f" Known: {', '.join(known)}."


def _problems(
    error: ValidationError, schema: type[BaseModel], layers: Sequence[tuple[str, Mapping[str, Any]]]
) -> list[str]:
    known = list(_paths(schema))
    lines = []
    for item in error.errors():
        names = [str(part) for part in item["loc"]]
        # A union's branch name is part of pydantic's location but not of ours.
        path = ".".join(n for n in names if re.fullmatch(r"\w+", n))
        source = next((s for s, layer in reversed(layers) if _find(layer, names)), None)
        where = f" ({source})" if source else ""
        if item["type"] == "extra_forbidden":
            lines.append(f"{path}: unknown key{where}.{_closest(path, known)}")
        else:
            text = item["msg"].removeprefix("Value error, ")
            given = f", got {item['input']!r}" if item["type"] != "value_error" else ""
            lines.append(f"{path}: {text[0].lower()}{text[1:]}{given}{where}")
    return list(dict.fromkeys(lines))


def resolve(
    family: str,
    variant: str,
    config: Any,
    layers: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    labels: bool = False,
) -> Recipe:
    """Lay values over a family's config and the defaults, and check the whole.

    Args:
        family: upstream family.
        variant: name of the config.
        config: the variant's own config, a dataclass instance.
        layers: (where from, nested values), later ones win.
        labels: whether the family predicts labels, which makes ``labels`` a part of the recipe.

    Raises:
        ConfigError: unknown keys (with the closest known ones), values of a wrong type or range,
            NaN, and values that contradict each other: all of them at once.
    """
    schema = _schema(config, labels=labels)
    values: dict[str, Any] = {}
    for _, layer in layers:
        values = _merge(values, layer)
    try:
        checked: Any = schema.model_validate(_wrapped(values, schema))
    except ValidationError as error:
        raise ConfigError(_problems(error, schema, layers)) from None
    changed = {name: getattr(checked.model, name) for name in checked.model.model_fields_set}
    try:
        model = dataclasses.replace(config, **changed)
    except ValueError as error:
        raise ConfigError([f"model: {error}"]) from error
    return Recipe(
        family=family,
        variant=variant,
        model=model,
        train=checked.train,
        labels=checked.labels if labels else None,
        given=changed,
    )


@contextmanager
def blaming(recipe: Recipe, *kinds: type[Exception]) -> Iterator[None]:
    """Let an error of a model name the settings that it was given.

    What a model is made of calls its settings by other names: torch's GRU asks for a hidden_size
    where the recipe says model.width. Where nothing was set, the error is not the recipe's.

    Args:
        recipe: of the model.
        kinds: types of errors to take, subclasses of them not.

    Raises:
        ValueError: one of these was raised, and fields of ``model`` were set.
    """
    try:
        yield
    except kinds as error:
        if not recipe.given or type(error) not in kinds:
            raise
        given = ", ".join(f"model.{key}={value}" for key, value in recipe.given.items())
        raise ValueError(
            f"{recipe.family}/{recipe.variant} does not work with {given}: {error}"
        ) from error


def load(
    name: str, *, file: Path | None = None, overrides: Sequence[str] = (), **train: Any
) -> Recipe:
    """Return the recipe of ``family/variant`` with a file and overrides laid over it.

    Args:
        name: family, or ``family/variant`` (``base`` where no variant is named).
        file: YAML with values to change.
        overrides: ``key.sub=value`` texts, over the file.
        train: values of ``train``, over everything; None leaves a value as it is.

    Raises:
        LookupError: unknown family or variant.
        FileNotFoundError: no such file.
        ConfigError: anything else that is wrong.
    """
    from mynah import registry, upstream

    family, _, variant = name.partition("/")
    variant = variant or "base"
    module = upstream.get(family)
    if variant not in module.CONFIGS:
        raise LookupError(registry.unknown(f"variant of {family!r}:", variant, module.CONFIGS))
    layers: list[tuple[str, Mapping[str, Any]]] = []
    own = shipped(family, variant)
    if own is not None:
        source = f"recipes/conf/pretrain/{family}/{variant}.yaml"
        layers.append((source, read_yaml(own, source)))
    if file is not None:
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError([f"{file}: not UTF-8 text"]) from error
        layers.append((str(file), read_yaml(text, str(file))))
    layers.append(("command line", read_overrides(overrides)))
    options = {key: value for key, value in train.items() if value is not None}
    layers.append(("command line", {"train": options} if options else {}))
    return resolve(
        family, variant, module.CONFIGS[variant], layers, labels=module.MODEL.needs_labels
    )
