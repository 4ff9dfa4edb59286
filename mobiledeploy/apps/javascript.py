"""JavaScript for browsers: .onnx by onnxruntime-web in WebAssembly, bundled by esbuild."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mobiledeploy.apps import _templates
from mobiledeploy.core import records
from mobiledeploy.core.types import AppContract

SUMMARY = "JavaScript in a browser, onnxruntime-web"
FORMATS: tuple[str, ...] = ("onnx",)
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
    "npm ci --ignore-scripts",
    "npm run build",
    "npm start",
)


def files(contract: AppContract) -> Mapping[str, bytes]:
    """Its code, the locked packages, and the contract as JSON.

    The runtime is of a package of its own, whose version package-lock.json pins.
    """
    return _templates.read("javascript-app") | {"contract.json": records.dumps(contract).encode()}
