"""What a pretraining run may set besides its model: optimiser, schedule, labels, data, length."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    vector_share: Positive = 1.0
    """Of lars: learning rate of the vectors, which it does not adapt, as a share of lr."""

    @model_validator(mode="after")
    def _options_belong_to_the_kind(self) -> Self:
        adam = self.kind in ("adam", "adamw")
        useless = {"momentum"} if adam else {"betas", "eps"}
        if self.kind != "lars":
            useless |= {"trust", "vector_share"}
        elif self.decay_vectors:  # then they are adapted as the rest is
            useless |= {"vector_share"}
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
