"""Turns the images that callers pass into fields of a form, which are sent piece by piece."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
        if isinstance(image, str | os.PathLike | bytes):
            return cls(image)
        if isinstance(image, io.TextIOBase):
            message = "open the image in binary mode: open(path, 'rb')"
            raise TypeError(message)
        if image.seekable():
            return cls(image, start=image.tell())
        return cls(image, repeatable=False)

    def kept(self) -> Upload:
        """Return a repeatable upload: a stream that can't seek is read into memory."""
        if self.repeatable or isinstance(self.image, str | os.PathLike | bytes):
            return self
        return replace(self, image=self.image.read(), repeatable=True)

    @contextmanager
    def field(self) -> Iterator[Field]:
        """Yield the image's field of a form; a file at a path is open meanwhile.

        Raises OSError when the path can't be opened.
        """
        match self.image:
            case bytes():
                yield "image", ("image", self.image, _BYTES)
            case str() if self.image.startswith(_ADDRESS):
                yield text_field("image_url", self.image)
            case str() | os.PathLike():
                path = Path(self.image)
                with path.open("rb") as file:
                    yield "image", (_sendable(path.name), file, _BYTES)
            case stream:
                name = getattr(stream, "name", None)
                name = _sendable(Path(name).name) if isinstance(name, str) else "image"
                content = stream if self.start is None else _rest_of(stream, self.start)
                yield "image", (name, content, _BYTES)


def text_field(name: str, text: str) -> Field:
    """Return the field of a form that holds a text."""
    return name, (None, text.encode(), _TEXT)


def _sendable(name: str) -> str:
    """Return the file name, with replacements for what UTF-8 can't encode."""
    return name.encode(errors="replace").decode()


def _rest_of(file: IO[bytes], start: int) -> IO[bytes]:
    """Return the file from a position on, since httpx sends files from their start."""
    return io.BufferedReader(_Rest(file, start))


class _Rest(io.RawIOBase):
    """An open file from a position on; closing it leaves the file open."""

    def __init__(self, file: IO[bytes], start: int) -> None:
        super().__init__()
        self._file = file
        self._start = start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        read = self._file.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = self._start if whence == io.SEEK_SET else 0
        return self._file.seek(start + offset, whence) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start
