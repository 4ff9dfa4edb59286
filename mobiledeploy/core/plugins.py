"""Shelves: a plugin is a file, its stem is its name on the command line.

`names()` lists the folder (and the entry points ``mobiledeploy.<shelf>``) and imports nothing;
`load(name)` imports that one file.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from typing import Generic, TypeVar, cast

from mobiledeploy.core.errors import MissingError, UsageError
from mobiledeploy.core.package import PACKAGE
from mobiledeploy.core.ports import (
    Architecture,
    Compression,
    Dataset,
    Device,
    Executor,
    Format,
    Pass,
    RecipeFile,
    ReportFile,
    Runner,
    Runtime,
    SourceFile,
    Writer,
)
from mobiledeploy.core.types import Source

T = TypeVar("T")

# The extra that brings a module, for the answer to an import that fails.
EXTRA_OF = {
    "tensorflow": "export",
    "tf_keras": "export",
    "keras": "export",
    "tensorflow_model_optimization": "export",
    "h5py": "export",
    "matplotlib": "plot",
    "tflite_runtime": "tflite-runtime",
    "vl_convert": "report",
    "ray": "ray",
}


def missing(module: str) -> MissingError:
    """The error for a module that is not installed; its hint is the line that brings it."""
    top = module.partition(".")[0]
    extra = EXTRA_OF.get(top)
    wanted = f"'mobiledeploy[{extra}]'" if extra else top
    return MissingError(f"{top} is not installed", f"pip install {wanted}")


class Shelf(Generic[T]):
    """The plugins of one folder, each a module that implements T."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def names(self) -> tuple[str, ...]:
        """Every plugin's name, sorted; nothing is imported."""
        own = {p.stem for p in (PACKAGE / self.folder).glob("*.py") if not p.stem.startswith("_")}
        return tuple(sorted(own | {entry.name for entry in self._entries()}))

    def load(self, name: str) -> T:
        """The plugin; UsageError for an unknown name, MissingError where its library is absent."""
        if name not in self.names():
            near = difflib.get_close_matches(name, self.names(), n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(self.names())}"
            raise UsageError(f"no {self.folder} named {name!r}", hint)
        try:
            for entry in self._entries():
                if entry.name == name:
                    return cast(T, entry.load())
            return cast(T, importlib.import_module(f"mobiledeploy.{self.folder}.{name}"))
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("mobiledeploy"):
                raise
            raise missing(error.name or name) from error

    def _entries(self) -> tuple[importlib.metadata.EntryPoint, ...]:
        return tuple(importlib.metadata.entry_points(group=f"mobiledeploy.{self.folder}"))


ARCHITECTURES = Shelf[Architecture]("architectures")
RECIPES = Shelf[RecipeFile]("recipes")
RECIPE_ALIASES = {"int8": "int8_best"}
"""Short for a recipe -> its name."""
PASSES = Shelf[Pass]("passes")
COMPRESSIONS = Shelf[Compression]("compressions")
WRITERS = Shelf[Writer]("writers")
FORMATS = Shelf[Format]("formats")
SOURCES = Shelf[SourceFile]("sources")
RUNTIMES = Shelf[Runtime]("runtimes")
RUNNERS = Shelf[Runner]("runners")
DEVICES = Shelf[Device]("devices")
DATASETS = Shelf[Dataset]("datasets")
REPORTS = Shelf[ReportFile]("reports")
EXECUTORS = Shelf[Executor]("executors")


def source_of(source: Source) -> SourceFile:
    """What opens it: an architecture is a Keras 2 model."""
    return SOURCES.load(source.file.framework if source.file else "tf_keras")


def dataset(source: str) -> Dataset:
    """The data set that takes `--data SOURCE`; UsageError where none does."""
    # What lies on disk is asked last: a folder that happens to be called demo is ./demo.
    names = sorted(DATASETS.names(), key=lambda name: name in ("folder", "npz"))
    for plugin in map(DATASETS.load, names):
        if plugin.accepts(source):
            return plugin
    raise UsageError(
        f"--data {source} is no data set that is known",
        "give demo, a folder with a folder of images per class, or an .npz of images and labels",
    )
