"""The file of an export that an app answers by, and the folder of the app: `export --app`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import APPS, RECIPES
from mobiledeploy.core.ports import AppLanguage
from mobiledeploy.core.types import Artifact, InputOutput
from mobiledeploy.steps import app_folder

INPUT_TYPES = ("float32", "int8", "uint8")
OUTPUT_TYPES = ("float32", "int8", "uint8")


def folder(exported: Path, language: str) -> Path:
    """Where the app of an export goes, beside its files."""
    return exported / f"app_{language}"


def require(
    languages: Sequence[str],
    jobs: Sequence[tuple[str, str]],
    io: InputOutput,
    task: str,
    exported: Path,
    force: bool = False,
) -> None:
    """Refuses, before the work, an app that none of the files of an export could be of.

    Args:
        languages: the names of the apps' languages.
        jobs: (recipe, format) of each file.
        io: the type of the ends of full-integer files.
        task: the model's, "" if it is not known before the model is opened.
        exported: the folder of the files.
        force: replaces what was changed in the folder of an app.

    Raises:
        UsageError: an unknown language; no file of a format, of a type or of a task that the app
            has; or a folder of the app that holds what is not ours.
    """
    for language in languages:
        plugin = APPS.load(language)
        own = [recipe for recipe, format_ in jobs if format_ in plugin.FORMATS]
        if not own:
            raise UsageError(
                f"an app in {language} runs {' and '.join(plugin.FORMATS)}, and this export makes "
                f"{' and '.join(dict.fromkeys(format_ for _, format_ in jobs))}",
                f"--format {plugin.FORMATS[0]}, or leave out --app {language}",
            )
        if io != "float" and all(_ends_in_16_bits(recipe) for recipe in own):
            raise UsageError(
                f"{own[0]} takes and gives int16, and an app has {', '.join(INPUT_TYPES)}",
                "--io float, or another --recipe",
            )
        if task and task not in plugin.TASKS:
            raise UsageError(
                f"an app in {language} decodes no answers of the task {task!r}",
                f"leave out --app {language}; it decodes {', '.join(plugin.TASKS)}",
            )
        app_folder.refuse(folder(exported, language), force)


def _ends_in_16_bits(name: str) -> bool:
    recipe = RECIPES.load(name).RECIPE
    return recipe.full_integer and recipe.activation_bits > 8


def choose(language: str, artifacts: Mapping[str, Artifact]) -> tuple[str, str]:
    """The path of the file that an app answers by, and why it is this one.

    Of the first of the language's formats that there is, it is the file of the fewest bits: first
    of its weights, then of its activations. Among equal ones it diverges least from the float
    model. InputError if the app can run none of the files.
    """
    plugin = APPS.load(language)
    fitting = {path: one for path, one in artifacts.items() if _fits(plugin, one)}
    if not fitting:
        raise InputError(
            f"an app in {language} runs none of these files", f"it runs {_runs(plugin)}"
        )

    def order(path: str) -> tuple[float, ...]:
        one = fitting[path]
        recipe, divergence = one.recipe, one.fidelity.divergence if one.fidelity else 0.0
        place = plugin.FORMATS.index(one.format)
        return (place, recipe.weight_bits, recipe.activation_bits, divergence)

    best = min(fitting, key=order)
    if len(fitting) == 1:
        return best, "the only file that it runs"
    recipe = fitting[best].recipe
    alike = [path for path in fitting if order(path)[:3] == order(best)[:3]]
    why = f"the {fitting[best].format} of the fewest bits ({recipe.weight_bits} of a weight)"
    return best, f"{why} that diverges least from float" if len(alike) > 1 else why


def _fits(plugin: AppLanguage, artifact: Artifact) -> bool:
    return (
        artifact.format in plugin.FORMATS
        and all(tensor.dtype in INPUT_TYPES for tensor in artifact.inputs)
        and all(tensor.dtype in OUTPUT_TYPES for tensor in artifact.outputs)
    )


def _runs(plugin: AppLanguage) -> str:
    return f"{' and '.join(plugin.FORMATS)} with ends of {', '.join(INPUT_TYPES)}"
