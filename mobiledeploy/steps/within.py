"""The cheapest files of a model that surely keep to an accuracy budget: `export --within`.

A fifth of the evaluation samples, the search part, says which layers spoil the answers of the
integer file. From that a chain of recipes and layers left in float is fixed. The other samples, the
verdict part, then judge it from the dearest link to the cheapest (`analysis.fixed_sequence`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import cost, fixed_sequence, gate
from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core import inputs, units
from mobiledeploy.core.display import Table
from mobiledeploy.core.errors import BrokenImage, InputError, UsageError
from mobiledeploy.core.plugins import DEVICES, FORMATS, RECIPES, TASKS
from mobiledeploy.core.ports import SILENT, Samples
from mobiledeploy.core.types import (
    Annotation,
    Artifact,
    BudgetChain,
    BudgetFile,
    BudgetLink,
    Counted,
    Evaluation,
    Layer,
    NamedWarning,
    Outcome,
    Prediction,
    Verdict,
)
from mobiledeploy.steps import diagnose, evaluations, golden_inputs, shrunk_layers
from mobiledeploy.steps.accuracy_check import flip_verdict, unlabelled
from mobiledeploy.steps.bench_figures import time_artifacts
from mobiledeploy.steps.evaluation_images import EvaluationImages
from mobiledeploy.steps.export_files import REFERENCE, SharedFloats, make, place, refuse_irregular
from mobiledeploy.steps.export_plan import ExportConfig, plan
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.file_checks import Collector
from mobiledeploy.steps.task_check import metric_verdict
from mobiledeploy.steps.task_judge import TaskJudge

Cost = Literal["instructions", "bytes"]

BASE, FLOAT = "int8_best", "float32"
CORE = "emulator:cortex-a76"
"""The core that counts; it has dot products of int8, as phones since 2018."""
MOST_LINKS = 8
SEARCH_SHARE = 0.2
SPLIT = "by the sha256 of the data's identity and the sample's name; golden samples search"
_OWN_LAYERS = "choose layers yourself: export --keep-float LAYER, which `check` judges"
_POINTS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(?:pt|%)?", re.IGNORECASE)
_BITS = 8
"""Of a weight that is an integer."""


@dataclass(frozen=True)
class LossBudget:
    """What may be lost: a fraction of the metric, or of the answers. None for the default cost."""

    kind: Literal["metric", "answers"]
    share: float
    cost: Cost | None = None


def budget(
    within: float | str | None, max_disagreement: float | str | None, cost_: Cost | None
) -> LossBudget | None:
    """The budget that the options name, None for none; UsageError for what makes no sense."""
    if within is not None and max_disagreement is not None:
        raise UsageError("--within and --max-disagreement are two budgets", "leave out one")
    if within is not None:
        return LossBudget("metric", _share("--within", within, "pt"), cost_)
    if max_disagreement is not None:
        return LossBudget("answers", _share("--max-disagreement", max_disagreement, "%"), cost_)
    if cost_ is not None:
        raise UsageError("--cost goes with --within or --max-disagreement", "add one of them")
    return None


def _share(option: str, value: float | str, unit: str) -> float:
    """'1pt', '1%' and 1 are 0.01."""
    match = _POINTS.fullmatch(str(value).strip())
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share < 1:
        raise UsageError(f"{option} {value} is not between 0 and 100", f"{option} 1{unit}")
    return share


def choose(
    config: ExportConfig, limit: LossBudget, reporter: Collector
) -> tuple[ExportConfig | None, BudgetChain, Artifact]:
    """Makes and judges the chain, and puts the files of the chosen link into place.

    Returns:
        The export whose files were written, None if no link passed; the chain; and an artifact of
        the dearest link.

    Raises:
        UsageError: options that the chain decides itself, no images of the model's, or no
            annotations for a budget of the metric; and the errors of an export.
    """
    if config.recipes is not None:
        raise UsageError(
            "--recipe does not go with a budget, which chooses among recipes", "leave out --recipe"
        )
    if config.keep_float:
        raise UsageError(
            "--keep-float does not go with a budget, which chooses the layers",
            "leave out --keep-float",
        )
    # Of the float file: the plan of a file of integers would advise another recipe.
    # What a plan says is said here, once for all links.
    first = Collector(SILENT)
    first.progress, first.say = reporter.progress, reporter.say
    if not plan(dataclasses.replace(config, recipes=(FLOAT,)), first).evaluates:
        raise UsageError(
            "a budget is judged by images like those that the model will see, and none are given",
            "give --data DIR or FILE.npz",
        )
    with artifacts_.scratch() as folder:
        return _Chain(config, limit, folder, reporter).choose()


@dataclass
class _Made:
    """The files of one link by format, their answers, and the warnings about them."""

    config: ExportConfig
    files: dict[str, tuple[Path, Artifact]]
    evaluations: dict[str, Evaluation]
    warnings: tuple[NamedWarning, ...]


@dataclass
class _Chain:
    """One search; `choose` sets what the other methods read."""

    config: ExportConfig
    limit: LossBudget
    folder: Path
    reporter: Collector
    made: dict[BudgetLink, _Made] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "shared").mkdir()
        self.shared = SharedFloats(self.folder / "shared")

    def choose(self) -> tuple[ExportConfig | None, BudgetChain, Artifact]:
        self.core = self._core()
        base = BudgetLink(BASE, ())
        floats = self._make(base, (FLOAT, BASE))
        own = self.made[base]
        self.formats = tuple(own.files)
        path, artifact = own.files[self.formats[0]]
        self.view = EvaluationImages(None, self.config.overrides, self.config.task).of(artifact)
        answers = own.evaluations[self.formats[0]]
        self._require_annotations(answers, path)
        searching = searches(answers, artifact)
        self.judged = np.flatnonzero(~searching)
        self.samples = [one.sample for one in answers.predictions]
        if not len(self.judged):
            raise UsageError(
                f"{answers.data.source} has no sample left to judge by", "give more images"
            )
        self.floats = floats
        # Fixed here, before a sample of the verdict part is looked at.
        links = self._links(
            base, floats, {answers.predictions[n].sample for n in np.flatnonzero(searching)}
        )
        tested = list(links)
        order = []

        def outcomes() -> Iterator[Outcome]:
            for place_, link in enumerate(links):
                self.reporter.progress("links of the chain", place_, len(links))
                tested[place_] = self._tested(link)
                outcome = tested[place_].outcome
                # Whether a file can be made does not depend on the verdict part.
                if outcome is not None:
                    order.append(place_)
                    yield outcome

        passed = order[: fixed_sequence.passed(outcomes())]
        self.reporter.progress("links of the chain", len(links), len(links))
        written = cheapest(tested, passed)
        chain = BudgetChain(
            kind=self.limit.kind,
            budget=self.limit.share,
            level=1 - gate.CONFIDENCE,
            cost="instructions" if self.core else "bytes",
            core=self.core,
            data=answers.data.identity,
            split=SPLIT,
            search=int(searching.sum()),
            verdict=len(self.judged),
            links=tuple(tested),
            written=written,
        )
        shown = links[order[0] if written is None else written]
        for warning in self.made[shown].warnings:
            self.reporter.warn(warning)
        if written is None:
            return None, chain, artifact
        best = self.made[shown]
        config = dataclasses.replace(best.config, out=self.config.out)
        planned = plan(config, Collector(SILENT))
        refuse_irregular(planned)
        files = {
            str(file): dataclasses.replace(one, within=chain) for file, one in best.files.values()
        }
        return config, chain, next(iter(place(files, planned).values()))

    def _make(self, link: BudgetLink, recipes: tuple[str, ...]) -> dict[str, Evaluation]:
        """Makes the files of a link; the evaluations of float files that were made with them.

        Its warnings are kept for the case that it is written.
        """
        collector = Collector(SILENT)
        config = dataclasses.replace(
            self.config,
            recipes=recipes,
            keep_float=link.kept_float,
            out=self.folder / str(len(self.made)),
        )
        planned = plan(config, collector)
        collector.progress, collector.say = self.reporter.progress, self.reporter.say
        made = make(planned, config, collector, self.shared)
        answers = evaluations.stored(made, collector)
        files = {a.format: (Path(p), a) for p, a in made.items() if a.recipe.name == link.recipe}
        if not files:
            raise InputError(collector.failed[0].message)
        for path, artifact in made.items():
            if (artifact.recipe.name, artifact.format) == REFERENCE:
                self.shared.reference = Path(path), artifact
        self.made[link] = _Made(
            dataclasses.replace(config, recipes=(link.recipe,), formats=tuple(files)),
            files,
            {format_: answers[a.sha256] for format_, (_, a) in files.items()},
            tuple(collector.warnings),
        )
        return {a.format: answers[a.sha256] for a in made.values() if a.recipe.name == FLOAT}

    def _require_annotations(self, answers: Evaluation, path: Path) -> None:
        kind = TASKS.load(answers.task).ANNOTATION
        if self.limit.kind == "answers" or not kind:
            return
        if self.view.annotations(answers.predictions, kind) is None:
            raise UsageError(
                unlabelled(answers, Path(path.name)),
                "--max-disagreement judges by the answers that change, without labels",
            )

    def _core(self) -> str:
        """The emulated core that counts, "" where bytes are the cost."""
        if self.limit.cost == "bytes":
            return ""
        if self.config.core is not None:
            return f"emulator:{self.config.core}"
        cores = [one.name for one in DEVICES.load("emulator").available() if not one.fix]
        if cores:
            return CORE if CORE in cores else cores[0]
        if self.limit.cost == "instructions":
            raise UsageError(
                "no emulator is set up that counts instructions",
                "mobiledeploy doctor --emulator, or --cost bytes",
            )
        self.reporter.say("no emulator is set up: the cost of a file is its bytes")
        return ""

    def _links(
        self, base: BudgetLink, floats: Mapping[str, Evaluation], search: set[str]
    ) -> tuple[BudgetLink, ...]:
        """From the dearest to the cheapest."""
        ends = [(), ()] if self.core else [("float16",), ("int8x4_ptq",)]
        dear, cheap = (
            [
                BudgetLink(name, ())
                for name in end
                if set(self.formats) <= set(RECIPES.load(name).RECIPE.formats)
            ]
            for end in ends
        )
        layers = self._layers(base, search)
        lengths = fixed_sequence.prefixes(len(layers), MOST_LINKS - len(dear) - len(cheap))
        left = [BudgetLink(BASE, layers[:n]) for n in reversed(lengths)]
        return (*dear, *left, *cheap)

    def _layers(self, base: BudgetLink, search: set[str]) -> tuple[str, ...]:
        """The layers with an error, by its part in that of the answer for what float adds."""
        made = self.made[base]
        if "tflite" not in made.files:
            self._no_layers("only TFLite files are diagnosed", "--format tflite,onnx has one")
            return ()
        path, artifact = made.files["tflite"]
        try:
            images = self._images(artifact, search)
            found = diagnose.diagnose(
                path, data=images, overrides=self.config.overrides, reporter=self.reporter
            )
        except InputError as error:
            self._no_layers(error.message, _OWN_LAYERS)
            return ()
        added = self._added(path, {layer.name for layer in found.layers})
        # What adds nothing comes first.
        worth = {
            layer.name: layer.share / max(added.get(layer.name, 0.0), 1.0)
            for layer in found.layers
            if layer.share > 0
        }
        layers = tuple(sorted(worth, key=lambda name: -worth[name]))
        if self.core:
            return layers
        # float16 adds a byte to each weight where float32 adds three: what is dearer has no use.
        return affordable(layers, added, sum(added.values()) / 3)

    def _no_layers(self, reason: str, advice: str) -> None:
        message = f"the chain leaves no layer in float: {reason}"
        self.reporter.warn(NamedWarning("no-layers-in-float", message, advice))

    def _images(self, artifact: Artifact, search: set[str]) -> str:
        """Samples of the search part as a data set."""
        folder = self.folder / "search"
        folder.mkdir()
        for name, content in _contents(self.view.samples, search, artifact):
            (folder / name).write_bytes(content)
        return f"golden:{folder}"

    def _added(self, path: Path, names: set[str]) -> dict[str, float]:
        """What each layer costs more in float: instructions, or bytes of its weights.

        Multiply-adds stand in for instructions where the counts do not name each of `names`.
        """
        float_file = path.with_name(f"{FLOAT}{path.suffix}")
        if self.core:
            more = added_instructions(self._counted(float_file), self._counted(path))
            if names <= set(more):
                return more
            self.reporter.say(
                "the counts do not name each layer: multiply-adds say what float adds to one"
            )
        facts = FORMATS.load("tflite").inspect(inputs.read(float_file, inputs.FINISHED))
        return mult_adds(facts.layers) if self.core else added_bytes(facts.layers)

    def _counted(self, path: Path) -> Counted:
        failures = Failures()
        figures = time_artifacts([path], failures, device=self.core, reporter=self.reporter)
        failures.check()
        figure = figures[path]
        assert isinstance(figure, Counted)
        return figure

    def _tested(self, link: BudgetLink) -> BudgetLink:
        try:
            if link not in self.made:
                self._make(link, (link.recipe,))
        except InputError as error:
            message = f"link {link.recipe} cannot be made: {error.message}"
            self.reporter.warn(NamedWarning("left-out", message, error.hint))
            return link
        made = self.made[link]
        if set(made.files) != set(self.formats):
            missing = " and ".join(sorted(set(self.formats) - set(made.files)))
            message = f"link {link.recipe} cannot be made in {missing}"
            self.reporter.warn(NamedWarning("left-out", message))
            return link
        files = tuple(
            BudgetFile(
                format_,
                artifact.sha256,
                self._counted(path).instructions if self.core else artifact.size_bytes,
                self._verdict(format_, made.evaluations[format_]),
            )
            for format_, (path, artifact) in made.files.items()
        )
        outcome = fixed_sequence.joint([file.verdict.outcome for file in files])
        return dataclasses.replace(link, outcome=outcome, files=files)

    def _verdict(self, format_: str, now: Evaluation) -> Verdict:
        """On the verdict part, against the float file of the same format if there is one."""
        exact = self.floats.get(format_) or next(iter(self.floats.values()))
        old, new = self._part(exact), self._part(now)
        task = TASKS.load(now.task)
        if self.limit.kind == "answers":
            flips = sum(not task.agrees(*pair) for pair in zip(old, new, strict=True))
            return flip_verdict(flips, len(new), self.limit.share)
        annotations = (
            self.view.annotations(new, task.ANNOTATION)
            if task.ANNOTATION
            else tuple(Annotation(values=one.values) for one in old)
        )
        if annotations is None:
            raise UsageError(f"{now.data.source} has no annotations in its verdict part")
        judge = TaskJudge(now, annotations)
        before, after = judge.answers(old), judge.answers(new)
        loss = judge.loss(before, after)
        return metric_verdict("float", judge, before, after, loss, self.limit.share)

    def _part(self, evaluation: Evaluation) -> list[Prediction]:
        # The pairs of a paired test are answers to the same sample.
        if [one.sample for one in evaluation.predictions] != self.samples:
            raise InputError(f"{evaluation.data.source} changed while it was judged")
        return [evaluation.predictions[n] for n in self.judged]


def cheapest(tested: Sequence[BudgetLink], passed: Sequence[int]) -> int | None:
    """Which of the links that passed costs least, the last of equal ones; None without any.

    Each that passed is valid. Their order was of what was expected, the choice is of the costs.
    """
    return min(passed, key=lambda place_: (tested[place_].cost, -place_), default=None)


def affordable(layers: Sequence[str], added: Mapping[str, float], most: float) -> tuple[str, ...]:
    """In their order, the layers that together add at most so much; what is too dear is skipped."""
    chosen, spent = [], 0.0
    for name in layers:
        paid = added.get(name, 0.0)
        if spent + paid <= most:
            chosen.append(name)
            spent += paid
    return tuple(chosen)


def added_instructions(exact: Counted, codes: Counted) -> dict[str, float]:
    """How many instructions more each layer takes in the float file, if both counts name it."""
    before, now = (
        {_first(layer.name): layer.instructions for layer in counts.by_layer}
        for counts in (codes, exact)
    )
    return {name: float(now[name] - before[name]) for name in before.keys() & now.keys()}


def mult_adds(layers: Sequence[Layer]) -> dict[str, float]:
    """The multiply-adds of each layer of a float file."""
    rows = zip(cost.unquantized(layers), cost.cost(layers).layers, strict=True)
    return {_first(layer.outputs[0].name): float(row.mult_adds or 0) for layer, row in rows}


def added_bytes(layers: Sequence[Layer]) -> dict[str, float]:
    """The bytes that the weights of each layer of a float file are more than in int8."""
    return {
        _first(layer.outputs[0].name): float(
            sum(
                np.prod(tensor.shape) * (np.dtype(tensor.dtype).itemsize - _BITS / 8)
                for tensor in layer.inputs
                if tensor.constant and tensor.dtype == "float32"
            )
        )
        for layer in layers
    }


def _first(name: str) -> str:
    """The name of a layer by which a diagnosis knows it: TFLite joins those of fused operators."""
    return name.partition(";")[0]


def searches(answers: Evaluation, artifact: Artifact) -> NDArray[np.bool_]:
    """[N] whether each sample is of the search part, by the data alone."""
    golden = set(artifact.golden.ids)
    identity = answers.data.identity

    def drawn(name: str) -> bool:
        digest = hashlib.sha256(f"{identity}\0{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < SEARCH_SHARE * 2**64

    return np.array([p.sample in golden or drawn(p.sample) for p in answers.predictions])


def _contents(samples: Samples, names: set[str], artifact: Artifact) -> Iterator[tuple[str, bytes]]:
    """Names and contents of golden files of at most `diagnose.IMAGES` samples, evenly spread."""
    places = [n for n in range(len(samples)) if samples.id(n) in names]
    spread = np.linspace(0, len(places), min(diagnose.IMAGES, len(places)), endpoint=False)
    signature = artifacts_.signature(artifact).inputs
    for number, place_ in enumerate(spread.astype(int)):
        try:
            content, suffix = golden_inputs.encode(samples, places[place_], signature)
        except BrokenImage:
            continue
        yield f"{number:04}{suffix}", content


def tables(chain: BudgetChain | None) -> tuple[Table, ...]:
    """A row for each file of the chain, the dearest link first; () without a chain."""
    if chain is None:
        return ()
    rows = [row for n, link in enumerate(chain.links) for row in _rows(chain, n, link)]
    what = "points" if chain.kind == "metric" else "% of the answers"
    unit = f"instructions counted on {chain.core}" if chain.core else "bytes of the file"
    title = (
        f"Within {100 * chain.budget:g} {what}: {chain.verdict} images judge, {chain.search} "
        f"others chose the layers; each link at {100 * chain.level:.0f} %; cost: {unit}"
    )
    lost = "lost (95 % bounds)" if chain.kind == "metric" else "changed (95 % bounds)"
    return (Table(("link", "in float", "file", "cost", lost, "verdict"), tuple(rows), title),)


def _rows(chain: BudgetChain, number: int, link: BudgetLink) -> Iterator[tuple[str, ...]]:
    layers = ", ".join(shrunk_layers.short(name) for name in link.kept_float[:2])
    more = f" +{len(link.kept_float) - 2}" if len(link.kept_float) > 2 else ""
    start = (f"{number + 1} {link.recipe}", f"{layers}{more}" or "–")
    if not link.files:
        yield (*start, "–", "–", "–", "not tested")
        return
    for file in link.files:
        one = file.verdict
        paid = f"{file.cost / 1e6:.1f} M" if chain.core else units.size(int(file.cost))
        low, high = one.interval or (one.value, one.value)
        lost = f"{100 * one.value:.2f} ({100 * low:.2f} to {100 * high:.2f})"
        word = one.outcome + (", written" if number == chain.written else "")
        if one.outcome == "inconclusive":
            word += f", {one.needed:,} images needed" if one.needed else ", no number decides"
        yield (*start, file.format, paid, lost, word)
