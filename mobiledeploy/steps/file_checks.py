"""Opens each finished file again and compares it with its model."""

from __future__ import annotations

import dataclasses
import gzip
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobiledeploy.analysis import accuracy
from mobiledeploy.core import artifacts, detectors, inputs, records
from mobiledeploy.core.errors import BrokenImage, InputError
from mobiledeploy.core.plugins import FORMATS, RECIPES, dataset
from mobiledeploy.core.ports import Array, Reporter, Samples
from mobiledeploy.core.types import (
    Artifact,
    Contract,
    DataRef,
    Failed,
    FileFacts,
    Golden,
    NamedWarning,
    Output,
    Recipe,
    Signature,
)
from mobiledeploy.steps import (
    answer_steps,
    answers,
    consumers,
    conversion_process,
    export_plan,
    golden_inputs,
    instruction_sets,
)
from mobiledeploy.steps.export_plan import ExportConfig, ExportPlan, tools

GOLDEN_SAMPLES = 4
# The level of the gzip program itself.
GZIP_LEVEL = 6
_PLAIN_TYPES = ("int32", "int64", "bool")
# Below these limits a file is not its model: dB, on golden logits.
LEAST_SQNR = {32: 60.0, 16: 20.0}
# Below this limit an integer file is far from its float model: dB, over its evaluation images.
DOUBTFUL_INT8_SQNR = 10.0


class Collector:
    """Passes everything on, and keeps the warnings and failures for the record."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.warnings: list[NamedWarning] = []
        self.failed: list[Failed] = []
        self.progress, self.say = reporter.progress, reporter.say

    def warn(self, warning: NamedWarning) -> None:
        """Passes each warning on once."""
        if warning not in self.warnings:
            self.warnings.append(warning)
            self._reporter.warn(warning)


def of_the_right_types(
    files: Sequence[conversion_process.ConvertedFile],
    planned: ExportPlan,
    config: ExportConfig,
    reporter: Collector,
) -> tuple[conversion_process.ConvertedFile, ...]:
    """The files with the tensor types of their recipe.

    Another file is left out with a warning, or has failed if it was requested by name.
    """
    result = []
    for file in files:
        shelf = FORMATS.load(file.format)
        facts = shelf.inspect(inputs.read(Path(file.path), inputs.FINISHED))
        recipe = RECIPES.load(file.recipe).RECIPE
        try:
            alone = _without(facts, file.kept)
            between = shelf.between_integers(alone)
            in_float = Counter(shelf.float_layers(alone)) - Counter(between)
            decodes = in_float.pop(f"CUSTOM:{detectors.POSTPROCESS}", 0) > 0
            integers = dataclasses.replace(
                facts,
                outputs=tuple(
                    tensor
                    for place, tensor in enumerate(facts.outputs)
                    if place not in file.float_outputs or tensor.dtype != "float32"
                ),
            )
            name = Path(file.path).name
            _check_types(name, integers, recipe, config, tuple(in_float), decodes=decodes)
        except InputError as error:
            requested = (file.recipe, file.format) in planned.jobs
            if planned.strict and requested:
                failed = conversion_process.failure(file.recipe, file.format, error)
                # Every form of a file has the same types.
                if failed not in reporter.failed:
                    reporter.failed.append(failed)
            else:
                reporter.warn(conversion_process.left_out(file.recipe, file.format, error))
        else:
            result.append(file)
            if recipe.full_integer and between:
                reporter.warn(_computed_in_float(Path(file.path).name, between))
    return tuple(result)


def _computed_in_float(name: str, ops: Sequence[str]) -> NamedWarning:
    return NamedWarning(
        "float-operators",
        f"{name} computes {', '.join(sorted(set(ops)))} in float, between integers",
        "their integer form is absent or far worse",
    )


def _without(facts: FileFacts, tensors: Sequence[str]) -> FileFacts:
    """The facts without the layers that output `tensors`, or that are a part of such a layer."""
    # ONNX names the operators for a TFLite operator after the first path of its tensor.
    stems = tuple(name.partition(";")[0] for name in tensors)

    def stays(name: str) -> bool:
        return name not in tensors and not any(
            name == stem or name.startswith(f"{stem}/") for stem in stems
        )

    return dataclasses.replace(facts, layers=tuple(x for x in facts.layers if stays(x.name)))


def _open(data: DataRef) -> Samples:
    return dataset(data.source).open(
        data.source, data.split, resolution=data.resolution, labels=data.labels
    )


def golden_samples(planned: ExportPlan, reporter: Reporter) -> tuple[int, ...]:
    """Indices of readable images, spread over the validation split and thus over its classes."""
    samples = _open(planned.data)
    indices: list[int] = []
    for start in np.linspace(0, len(samples), GOLDEN_SAMPLES, endpoint=False, dtype=int):
        for index in range(start, len(samples)):
            if index in indices:
                continue
            try:
                samples.image(index)
            except BrokenImage as error:
                reporter.warn(NamedWarning("broken-image", error.message))
                continue
            except InputError:
                # Of arrays that are no images, the model's inputs will say which ones are wanted.
                pass
            indices.append(index)
            break
    if not indices:
        raise InputError(f"{planned.data.source} has no image that can be read")
    return tuple(indices)


@dataclass
class Exam:
    """Opens each finished file again and compares it with its model."""

    planned: ExportPlan
    config: ExportConfig
    summary: conversion_process.ConversionSummary
    golden: tuple[int, ...]
    staging: Path
    reporter: Collector

    def __post_init__(self) -> None:
        spec = self.summary.spec
        class_names = self.planned.class_names
        if not spec.preprocessing.labels and len(class_names) == spec.classes:
            pre = dataclasses.replace(spec.preprocessing, labels=class_names)
            spec = dataclasses.replace(spec, preprocessing=pre)
        self.signature = _labelled(self.summary.signature, spec.preprocessing.labels)
        data = dataclasses.replace(self.planned.data, resolution=spec.resolution)
        self.samples = _open(data)
        self.spec = spec
        self.data = dataclasses.replace(data, identity=self.samples.identity)
        self.common_warnings = tuple(self.reporter.warnings)
        self.images = self._save_samples()
        self.reference = np.asarray(self.summary.reference, np.float32)
        if not np.any(self.reference):
            raise InputError(
                "the model answers 0 for every golden image",
                "are its weights trained?",
            )

    def _save_samples(self) -> tuple[str, ...]:
        """Writes the golden samples as golden/<sha256>.<suffix> and returns their names."""
        (self.staging / "golden").mkdir()
        names = []
        for index in self.golden:
            content, suffix = golden_inputs.encode(self.samples, index, self.signature.inputs)
            name = f"golden/{records.sha256(content)[:16]}{suffix}"
            records.write_atomic(self.staging / name, content)
            names.append(name)
        return tuple(names)

    def artifact(self, file: conversion_process.ConvertedFile) -> Artifact:
        """Makes the record of one file; InputError if the file is not its model."""
        path = Path(file.path)
        own = dataclasses.replace(self.signature, inputs=file.inputs or self.signature.inputs)
        signature = _labelled(own, self.spec.preprocessing.labels)
        spec = self.spec
        if signature.image is not None and signature.image.preprocessing is not None:
            spec = dataclasses.replace(spec, preprocessing=signature.image.preprocessing)
        content = inputs.read(path, inputs.FINISHED)
        recipe = RECIPES.load(file.recipe).RECIPE
        shelf = FORMATS.load(file.format)
        facts = shelf.inspect(content)
        probe = path.with_name(f"probe-{path.name}")
        probe_content = answers.probe(content, facts)
        records.write_atomic(probe, probe_content)
        runtime, logits = answers.logits(
            probe,
            shelf.inspect(probe_content),
            signature.inputs,
            self.data,
            self.golden,
            reporter=self.reporter,
        )
        probe.unlink()
        sqnr = accuracy.sqnr_db(self.reference, logits)
        if answer_steps.chooses_boxes(spec.task, signature.outputs):
            _check_boxes(path.name, recipe, self.reference, logits, signature)
        else:
            _check_sqnr(path.name, recipe, sqnr)
        there = consumers.warnings(spec.preprocessing, facts)
        golden = Golden(
            ids=tuple(self.samples.id(i) for i in self.golden),
            images=self.images,
            logits=tuple(tuple(float(v) for v in row) for row in logits),
            runtime=runtime,
            isa=instruction_sets.here(),
        )
        contract = Contract(
            spec.name,
            spec.preprocessing,
            spec.resolution,
            facts.layout,
            _ends_in(self.summary.output, facts),
            golden,
            signature,
            spec.task,
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
            spec=spec,
            recipe=recipe,
            output=_ends_in(self.summary.output, facts),
            io=self.config.io if recipe.full_integer else "float",
            layout=facts.layout,
            inputs=facts.inputs,
            outputs=facts.outputs,
            logits=facts.logits,
            golden=golden,
            sqnr_db=sqnr,
            data=self.data,
            calibration=self.planned.calibration if recipe.calibration else "",
            calibration_images=self.summary.calibration_images if recipe.calibration else 0,
            key=self.planned.key,
            convert_seconds=file.seconds,
            tools=tools(),
            tried=file.tried,
            trained_on=self.planned.training if recipe.training else "",
            kept_float=self.config.keep_float if recipe.full_integer else (),
            warnings=(*self.common_warnings, *there),
            signature=signature,
            shrunk_layers=file.shrunk_layers,
            arguments=export_plan.arguments(self.config),
        )
        if self.planned.evaluates:
            return artifact
        far = far_from_float(artifact, sqnr, f"{len(self.golden)} golden images")
        return dataclasses.replace(artifact, warnings=(*artifact.warnings, *far))


def _labelled(signature: Signature, labels: tuple[str, ...]) -> Signature:
    """The signature with these class names in the preprocessing of its images."""
    ends = tuple(
        end
        if end.preprocessing is None
        else dataclasses.replace(
            end, preprocessing=dataclasses.replace(end.preprocessing, labels=labels)
        )
        for end in signature.inputs
    )
    return dataclasses.replace(signature, inputs=ends)


def _ends_in(output: Output, facts: FileFacts) -> Output:
    """The output kind of a file for its record; a model may have its own softmax."""
    if output == "model" and facts.logits != facts.outputs[0].name:
        return "softmax"
    return output


def _check_types(
    name: str,
    facts: FileFacts,
    recipe: Recipe,
    config: ExportConfig,
    in_float: Sequence[str],
    *,
    decodes: bool,
) -> None:
    expected, io = "float32", config.io
    if recipe.full_integer and io != "float":
        expected = "uint8" if io == "uint8" else f"int{recipe.activation_bits}"
    # The boxes of an operator of its own are float32 in every file.
    typed = () if decodes else facts.outputs
    for tensor in (*facts.inputs, *typed):
        # An index or a flag is what it is.
        if tensor.dtype not in (expected, *_PLAIN_TYPES):
            raise InputError(
                f"{name} came out with {tensor.name} in {tensor.dtype}, not {expected}"
            )
    if recipe.full_integer and in_float:
        raise InputError(
            f"{name} would still compute {', '.join(sorted(set(in_float)))} in float",
            "that operator has no int8 form here; --recipe float32,float16,dynamic_int8 work",
        )


def _check_sqnr(name: str, recipe: Recipe, sqnr: float) -> None:
    """InputError if the golden logits show that the file is not its model."""
    least = LEAST_SQNR.get(recipe.weight_bits)
    if not np.isfinite(sqnr) or (least is not None and sqnr < least):
        how = f"{sqnr:.0f} dB on golden logits, not {least or 0:.0f} dB or more"
        raise _not_its_model(name, how)


def _check_boxes(
    name: str, recipe: Recipe, reference: Array, rows: Array, signature: Signature
) -> None:
    """The same for a float file that chooses its boxes: nearly equal scores change places."""
    if recipe.weight_bits not in LEAST_SQNR:
        return
    apart = answer_steps.rows_of_boxes_apart(rows, reference, signature.outputs)
    if apart is not None and not apart <= answer_steps.TOLERATED_BOXES:
        share = 100 * apart / answer_steps.LEVELS
        how = f"{share:.0f} % of the boxes' scores are lost on golden images"
        raise _not_its_model(name, how)


def _not_its_model(name: str, how: str) -> InputError:
    return InputError(
        f"{name} does not answer as its model does: {how}",
        "is --input-range what the model was trained with? If so, please report it",
    )


def far_from_float(artifact: Artifact, sqnr: float, over: str) -> tuple[NamedWarning, ...]:
    """The warning about an integer file below `DOUBTFUL_INT8_SQNR`; () for any other."""
    decodes = answer_steps.chooses_boxes(artifact.spec.task, artifacts.signature(artifact).outputs)
    if decodes or artifact.recipe.weight_bits in LEAST_SQNR or sqnr >= DOUBTFUL_INT8_SQNR:
        return ()
    message = f"{artifact.path} answers far from its float model ({sqnr:.1f} dB over {over})"
    advice = "calibrate with more typical images; compare the agreement column"
    return (NamedWarning("far-from-float", message, advice),)
