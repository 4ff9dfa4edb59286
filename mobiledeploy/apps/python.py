"""Python: LiteRT for .tflite, ONNX Runtime for .onnx, with numpy and Pillow alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mobiledeploy.apps import _templates
from mobiledeploy.core import records
from mobiledeploy.core.types import AppContract

SUMMARY = "Python, LiteRT or ONNX Runtime"
FORMATS: tuple[str, ...] = ("tflite", "onnx")
TASKS: tuple[str, ...] = (
    "binary",
    "classification",
    "detection",
    "embedding",
    "multilabel",
    "regression",
    "segmentation",
)
IMAGES: Literal[".png", ".ppm"] = ".png"
COMMANDS: tuple[str, ...] = (
    "python -m pip install -r requirements.txt",
    "python golden_test.py",
)
# The versions that its code was tested with; the contract pins the runtime.
_LIBRARIES = ("numpy>=1.26", "pillow>=11.3")


def files(contract: AppContract) -> Mapping[str, bytes]:
    """Its code, the contract as JSON, and its requirements with the runtime's exact version."""
    requirements = (f"{contract.runtime}=={contract.runtime_version}", *_LIBRARIES)
    return _templates.read("python-app") | {
        "contract.json": records.dumps(contract).encode(),
        "requirements.txt": "".join(f"{line}\n" for line in requirements).encode(),
    }
