"""Scripts of tools/ and benchmarks/, which are no modules of a package."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parent.parent


@contextmanager
def script(place: str) -> Iterator[ModuleType]:
    """The script as a module; `place` is relative to the repository."""
    path = REPOSITORY / place
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look themselves up there.
    sys.modules[path.stem] = module
    # Scripts import their neighbours by name.
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(path.parent))
        del sys.modules[path.stem]
