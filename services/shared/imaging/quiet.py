"""Keeps libtiff from printing: what it finds wrong is in Pillow's error already."""

from __future__ import annotations

import ctypes
from contextlib import suppress

from PIL import _imaging


def silence_libtiff() -> None:
    """Take away the handler that prints libtiff's errors to stderr, for the whole process.

    Pillow takes away that of the warnings by itself. A library linked into Pillow itself, as on
    Windows, can't be reached, and goes on printing.
    """
    with suppress(AttributeError, OSError):
        # A look-up in Pillow's module also finds what that module is linked to.
        handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        handler(None)
