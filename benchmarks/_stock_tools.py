"""Int8 by other tools.

TFLiteConverter and ONNX Runtime's quantize_static are called as their documentation shows it. The
rivals are tools for accuracy, each in an environment of its own:

    python benchmarks/_stock_tools.py [FOLDER]

makes these environments in the folder, by default in the user's cache (13 GB, most of it PyTorch).
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from mobiledeploy.core.assets import cache_dir

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = cache_dir() / "rivals"
# Written last: without it an environment is half made.
WHOLE = "whole"


@dataclass(frozen=True)
class Rival:
    """A tool that a script beside this one calls, by the Python of the tool's environment."""

    environment: str
    requirements: tuple[str, ...]
    """Of pip; the tool comes first."""
    settings: str
    arguments: tuple[str, ...] = ()
    """Of the script, behind the three files."""

    @property
    def package(self) -> str:
        """The name of the tool's package."""
        return self.requirements[0].partition("==")[0]

    def python(self, environments: Path) -> Path:
        """The interpreter, whether it exists or not."""
        return environments / self.environment / "bin" / "python"

    def is_here(self, environments: Path) -> bool:
        """Whether its environment is made."""
        return (environments / self.environment / WHOLE).exists()

    def quantize(
        self,
        path: Path,
        source: Path,
        calibration: np.ndarray,
        environments: Path,
        iterations: int,
    ) -> None:
        """Writes the int8 ONNX of a float one to `path`; `calibration` is [N, H, W, 3].

        `iterations` are those of AdaRound for each layer, where the tool has it.
        """
        images = path.with_suffix(".npy")
        np.save(images, np.ascontiguousarray(calibration.transpose(0, 3, 1, 2)))
        script = HERE / f"_rival_{self.environment}.py"
        arguments = (argument.format(iterations=iterations) for argument in self.arguments)
        command = [self.python(environments), script, source, images, path, *arguments]
        # Of ours it takes nothing, not even the search path of modules.
        variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, env=variables
        )
        if done.returncode:
            raise RuntimeError(f"{script.name} failed:\n{done.stderr[-2000:]}")


_NNCF = ("nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.32.0")
RIVALS = {
    "NNCF accurate": Rival(
        "nncf",
        _NNCF,
        "ONNX backend, preset MIXED, fast_bias_correction off, channel alignment on, overflow fix "
        "off",
    ),
    "NNCF accurate, min to max": Rival(
        "nncf",
        _NNCF,
        "the same, with ranges of activations from the least to the largest value of all images",
        ("min-max",),
    ),
    "AIMET": Rival(
        "aimet",
        ("aimet-onnx==2.42.0",),
        "CLE and AdaRound of {iterations} iterations, scales per channel, ranges min to max",
        ("{iterations}",),
    ),
    "Quark": Rival(
        "quark",
        ("amd-quark==0.13", "onnx==1.23.2", "onnxruntime==1.32.0", "torch==2.14.1"),
        "CLE and AdaRound of {iterations} iterations, int8 weights per channel, uint8 "
        "activations, ranges min to max",
        ("{iterations}",),
    ),
}


def tflite_converter(model: Any, resolution: tuple[int, int], calibration: np.ndarray) -> bytes:
    """The int8 TFLite of a Keras model, its ends in float; `calibration` is [N, H, W, 3]."""
    import tensorflow as tf

    call = tf.function(lambda image: model(image, training=False)).get_concrete_function(
        tf.TensorSpec((1, *resolution, 3), tf.float32)
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call], model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return bytes(converter.convert())


def onnxruntime_static(path: Path, source: Path, calibration: np.ndarray) -> None:
    """Writes the int8 ONNX of a float one to `path`: per channel, in QDQ form."""
    quantize_static(
        _with_own_constants(onnx.load(source)),
        path,
        _Reader(calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )


def _with_own_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with no constant that two operators share.

    Where some do, ONNX Runtime cannot load what quantize_static writes of MobileNet v3.
    """
    constants = {constant.name: constant for constant in model.graph.initializer}
    used: set[str] = set()
    for number, node in enumerate(model.graph.node):
        for place, name in enumerate(node.input):
            if name in used and name in constants:
                own = model.graph.initializer.add()
                own.CopyFrom(constants[name])
                own.name = node.input[place] = f"{name}_{number}"
            used.add(name)
    return model


class _Reader(CalibrationDataReader):
    """Images as ONNX Runtime's calibration asks for them."""

    def __init__(self, images: np.ndarray) -> None:
        self.feeds = ({"image": image.transpose(2, 0, 1)[None]} for image in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next one, until there is none."""
        return next(self.feeds, None)


def make_environments(environments: Path) -> None:
    """Makes the environments of all rivals that are not there."""
    for rival in {rival.environment: rival for rival in RIVALS.values()}.values():
        if not rival.is_here(environments):
            folder = environments / rival.environment
            venv.create(folder, clear=True, with_pip=True)
            command = [rival.python(environments), "-m", "pip", "install", *rival.requirements]
            subprocess.run(list(map(str, command)), check=True)
            (folder / WHOLE).touch()


if __name__ == "__main__":
    make_environments(Path(sys.argv[1]) if len(sys.argv) > 1 else ENVIRONMENTS)
