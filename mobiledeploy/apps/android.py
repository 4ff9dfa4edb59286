"""Kotlin for Android: .tflite by LiteRT; all but the call of LiteRT is tested on a Java machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mobiledeploy.apps import _contract_lines, _templates
from mobiledeploy.core.types import AppContract

SUMMARY = "Kotlin for Android, LiteRT"
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
    "kotlinc Contract.kt Preprocess.kt Decode.kt GoldenTest.kt Jvm.kt -include-runtime -d app.jar",
    "java -jar app.jar --golden-test",
)


def files(contract: AppContract) -> Mapping[str, bytes]:
    """Its code, the contract and the labels as lines of text, and LiteRT's version for Gradle."""
    return (
        _templates.read("android-app")
        | _contract_lines.files(contract)
        | {"gradle.properties": f"litertVersion={contract.runtime_version}\n".encode()}
    )
