"""Finds the files of weights in installed packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from services.shared.errors import WeightsUnavailable


def weights_file(package: str) -> Path:
    """Return the only .pth file of a package, without running its code.

    Raises WeightsUnavailable.
    """
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    files = [file for folder in folders or () for file in Path(folder).glob("models/*.pth")]
    if len(files) != 1:
        name = package.replace("_", "-")
        message = f"the package {name} with the weights isn't installed: pip install {name}"
        raise WeightsUnavailable(message)
    return files[0]
