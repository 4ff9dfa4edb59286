"""Models that a conversion of this session has opened need not be opened again.

Two thirds of a small conversion are TensorFlow: it builds the network, traces it and writes the
float TFLite. Dozens of tests convert the same few networks for the sake of what comes after that.
In a warm process (tests/warm.py) `remember` has the sources keep what they gave, by the content of
the model, for all workers. A model is opened in truth where it was not yet, and where something
else is asked of it: another output, other samples, its network. The tests of sources and
architectures run in their own process, and those with the fixture `cold` start one: there every
model is opened.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mobiledeploy.core import records
from mobiledeploy.core.batches import Batch
from mobiledeploy.core.plugins import SOURCES
from mobiledeploy.core.ports import OpenedModel
from mobiledeploy.core.types import Model, Output, Preprocessing, Source

# Those that run TensorFlow in the process of a conversion.
NAMES = ("tf_keras", "keras3", "saved_model")


def remember(folder: Path) -> None:
    """The sources of this process, and of its forks, keep in `folder` what they give."""
    for name in NAMES:
        plugin: Any = SOURCES.load(name)
        plugin.open = functools.partial(_open, folder, plugin.open)


def _open(folder: Path, really: Callable[[Source], OpenedModel], source: Source) -> Opened:
    return Opened(folder / _key(source), functools.partial(really, source))


def _key(source: Source) -> str:
    """A hash of all that the opened model depends on; names of files are no part of it."""
    spec, file = source.spec, source.file
    built = (spec.architecture, dict(spec.arguments), spec.resolution, spec.classes)
    what = (
        (dataclasses.replace(file, path=""), source.resolution)
        if file
        else (built, spec.weights.sha256 if source.weights else "random")
    )
    whole = hashlib.sha256(repr(what).encode())
    for name in (file and file.path, source.weights, source.custom_objects):
        path = Path(name or os.devnull)
        for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
            content = b"" if one.is_dir() else one.read_bytes()
            whole.update(f"{one.relative_to(path)} {len(content)}\n".encode())
            whole.update(content)
    return whole.hexdigest()


class Opened:
    """An `OpenedModel` that opens the model when something is asked that it was never asked."""

    def __init__(self, folder: Path, really: Callable[[], OpenedModel]) -> None:
        self._folder, self._really = folder, really
        folder.mkdir(exist_ok=True)
        # An error comes from opening, as it would.
        self.inputs, self.output_names = self._kept(
            "ends", lambda: (self._model.inputs, self._model.output_names)
        )

    @functools.cached_property
    def _model(self) -> OpenedModel:
        return self._really()

    def _kept(self, what: str, make: Callable[[], Any]) -> Any:
        path = self._folder / what
        if path.exists():
            return pickle.loads(path.read_bytes())
        made = make()
        unfinished = path.with_name(f"{what}.{os.getpid()}")
        unfinished.write_bytes(pickle.dumps(made))
        unfinished.replace(path)
        return made

    @property
    def network(self) -> Model | None:
        return self._model.network

    def floats(self, output: Output) -> bytes:
        return self._kept(f"floats {output}", lambda: self._model.floats(output))

    def answers(self, samples: Batch) -> Any:
        return self._kept(f"answers {_hash(samples)}", lambda: self._model.answers(samples))

    def ends_in_softmax(self) -> bool:
        return self._kept("softmax", lambda: self._model.ends_in_softmax())

    def likelier_range(self, pre: Preprocessing, images: Batch) -> tuple[float, float] | None:
        return self._kept(
            f"range {_hash(images, records.line(pre))}",
            lambda: self._model.likelier_range(pre, images),
        )


def _hash(samples: Batch, text: str = "") -> str:
    whole = hashlib.sha256(text.encode())
    for array in samples.arrays:
        whole.update(f"{array.dtype} {array.shape}\n".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()
