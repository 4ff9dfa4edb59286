"""PyTorch models: a .pt2 of torch.export, by way of litert-torch.

torch and litert-torch lie in an environment of their own (`core/apart.py`) and are called as a
process. They are given nothing of the file but what `_pt2.py` has read from it.
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
from mobiledeploy.core.deaths import death
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Images, OpenedModel
from mobiledeploy.core.types import ModelFile, Source
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.sources import _pt2
from mobiledeploy.sources._lite import Lite
from mobiledeploy.sources._pt2 import Program

NEEDS: tuple[str, ...] = ()
_SUFFIX = ".pt2"
_ZIP = b"PK"
_SCRIPT = Path(__file__).with_name("_torch_process.py")
_REFUSED = 3
# ResNet-50 takes half a minute.
_PATIENCE_S = 3600
_SOFTMAX = frozenset({"aten.softmax.int", "aten._softmax.default"})


def detect(path: Path) -> ModelFile | None:
    """What the file is, by its content.

    Returns:
        None for anything but an archive of torch.export, or what is named like one.

    Raises:
        InputError: it cannot be read, is damaged, is no image classifier, or holds what is not
            known to be harmless: see `_pt2.py`. `--unsafe` changes nothing of that.
    """
    if path.is_dir():
        return None
    named = path.suffix.lower() == _SUFFIX
    with inputs.open_file(path) as stream:
        if stream.read(2) != _ZIP:
            if named:
                raise InputError(f"{path} is no archive of torch.export", "save it again")
            return None
    content = inputs.read(path, inputs.MODEL)
    if not named and not _pt2.is_archive(content):
        return None
    _pt2.read(content, str(path))
    return ModelFile(str(path), "pt2", "torch", "model", records.sha256(content))


def open(source: Source) -> OpenedModel:
    """The file, converted; MissingError where the environment is not here."""
    assert source.file is not None
    python = apart.python(apart.TORCH)
    path = Path(source.file.path)
    content = inputs.read(path, inputs.MODEL)
    if records.sha256(content) != source.file.sha256:
        raise InputError(f"{path} was changed while it was read", "try again")
    program = _pt2.read(content, str(path))
    process = _Process(python, content, program, path.name)
    return _Exported(process, source.resolution)


class _Process:
    """Torch's side of a program, a process for each question."""

    def __init__(self, python: Path, content: bytes, program: Program, name: str) -> None:
        self._python, self._name = python, name
        self._folder = Path(tempfile.mkdtemp(prefix="torch-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        given = dataclasses.asdict(program) | {"logits": _logits(program)}
        del given["weights"]
        (self._folder / "program.json").write_text(json.dumps(given), "utf-8")
        np.savez(self._folder / "weights.npz", **_pt2.numbers(content, program))

    def floats(self) -> bytes:
        """The float TFLite, as litert-torch writes it."""
        self._run("the conversion by litert-torch")
        return inputs.read(self._folder / "float.tflite", inputs.MODEL)

    def answers(self, images: Images) -> NDArray[np.float32]:
        """What torch answers to images [N, H, W, 3], before a closing softmax."""
        np.save(self._folder / "images.npy", images)
        self._run("torch")
        with arrays.open_archive(self._folder / "answers.npz", inputs.ARRAYS) as stored:
            return np.asarray(stored["answers"], np.float32)

    def _run(self, what: str) -> None:
        refusal = self._folder / "refusal.txt"
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        with (
            tempfile.TemporaryFile() as log,
            subprocess.Popen(
                [str(self._python), "-I", "-P", str(_SCRIPT), str(self._folder)],
                # It ends when this closes, also where we are killed.
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
            said = log.read().decode("utf-8", "replace")
        if status == _REFUSED:
            reason = inputs.text(refusal, inputs.SETTINGS)
            raise InputError(f"{what} refused {self._name}: {reason}")
        if status:
            raise death(what, status, said, self._name)


class _Exported(Lite):
    """The float TFLite, with torch's own answers."""

    def __init__(self, process: _Process, wanted: tuple[int, int] | None) -> None:
        super().__init__(Graph(process.floats()), wanted)
        self._process = process

    def answers(self, images: Images) -> NDArray[np.float32]:
        """See `ports.OpenedModel`; of torch, not of the TFLite."""
        return self._process.answers(images)


def _logits(program: Program) -> str:
    """The value that a closing softmax reads; the scores where there is none."""
    for node in program.nodes:
        if node["makes"] == [program.scores] and node["operator"] in _SOFTMAX:
            kind, value = node["arguments"][0]
            return str(value) if kind == "value" else program.scores
    return program.scores
