"""From a Keras MobileNet to measured int8 TFLite and ONNX files.

The verbs are plain functions: ``from mobiledeploy import export, evaluate, bench``. Each is
imported on first use, so that asking for the version, or for help, stays quick.
"""

import importlib
from collections.abc import Callable
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "bench", "check", "evaluate", "export", "verify"]

VERBS = ("bench", "check", "evaluate", "export", "verify")


def __getattr__(name: str) -> Callable[..., Any]:
    # By name, not by an import statement: core asks for __version__, and must not reach verbs so.
    if name in VERBS:
        module = importlib.import_module(f"mobiledeploy.verbs.{name}")
        verb: Callable[..., Any] = getattr(module, name)
        return verb
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *VERBS})
