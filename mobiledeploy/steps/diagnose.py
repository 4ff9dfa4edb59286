"""Why an int8 artifact is not its float model: layer by layer, over a few images.

Three questions, each answered by running subgraphs of the two files in runner processes:

- What does each layer deliver, beside the float network?
- What is its own error, where the layers before it make none? Every integer layer is fed the codes
  of the float network's exact values, and held against the float layer on these same codes.
- What does that error alone do to the answer? The float network is run from that layer on with the
  error added, so that the errors of all layers are told apart where it counts.
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
from mobiledeploy.core import artifacts, inputs, leases, preprocessing, protocol, records, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import BrokenImage, DeviceError, InputError, UsageError
from mobiledeploy.core.plugins import DEVICES, FORMATS, RECIPES, RUNNERS, dataset
from mobiledeploy.core.ports import SILENT, Array, Format, Pixels, Process, Reporter, Session
from mobiledeploy.core.types import (
    Artifact,
    FileFacts,
    Layout,
    NamedWarning,
    Overrides,
    Split,
    Target,
    Tensor,
)
from mobiledeploy.steps import evaluation_images, golden_inputs, runner_pool, runtimes

Floats = NDArray[np.float32]

IMAGES = 16
"""Of --data at most: more move a layer's figures little, and each is run once for every layer."""
FLOAT = "float32.tflite"
_INTEGERS = ("int8", "uint8", "int16")
_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True)
class QuantizationDiagnosis(Record):
    """An integer artifact beside its float model.

    `sqnr_db` and `agreement` are of the logits over `images` of `data`; `enters` names the layer
    where the largest part of their error enters, "" without any, and `most` the fewest layers that
    together make three quarters of it, largest first. `layers` are in the order in which they run;
    `not_told` are layers of the float model that the artifact does not hand on as integers of their
    own: they count as part of the next. `remedies` come most promising first.
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
        return (Table((*headers, "lost", "saturated", "codes used"), rows, title),)


def _decibels(value: float) -> str:
    """What has no error, or no signal, has no decibels."""
    return "–" if abs(value) >= accuracy.LARGEST_SQNR_DB else f"{value:.1f} dB"


def diagnose(
    path: Path,
    *,
    data: str | None = None,
    overrides: Overrides | None = None,
    reporter: Reporter = SILENT,
) -> QuantizationDiagnosis:
    """What quantization did to each layer of an artifact, where the error enters, what helps.

    Args:
        path: an int8 artifact, TFLite or ONNX, its float32.tflite in the same folder.
        data: images, as `--data`; by default the artifact's golden ones.
        overrides: preprocessing, where it shall differ from the artifact's own.
        reporter: hears of progress and warnings.

    Raises:
        InputError: no artifact, one that is not integers throughout, or no float one beside it;
            layers that go by other names.
        UsageError: a data set that is not known, or that says nothing of the model.
        DeviceError: a runner died or hangs.
    """
    artifact, reference = _integers(path)
    passes = _passes(artifact)
    pre = (overrides or Overrides()).over(artifact.spec.preprocessing)
    assert pre is not None
    preprocessing.validate(pre)
    images, source, warnings = _images(path, artifact, data, reporter)
    prepared = [preprocessing.prepare(x, pre, artifact.spec.resolution) for x in images]
    with (
        artifacts.scratch() as folder,
        records.writing(folder),
        DEVICES.load("host").open("host", exclusive=False, reporter=reporter) as session,
    ):
        pair = _Pair(path, artifact, reference, folder)
        found = _examine(
            pair, _Lab(session, pair.folder, path.name), prepared, bool(passes), reporter
        )
    most = tuple(layer.name for layer in quantization.most(found.layers))
    return QuantizationDiagnosis(
        artifact=str(path),
        artifact_sha256=artifact.sha256,
        recipe=artifact.recipe.name,
        passes=passes,
        reference=str(reference),
        runtime=runtimes.default_runtime(artifact),
        data=source,
        images=len(prepared),
        sqnr_db=found.sqnr_db,
        agreement=found.agreement,
        enters=most[0] if most else "",
        most=most,
        layers=found.layers,
        not_told=pair.not_told,
        remedies=quantization.remedies(
            found.layers,
            sqnr_db=found.sqnr_db,
            agreement=found.agreement,
            recipe=artifact.recipe.name,
            known=RECIPES.names(),
            improved=bool(passes),
            per_tensor=artifact.recipe.granularity == "per-tensor",
        ),
        warnings=warnings,
    )


def own_errors(path: Path, *, reporter: Reporter = SILENT) -> dict[str, float]:
    """What each layer of an artifact loses by itself over its golden images.

    What that does to the answer, which is `diagnose`'s longer part, is not asked.

    Returns:
        `LayerError.own_sqnr_db` by the tensor that the layer hands on.

    Raises:
        as `diagnose`.
    """
    artifact, reference = _integers(path)
    images, _, _ = _images(path, artifact, None, reporter)
    spec = artifact.spec
    prepared = [preprocessing.prepare(x, spec.preprocessing, spec.resolution) for x in images]
    with (
        artifacts.scratch() as folder,
        records.writing(folder),
        DEVICES.load("host").open("host", exclusive=False, reporter=reporter) as session,
    ):
        pair = _Pair(path, artifact, reference, folder)
        bench = _Bench(pair, _Lab(session, pair.folder, path.name))
        tallies = _tallies(bench, prepared, bool(_passes(artifact)), reporter)
        for _ in _tallied(bench, prepared, tallies, reporter):
            pass
    return {
        layer.codes.name: tally.own_sqnr_db
        for layer, tally in zip(pair.layers, tallies, strict=True)
    }


def _integers(path: Path) -> tuple[Artifact, Path]:
    """An artifact of integers throughout, and its float model."""
    artifact = artifacts.load(path)
    if not artifact.recipe.full_integer:
        raise InputError(
            f"{path} is {artifact.recipe.name}: its activations are floats",
            "give one of integers throughout, such as int8_ptq",
        )
    return artifact, _reference(path, artifact)


def _passes(artifact: Artifact) -> tuple[str, ...]:
    """Those that its alternative went through."""
    if artifact.tried:
        return min(artifact.tried, key=lambda one: one.divergence).passes
    return artifact.recipe.passes[0]


def _reference(path: Path, artifact: Artifact) -> Path:
    """The float TFLite of the same model, beside the artifact."""
    found = path.parent / FLOAT
    hint = f"make it: the export of {path.name} again, with --recipe float32 --format tflite"
    if not found.is_file():
        raise InputError(f"{path.parent} has no {FLOAT} to compare with", hint)
    if artifacts.load(found).spec != artifact.spec:
        raise InputError(f"{found} is of another model than {path.name}", hint)
    return found


def _images(
    path: Path, artifact: Artifact, data: str | None, reporter: Reporter
) -> tuple[list[Pixels], str, tuple[NamedWarning, ...]]:
    """The images, where they are from, and what is to be known of them."""
    if data is None:
        found = [golden_inputs.golden(path.parent, path.parent / x) for x in artifact.golden.images]
        if not found:
            raise UsageError(f"{path.name} has no golden images", "give --data DIR or FILE.npz")
        return found, "golden", ()
    own = artifact.data
    if data == "demo" and own.source != "demo":
        raise UsageError(
            "the demo images say nothing about a model that was not trained on them",
            "give --data DIR or FILE.npz",
        )
    split: Split = own.split if evaluation_images.same_place(data, own.source) else "all"
    samples = dataset(data).open(data, split, resolution=artifact.spec.resolution, labels=())
    found, warnings = [], []
    wanted = np.linspace(0, len(samples), min(IMAGES, len(samples)), endpoint=False, dtype=int)
    for index in wanted:
        try:
            found.append(samples.image(int(index)))
        except BrokenImage as error:
            warnings.append(NamedWarning("broken-image", error.message))
            reporter.warn(warnings[-1])
    if not found:
        raise InputError(f"{data} has no image that can be read")
    return found, data, tuple(warnings)


# --- which layers --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pairing:
    """A layer in both files. `op` and `exact` are of the float one, `codes` of the integer one."""

    name: str
    op: str
    reads: tuple[str, ...]
    exact: Tensor
    codes: Tensor
    grid: CodeGrid


def _answer(facts: FileFacts, path: Path) -> Tensor:
    """The logits; InputError where no layer of the file at `path` makes them."""
    for layer in facts.layers:
        for tensor in layer.outputs:
            if tensor.name == facts.logits:
                return tensor
    raise InputError(
        f"{path.name} does not fit together: no layer makes {facts.logits}",
        "export it again, with --force",
    )


class _Pair:
    """An artifact and its float model, and the subgraphs of both that are run."""

    def __init__(self, path: Path, artifact: Artifact, reference: Path, folder: Path) -> None:
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
        self.layers, self.not_told = self._paired(exact, facts)
        self.exact_logits = exact.logits
        if not self.layers:
            raise InputError(
                f"no layer of {path.name} goes by the name that it has in {reference.name}",
                "export both again, with --force",
            )
        self.answer = _answer(facts, path)
        _answer(exact, reference)

    def _paired(
        self, exact: FileFacts, facts: FileFacts
    ) -> tuple[tuple[_Pairing, ...], tuple[str, ...]]:
        """Both files' layers up to the logits, by name and shape, each in order."""
        waiting: dict[str, list[Tensor]] = {}
        known = {_short(tensor.name) for tensor in self.floats.activations(exact)}
        for tensor in self.format.activations(facts):
            if tensor.dtype in _INTEGERS and len(tensor.scale) == 1:
                waiting.setdefault(_layer(tensor.name, known), []).append(tensor)
        pairs: list[_Pairing] = []
        absent: list[str] = []
        # By tensor: the paired layers that it comes from.
        behind: dict[str, set[str]] = {}
        for layer in exact.layers:
            tensor = layer.outputs[0]
            name = _short(tensor.name)
            fitting = [t for t in waiting.get(name, []) if self._shape(t) == tensor.shape]
            same = [t for t in fitting if t.name == tensor.name] or fitting
            if same and not tensor.constant:
                waiting[name].remove(same[0])
                read = {source for t in layer.inputs for source in behind.get(t.name, ())}
                reads = tuple(pair.name for pair in pairs if pair.name in read)
                pairs.append(_Pairing(name, layer.op, reads, tensor, same[0], _grid(same[0])))
                behind[tensor.name] = {name}
            elif not tensor.constant:
                absent.append(name)
                behind[tensor.name] = {
                    source for t in layer.inputs for source in behind.get(t.name, ())
                }
            if tensor.name == exact.logits:
                break
        return tuple(pairs), tuple(absent)

    def _shape(self, tensor: Tensor) -> tuple[int, ...]:
        if self.layout == "NCHW" and len(tensor.shape) == 4:
            return tuple(tensor.shape[axis] for axis in _TO_NHWC)
        return tensor.shape

    def exact(self, given: Sequence[str], wanted: Sequence[str]) -> _Subgraph:
        """Of the float model."""
        return self._subgraph(self.floats, self._reference, given, wanted, "litert")

    def integer(self, given: Sequence[str], wanted: Sequence[str]) -> _Subgraph:
        """Of the artifact."""
        return self._subgraph(self.format, self._content, given, wanted, self.runtime)

    def _subgraph(
        self,
        shelf: Format,
        content: bytes,
        given: Sequence[str],
        wanted: Sequence[str],
        runtime: str,
    ) -> _Subgraph:
        part = shelf.extract_subgraph(content, given, wanted)
        place = self.folder / f"part{next(self._number)}{shelf.SUFFIX}"
        place.write_bytes(part)
        names = tuple(tensor.name for tensor in shelf.inspect(part).inputs)
        return _Subgraph(place, runtime, names, tuple(wanted))


def _once(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _short(name: str) -> str:
    """TFLite joins the names of all that it has fused; the first is the layer's."""
    return name.partition(";")[0]


def _layer(name: str, known: set[str]) -> str:
    """The layer that a tensor's name is after; int8 ONNX numbers what is named alike."""
    short = _short(name).removesuffix("/codes")
    return short if short in known else re.sub(r"_\d+$", "", short)


def _grid(tensor: Tensor) -> CodeGrid:
    limits = np.iinfo(np.dtype(tensor.dtype))
    return CodeGrid(tensor.scale[0], tensor.zero_point[0], int(limits.min), int(limits.max))


# --- running subgraphs ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Subgraph:
    """A model file with the names of what it takes and gives, for one runtime."""

    path: Path
    runtime: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class _Lab:
    """A runner process for each runtime that is needed, for subgraphs of the file `name`."""

    def __init__(self, session: Session, folder: Path, name: str) -> None:
        self._session, self._folder, self._name = session, folder, name
        self._running: dict[str, tuple[Process, protocol.Listener]] = {}
        self._number = itertools.count()

    def run(self, subgraph: _Subgraph, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """What a subgraph gives, by name, for the raw tensors that it takes."""
        number = next(self._number)
        given, made = (self._folder / f"{number}.{kind}.npz" for kind in ("in", "out"))
        arrays = {str(i): tensors[name] for i, name in enumerate(subgraph.inputs)}
        np.savez(given, **arrays)
        process, listener = self._runner(subgraph.runtime)
        process.send(records.line(protocol.Feed(str(subgraph.path), str(given), str(made))))
        _, event = listener.next()
        if not isinstance(event, protocol.Fed):
            raise DeviceError(f"the runner said {type(event).__name__}, which was not asked")
        with np.load(made, allow_pickle=False) as stored:
            found = {name: stored[str(i)] for i, name in enumerate(subgraph.outputs)}
        given.unlink()
        made.unlink()
        return found

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
    """Every layer's row, the logits' SQNR, the share of images with the same best class."""

    layers: tuple[LayerError, ...]
    sqnr_db: float
    agreement: float


@dataclass(frozen=True)
class _Whole:
    """Of one image: float layers, codes of integer layers, logits of both in real values."""

    exact: list[Floats]
    codes: list[Array]
    logits: Floats
    answer: Floats


class _Bench:
    """The subgraphs that every image goes through."""

    def __init__(self, pair: _Pair, lab: _Lab) -> None:
        self.pair, self.lab = pair, lab
        exact = [layer.exact.name for layer in pair.layers]
        codes = [layer.codes.name for layer in pair.layers]
        self._exact = pair.exact([pair.image.name], _once(*exact, pair.exact_logits))
        self._integer = pair.integer([pair.input.name], _once(*codes, pair.answer.name))
        self._exact_apart = pair.exact([pair.image.name, *exact], exact)
        self._integer_apart = pair.integer([pair.input.name, *codes], codes)

    def whole(self, image: Floats) -> _Whole:
        """What both networks answer, layer by layer."""
        pair = self.pair
        exact = self.lab.run(self._exact, {pair.image.name: image[None]})
        codes = self.lab.run(self._integer, {pair.input.name: self._raw(image)})
        return _Whole(
            [exact[layer.exact.name] for layer in pair.layers],
            [self._nhwc(codes[layer.codes.name]) for layer in pair.layers],
            exact[pair.exact_logits].reshape(-1),
            preprocessing.from_output(codes[pair.answer.name], pair.answer),
        )

    def apart(
        self, image: Floats, exact: Sequence[Floats], factors: Sequence[Doubles]
    ) -> tuple[list[Array], list[Floats]]:
        """What each layer of both answers where it is given the codes of exact values."""
        pair = self.pair
        raw = self._raw(image)
        codes, reals = {pair.input.name: raw}, {pair.image.name: self._seen(raw)}
        for layer, values, factor in zip(pair.layers, exact, factors, strict=True):
            rounded = layer.grid.codes(values * factor)
            reals[layer.exact.name] = (layer.grid.real(rounded) / factor).astype(np.float32)
            codes[layer.codes.name] = self._as_stored(rounded.astype(layer.codes.dtype))
        own = self.lab.run(self._integer_apart, codes)
        reference = self.lab.run(self._exact_apart, reals)
        return (
            [self._nhwc(own[layer.codes.name]) for layer in pair.layers],
            [reference[layer.exact.name] for layer in pair.layers],
        )

    def _raw(self, image: Floats) -> Array:
        return preprocessing.to_input(image, self.pair.input, self.pair.layout)

    def _seen(self, raw: Array) -> Floats:
        """The image as an integer input holds it."""
        tensor = self.pair.input
        values = self._nhwc(raw).astype(np.float32)
        return (
            values
            if not tensor.scale
            else (values - tensor.zero_point[0]) * np.float32(tensor.scale[0])
        )

    def _nhwc(self, values: Array) -> Array:
        four = self.pair.layout == "NCHW" and values.ndim == 4
        return values.transpose(_TO_NHWC) if four else values

    def _as_stored(self, values: Array) -> Array:
        four = self.pair.layout == "NCHW" and values.ndim == 4
        return np.ascontiguousarray(values.transpose(_TO_NCHW)) if four else values


def _examine(
    pair: _Pair, lab: _Lab, prepared: Sequence[Floats], scaled: bool, reporter: Reporter
) -> _Examination:
    bench = _Bench(pair, lab)
    tallies = _tallies(bench, prepared, scaled, reporter)
    logits, answers = [], []
    noisy = [False] * len(pair.layers)
    for done, (whole, errors) in enumerate(_tallied(bench, prepared, tallies, reporter)):
        for place, error in enumerate(errors):
            noisy[place] |= bool(error.any())
            np.save(_place(pair, place, done), (whole.exact[place] + error).astype(np.float32))
        logits.append(whole.logits)
        answers.append(whole.answer)
    alone = []
    for place, layer in enumerate(pair.layers):
        reporter.progress("from each layer on", place, len(pair.layers))
        alone.append(_alone(pair, lab, place, layer, prepared, logits) if noisy[place] else 0.0)
    reporter.progress("from each layer on", len(pair.layers), len(pair.layers))
    right, given = np.stack(logits), np.stack(answers)
    power, total = float((right.astype(np.float64) ** 2).sum()), sum(alone) or 1.0
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
            )
            for layer, tally, noise in zip(pair.layers, tallies, alone, strict=True)
        ),
        accuracy.sqnr_db(right, given),
        float(np.mean(right.argmax(axis=1) == given.argmax(axis=1))),
    )


def _tallies(
    bench: _Bench, prepared: Sequence[Floats], scaled: bool, reporter: Reporter
) -> list[Tally]:
    """An empty one for each layer."""
    layers = bench.pair.layers
    factors = _factors(bench, prepared, reporter) if scaled else [np.ones(1) for _ in layers]
    return [Tally(layer.grid, t) for layer, t in zip(layers, factors, strict=True)]


def _tallied(
    bench: _Bench, prepared: Sequence[Floats], tallies: Sequence[Tally], reporter: Reporter
) -> Iterator[tuple[_Whole, list[Doubles]]]:
    """Adds image after image: what both networks answered, and each layer's own error."""
    factors = [tally.factor for tally in tallies]
    for done, image in enumerate(prepared):
        reporter.progress("every layer on its own", done, len(prepared))
        whole = bench.whole(image)
        own, reference = bench.apart(image, whole.exact, factors)
        rows = zip(tallies, whole.exact, whole.codes, own, reference, strict=True)
        yield whole, [tally.add(*values) for tally, *values in rows]
    reporter.progress("every layer on its own", len(prepared), len(prepared))


def _factors(bench: _Bench, prepared: Sequence[Floats], reporter: Reporter) -> list[Doubles]:
    """What equalization has scaled the channels of each layer by."""
    scaling = [Scaling() for _ in bench.pair.layers]
    for done, image in enumerate(prepared):
        reporter.progress("how channels were scaled", done, len(prepared))
        whole = bench.whole(image)
        for layer, found, x, q in zip(
            bench.pair.layers, scaling, whole.exact, whole.codes, strict=True
        ):
            found.add(x.astype(np.float64), layer.grid.real(q))
    reporter.progress("how channels were scaled", len(prepared), len(prepared))
    return [found.factor() for found in scaling]


def _alone(
    pair: _Pair,
    lab: _Lab,
    place: int,
    layer: _Pairing,
    prepared: Sequence[Floats],
    logits: Sequence[Floats],
) -> float:
    """The squared error of the logits, over all images, where this layer alone has its own."""
    last = pair.exact_logits
    rest = None
    if layer.exact.name != last:
        rest = pair.exact([pair.image.name, layer.exact.name], [last])
    noise = 0.0
    for number, image in enumerate(prepared):
        values = np.load(_place(pair, place, number), allow_pickle=False)
        if rest is not None:
            given = {pair.image.name: image[None], layer.exact.name: values}
            values = lab.run(rest, given)[last]
        noise += float(((values.reshape(-1).astype(np.float64) - logits[number]) ** 2).sum())
        _place(pair, place, number).unlink()
    if rest is not None:
        rest.path.unlink()
    return noise


def _place(pair: _Pair, layer: int, image: int) -> Path:
    return pair.folder / f"{layer}.{image}.npy"
