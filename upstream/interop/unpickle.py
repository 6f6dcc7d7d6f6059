"""Reading a pickled checkpoint without executing anything in it.

Old checkpoints (fairseq, s3prl) hold more than tensors: argparse namespaces, omegaconf configs,
fairseq dictionaries and optimiser histories. A pickle names a callable for each and the usual
loader calls it, so a file can run any program. Here a name is looked up in a short list:

* tensors are rebuilt by our own function around torch's storage reader;
* classes of the projects that write such files become inert :class:`Stub` objects that only
  remember what they were given; their code is never imported;
* everything else is refused by name.

Nothing that is returned to the unpickler has attributes that a file could set.
"""

from __future__ import annotations

import pickle
import tarfile
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.upstream.core import modelfolder

# whose classes are remembered as stubs; their modules are never imported
INERT = (
    "_codecs",
    "argparse",
    "dataclasses",
    "enum",
    "examples",
    "fairseq",
    "fairseq_cli",
    "hydra",
    "lightning",
    "numpy",
    "omegaconf",
    "optimizers",
    "pathlib",
    "pytorch_lightning",
    "s3prl",
    "src",  # of LAPE
    "typing",
)
PLAIN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set,
}
# names that omegaconf writes as types of values
TYPE_NAMES = ("dict", "list", "tuple", "int", "float", "str", "bool", "bytes", "object")


class Stub:
    """What is left of an object whose class must not be imported.

    Attributes:
        args: what its constructor would have been given.
        state: the state it would have been given, usually its attributes.
        items: what would have been put into it if it is a list or a mapping.
    """

    origin = ""

    def __new__(cls, *args: Any, **_: Any) -> Stub:
        """Remember the arguments."""
        stub = super().__new__(cls)
        stub.args = args
        stub.state = None
        stub.items = []
        return stub

    def __init__(self, *args: Any, **_: Any) -> None:
        self.args: tuple[Any, ...] = args
        self.state: Any
        self.items: list[Any]

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """Remember an item."""
        self.items.append(item)

    def extend(self, items: list[Any]) -> None:
        """Remember items."""
        self.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<inert {self.origin}>"


class _Callable:
    """A function that a pickle may call but whose attributes it cannot set."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("the file tries to change a function")


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    tensor: Tensor = torch._utils._rebuild_tensor(storage, offset, size, stride)
    return tensor


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data.detach()


TENSORS: dict[str, Callable[..., Tensor]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_parameter": _parameter,
    "_rebuild_parameter_with_state": _parameter,
}


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that knows tensors, plain containers and stubs."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name in the file stands for.

        Raises:
            pickle.UnpicklingError: a name that is not on the list.
        """
        if (module, name) in PLAIN:
            return PLAIN[module, name]
        if module == "torch._utils" and name in TENSORS:
            return _Callable(TENSORS[name])
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module == "torch" and name in ("Size", "device"):
            return _Callable(getattr(torch, name))
        types_of_values = module in ("builtins", "__builtin__") and name in TYPE_NAMES
        if types_of_values or module.partition(".")[0] in INERT:
            return type("Stub", (Stub,), {"origin": f"{module}.{name}", "__slots__": ()})
        raise pickle.UnpicklingError(
            f"it asks for {module}.{name}, which is neither a tensor nor a known config class. "
            "Nothing of it was executed. If you trust the file, load it with the program that "
            "wrote it and save its state dict and config as plain values (for hf:, as safetensors)"
        )


def _load(file: Any, **options: Any) -> Any:
    return RestrictedUnpickler(file, **options).load()


def read(path: str | Path) -> dict[str, Any]:
    """Return the dictionary in a ``torch.save`` file, executing nothing; tensors on the CPU.

    Objects of foreign classes are :class:`Stub`; :func:`plain` turns configs into dictionaries.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a ``torch.save`` file of a dictionary, damaged, or one that asks for
            anything but tensors, plain containers and inert config classes.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    _check_container(path)
    module = types.ModuleType("restricted_pickle")
    module.__dict__.update(Unpickler=RestrictedUnpickler, load=_load)
    try:
        # The pickle module given here is the restricted one above: torch only adds its storages.
        content = torch.load(path, map_location="cpu", pickle_module=module, weights_only=False)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        UnicodeDecodeError,
    ) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dictionary")
    return dict(content)


def _check_container(path: Path) -> None:
    """Refuse containers that torch reads by other means than the pickle module it is given."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [Path(name).name for name in archive.namelist()]
        if "constants.pkl" in names:
            raise ValueError(f"{path} is a TorchScript archive: it holds code, not a checkpoint")
        if names.count("data.pkl") != 1:
            raise ValueError(f"{path} is a zip archive but not one that torch.save writes")
    elif _is_safetensors(path):
        folder = path.parent
        where = f"hf:{folder}" if modelfolder.is_hugging_face(folder) else f"{folder}"
        if not (folder / modelfolder.CONFIG).is_file():
            where = f"hf:{folder} with the {modelfolder.CONFIG} that belongs to it"
        raise ValueError(
            f"{path} is a safetensors file and no checkpoint of torch.save: it is read from its "
            f"folder, use {where}"
        )
    elif tarfile.is_tarfile(path):
        raise ValueError(
            f"{path} is a tar archive, the format of PyTorch before 0.1.10: load it with PyTorch "
            "and save it again"
        )


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors do: the length of a JSON object, and the object."""
    with path.open("rb") as file:
        head = file.read(9)
    length = int.from_bytes(head[:8], "little")
    return head[8:] == b"{" and 2 <= length <= path.stat().st_size - 8


def plain(value: Any) -> Any:
    """Return namespaces, omegaconf nodes and enumerations as dictionaries, lists and scalars.

    A stub that is none of these becomes None.
    """
    if isinstance(value, Stub):
        state = value.state
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict | None):
            state = {**(state[0] or {}), **(state[1] or {})}
        if isinstance(state, dict):
            for key in ("_content", "_val"):
                if key in state:
                    return plain(state[key])
            return plain(state)
        return plain(value.args[0]) if len(value.args) == 1 else None
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
