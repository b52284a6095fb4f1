"""Turns the images that callers pass into fields of a form, which are sent piece by piece."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

Image = str | os.PathLike[str] | bytes | IO[bytes]
"""An image: its path, its bytes, an open file, or an address that starts with http(s)://."""

Field = tuple[str, tuple[str | None, bytes | IO[bytes], str]]
"""A field of a form: its name, then file name, content and media type."""

_ADDRESS: Final = ("http://", "https://")
_BYTES: Final = "application/octet-stream"
_TEXT: Final = "text/plain"


@dataclass(frozen=True, slots=True)
class Upload:
    """An image to send, possibly several times.

    Attributes:
        image: the image as the caller passed it.
        start: the position of an open file from which it is sent; None for other images.
        repeatable: the image can be sent again; a stream that can't seek can't.
    """

    image: Image
    start: int | None = None
    repeatable: bool = True

    @classmethod
    def of(cls, image: Image) -> Upload:
        """Return the upload of an image; of an open file, from its current position on."""
        if isinstance(image, bytes) or is_address(image):
            return cls(image)
        if isinstance(image, str | os.PathLike):
            # A pipe has a path, too.
            return cls(image, repeatable=Path(image).is_file())
        if isinstance(image, io.TextIOBase):
            message = "open the image in binary mode: open(path, 'rb')"
            raise TypeError(message)
        if image.seekable():
            return cls(image, start=image.tell())
        return cls(image, repeatable=False)

    def kept(self) -> Upload:
        """Return a repeatable upload: the content of a pipe is read into memory.

        Raises OSError when the path can't be opened.
        """
        match self.image:
            case _ if self.repeatable:
                return self
            case bytes():
                return self
            case str() | os.PathLike():
                return Upload(Path(self.image).read_bytes())
            case stream:
                return Upload(stream.read())

    @contextmanager
    def field(self) -> Iterator[Field]:
        """Yield the image's field of a form; a file at a path is open meanwhile.

        Raises OSError when the path can't be opened.
        """
        match self.image:
            case bytes():
                yield "image", ("image", self.image, _BYTES)
            case str() if is_address(self.image):
                yield text_field("image_url", self.image)
            case str() | os.PathLike():
                path = Path(self.image)
                with path.open("rb") as file:
                    yield self._file_field(path.name, file, 0 if self.repeatable else None)
            case stream:
                name = getattr(stream, "name", None)
                name = Path(name).name if isinstance(name, str) else "image"
                yield self._file_field(name, stream, self.start)

    @staticmethod
    def _file_field(name: str, file: IO[bytes], start: int | None) -> Field:
        """Return the field of an open file, sent from a position on, or as it can be read."""
        sendable = name.encode(errors="replace").decode()
        content = _Stream(file) if start is None else _Rest(file, start)
        return "image", (sendable, io.BufferedReader(content), _BYTES)


def is_address(image: Image) -> bool:
    """Return True for an address that Simile fetches the image from."""
    return isinstance(image, str) and image.startswith(_ADDRESS)


def text_field(name: str, text: str) -> Field:
    """Return the field of a form that holds a text."""
    return name, (None, text.encode(), _TEXT)


class _Stream(io.RawIOBase):
    """A file without a length, which httpx would read from the file's descriptor: 0 for a pipe.

    Closing it leaves the file open.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        read = self._file.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)


class _Rest(_Stream):
    """A file from a position on, since httpx sends files from their start."""

    def __init__(self, file: IO[bytes], start: int) -> None:
        super().__init__(file)
        self._start = start

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = self._start if whence == io.SEEK_SET else 0
        return self._file.seek(start + offset, whence) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start
