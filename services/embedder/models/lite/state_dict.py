"""Reads a state dict that `torch.save` wrote, without torch.

Both formats are read: the one of torch before 1.6 (pickles, then the storages) and the zip archive
of today. Only the classes of a state dict are unpickled; no code in a file is run.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

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


@dataclass(frozen=True, slots=True)
class _Storage:
    """Names the values that tensors share: `kind` is torch's class, such as FloatStorage."""

    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class _Tensor:
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
            file.seek(0)
            return _read_legacy(file)
    except WeightsUnavailable:
        raise
    # A damaged pickle can make its reader raise nearly anything.
    except Exception as error:
        message = f"{path} can't be read as weights (a state dict saved by torch.save): {error}"
        raise WeightsUnavailable(message) from error


def _read_archive(file: BinaryIO) -> State:
    with zipfile.ZipFile(file) as archive:
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = pickled.removesuffix("data.pkl")
        _require_little_endian(archive, f"{folder}byteorder")
        tensors = _tensors(_Unpickler(io.BytesIO(archive.read(pickled))).load())
        keys = {tensor.storage for tensor in tensors.values()}
        stored = {one: archive.read(f"{folder}data/{one.key}") for one in keys}
    return {name: _array(tensor, stored[tensor.storage]) for name, tensor in tensors.items()}


def _require_little_endian(archive: zipfile.ZipFile, name: str) -> None:
    if name in archive.namelist() and archive.read(name) != b"little":
        message = "it was written on a big-endian machine"
        raise pickle.UnpicklingError(message)


def _read_legacy(file: BinaryIO) -> State:
    header = [_Unpickler(file).load() for _ in range(2)]
    if header != [_LEGACY_MAGIC, _LEGACY_PROTOCOL]:
        message = "it does not begin as torch.save writes"
        raise pickle.UnpicklingError(message)
    if not _Unpickler(file).load()["little_endian"]:
        message = "it was written on a big-endian machine"
        raise pickle.UnpicklingError(message)
    tensors = _tensors(_Unpickler(file).load())
    kinds = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    stored: dict[_Storage, bytes] = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(_COUNT_BYTES), "little", signed=True)
        size = count * _DTYPES[kinds[key].kind].itemsize
        stored[kinds[key]] = file.read(size)
    return {name: _array(tensor, stored[tensor.storage]) for name, tensor in tensors.items()}


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
    if min((0, tensor.offset, *tensor.strides)) < 0 or (all(tensor.shape) and last >= len(values)):
        message = "it is truncated or damaged"
        raise pickle.UnpicklingError(message)
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(
        values[tensor.offset :], tensor.shape, strides, writeable=False
    )
    if tensor.storage.kind == _BFLOAT16:
        return (view.astype("<u4") << 16).view("<f4")
    # ascontiguousarray would give a scalar a dimension.
    return np.array(view, order="C")


class _Unpickler(pickle.Unpickler):
    """Unpickles dictionaries of tensors, and refuses every other class."""

    def find_class(self, module: str, name: str) -> object:
        """Return the stand-in of an allowed class. Raises UnpicklingError for others."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == _TENSOR:
            return _rebuilt
        if (module, name) == _PARAMETER:
            return _parameter
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
