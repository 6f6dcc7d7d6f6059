"""A plain upstream as a graph file, and the file as a function again.

``onnx`` and ``torch-export`` record symbolically (``torch.export``), any length from two frames on;
``torchscript`` records one example (``torch.jit.trace``), whose operations hold for any length.

Shape suffixes: S samples, L layers, T frames, D width.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mynah.recipes.exporting.form import Plain

Heard = Callable[[Tensor], Tensor]  # (1, S) -> (L, T, D)

INPUT, OUTPUT = "wav", "states"
FACTS = "facts.json"  # what a TorchScript archive says of itself
MOST = 3600 * 16000  # samples: an hour
EXAMPLE = 16000  # samples of the example
_ONE_FILE = 1 << 30  # bytes of weights that go into the .onnx file itself; beyond, beside it
_ONNX = ("onnx", "onnxruntime", "onnxscript")
_LOUD = ("torch.onnx", "torch.export", "torch.__trace", "onnxscript", "onnx_ir")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of graph file.

    Attributes:
        file: its name.
        symbolic: whether it is recorded symbolically: from two frames on, up to ``longest``.
        check: raises where it cannot be made here.
        write: makes it, with facts about the model as text.
        read: returns what it computes.
    """

    file: str
    symbolic: bool
    check: Callable[[], None]
    write: Callable[[Plain, Path, Mapping[str, str]], None]
    read: Callable[[Path], Heard]


@contextmanager
def quietly() -> Iterator[None]:
    """Drop the exporters' warnings, which are about their own code and optional packages."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def example(plain: Plain) -> Tensor:
    """Return the waveform (1, S) that recordings are made with."""
    samples = EXAMPLE if plain.longest is None else min(EXAMPLE, plain.longest)
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))


def record(plain: Plain) -> torch.export.ExportedProgram:
    """Return the program for any number of samples that yields two frames.

    A single frame is another case to the recorder: a dimension of size 1 is special to it.
    """
    samples = torch.export.Dim("samples", min=plain.two, max=plain.longest or MOST)
    with quietly():
        return torch.export.export(
            plain,
            (example(plain),),
            dynamic_shapes=({1: samples},),
            strict=False,
            # "frames is not 1 + 4 samples" and the like are checked when run, not proven now
            prefer_deferred_runtime_asserts_over_guards=True,
        )


# -- torch.export -------------------------------------------------------------------------------


def write_program(plain: Plain, path: Path, facts: Mapping[str, str]) -> None:
    """Write a ``.pt2`` archive."""
    program = record(plain)
    with quietly():
        torch.export.save(program, path, extra_files={FACTS: json.dumps(dict(facts))})


def read_program(path: Path) -> Heard:
    """Return what a ``.pt2`` archive computes."""
    with quietly():
        module = torch.export.load(path).module()

    def heard(wav_1S: Tensor) -> Tensor:
        with torch.no_grad():
            states_LTD: Tensor = module(wav_1S)
        return states_LTD

    return heard


# -- ONNX ---------------------------------------------------------------------------------------


def check_onnx() -> None:
    """Refuse where the packages are not installed.

    Raises:
        ValueError: which are missing, and what to do.
    """
    missing = [name for name in _ONNX if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"--as onnx needs {', '.join(missing)}: pip install 'mynah[export]' (or choose "
            "--as torch-export, which needs torch alone)"
        )


def write_onnx(plain: Plain, path: Path, facts: Mapping[str, str]) -> None:
    """Write an ``.onnx`` file with the facts as its metadata; large weights go into a file beside it."""
    program = record(plain)
    size = sum(t.nbytes for t in program.state_dict.values())
    with quietly():
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        if made is None:
            raise RuntimeError("torch.onnx.export returned no program")
        graph = made.model.graph
        for value, name in ((graph.inputs[0], "samples"), (graph.outputs[0], "frames")):
            axis = 0 if value.shape is None else value.shape[1]
            if not isinstance(axis, int):
                made.rename_axes({axis: name})
        made.model.metadata_props.update(facts)
        made.save(path, external_data=size > _ONE_FILE)


def read_onnx(path: Path) -> Heard:
    """Return what onnxruntime makes of an ``.onnx`` file on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def heard(wav_1S: Tensor) -> Tensor:
        (states_LTD,) = session.run([OUTPUT], {INPUT: wav_1S.numpy()})
        return torch.from_numpy(states_LTD)

    return heard


# -- TorchScript --------------------------------------------------------------------------------


def check_script() -> None:
    """Refuse where torch has no TorchScript any more.

    Raises:
        ValueError: what to do instead.
    """
    if not hasattr(getattr(torch, "jit", None), "trace"):
        raise ValueError(
            f"torch {torch.__version__} has no torch.jit.trace any more: choose --as torch-export"
        )


def write_script(plain: Plain, path: Path, facts: Mapping[str, str]) -> None:
    """Write a TorchScript archive; the facts lie in it.

    Raises:
        RuntimeError: the recording names a device and could not be moved to another.
    """
    with quietly():
        traced = torch.jit.trace(plain, (example(plain),), check_trace=False)
        if "Device = prim::Constant" in str(traced.inlined_graph):
            raise RuntimeError(f"the recording of {facts['upstream']} is tied to one device")
        torch.jit.save(traced, str(path), _extra_files={FACTS: json.dumps(dict(facts))})


def read_script(path: Path) -> Heard:
    """Return what a TorchScript archive computes."""
    with quietly():
        module = torch.jit.load(str(path), map_location="cpu").eval()

    def heard(wav_1S: Tensor) -> Tensor:
        with torch.no_grad():
            states_LTD: Tensor = module(wav_1S)
        return states_LTD

    return heard


def _nothing() -> None:
    """torch.export is part of every torch that mynah runs with."""


TARGETS = {
    "onnx": Target(
        file="model.onnx", symbolic=True, check=check_onnx, write=write_onnx, read=read_onnx
    ),
    "torch-export": Target(
        file="model.pt2", symbolic=True, check=_nothing, write=write_program, read=read_program
    ),
    "torchscript": Target(
        file="model.pt", symbolic=False, check=check_script, write=write_script, read=read_script
    ),
}
