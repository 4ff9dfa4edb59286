"""Shelves: a plugin is a file, its stem is its name on the command line.

`names()` lists the folder (and the entry points ``mobiledeploy.<shelf>``) and imports nothing;
`load(name)` imports that one file. A plugin of another package states the version of the interface
that it was written for, ``MOBILEDEPLOY_INTERFACE = 1``; one that cannot be loaded is named and left
out, and everything else works as before.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from mobiledeploy.core import builtin_data
from mobiledeploy.core.errors import MissingError, UsageError, first_line
from mobiledeploy.core.package import PACKAGE
from mobiledeploy.core.types import Metric, Source

if TYPE_CHECKING:
    # Ports speak of arrays, and whoever only lists plugins needs no numpy.
    from mobiledeploy.core.ports import (
        AppLanguage,
        Architecture,
        Compression,
        Dataset,
        Device,
        Executor,
        Format,
        Objective,
        Pass,
        RecipeFile,
        ReportFile,
        Runner,
        Runtime,
        SourceFile,
        Task,
        Writer,
    )

T = TypeVar("T")
INTERFACE = 1
"""The version of the ports in core/ports.py. It grows when a plugin written for the last one would
no longer fit."""

# The extra that installs a module, for the hint after a failed import.
EXTRA_OF = {
    "tensorflow": "export",
    "tf_keras": "export",
    "keras": "export",
    "tensorflow_model_optimization": "export",
    "h5py": "export",
    "cyclonedx": "bundle",
    "model_signing": "sign",
    "pycocotools": "detection",
    "jinja2": "report",
    "vl_convert": "report",
    "ray": "ray",
}


def missing(module: str, extra: str | None = None) -> MissingError:
    """The error for a module that is not installed; its hint is the command that installs it."""
    top = module.partition(".")[0]
    extra = extra or EXTRA_OF.get(top)
    requirement = f"'mobiledeploy[{extra}]'" if extra else top
    return MissingError(f"{top} is not installed", f"pip install {requirement}")


class Shelf(Generic[T]):
    """The plugins of one folder, each a module that implements T."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def names(self) -> tuple[str, ...]:
        """Every plugin's name, sorted; nothing is imported."""
        return tuple(sorted(self._own() | self._others().keys()))

    def load(self, name: str) -> T:
        """The plugin.

        Raises:
            UsageError: an unknown name.
            MissingError: its library is absent, or it is of another package and cannot be loaded.
        """
        # Plugins of other packages take milliseconds to look for, and a file of ours needs none.
        if name not in self._own():
            others = self._others()
            if name not in others:
                names = self.names()
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
                raise UsageError(f"no {self.folder} named {name!r}", hint)
            return cast(T, _of_another_package(others[name]))
        try:
            return cast(T, importlib.import_module(f"mobiledeploy.{self.folder}.{name}"))
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("mobiledeploy"):
                raise
            raise missing(error.name or name) from error

    def fits(self, module: T) -> None:
        """Nothing at run time: a type checker holds the module against the shelf's port."""

    def each(self) -> Iterator[tuple[str, T]]:
        """Every plugin that can be loaded, with its name; `broken` names the others."""
        for name in self.names():
            try:
                yield name, self.load(name)
            except MissingError:
                if name in self._own():
                    raise

    def broken(self) -> Iterator[MissingError]:
        """Why plugins of other packages cannot be loaded, one error for each."""
        for name in self._others().keys() - self._own():
            try:
                self.load(name)
            except MissingError as error:
                yield error

    def _own(self) -> set[str]:
        return {p.stem for p in (PACKAGE / self.folder).glob("*.py") if not p.stem.startswith("_")}

    def _others(self) -> dict[str, importlib.metadata.EntryPoint]:
        """Entry points by name; a file of ours has its name to itself."""
        entries = _entry_points(f"mobiledeploy.{self.folder}", tuple(sys.path))
        return {entry.name: entry for entry in entries}


@functools.cache
def _entry_points(group: str, _path: tuple[str, ...]) -> importlib.metadata.EntryPoints:
    """Those of the packages on this path, which take milliseconds to look for."""
    return importlib.metadata.entry_points(group=group)


def _of_another_package(entry: importlib.metadata.EntryPoint) -> object:
    package = entry.dist.name if entry.dist else entry.value
    plugin = f"the plugin {entry.name} of {package}"
    try:
        module = entry.load()
    except Exception as error:
        # Whatever it raises is its own defect, and no reason for us to fail.
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise MissingError(
            f"{plugin} cannot be loaded ({reason})", f"pip install --upgrade {package}"
        ) from error
    version = getattr(module, "MOBILEDEPLOY_INTERFACE", None)
    if version != INTERFACE:
        raise MissingError(
            f"{plugin} is for interface {version}, and this mobiledeploy has {INTERFACE}",
            f"pip install --upgrade {package}",
        )
    return module


ARCHITECTURES: Shelf[Architecture] = Shelf("architectures")
RECIPES: Shelf[RecipeFile] = Shelf("recipes")
RECIPE_ALIASES = {"int8": "int8_best"}
"""Short for a recipe -> its name."""
PASSES: Shelf[Pass] = Shelf("passes")
COMPRESSIONS: Shelf[Compression] = Shelf("compressions")
OBJECTIVES: Shelf[Objective] = Shelf("objectives")
WRITERS: Shelf[Writer] = Shelf("writers")
FORMATS: Shelf[Format] = Shelf("formats")
SOURCES: Shelf[SourceFile] = Shelf("sources")
RUNTIMES: Shelf[Runtime] = Shelf("runtimes")
RUNNERS: Shelf[Runner] = Shelf("runners")
DEVICES: Shelf[Device] = Shelf("devices")
DATASETS: Shelf[Dataset] = Shelf("datasets")
REPORTS: Shelf[ReportFile] = Shelf("reports")
TASKS: Shelf[Task] = Shelf("tasks")
EXECUTORS: Shelf[Executor] = Shelf("executors")
APPS: Shelf[AppLanguage] = Shelf("apps")


def shelves() -> tuple[Shelf[Any], ...]:
    """All of them."""
    return tuple(shelf for shelf in globals().values() if isinstance(shelf, Shelf))


def source_of(source: Source) -> SourceFile:
    """The plugin that opens the source; an architecture is a Keras 2 model."""
    return SOURCES.load(source.file.framework if source.file else "tf_keras")


def metric(task: str, name: str) -> Metric:
    """The metric of a task; a number without a unit if there is no such task here."""
    if task in TASKS.names():
        for one in TASKS.load(task).METRICS:
            if one.name == name:
                return one
    return Metric(name, name, "")


def data_of_task(source: str, task: str) -> str:
    """The data set that `--data SOURCE` means for a model of this task ("" for not known yet).

    `demo` means the built-in images that have what the task is judged by; every other source is
    what it is.
    """
    if source != builtin_data.DEMO or not task:
        return source
    return builtin_data.OF_ANNOTATION.get(TASKS.load(task).ANNOTATION, source)


def dataset(source: str) -> Dataset:
    """The data set that accepts `--data SOURCE`.

    A word that is the name of a data set (`demo`) means that one, though a folder may be called so
    too: it does not mean it by its whole path, which means the folder.

    UsageError if none accepts it, or if several do.
    """
    path = str(Path(source).absolute())
    fitting = {name: plugin for name, plugin in DATASETS.each() if plugin.accepts(source)}
    by_word = {name: plugin for name, plugin in fitting.items() if not plugin.accepts(path)}
    fitting = by_word or fitting
    if len(fitting) > 1:
        raise UsageError(
            f"--data {source} can be read as {' and as '.join(fitting)}",
            "give a folder or a file that is of one kind only (docs/data.md)",
        )
    for plugin in fitting.values():
        return plugin
    raise UsageError(
        f"--data {source} is not a known data set",
        "give demo, a folder of images, an .npz, COCO's .json or a .csv of images",
    )
