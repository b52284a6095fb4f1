"""Inside an image's build: compiles every module that Simile loads here: bytecode.py FOLDER.

A read-only root can't keep bytecode, and some bases come without that of Python's own modules.
Importing everything shows, too, that nothing needed was left out of the image.
"""

from __future__ import annotations

import importlib
import pkgutil
import py_compile
import sys


def load() -> None:
    """Import every module of Simile but those whose libraries belong to other images."""
    import services  # noqa: PLC0415 (installed here, in the image)

    for module in pkgutil.walk_packages(services.__path__, "services."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            print(f"{module.name} is not for this image: {error}")


def main(folder: str) -> None:
    """Write bytecode into FOLDER, where PYTHONPYCACHEPREFIX will look for it."""
    sys.dont_write_bytecode = True
    load()
    sys.pycache_prefix = folder
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        # Some modules are made by others, and name files that there are not.
        if (
            name != "__main__"
            and path is not None
            and path.startswith("/")
            and path.endswith(".py")
        ):
            # Not checked at each start either: what is in an image never changes.
            py_compile.compile(
                path, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
