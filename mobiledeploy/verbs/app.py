"""Writes a small app that answers images by an artifact, in the language of the user's choice."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobiledeploy.core import artifacts, inputs, preprocessing, protocol
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import APPS, RUNTIMES, TASKS
from mobiledeploy.core.ports import AppLanguage, Reporter
from mobiledeploy.core.samples import class_name, class_offset
from mobiledeploy.core.types import (
    AppContract,
    AppSample,
    Artifact,
    DataRef,
    ModelInput,
    ModelOutput,
    NamedWarning,
)
from mobiledeploy.steps import app_choice, app_folder, golden, golden_inputs, runtimes
from mobiledeploy.steps.arguments import AnyPath
from mobiledeploy.steps.predictors import PredictionOptions, Predictor
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.steps.runner_pool import answer_outputs

_FOLDER = "golden"


@dataclass(frozen=True)
class WrittenApp(Record):
    """The answer of `app`.

    `path` is the app's folder, `files` are all its files relative to it. `artifact` is the model
    that it answers by, `task` what its answers mean, and `samples` how many golden samples its
    test replays; `runtime` and its version answered them. `commands` build the app in its folder
    and run that test.
    """

    path: str
    language: str
    artifact: str
    artifact_sha256: str
    task: str
    runtime: str
    runtime_version: str
    samples: int
    files: tuple[str, ...]
    commands: tuple[str, ...]
    warnings: tuple[NamedWarning, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The result in words."""
        what = f"{self.language}, {self.runtime} {self.runtime_version}, {self.task}"
        return (
            f"{self.path}: {what}, {self.samples} golden samples",
            "build it and test it:",
            *(f"  {line}" for line in (f"cd {self.path}", *self.commands)),
        )

    def tables(self) -> tuple[Table, ...]:
        """A row for each line."""
        return (Table(("app",), tuple((line,) for line in self.lines)),)


def app(
    artifact: AnyPath,
    *,
    language: str,
    out: AnyPath,
    force: bool = False,
    reporter: Reporter | None = None,
) -> WrittenApp:
    """Writes an app that answers images by an artifact: code, model, and a test of golden samples.

    The app's code knows nothing of this package. It loads the model, prepares images exactly as at
    the export, runs the model and decodes its outputs. Its test replays the golden samples in that
    code, so that a change that breaks it is named.

    Example:
        >>> md.app("build/int8_best.tflite", language="python", out="myapp").commands

    Args:
        artifact: the file, with its record and its golden images beside it.
        language: a language of the shelf `apps`, such as `python`, `cpp`, `javascript` or
            `android`.
        out: the folder for the app: a new or empty one, or that of an earlier app, whose files are
            replaced where they are still as they were written.
        force: replaces files of the folder whoever wrote them.
        reporter: is told of warnings; the default is a `PythonReporter`.

    Returns:
        The app's files, and the commands that build and test it.

    Raises:
        InputError: no artifact, golden images or answers that differ from its record, or a model
            that such an app cannot run: of several inputs, of another format or task.
        UsageError: an unknown language, or a folder that holds what is not ours or cannot be
            written.
        DeviceError: the runner died or hangs.
    """
    reporter = reporter or PythonReporter()
    path, folder = Path(artifact), Path(out)
    plugin = APPS.load(language)
    artifact_ = artifacts.load(path)
    golden.images(path, artifact_.golden)
    image = _only_image(path, artifact_, language, plugin)
    app_folder.refuse(folder, force)
    contract, files, warnings = _contract(path, artifact_, image, plugin, reporter)
    files |= plugin.files(contract)
    model = inputs.read(path, inputs.FINISHED)
    names = app_folder.write(folder, files | {contract.model: model}, force)
    for warning in warnings:
        reporter.warn(warning)
    return WrittenApp(
        path=str(folder),
        language=language,
        artifact=str(path),
        artifact_sha256=artifact_.sha256,
        task=contract.task,
        runtime=contract.runtime,
        runtime_version=contract.runtime_version,
        samples=len(contract.golden),
        files=names,
        commands=plugin.COMMANDS,
        warnings=warnings,
    )


def _only_image(path: Path, artifact: Artifact, language: str, plugin: AppLanguage) -> ModelInput:
    """The model's only input; InputError for a model that an app of this language cannot run."""
    ends = artifacts.signature(artifact)
    if len(ends.inputs) != 1 or ends.image is None or ends.image.preprocessing is None:
        told = ", ".join(f"{end.name} ({end.kind})" for end in ends.inputs) or "nothing"
        raise InputError(
            f"{path} takes {told}, and an app feeds one image",
            "write the code for this model by hand: its record names the tensors",
        )
    others = [
        f"--language {name}"
        for name, other in APPS.each()
        if artifact.format in other.FORMATS and artifact.spec.task in other.TASKS
    ]
    elsewhere = " or ".join(others)
    if artifact.format not in plugin.FORMATS:
        raise InputError(
            f"{path} is {artifact.format}, and an app in {language} runs "
            f"{' and '.join(plugin.FORMATS)}",
            elsewhere or "export it as .tflite",
        )
    if artifact.spec.task not in plugin.TASKS:
        raise InputError(
            f"an app in {language} decodes no answers of the task {artifact.spec.task!r}",
            elsewhere or f"export it with --task {', '.join(plugin.TASKS)}",
        )
    for what, types, tensors in (
        ("takes", app_choice.INPUT_TYPES, artifact.inputs),
        ("gives", app_choice.OUTPUT_TYPES, artifact.outputs),
    ):
        for tensor in tensors:
            if tensor.dtype not in types:
                raise InputError(
                    f"{path} {what} {tensor.name} as {tensor.dtype}, and an app has "
                    f"{', '.join(types)}",
                    "export it with --io float",
                )
    return ends.image


def _contract(
    path: Path,
    artifact: Artifact,
    image: ModelInput,
    plugin: AppLanguage,
    reporter: Reporter,
) -> tuple[AppContract, dict[str, bytes], tuple[NamedWarning, ...]]:
    """The contract, the files of the golden samples by their names, and warnings.

    InputError if the artifact does not answer as at its export.
    """
    assert image.preprocessing is not None
    with Predictor(PredictionOptions(threads=1), "verify", reporter) as predictor:
        verdict, warning = golden.judge(
            artifact, golden.replay(path, artifact, reporter, predictor)
        )
        if verdict and verdict.outcome != "pass":
            raise InputError(f"{path}: {verdict.line}", "export it again, with --force")
        outputs = _outputs(path, artifact, predictor)
    ends = artifacts.signature(artifact).outputs
    samples, files = [], {}
    for number, file in enumerate(golden.images(path, artifact.golden)):
        photo = golden_inputs.golden(path.parent, file)
        height, width = image.shape[:2]
        pixels = preprocessing.resized(photo, image.preprocessing, (height, width))
        tensor = preprocessing.to_input(
            preprocessing.real_values(pixels, image.preprocessing),
            artifact.inputs[0],
            artifact.layout,
        )
        stem = f"{_FOLDER}/{file.stem}"
        names = tuple(f"{stem}.output{place}.bin" for place in range(len(ends)))
        sample = AppSample(
            f"{stem}{plugin.IMAGES}",
            f"{stem}.pixels.bin",
            f"{stem}.input.bin",
            names,
            TASKS.load(artifact.spec.task).decode(outputs[number], ends),
        )
        files[sample.image] = _image_file(photo, plugin.IMAGES)
        files[sample.pixels] = pixels.tobytes()
        files[sample.input] = tensor.astype(tensor.dtype.newbyteorder("<")).tobytes()
        for name, values in zip(names, outputs[number], strict=True):
            files[name] = values.astype("<f4").tobytes()
        samples.append(sample)
    runtime = RUNTIMES.load(runtimes.default_runtime(artifact))
    contract = AppContract(
        model=f"model.{artifact.format}",
        runtime=runtime.PACKAGE,
        runtime_version=runtime.version(),
        task=artifact.spec.task,
        layout=artifact.layout,
        image=replace(image, preprocessing=replace(image.preprocessing, labels=())),
        input=artifact.inputs[0],
        outputs=artifact.outputs,
        ends=ends,
        labels=_labels(image.preprocessing.labels, ends),
        golden=tuple(samples),
    )
    return contract, files, (warning,) if warning else ()


def _outputs(
    path: Path, artifact: Artifact, predictor: Predictor
) -> Mapping[int, Sequence[NDArray[np.float32]]]:
    """The real values of each output for each golden sample, by its place in the record."""
    ends = artifacts.signature(artifact).outputs
    count = len(artifact.golden.images)
    with artifacts.scratch() as scratch:
        source = golden_inputs.data_set(path.parent, artifact.golden.images, scratch)
        data = DataRef(source, "all", artifact.spec.resolution)
        work = artifacts.work(artifact, data)
        pool = predictor.pool(path, predictor.target(artifact), work)
        answers = {}
        for event in pool.answers((index, index + 1) for index in range(count)):
            if isinstance(event, protocol.Skipped):
                raise InputError(f"golden image {event.why}", "export it again, with --force")
            answers[event.index] = answer_outputs(event, ends)
        return answers


def _image_file(pixels: NDArray[np.uint8], suffix: str) -> bytes:
    """An image [H, W, 3] as the content of a file that an app's code reads."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG" if suffix == ".png" else "PPM")
    return stream.getvalue()


def _labels(labels: tuple[str, ...], ends: Sequence[ModelOutput]) -> tuple[str, ...]:
    """The names of the classes by their number, () for those of other classes."""
    classes = ends[0].shape[-1] if len(ends) == 1 and ends[0].shape else 0
    if classes <= 1:
        # A detector's classes are those of its boxes; yes or no is one number.
        return labels
    if class_offset(len(labels), classes) is None:
        return ()
    return tuple(class_name(labels, classes, index) for index in range(classes))
