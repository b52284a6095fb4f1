"""Reads a state dict that `torch.save` wrote, without torch.

Both formats are read: the one of torch before 1.6 (pickles, then the storages) and the zip archive
of today. Only the classes of a state dict are unpickled; no code in a file is run. Sizes that a
file states are compared with what it holds before memory is taken for them.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from services.shared.errors import WeightsUnavailable

Array = npt.NDArray[np.generic]
State = Mapping[str, Array]

_LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL: Final = 1001
_COUNT_BYTES: Final = 8
_BFLOAT16: Final = "BFloat16Storage"
_DTYPES: Final[Mapping[str, np.dtype[np.generic]]] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    _BFLOAT16: np.dtype("<u2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_TENSOR: Final = ("torch._utils", "_rebuild_tensor_v2")
_PARAMETER: Final = ("torch._utils", "_rebuild_parameter")
_PUTS: Final = frozenset({"BINPUT", "LONG_BINPUT"})
# torch.save writes these for a state dict (pickle protocol 2); Python 2 wrote the two STRINGs.
_OPCODES: Final = _PUTS | {
    "PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "BINGET", "LONG_BINGET",
    "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_TUPLE",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1",
    "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip


class _Storage(NamedTuple):
    """Names the values that tensors share: `kind` is torch's class, such as FloatStorage."""

    kind: str
    key: str


class _Tensor(NamedTuple):
    """Describes a tensor in its storage; offset and strides count values, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: Path) -> State:
    """Read the arrays of a state dict by name; bfloat16 becomes float32.

    Raises:
        WeightsUnavailable: the file is missing, damaged, or holds anything but tensors.
    """
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                return _read_archive(file)
            # Unlike a file, a map takes no memory for a read past its end.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                return _read_legacy(mapped)
    except WeightsUnavailable:
        raise
    # A damaged pickle can make its reader raise nearly anything.
    except Exception as error:
        message = f"{path} can't be read as weights (a state dict saved by torch.save): {error}"
        raise WeightsUnavailable(message) from error


def _read_archive(file: BinaryIO) -> State:
    with zipfile.ZipFile(file) as archive:
        _require_possible_sizes(archive, file.seek(0, io.SEEK_END))
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = pickled.removesuffix("data.pkl")
        _require_little_endian(archive, f"{folder}byteorder")
        tensors = _tensors(_load(io.BytesIO(archive.read(pickled))))
        keys = {tensor.storage for tensor in tensors.values()}
        stored = {one: archive.read(f"{folder}data/{one.key}") for one in keys}
    return {name: _array(tensor, stored[tensor.storage]) for name, tensor in tensors.items()}


def _require_possible_sizes(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive whose entries are larger than itself: torch does not compress them."""
    if sum(max(one.file_size, one.compress_size) for one in archive.infolist()) > size:
        message = "its entries are larger than the file"
        raise pickle.UnpicklingError(message)


def _require_little_endian(archive: zipfile.ZipFile, name: str) -> None:
    if name in archive.namelist() and archive.read(name) != b"little":
        message = "it was written on a big-endian machine"
        raise pickle.UnpicklingError(message)


def _read_legacy(file: mmap.mmap) -> State:
    header = [_load(file) for _ in range(2)]
    if header != [_LEGACY_MAGIC, _LEGACY_PROTOCOL]:
        message = "it does not begin as torch.save writes"
        raise pickle.UnpicklingError(message)
    if not _load(file)["little_endian"]:
        message = "it was written on a big-endian machine"
        raise pickle.UnpicklingError(message)
    tensors = _tensors(_load(file))
    kinds = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    stored: dict[_Storage, bytes] = {}
    for key in _load(file):
        count = int.from_bytes(file.read(_COUNT_BYTES), "little", signed=True)
        size = count * _DTYPES[kinds[key].kind].itemsize
        if not 0 <= size <= len(file) - file.tell():
            message = "it is truncated or damaged"
            raise pickle.UnpicklingError(message)
        stored[kinds[key]] = file.read(size)
    return {name: _array(tensor, stored[tensor.storage]) for name, tensor in tensors.items()}


def _load(file: io.BytesIO | mmap.mmap) -> Any:  # noqa: ANN401 - a pickle can hold anything
    """Unpickle what begins at the file's position, after a look at each of its instructions.

    Raises:
        UnpicklingError: one is not of a state dict, or its number would make the memo huge.
    """
    start = file.tell()
    highest = 0
    for opcode, argument, _ in pickletools.genops(cast("BinaryIO", file)):
        if opcode.name not in _OPCODES:
            message = f"its pickle has a {opcode.name}, which no state dict needs"
            raise pickle.UnpicklingError(message)
        if opcode.name in _PUTS:
            highest = max(highest, cast("int", argument))
    length = file.tell() - start
    if highest > length:
        message = f"its pickle of {length} bytes has a memo index of {highest}"
        raise pickle.UnpicklingError(message)
    file.seek(start)
    return _Unpickler(io.BytesIO(file.read(length))).load()


def _tensors(loaded: object) -> Mapping[str, _Tensor]:
    if not isinstance(loaded, Mapping):
        message = "it is no state dict: give the file of a state dict"
        raise pickle.UnpicklingError(message)
    odd = [name for name, value in loaded.items() if not isinstance(value, _Tensor)]
    if odd:
        message = f"{str(odd[0])[:60]!r} is no tensor: give the file of a state dict"
        raise pickle.UnpicklingError(message)
    return loaded


def _array(tensor: _Tensor, stored: bytes) -> Array:
    """Return the tensor's values, contiguous. Raises UnpicklingError where some are missing."""
    dtype = _DTYPES[tensor.storage.kind]
    values = np.frombuffer(stored, dtype)
    used = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((length - 1) * stride for length, stride in used)
    negative = min((0, tensor.offset, *tensor.shape, *tensor.strides)) < 0
    if negative or (all(tensor.shape) and last >= len(values)):
        message = "it is truncated or damaged"
        raise pickle.UnpicklingError(message)
    if math.prod(tensor.shape) > len(values):
        message = "a tensor has more values than its storage"
        raise pickle.UnpicklingError(message)
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(
        values[tensor.offset :], tensor.shape, strides, writeable=False
    )
    if tensor.storage.kind == _BFLOAT16:
        return (view.astype("<u4") << 16).view("<f4")
    # ascontiguousarray would give a scalar a dimension.
    return np.array(view, order="C")


class _Dictionary(OrderedDict[object, object]):
    """Stands for OrderedDict; the attributes that a pickle gives it (`_metadata`) are ignored."""

    def __setstate__(self, _state: object) -> None:
        """Ignore the attributes."""


class _Function:
    """Stands for a function of torch; unlike a function, it takes no attributes from a pickle."""

    __slots__ = ("_called",)

    def __init__(self, called: Callable[..., _Tensor]) -> None:
        self._called = called

    def __call__(self, *args: object) -> _Tensor:
        return self._called(*args)

    def __setstate__(self, _state: object) -> None:
        """Refuse attributes. Raises UnpicklingError."""
        message = "it sets attributes of a function"
        raise pickle.UnpicklingError(message)


class _Unpickler(pickle.Unpickler):
    """Unpickles dictionaries of tensors, and refuses every other class."""

    def find_class(self, module: str, name: str) -> object:
        """Return the stand-in of an allowed class. Raises UnpicklingError for others."""
        if (module, name) == ("collections", "OrderedDict"):
            return _Dictionary
        if (module, name) == _TENSOR:
            return _Function(_rebuilt)
        if (module, name) == _PARAMETER:
            return _Function(_parameter)
        if module == "torch" and name in _DTYPES:
            return name
        message = f"it holds a {module}.{name}"
        raise pickle.UnpicklingError(message)

    def persistent_load(self, pid: object) -> _Storage:
        """Return the storage that a tensor names. Raises UnpicklingError."""
        match pid:
            case ("storage", str(kind), str(key), *_) if kind in _DTYPES:
                return _Storage(kind, key)
        message = "it names its storages in an unknown way"
        raise pickle.UnpicklingError(message)


def _rebuilt(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _parameter(tensor: _Tensor, *_: object) -> _Tensor:
    return tensor
