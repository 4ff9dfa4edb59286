"""Why an int8 artifact differs from its float model, layer by layer, over a few images.

It answers three questions by running subgraphs of the two files in runner processes:

- How far are the values of each layer from those of the float network?
- What is the layer's own error, if the layers before it make none? Every integer layer gets the
  codes of the float network's exact values, and is compared with the float layer on these codes.
- What does that error alone do to the answer? The float network runs from that layer on with the
  error added, so the errors of all layers are compared at the output.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import accuracy, quantization
from mobiledeploy.analysis.quantization import CodeGrid, Doubles, LayerError, Remedy, Scaling, Tally
from mobiledeploy.core import (
    artifacts,
    builtin_data,
    inputs,
    leases,
    preprocessing,
    protocol,
    records,
    units,
)
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import BrokenImage, DeviceError, InputError, UsageError
from mobiledeploy.core.plugins import (
    DEVICES,
    FORMATS,
    RECIPES,
    RUNNERS,
    TASKS,
    data_of_task,
    dataset,
)
from mobiledeploy.core.ports import SILENT, Array, Format, Pixels, Process, Reporter, Session
from mobiledeploy.core.types import (
    Artifact,
    FileFacts,
    Layout,
    ModelOutput,
    NamedWarning,
    Preprocessing,
    Split,
    Target,
    Tensor,
)
from mobiledeploy.core.unrecorded import ARCHITECTURE
from mobiledeploy.steps import (
    evaluation_images,
    golden_inputs,
    runner_pool,
    runtimes,
    task_choice,
)
from mobiledeploy.steps.arguments import Overrides
from mobiledeploy.steps.evaluations import same_model, unlike, unsaid

Floats = NDArray[np.float32]

IMAGES = 16
"""The most images of --data: more change a layer's figures little, and each runs once per layer."""
FLOAT = "float32.tflite"
_INTEGERS = ("int8", "uint8", "int16")
_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True)
class QuantizationDiagnosis(Record):
    """An integer artifact compared with its float model.

    `sqnr_db` and `agreement` are of the logits (or the first output of another `task`) over
    `images` of `data`. `enters` is the layer with the largest part of their error, "" without any
    error; `most` are the fewest layers that together make three quarters of it, largest first.
    `layers` are in execution order. `not_told` are layers of the float model without integers of
    their own in the artifact: they count as part of the next. `remedies` begin with the most
    promising.
    """

    artifact: str
    artifact_sha256: str
    recipe: str
    passes: tuple[str, ...]
    reference: str
    runtime: str
    data: str
    images: int
    sqnr_db: float
    agreement: float
    enters: str
    most: tuple[str, ...]
    layers: tuple[LayerError, ...]
    not_told: tuple[str, ...]
    remedies: tuple[Remedy, ...]
    warnings: tuple[NamedWarning, ...] = ()
    task: str = "classification"

    def tables(self) -> tuple[Table, ...]:
        """A row for each layer, in the order in which they run."""
        rows = tuple(
            (
                row.name,
                row.op,
                _decibels(row.sqnr_db),
                _decibels(row.own_sqnr_db),
                units.percent(row.share),
                row.cause or "–",
                f"{row.cosine:.4f}",
                f"{row.range_ratio:.0f}:1",
                *(f"{n}/{row.channels}" if n else "–" for n in (row.dead, row.lost)),
                f"{row.saturated}/{row.channels}" if row.saturated else "–",
                units.percent(row.codes_used),
            )
            for row in self.layers
        )
        headers = ("layer", "kind", "SQNR", "own", "share", "mostly", "cosine", "ranges", "dead")
        images = f"{units.several(self.images, 'image')} ({self.data}), {self.runtime}"
        title = f"{self.artifact} beside {self.reference}: {images}"
        optional = ("codes used", "saturated", "lost", "dead", "kind", "cosine", "ranges")
        return (
            Table((*headers, "lost", "saturated", "codes used"), rows, title, optional, ("layer",)),
        )


def _decibels(value: float) -> str:
    """What has no error, or no signal, has no decibels."""
    return "–" if abs(value) >= accuracy.LARGEST_SQNR_DB else f"{value:.1f} dB"


def diagnose(
    path: Path,
    *,
    reference: Path | None = None,
    data: str | None = None,
    overrides: Overrides | None = None,
    reporter: Reporter = SILENT,
) -> QuantizationDiagnosis:
    """Finds the error of each layer of an artifact, the layers that matter, and remedies.

    Args:
        path: a file of integers, TFLite or ONNX.
        reference: its float TFLite; the default is the one in the same folder.
        data: images, as `--data`; the default are the artifact's golden images.
        overrides: preprocessing that differs from the artifact's own.
        reporter: is told of progress and warnings.

    Raises:
        InputError: no file of integers throughout, or no float file of the same model; layers with
            other names; a model of several inputs or without an image.
        UsageError: an unknown data set, or one that says nothing about the model.
        DeviceError: a runner died or hangs.
    """
    named = reference is not None
    artifact, reference = _integers(path, reference)
    assumed = unsaid(artifacts.load(reference), artifact)
    passes = _passes(artifact)
    pre = evaluation_images.preprocessing_of(artifact, overrides or Overrides())
    images, source, warnings = _images(path, artifact, data, reporter)
    floats = _of_float(reference, pre)
    prepared = [preprocessing.prepare(x, floats, artifact.spec.resolution) for x in images]
    with (
        artifacts.scratch() as folder,
        records.writing(folder),
        DEVICES.load("host").open("host", exclusive=False, reporter=reporter) as session,
    ):
        pair = _Pair(path, artifact, reference, folder, preprocessing.between(floats, pre))
        examination = _examine(
            pair, _Lab(session, pair.folder, path.name), prepared, bool(passes), reporter
        )
    if assumed:
        warnings = (*warnings, *_assumed(path, reference, named, examination.agreement, reporter))
    most = tuple(layer.name for layer in quantization.most(examination.layers))
    return QuantizationDiagnosis(
        artifact=str(path),
        artifact_sha256=artifact.sha256,
        recipe=artifact.recipe.name,
        passes=passes,
        reference=str(reference),
        runtime=runtimes.default_runtime(artifact),
        data=source,
        images=len(prepared),
        sqnr_db=examination.sqnr_db,
        agreement=examination.agreement,
        enters=most[0] if most else "",
        most=most,
        layers=examination.layers,
        not_told=pair.not_told,
        remedies=quantization.remedies(
            examination.layers,
            sqnr_db=examination.sqnr_db,
            agreement=examination.agreement,
            recipe=artifact.recipe.name,
            known=RECIPES.names(),
            improved=bool(passes),
            per_tensor=artifact.recipe.granularity == "per-tensor",
            unlike_output=examination.unlike_output,
        ),
        warnings=warnings,
        task=pair.task,
    )


def own_errors(path: Path, *, reporter: Reporter = SILENT) -> dict[str, float]:
    """The own error of each layer of an artifact over its golden images.

    Its effect on the answer, the longer part of `diagnose`, is left out.

    Returns:
        `LayerError.own_sqnr_db` by the name of the layer's output tensor.

    Raises:
        as `diagnose`.
    """
    artifact, reference = _integers(path, None)
    images, _, _ = _images(path, artifact, None, reporter)
    pre = evaluation_images.preprocessing_of(artifact, Overrides())
    floats = _of_float(reference, pre)
    prepared = [preprocessing.prepare(x, floats, artifact.spec.resolution) for x in images]
    with (
        artifacts.scratch() as folder,
        records.writing(folder),
        DEVICES.load("host").open("host", exclusive=False, reporter=reporter) as session,
    ):
        pair = _Pair(path, artifact, reference, folder, preprocessing.between(floats, pre))
        bench = _Bench(pair, _Lab(session, pair.folder, path.name))
        tallies = _tallies(bench, prepared, bool(_passes(artifact)), reporter)
        for _ in _fill(bench, prepared, tallies, reporter):
            pass
    return {
        layer.codes.name: tally.own_sqnr_db
        for layer, tally in zip(pair.layers, tallies, strict=True)
    }


def _of_float(reference: Path, pre: Preprocessing) -> Preprocessing:
    """How the float file's images are prepared, where those of its integer file are by `pre`.

    It states the same pixels, perhaps in another scale.
    """
    image = artifacts.signature(artifacts.load(reference)).image
    own = image.preprocessing if image else None
    return own if own is not None and preprocessing.alike(own, pre) else pre


def _integers(path: Path, reference: Path | None) -> tuple[Artifact, Path]:
    """An artifact of integers throughout, and its float model."""
    artifact = artifacts.load(path)
    if not artifact.recipe.full_integer:
        raise InputError(
            f"{path} is {artifact.recipe.name}: its activations are floats",
            "give one of integers throughout, such as int8_ptq",
        )
    ends = artifacts.signature(artifact)
    if len(ends.inputs) > 1 or ends.image is None:
        what = "several inputs" if len(ends.inputs) > 1 else "no image"
        raise InputError(
            f"{path} takes {what}, and its layers cannot be diagnosed",
            "evaluate it beside its float file",
        )
    return artifact, _reference(path, artifact, reference)


def _passes(artifact: Artifact) -> tuple[str, ...]:
    """The passes of the alternative that was used."""
    if artifact.tried:
        return min(artifact.tried, key=lambda one: one.divergence).passes
    return artifact.recipe.passes[0]


def _reference(path: Path, artifact: Artifact, requested: Path | None) -> Path:
    """The float TFLite of the same model: as requested, or the one beside the artifact."""
    elsewhere = artifact.spec.architecture == ARCHITECTURE
    hint = f"make it: the export of {path.name} again, with --recipe float32 --format tflite"
    if elsewhere:
        hint = "name it: --reference FLOAT.tflite"
    candidates = [requested or path.parent / FLOAT]
    if elsewhere and requested is None and not candidates[0].is_file():
        candidates = _floats(path, artifact)
    if len(candidates) != 1 or not candidates[0].is_file():
        names = ", ".join(one.name for one in candidates if one.is_file())
        reason = f"has several float files of its shapes ({names})" if names else f"has no {FLOAT}"
        raise InputError(f"{path.parent} {reason} to compare with", hint)
    (reference,) = candidates
    other = artifacts.load(reference)
    if not same_model(other, artifact):
        raise InputError(f"{reference} is of another model than {path.name}", hint)
    if other.shrunk_layers != artifact.shrunk_layers and not elsewhere:
        raise InputError(
            f"{reference} has other filters left out than {path.name}: their layers differ", hint
        )
    return reference


def _assumed(
    path: Path, reference: Path, named: bool, agreement: float, reporter: Reporter
) -> tuple[NamedWarning, ...]:
    """Warnings about a float file of which no record says that it is of the same model."""
    warnings = []
    if not named:
        message = (
            f"{reference.name} is taken for the float model of {path.name}, since it alone has its "
            "inputs and outputs"
        )
        warnings.append(NamedWarning("assumed-reference", message, "--reference names another"))
    if warning := unlike(path, reference, agreement):
        warnings.append(warning)
    for warning in warnings:
        reporter.warn(warning)
    return tuple(warnings)


def _floats(path: Path, artifact: Artifact) -> list[Path]:
    """The float TFLite files in the folder of `path` with the inputs and outputs of `artifact`."""
    result = []
    for file in sorted(path.parent.glob(f"*{Path(FLOAT).suffix}")):
        try:
            other = artifacts.load(file)
        except InputError:
            continue
        if other.recipe.name == "float32" and same_model(other, artifact):
            result.append(file)
    return result


def _images(
    path: Path, artifact: Artifact, data: str | None, reporter: Reporter
) -> tuple[list[Pixels], str, tuple[NamedWarning, ...]]:
    """The images, their source, and warnings about them."""
    if data is None:
        images = [
            golden_inputs.golden(path.parent, path.parent / x) for x in artifact.golden.images
        ]
        if not images:
            raise UsageError(f"{path.name} has no golden images", "give --data DIR or FILE.npz")
        return images, "golden", ()
    own = artifact.data
    data = data_of_task(data, artifact.spec.task)
    if data in builtin_data.NAMES and own.source != data:
        raise UsageError(
            "the demo images say nothing about a model that was not trained on them",
            "give --data DIR or FILE.npz",
        )
    split: Split = own.split if evaluation_images.same_place(data, own.source) else "all"
    samples = dataset(data).open(data, split, resolution=artifact.spec.resolution, labels=())
    images, warnings = [], []
    indices = np.linspace(0, len(samples), min(IMAGES, len(samples)), endpoint=False, dtype=int)
    for index in indices:
        try:
            images.append(samples.image(int(index)))
        except BrokenImage as error:
            warnings.append(NamedWarning("broken-image", error.message))
            reporter.warn(warnings[-1])
    if not images:
        raise InputError(f"{data} has no image that can be read")
    return images, data, tuple(warnings)


# --- which layers --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pairing:
    """A layer in both files.

    `op` and `exact` are of the float file, `codes` and `node` of the integer file. Readers do not
    tell values beyond `ends` apart.
    """

    name: str
    op: str
    reads: tuple[str, ...]
    exact: Tensor
    codes: Tensor
    grid: CodeGrid
    node: str
    ends: tuple[float, float]


def _answer(facts: FileFacts, path: Path) -> Tensor:
    """The logits; InputError if no layer of the file at `path` outputs them."""
    for layer in facts.layers:
        for tensor in layer.outputs:
            if tensor.name == facts.logits:
                return tensor
    raise InputError(
        f"{path.name} does not fit together: no layer makes {facts.logits}",
        "export it again, with --force",
    )


class _Pair:
    """An artifact and its float model, and the subgraphs of both to run.

    What the float model takes is ``ratio * y + change`` of the artifact's y: `scaling`, [C] each.
    """

    def __init__(
        self,
        path: Path,
        artifact: Artifact,
        reference: Path,
        folder: Path,
        scaling: tuple[Doubles, Doubles],
    ) -> None:
        self.ratio, self.change = scaling
        self.format = FORMATS.load(artifact.format)
        self.floats: Format = FORMATS.load("tflite")
        self._content, self._reference = (
            inputs.read(one, inputs.FINISHED) for one in (path, reference)
        )
        self.folder, self._number = folder, itertools.count()
        facts, exact = self.format.inspect(self._content), self.floats.inspect(self._reference)
        self.layout: Layout = facts.layout
        self.input, self.image = facts.inputs[0], exact.inputs[0]
        self.runtime = runtimes.default_runtime(artifact)
        self.layers, self.not_told = self._pair_layers(exact, facts)
        self.exact_logits = exact.logits
        if not self.layers:
            raise InputError(
                f"no layer of {path.name} goes by the name that it has in {reference.name}",
                "export both again, with --force",
            )
        self.answer = _answer(facts, path)
        self.shape = _answer(exact, reference).shape
        self.ends = artifacts.signature(artifact).outputs
        self.task = artifact.spec.task or _likely_task(self.ends)

    def _pair_layers(
        self, exact: FileFacts, facts: FileFacts
    ) -> tuple[tuple[_Pairing, ...], tuple[str, ...]]:
        """Pairs the layers of both files up to the logits, by name and shape, in order."""
        from mobiledeploy.graphs import readers
        from mobiledeploy.graphs.graph import Graph

        ends = readers.telling(Graph(self._reference))
        candidates: dict[str, list[Tensor]] = {}
        names = {_short(tensor.name) for tensor in self.floats.activations(exact)}
        nodes = {tensor.name: layer.name for layer in facts.layers for tensor in layer.outputs}
        for tensor in self.format.activations(facts):
            if tensor.dtype in _INTEGERS and len(tensor.scale) == 1:
                candidates.setdefault(_layer(tensor.name, names), []).append(tensor)
        pairs: list[_Pairing] = []
        absent: list[str] = []
        # The pairs that a tensor comes from.
        origins: dict[str, set[str]] = {}
        for layer in exact.layers:
            tensor = layer.outputs[0]
            name = _short(tensor.name)
            matches = [t for t in candidates.get(name, []) if self._shape(t) == tensor.shape]
            best = [t for t in matches if t.name == tensor.name] or matches
            if best and not tensor.constant:
                candidates[name].remove(best[0])
                sources = {source for t in layer.inputs for source in origins.get(t.name, ())}
                reads = tuple(pair.name for pair in pairs if pair.name in sources)
                codes = best[0]
                node = nodes.get(codes.name, codes.name)
                told = ends.get(tensor.name, (-np.inf, np.inf))
                pairs.append(
                    _Pairing(name, layer.op, reads, tensor, codes, _grid(codes), node, told)
                )
                origins[tensor.name] = {name}
            elif not tensor.constant:
                absent.append(name)
                origins[tensor.name] = {
                    source for t in layer.inputs for source in origins.get(t.name, ())
                }
            if tensor.name == exact.logits:
                break
        return tuple(pairs), tuple(absent)

    def _shape(self, tensor: Tensor) -> tuple[int, ...]:
        if self.layout == "NCHW" and len(tensor.shape) == 4:
            return tuple(tensor.shape[axis] for axis in _TO_NHWC)
        return tensor.shape

    def exact(self, input_names: Sequence[str], output_names: Sequence[str]) -> _Subgraph:
        """A subgraph of the float model."""
        return self._subgraph(self.floats, self._reference, input_names, output_names, "litert")

    def integer(self, input_names: Sequence[str], output_names: Sequence[str]) -> _Subgraph:
        """A subgraph of the artifact."""
        return self._subgraph(self.format, self._content, input_names, output_names, self.runtime)

    def _subgraph(
        self,
        shelf: Format,
        content: bytes,
        input_names: Sequence[str],
        output_names: Sequence[str],
        runtime: str,
    ) -> _Subgraph:
        part = shelf.extract_subgraph(content, input_names, output_names)
        place = self.folder / f"part{next(self._number)}{shelf.SUFFIX}"
        place.write_bytes(part)
        names = tuple(tensor.name for tensor in shelf.inspect(part).inputs)
        return _Subgraph(place, runtime, names, tuple(output_names))


def _once(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _short(name: str) -> str:
    """The first of the names of fused operators, which TFLite joins; it is the layer's."""
    return name.partition(";")[0]


def _layer(name: str, names: set[str]) -> str:
    """The layer that a tensor is named after; int8 ONNX numbers equal names."""
    short = _short(name).removesuffix("/codes")
    return short if short in names else re.sub(r"_\d+$", "", short)


def _grid(tensor: Tensor) -> CodeGrid:
    limits = np.iinfo(np.dtype(tensor.dtype))
    return CodeGrid(tensor.scale[0], tensor.zero_point[0], int(limits.min), int(limits.max))


# --- running subgraphs ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Subgraph:
    """A model file with the names of its inputs and outputs, for one runtime."""

    path: Path
    runtime: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class _Lab:
    """Runs subgraphs of the file `name` in a runner process for each runtime."""

    def __init__(self, session: Session, folder: Path, name: str) -> None:
        self._session, self._folder, self._name = session, folder, name
        self._running: dict[str, tuple[Process, protocol.Listener]] = {}
        self._number = itertools.count()

    def run(self, subgraph: _Subgraph, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of a subgraph, by name, for raw input tensors."""
        number = next(self._number)
        input_file, output_file = (self._folder / f"{number}.{kind}.npz" for kind in ("in", "out"))
        arrays = {str(i): tensors[name] for i, name in enumerate(subgraph.inputs)}
        np.savez(input_file, **arrays)
        process, listener = self._runner(subgraph.runtime)
        process.send(
            records.line(protocol.Feed(str(subgraph.path), str(input_file), str(output_file)))
        )
        _, event = listener.next()
        if not isinstance(event, protocol.Fed):
            raise DeviceError(f"the runner said {type(event).__name__}, which was not asked")
        with np.load(output_file, allow_pickle=False) as archive:
            outputs = {name: archive[str(i)] for i, name in enumerate(subgraph.outputs)}
        input_file.unlink()
        output_file.unlink()
        return outputs

    def _runner(self, runtime: str) -> tuple[Process, protocol.Listener]:
        if runtime not in self._running:
            target = Target("host", "python", runtime, leases.cores(), "")
            process = self._session.run(RUNNERS.load("python").layers(target))
            listener = protocol.Listener(self._name, runner_pool.PATIENCE_S)
            listener.listen(0, process)
            self._running[runtime] = process, listener
        return self._running[runtime]


# --- the examination -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Examination:
    """The rows of all layers, the SQNR of the logits, the share of images with the same answer.

    `unlike_output` is the layer of an output with values of several units, "" if there is none.
    """

    layers: tuple[LayerError, ...]
    sqnr_db: float
    agreement: float
    unlike_output: str


@dataclass(frozen=True)
class _Whole:
    """The answers to one image: float layers, codes of integer layers, logits as real values."""

    exact: list[Floats]
    codes: list[Array]
    logits: Floats
    answer: Floats


class _Bench:
    """The subgraphs that run for every image."""

    def __init__(self, pair: _Pair, lab: _Lab) -> None:
        self.pair, self.lab = pair, lab
        exact = [layer.exact.name for layer in pair.layers]
        codes = [layer.codes.name for layer in pair.layers]
        self._exact = pair.exact([pair.image.name], _once(*exact, pair.exact_logits))
        self._integer = pair.integer([pair.input.name], _once(*codes, pair.answer.name))
        self._exact_apart = pair.exact([pair.image.name, *exact], exact)
        self._integer_apart = pair.integer([pair.input.name, *codes], codes)

    def whole(self, image: Floats) -> _Whole:
        """The answers of both networks, layer by layer."""
        pair = self.pair
        exact = self.lab.run(self._exact, {pair.image.name: image[None]})
        codes = self.lab.run(self._integer, {pair.input.name: self._raw(image)})
        return _Whole(
            [np.clip(exact[layer.exact.name], *layer.ends) for layer in pair.layers],
            [self._nhwc(codes[layer.codes.name]) for layer in pair.layers],
            exact[pair.exact_logits].reshape(-1),
            preprocessing.from_output(codes[pair.answer.name], pair.answer).reshape(-1),
        )

    def apart(
        self, image: Floats, exact: Sequence[Floats], factors: Sequence[Doubles]
    ) -> tuple[list[Array], list[Floats]]:
        """The answer of each layer of both to the codes of exact values."""
        pair = self.pair
        raw = self._raw(image)
        codes, reals = {pair.input.name: raw}, {pair.image.name: self._quantized_input(raw)}
        for layer, values, factor in zip(pair.layers, exact, factors, strict=True):
            layer_codes = layer.grid.codes(values * factor)
            reals[layer.exact.name] = (layer.grid.real(layer_codes) / factor).astype(np.float32)
            codes[layer.codes.name] = self._as_stored(layer_codes.astype(layer.codes.dtype))
        own = self.lab.run(self._integer_apart, codes)
        reference = self.lab.run(self._exact_apart, reals)
        return (
            [self._nhwc(own[layer.codes.name]) for layer in pair.layers],
            [reference[layer.exact.name] for layer in pair.layers],
        )

    def _raw(self, image: Floats) -> Array:
        own = ((image - self.pair.change) / self.pair.ratio).astype(np.float32)
        return preprocessing.to_input(own, self.pair.input, self.pair.layout)

    def _quantized_input(self, raw: Array) -> Floats:
        """The float model's image after quantization at an integer input."""
        tensor = self.pair.input
        values = self._nhwc(raw).astype(np.float32)
        if tensor.scale:
            values = (values - tensor.zero_point[0]) * np.float32(tensor.scale[0])
        return (values * self.pair.ratio + self.pair.change).astype(np.float32)

    def _nhwc(self, values: Array) -> Array:
        four = self.pair.layout == "NCHW" and values.ndim == 4
        return values.transpose(_TO_NHWC) if four else values

    def _as_stored(self, values: Array) -> Array:
        four = self.pair.layout == "NCHW" and values.ndim == 4
        return np.ascontiguousarray(values.transpose(_TO_NCHW)) if four else values


def _examine(
    pair: _Pair, lab: _Lab, prepared: Sequence[Floats], equalized: bool, reporter: Reporter
) -> _Examination:
    bench = _Bench(pair, lab)
    tallies = _tallies(bench, prepared, equalized, reporter)
    logits, answers = [], []
    noisy = [False] * len(pair.layers)
    for number, (whole, errors) in enumerate(_fill(bench, prepared, tallies, reporter)):
        for place, error in enumerate(errors):
            noisy[place] |= bool(error.any())
            np.save(_place(pair, place, number), (whole.exact[place] + error).astype(np.float32))
        logits.append(whole.logits)
        answers.append(whole.answer)
    alone = []
    for place, layer in enumerate(pair.layers):
        reporter.progress("from each layer on", place, len(pair.layers))
        alone.append(_alone(pair, lab, place, layer, prepared, logits) if noisy[place] else 0.0)
    reporter.progress("from each layer on", len(pair.layers), len(pair.layers))
    float_logits, integer_logits = np.stack(logits), np.stack(answers)
    power, total = float((float_logits.astype(np.float64) ** 2).sum()), sum(alone) or 1.0
    return _Examination(
        tuple(
            tally.error(
                layer.name,
                layer.op,
                layer.exact.shape,
                layer.reads,
                alone=noise,
                power=power,
                share=noise / total,
                node=layer.node,
            )
            for layer, tally, noise in zip(pair.layers, tallies, alone, strict=True)
        ),
        accuracy.sqnr_db(float_logits, integer_logits),
        _agreement(pair, float_logits, integer_logits),
        _unlike_output(pair, float_logits),
    )


def _agreement(pair: _Pair, exact: Floats, answers: Floats) -> float:
    """The share of images with the same answer, by the task; `exact` and `answers` are [N, ...].

    One of several outputs is compared as numbers.
    """
    whole = len(pair.ends) == 1
    task = TASKS.load(pair.task if whole else "tensors")
    ends = accuracy.before_softmax(pair.ends[:1])
    decoded = [
        [task.decode([values.reshape(ends[0].shape)], ends) for values in rows]
        for rows in (exact, answers)
    ]
    return float(np.mean([task.agrees(one, other) for one, other in zip(*decoded, strict=True)]))


def _likely_task(ends: Sequence[ModelOutput]) -> str:
    """The task of a file without a record.

    A row of numbers is compared as scores of classes, where nothing says what it is.
    """
    task, _ = task_choice.by_outputs(ends, 0)
    row = task == "tensors" and not TASKS.load("classification").mismatch(ends)
    return "classification" if row else task


def _unlike_output(pair: _Pair, exact: Floats) -> str:
    if TASKS.load(pair.task).ONE_UNIT or pair.answer.dtype not in _INTEGERS:
        return ""
    values = exact.reshape(len(exact), *pair.shape[1:])
    return pair.layers[-1].name if quantization.has_unlike_channels(values) else ""


def _tallies(
    bench: _Bench, prepared: Sequence[Floats], equalized: bool, reporter: Reporter
) -> list[Tally]:
    """An empty tally for each layer."""
    layers = bench.pair.layers
    factors = _factors(bench, prepared, reporter) if equalized else [np.ones(1) for _ in layers]
    return [Tally(layer.grid, t, layer.ends) for layer, t in zip(layers, factors, strict=True)]


def _fill(
    bench: _Bench, prepared: Sequence[Floats], tallies: Sequence[Tally], reporter: Reporter
) -> Iterator[tuple[_Whole, list[Doubles]]]:
    """Adds image after image; yields the answers of both networks and each layer's own error."""
    factors = [tally.factor for tally in tallies]
    for number, image in enumerate(prepared):
        reporter.progress("every layer on its own", number, len(prepared))
        whole = bench.whole(image)
        own, reference = bench.apart(image, whole.exact, factors)
        rows = zip(tallies, whole.exact, whole.codes, own, reference, strict=True)
        yield whole, [tally.add(*values) for tally, *values in rows]
    reporter.progress("every layer on its own", len(prepared), len(prepared))


def _factors(bench: _Bench, prepared: Sequence[Floats], reporter: Reporter) -> list[Doubles]:
    """The factors by which equalization scaled the channels of each layer."""
    scaling = [Scaling() for _ in bench.pair.layers]
    for number, image in enumerate(prepared):
        reporter.progress("how channels were scaled", number, len(prepared))
        whole = bench.whole(image)
        for layer, scale, x, q in zip(
            bench.pair.layers, scaling, whole.exact, whole.codes, strict=True
        ):
            scale.add(x.astype(np.float64), layer.grid.real(q))
    reporter.progress("how channels were scaled", len(prepared), len(prepared))
    return [scale.factor() for scale in scaling]


def _alone(
    pair: _Pair,
    lab: _Lab,
    place: int,
    layer: _Pairing,
    prepared: Sequence[Floats],
    logits: Sequence[Floats],
) -> float:
    """The squared error of the logits, over all images, with the error of this layer only."""
    last = pair.exact_logits
    rest = None
    if layer.exact.name != last:
        rest = pair.exact([pair.image.name, layer.exact.name], [last])
    noise = 0.0
    for number, image in enumerate(prepared):
        values = np.load(_place(pair, place, number), allow_pickle=False)
        if rest is not None:
            tensors = {pair.image.name: image[None], layer.exact.name: values}
            values = lab.run(rest, tensors)[last]
        noise += float(((values.reshape(-1).astype(np.float64) - logits[number]) ** 2).sum())
        _place(pair, place, number).unlink()
    if rest is not None:
        rest.path.unlink()
    return noise


def _place(pair: _Pair, layer: int, image: int) -> Path:
    return pair.folder / f"{layer}.{image}.npy"
