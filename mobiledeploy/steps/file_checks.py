"""Each finished file is opened again and compared with the model that it was made from."""

from __future__ import annotations

import dataclasses
import gzip
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mobiledeploy.analysis import accuracy
from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import BrokenImage, InputError
from mobiledeploy.core.plugins import FORMATS, RECIPES, dataset
from mobiledeploy.core.ports import Reporter, Samples
from mobiledeploy.core.types import (
    Artifact,
    Contract,
    DataRef,
    Failed,
    FileFacts,
    Golden,
    InputOutput,
    NamedWarning,
    Output,
    Recipe,
)
from mobiledeploy.steps import answers, consumers, conversion_process
from mobiledeploy.steps import golden as golden_
from mobiledeploy.steps.export_plan import ExportConfig, ExportPlan, tools

GOLDEN_SAMPLES = 4
# The level of the gzip program itself.
GZIP_LEVEL = 6
# Below these the file is not the model that it was made from: dB, on golden logits.
LEAST_SQNR = {32: 60.0, 16: 20.0}
# Below it an integer file is far from its float model: dB, over all images that judge it.
DOUBTFUL_INT8_SQNR = 10.0


class Collector:
    """Passes everything on, and keeps the warnings for the record, and what failed."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.warnings: list[NamedWarning] = []
        self.failed: list[Failed] = []
        self.progress, self.say = reporter.progress, reporter.say

    def warn(self, warning: NamedWarning) -> None:
        """Each warning is passed on once."""
        if warning not in self.warnings:
            self.warnings.append(warning)
            self._reporter.warn(warning)


def of_the_right_types(
    converted: Sequence[conversion_process.ConvertedFile],
    planned: ExportPlan,
    config: ExportConfig,
    reporter: Collector,
) -> tuple[conversion_process.ConvertedFile, ...]:
    """Those that hold the numbers that their recipe says.

    A file that nobody asked for by name is left out with a warning, another one has failed.
    """
    kept = []
    for file in converted:
        shelf = FORMATS.load(file.format)
        facts = shelf.inspect(inputs.read(Path(file.path), inputs.FINISHED))
        recipe = RECIPES.load(file.recipe).RECIPE
        try:
            alone = _without(facts, file.kept)
            between = shelf.between_integers(alone)
            in_float = Counter(shelf.float_layers(alone)) - Counter(between)
            _check_types(Path(file.path).name, facts, recipe, config.io, tuple(in_float))
        except InputError as error:
            asked = (file.recipe, file.format) in planned.jobs
            if planned.strict and asked:
                reporter.failed.append(conversion_process.failure(file.recipe, file.format, error))
            else:
                reporter.warn(conversion_process.left_out(file.recipe, file.format, error))
        else:
            kept.append(file)
            if recipe.full_integer and between:
                reporter.warn(_computed_in_float(Path(file.path).name, between))
    return tuple(kept)


def _computed_in_float(name: str, ops: Sequence[str]) -> NamedWarning:
    return NamedWarning(
        "float-operators",
        f"{name} computes {', '.join(sorted(set(ops)))} in float, between integers",
        "its runtime has no integer form of them; the TFLite file of the same recipe has",
    )


def _without(facts: FileFacts, kept: Sequence[str]) -> FileFacts:
    """The facts without the layers that make `kept` tensors, or are a part of them."""
    # ONNX names what an operator of TFLite becomes after the first path of its tensor.
    stems = tuple(name.partition(";")[0] for name in kept)

    def stays(name: str) -> bool:
        return name not in kept and not any(
            name == stem or name.startswith(f"{stem}/") for stem in stems
        )

    return dataclasses.replace(facts, layers=tuple(x for x in facts.layers if stays(x.name)))


def _opened(data: DataRef) -> Samples:
    return dataset(data.source).open(
        data.source, data.split, resolution=data.resolution, labels=data.labels
    )


def golden_samples(planned: ExportPlan, reporter: Reporter) -> tuple[int, ...]:
    """Indices of readable images, spread over the validation split and so over its classes."""
    samples = _opened(planned.data)
    found: list[int] = []
    for start in np.linspace(0, len(samples), GOLDEN_SAMPLES, endpoint=False, dtype=int):
        for index in range(start, len(samples)):
            if index in found:
                continue
            try:
                samples.image(index)
            except BrokenImage as error:
                reporter.warn(NamedWarning("broken-image", error.message))
                continue
            found.append(index)
            break
    if not found:
        raise InputError(f"{planned.data.source} has no image that can be read")
    return tuple(found)


@dataclass
class Exam:
    """Opens each finished file again and holds it against what it was made from."""

    planned: ExportPlan
    config: ExportConfig
    finished: conversion_process.ConversionSummary
    golden: tuple[int, ...]
    staging: Path
    reporter: Collector

    def __post_init__(self) -> None:
        size = self.finished.resolution
        spec = dataclasses.replace(
            self.planned.source.spec, resolution=size, classes=self.finished.classes
        )
        named = self.planned.named
        if not spec.preprocessing.labels and len(named) == spec.classes:
            said = dataclasses.replace(spec.preprocessing, labels=named)
            spec = dataclasses.replace(spec, preprocessing=said)
        data = dataclasses.replace(self.planned.data, resolution=size)
        self.samples = _opened(data)
        self.spec = spec
        self.data = dataclasses.replace(data, identity=self.samples.identity)
        self.shared = tuple(self.reporter.warnings)
        self.images = self._save_images()
        self.reference = np.asarray(self.finished.reference, np.float32)
        if not np.any(self.reference):
            raise InputError(
                "the model answers 0 for every class of every golden image",
                "are its weights trained?",
            )

    def _save_images(self) -> tuple[str, ...]:
        """Writes the golden images as golden/<sha256>.png; their names."""
        (self.staging / "golden").mkdir()
        names = []
        for index in self.golden:
            stream = io.BytesIO()
            Image.fromarray(self.samples.image(index)).save(stream, "PNG")
            name = f"golden/{records.sha256(stream.getvalue())[:16]}.png"
            records.write_atomic(self.staging / name, stream.getvalue())
            names.append(name)
        return tuple(names)

    def artifact(self, file: conversion_process.ConvertedFile) -> Artifact:
        """The record of one file; InputError where it is not what it should be."""
        path = Path(file.path)
        content = inputs.read(path, inputs.FINISHED)
        recipe = RECIPES.load(file.recipe).RECIPE
        shelf = FORMATS.load(file.format)
        facts = shelf.inspect(content)
        probe = path.with_name(f"probe-{path.name}")
        records.write_atomic(probe, shelf.expose_tensor(content, facts.logits))
        runtime, logits = answers.logits(
            probe,
            shelf.inspect(inputs.read(probe, inputs.FINISHED)),
            self.spec.preprocessing,
            self.data,
            self.golden,
            reporter=self.reporter,
        )
        probe.unlink()
        sqnr = accuracy.sqnr_db(self.reference, logits)
        _check_sqnr(path.name, recipe, sqnr)
        there = consumers.warnings(self.spec.preprocessing, facts)
        golden = Golden(
            ids=tuple(self.samples.id(i) for i in self.golden),
            images=self.images,
            logits=tuple(tuple(float(v) for v in row) for row in logits),
            runtime=runtime,
            isa=golden_.isa(),
        )
        contract = Contract(
            self.spec.name,
            self.spec.preprocessing,
            self.spec.resolution,
            facts.layout,
            _ends_in(self.config.output, facts),
            golden,
        )
        content = shelf.write_metadata(content, contract)
        records.write_atomic(path, content)
        artifact = Artifact(
            path=path.name,
            sha256=records.sha256(content),
            size_bytes=len(content),
            gzip_bytes=len(gzip.compress(content, GZIP_LEVEL)),
            sparsity=shelf.sparsity(content),
            format=file.format,
            spec=self.spec,
            recipe=recipe,
            output=_ends_in(self.config.output, facts),
            io=self.config.io if recipe.full_integer else "float",
            layout=facts.layout,
            inputs=facts.inputs,
            outputs=facts.outputs,
            logits=facts.logits,
            golden=golden,
            sqnr_db=sqnr,
            data=self.data,
            calibration=self.planned.calibration if recipe.calibration else "",
            calibration_images=self.finished.calibration_images if recipe.calibration else 0,
            key=self.planned.key,
            convert_seconds=file.seconds,
            tools=tools(),
            tried=file.tried,
            trained_on=self.planned.training if recipe.training else "",
            kept_float=self.config.keep_float if recipe.full_integer else (),
            warnings=(*self.shared, *there),
        )
        if self.planned.judged:
            return artifact
        far = far_from_float(artifact, sqnr, f"{len(self.golden)} golden images")
        return dataclasses.replace(artifact, warnings=(*artifact.warnings, *far))


def _ends_in(output: Output, facts: FileFacts) -> Output:
    """What a record says that a file ends in; what its model ends in may be a softmax."""
    if output == "model" and facts.logits != facts.outputs[0].name:
        return "softmax"
    return output


def _check_types(
    name: str, facts: FileFacts, recipe: Recipe, io: InputOutput, in_float: Sequence[str]
) -> None:
    if len(facts.inputs) != 1 or len(facts.outputs) != 1:
        raise InputError(f"{name} has {len(facts.inputs)} inputs, {len(facts.outputs)} outputs")
    wanted = "float32"
    if recipe.full_integer and io != "float":
        wanted = "uint8" if io == "uint8" else f"int{recipe.activation_bits}"
    for tensor in (*facts.inputs, *facts.outputs):
        if tensor.dtype != wanted:
            raise InputError(f"{name} came out with {tensor.name} in {tensor.dtype}, not {wanted}")
    if recipe.full_integer and in_float:
        raise InputError(
            f"{name} would still compute {', '.join(sorted(set(in_float)))} in float",
            "that operator has no int8 form here; --recipe float32,float16,dynamic_int8 work",
        )


def _check_sqnr(name: str, recipe: Recipe, sqnr: float) -> None:
    """InputError where golden logits say that the file is not its model."""
    least = LEAST_SQNR.get(recipe.weight_bits)
    if not np.isfinite(sqnr) or (least is not None and sqnr < least):
        raise InputError(
            f"{name} does not answer as its model does: {sqnr:.0f} dB on golden logits, "
            f"not {least or 0:.0f} dB or more",
            "is --input-range what the model was trained with? If so, please report it",
        )


def far_from_float(artifact: Artifact, sqnr: float, over: str) -> tuple[NamedWarning, ...]:
    """The warning about an integer file below `DOUBTFUL_INT8_SQNR`; () for any other."""
    if artifact.recipe.weight_bits in LEAST_SQNR or sqnr >= DOUBTFUL_INT8_SQNR:
        return ()
    message = f"{artifact.path} answers far from its float model ({sqnr:.1f} dB over {over})"
    advice = "calibrate with more typical images; compare the agreement column"
    return (NamedWarning("far-from-float", message, advice),)
