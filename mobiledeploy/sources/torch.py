"""PyTorch models: a .pt2 of torch.export, converted by litert-torch.

torch and litert-torch are in a separate environment (`core/apart.py`) and are called as a process.
From the file they only get what `_pt2.py` has read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core import apart, arrays, inputs, records
from mobiledeploy.core.batches import Batch
from mobiledeploy.core.deaths import death
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import OpenedModel
from mobiledeploy.core.types import ModelFile, Source
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.sources import _pt2
from mobiledeploy.sources._lite import Lite
from mobiledeploy.sources._pt2 import Program

NEEDS: tuple[str, ...] = ()
_SUFFIX = ".pt2"
_ZIP = b"PK"
_SCRIPT = Path(__file__).with_name("_torch_process.py")
_REFUSAL_STATUS = 3
# ResNet-50 takes half a minute.
_PATIENCE_S = 3600
_SOFTMAX = frozenset({"aten.softmax.int", "aten._softmax.default"})


def detect(path: Path) -> ModelFile | None:
    """What the file is, by its content.

    Returns:
        None if it is not an archive of torch.export and has no such suffix.

    Raises:
        InputError: it cannot be read, is damaged, is not an image classifier, or holds anything
            that is not known to be harmless: see `_pt2.py`. `--unsafe` does not change that.
    """
    if path.is_dir():
        return None
    has_suffix = path.suffix.lower() == _SUFFIX
    with inputs.open_file(path) as stream:
        if stream.read(2) != _ZIP:
            if has_suffix:
                raise InputError(f"{path} is not an archive of torch.export", "save it again")
            return None
    content = inputs.read(path, inputs.MODEL)
    if not has_suffix and not _pt2.is_archive(content):
        return None
    _pt2.read(content, str(path))
    return ModelFile(str(path), "pt2", "torch", "model", records.sha256(content))


def open(source: Source) -> OpenedModel:
    """The converted file; MissingError if the environment is not installed."""
    assert source.file is not None
    python = apart.python(apart.TORCH)
    path = Path(source.file.path)
    content = inputs.read(path, inputs.MODEL)
    if records.sha256(content) != source.file.sha256:
        raise InputError(f"{path} changed while it was read", "try again")
    program = _pt2.read(content, str(path))
    process = _TorchProcess(python, content, program, path.name)
    return _ExportedModel(process, source.resolution)


class _TorchProcess:
    """Runs torch on a program, in one process for each call."""

    def __init__(self, python: Path, content: bytes, program: Program, name: str) -> None:
        self._python, self._name = python, name
        self._folder = Path(tempfile.mkdtemp(prefix="torch-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        fields = dataclasses.asdict(program) | {"logits": _logits(program)}
        del fields["weights"]
        (self._folder / "program.json").write_text(json.dumps(fields), "utf-8")
        np.savez(self._folder / "weights.npz", **_pt2.numbers(content, program))

    def floats(self) -> bytes:
        """The float TFLite that litert-torch writes."""
        self._run("the conversion by litert-torch")
        return inputs.read(self._folder / "float.tflite", inputs.MODEL)

    def answers(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The answers of torch to images [N, H, W, 3], before a final softmax."""
        np.save(self._folder / "images.npy", images)
        self._run("torch")
        with arrays.open_archive(self._folder / "answers.npz", inputs.ARRAYS) as archive:
            return np.asarray(archive["answers"], np.float32)

    def _run(self, what: str) -> None:
        refusal = self._folder / "refusal.txt"
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        with (
            tempfile.TemporaryFile() as log,
            subprocess.Popen(
                [str(self._python), "-I", "-P", str(_SCRIPT), str(self._folder)],
                # It ends when this closes, also if we are killed.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
            ) as process,
        ):
            try:
                status = process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired as error:
                raise InputError(
                    f"{what} took longer than {_PATIENCE_S} s over {self._name}"
                ) from error
            finally:
                process.kill()
            log.seek(0)
            output = log.read().decode("utf-8", "replace")
        if status == _REFUSAL_STATUS:
            reason = inputs.text(refusal, inputs.SETTINGS)
            raise InputError(f"{what} rejected {self._name}: {reason}")
        if status:
            raise death(what, status, output, self._name)


class _ExportedModel(Lite):
    """The converted float TFLite, with torch's own answers."""

    def __init__(self, process: _TorchProcess, resolution: tuple[int, int] | None) -> None:
        super().__init__(Graph(process.floats()), resolution)
        self._process = process

    def answers(self, samples: Batch) -> tuple[NDArray[np.float32], ...]:
        """See `ports.OpenedModel`; these are torch's answers, not those of the TFLite."""
        return (self._process.answers(samples.arrays[0]),)


def _logits(program: Program) -> str:
    """The input of a final softmax; the scores if there is none."""
    for node in program.nodes:
        if node["makes"] == [program.scores] and node["operator"] in _SOFTMAX:
            kind, value = node["arguments"][0]
            return str(value) if kind == "value" else program.scores
    return program.scores
