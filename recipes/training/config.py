"""The recipe of a pretraining run: what may be set, and every mistake in it at once.

A recipe has two parts: ``model`` overrides fields of the family's ``Config`` dataclass, ``train``
sets what is below. Values come, each over the one before, from the defaults, the recipe that ships
with the variant (``recipes/conf/pretrain/<family>/<variant>.yaml``), a YAML file and the command
line. YAML holds values only: no tags, no aliases, no code.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

# What may differ between a run and its resumption: none of it can change a weight.
HARMLESS = frozenset({"log_every", "save_every", "keep", "patience", "workers", "cache_mb"})


class OptimizerConfig(BaseModel):
    """Adam, AdamW with decoupled weight decay, SGD with momentum, or LARS for large batches."""

    model_config = STRICT

    kind: Literal["adam", "adamw", "sgd", "lars"] = "adamw"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.999,
    )
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    decay_vectors: bool = False
    """Whether biases, norms and other vectors decay as well (and, by LARS, are adapted)."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of sgd and lars."""
    trust: Positive = 0.001
    """Of lars: the share of a weight's norm that an update of rate 1 has."""

    @model_validator(mode="after")
    def _options_belong_to_the_kind(self) -> Self:
        adam = self.kind in ("adam", "adamw")
        useless = {"momentum"} if adam else {"betas", "eps"}
        useless |= {"trust"} - ({"trust"} if self.kind == "lars" else set())
        fields = type(self).model_fields
        wrong = sorted(name for name in useless if getattr(self, name) != fields[name].default)
        if wrong:
            told = ", ".join(f"{name} (leave it at {fields[name].default})" for name in wrong)
            raise ValueError(f"kind {self.kind} has no use for {told}")
        return self


class ScheduleConfig(BaseModel):
    """Learning rate over the run; lengths below 1 are shares of the steps, else numbers of steps."""

    model_config = STRICT

    kind: Literal["constant", "linear", "cosine", "tri-stage"] = "linear"
    warmup: Annotated[float, Field(ge=0)] = 0.07
    hold: Annotated[float, Field(ge=0)] = 0.0
    """Length at the peak between warm-up and decay."""
    start: Share = 0.0
    """Share of the peak from which the warm-up starts."""
    floor: Share = 0.0
    """Share of the peak at which the decay ends."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "tri-stage" and self.floor == 0:
            raise ValueError(
                "a tri-stage decay is exponential: floor must be above 0, such as 0.05"
            )
        for name in ("warmup", "hold"):
            value = getattr(self, name)
            if value >= 1 and value != int(value):
                raise ValueError(f"{name} of 1 or more counts steps and must be whole, got {value}")
        return self


class LabelsConfig(BaseModel):
    """How frames get the labels that HuBERT and its relatives predict, iteration by iteration."""

    model_config = STRICT

    clusters: tuple[Annotated[int, Field(ge=2)], ...] = (100, 500)
    """Clusters of each iteration; the last number serves all later ones."""
    layer: int = 6
    """Hidden state of the iteration before that is clustered, 0 the first, -1 the last."""
    frames: Count = 1_000_000
    """Frames, at most, from which the clusters are learnt; drawn utterance by utterance."""
    tries: Count = 3
    """Starts of k-means; the best is kept."""
    first_steps: Count | None = None
    """Optimiser steps of the first iteration, null for train.steps."""

    def clusters_of(self, iteration: int) -> int:
        """Return the number of clusters of an iteration, counted from 1."""
        return self.clusters[min(iteration, len(self.clusters)) - 1]


class TrainConfig(BaseModel):
    """Everything about a run but the model."""

    model_config = STRICT

    steps: Count = 1000
    """Optimiser steps; every schedule is a function of them."""
    lr: Positive = 5e-4
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip: Positive | None = 5.0
    """Largest gradient norm, null for no clipping."""
    accumulate: Count = 1
    """Batches per process and optimiser step."""
    batch_seconds: Positive = 32.0
    """A batch's budget: its longest utterance times its size."""
    crop_seconds: Positive = 4.0
    """Longer utterances are cropped at random to this."""
    min_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Shorter utterances are left out (and counted)."""
    equalise: Share = 0.1
    """A batch is cropped to its shortest utterance where that costs at most this share of it."""
    precision: Literal["fp32", "bf16"] = "fp32"
    deterministic: bool = True
    """Refuse GPU kernels that give other bits each time; without it a resumption is not exact."""
    tf32: bool = True
    """On GPUs, float32 products round their inputs to 10 bits (TF32): up to 8 times faster."""
    cpu_kernels: bool = True
    """On CPUs, faster forms of linear, convolution, attention, dropout and GRU; same results to
    rounding."""
    compile: bool = False
    """Compile the Transformer layers with torch.compile."""
    checkpoint_activations: bool = False
    """Compute each Transformer layer again in the backward pass instead of keeping it: a third more
    time, far less memory."""
    fsdp: bool = False
    """Spread weights, gradients and moments over the processes that torchrun started (FSDP2)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    log_every: Count = 20
    save_every: Count = 500
    keep: Count = 2
    """How many checkpoints to keep; many of them to watch a representation grow (mynah bench
    --checkpoints RUN)."""
    patience: Count = 10
    """Consecutive non-finite steps after which the run has diverged."""
    workers: Annotated[int, Field(ge=0, le=64)] = 1
    """Background threads that decode ahead; 0 decodes in the loop."""
    cache_mb: Annotated[int, Field(ge=0)] = 1024
    """Decoded audio kept in memory, in MiB per process."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        from mynah.recipes.training.schedule import span

        if self.crop_seconds > self.batch_seconds:
            raise ValueError(
                f"crop_seconds must not exceed batch_seconds, got {self.crop_seconds} and "
                f"{self.batch_seconds}"
            )
        if self.min_seconds > self.crop_seconds:
            raise ValueError(
                f"min_seconds must not exceed crop_seconds, got {self.min_seconds} and "
                f"{self.crop_seconds}"
            )
        warmup = span(self.schedule.warmup, self.steps)
        hold = span(self.schedule.hold, self.steps)
        if warmup + hold >= self.steps and self.schedule.kind != "constant":
            raise ValueError(
                f"schedule.warmup ({warmup} steps) and schedule.hold ({hold}) leave nothing of "
                f"{self.steps} steps to decay in"
            )
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A checked recipe.

    Attributes:
        family: upstream family.
        variant: name of the config that ``model`` started from.
        model: the family's own config, complete.
        train: the rest.
        labels: how frames are labelled, for families that predict labels.
    """

    family: str
    variant: str
    model: Any
    train: TrainConfig
    labels: LabelsConfig | None = None

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
        checked: Any = schema.model_validate(values)
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
    )


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
