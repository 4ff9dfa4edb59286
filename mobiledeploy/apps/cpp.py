"""C++17: .tflite by LiteRT's C API, built by CMake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mobiledeploy.apps import _contract_lines, _templates
from mobiledeploy.core.types import AppContract

SUMMARY = "C++17, LiteRT's C API"
FORMATS: tuple[str, ...] = ("tflite",)
TASKS: tuple[str, ...] = (
    "binary",
    "classification",
    "detection",
    "embedding",
    "multilabel",
    "regression",
    "segmentation",
)
IMAGES: Literal[".png", ".ppm"] = ".ppm"
COMMANDS: tuple[str, ...] = (
    "pip install --no-deps --target litert -r requirements.txt",
    "cmake -B build",
    "cmake --build build",
    "ctest --test-dir build --output-on-failure",
)


def files(contract: AppContract) -> Mapping[str, bytes]:
    """Its code, the contract and the labels as lines of text, and LiteRT's exact version."""
    requirement = f"{contract.runtime}=={contract.runtime_version}\n"
    return (
        _templates.read("cpp-app")
        | _contract_lines.files(contract)
        | {"requirements.txt": requirement.encode()}
    )
