"""Count mult-adds, parameters and memory; compare with published figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core import units
from mobiledeploy.core.errors import UsageError

if TYPE_CHECKING:
    from mobiledeploy.analysis.floors import InstructionFloors
    from mobiledeploy.steps import diagnose
    from mobiledeploy.steps.arguments import ImageOptions
    from mobiledeploy.verbs import analyze as verb

_CAUSES = {
    "clipped": "by values beyond its range",
    "codes": "by rounding to its codes",
    "weights": "by its integer weights and arithmetic",
}


@click.command(
    epilog="Example:  mobiledeploy analyze --arch mobilenet_v2 --alpha 0.5 --res 160",
    short_help=__doc__,
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@_settings.option("--arch", help="Default: mobilenet_v1; see `mobiledeploy models`.")
@_settings.option("--alpha", type=float, help="Width multiplier, above 0.")
@_settings.option("--groups", type=int, help="Groups of the pointwise convolutions (ShuffleNet).")
@_settings.option("--res", type=int, help="Height and width of the input in pixels.")
@_settings.option(
    "--classes", type=int, help="Default: 1000; 80 of a detector, 19 of segmentation."
)
@_settings.option("--table", metavar="NAME", help="Compare a published table with our networks.")
@_settings.option(
    "--device",
    help="Count FILE's instructions beside their floor on emulator:CORE, or on a phone's core.",
)
@_settings.option("--best", is_flag=True, help="List the published networks that fit a budget.")
@_settings.option("--max-mult-adds", type=_frame.Amount(), help="Budget of --best, such as 150M.")
@_settings.option(
    "--max-size",
    type=_frame.Amount(),
    help="Budget of --best: int8 weights, a byte each, such as 2MB.",
)
@_settings.option("--min-top1", type=float, help="Budget of --best: ImageNet top-1 in per cent.")
@_settings.option(
    "--quantization",
    is_flag=True,
    help="Show why an int8 artifact differs from float, and remedies.",
)
@_settings.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="FLOAT.tflite",
    help="Float file for --quantization; default: the one of the same model beside FILE.",
)
@_settings.option(
    "--data",
    metavar="DATA",
    help="Images for --quantization; default: the artifact's golden images.",
)
@_settings.output(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File for an image of --quantization, .svg or .png.",
)
@_settings.output(
    "--model-explorer",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File for node data of a .tflite or .onnx for Google's Model Explorer, .json.",
)
@click.option("--unsafe", is_flag=True, help="Open a model file even if it can run its own code.")
@_frame.preprocessing_options
@_frame.common
def command(
    file: Path | None,
    arch: str | None,
    alpha: float | None,
    groups: int | None,
    res: int | None,
    classes: int | None,
    table: str | None,
    device: str | None,
    best: bool,
    max_mult_adds: int | None,
    max_size: int | None,
    min_top1: float | None,
    quantization: bool,
    reference: Path | None,
    data: str | None,
    plot: Path | None,
    model_explorer: Path | None,
    unsafe: bool,
    json: bool,
    quiet: bool,
    verbose: int,
    **images: Unpack[ImageOptions],
) -> None:
    """Count the mult-adds, parameters and activation memory of FILE or of a built-in network.

    FILE is a model of your own (.h5, .keras, SavedModel) or a finished .tflite or .onnx. Mult-adds
    are counted as the MobileNet papers do: convolutions and fully connected layers, without biases.

    With --device, FILE is a .tflite or .onnx. With --quantization, it is one of integers, of export
    or of any other tool.
    """
    from mobiledeploy.verbs import analyze as verb

    network = [
        name
        for name, value in {
            "file": file,
            "arch": arch,
            "alpha": alpha,
            "groups": groups,
            "res": res,
            "classes": classes,
            "unsafe": unsafe or None,
        }.items()
        if value is not None
    ]
    if not best and (max_mult_adds, max_size, min_top1) != (None, None, None):
        raise UsageError("--max-mult-adds, --max-size and --min-top1 are for --best", "add --best")
    uses_images = any(value is not None for value in (reference, data, plot, *images.values()))
    if uses_images and not quantization:
        raise UsageError(
            "--reference, --data, --plot and options of preprocessing are for --quantization"
        )
    if quantization and (best or table or network != ["file"]):
        raise UsageError(
            "--quantization takes an artifact and stands alone",
            "mobiledeploy analyze build/NAME/int8_best.tflite --quantization",
        )
    others = best or table or quantization or model_explorer
    if device is not None and (others or network != ["file"]):
        raise UsageError(
            "--device takes a file and stands alone",
            "mobiledeploy analyze build/NAME/int8_best.tflite --device emulator:cortex-a76",
        )
    if (best or table) and model_explorer is not None:
        raise UsageError(
            "--model-explorer goes with a file", "leave it out, or name a .tflite or .onnx"
        )
    if (best or table) and (network or (best and table)):
        raise UsageError("--table and --best stand alone", "leave out the other options")
    if best:
        choices = verb.analyze_best(
            max_mult_adds=max_mult_adds, max_size=max_size, min_top1=min_top1
        )
        _frame.emit_json(choices) if json else _show_best(choices)
        return
    with _frame.Terminal(quiet, verbose) as terminal:
        if quantization and file is not None:
            diagnosis = verb.analyze_quantization(
                file,
                reference=reference,
                data=data,
                plot=plot,
                model_explorer=model_explorer,
                reporter=terminal,
                **images,
            )
            _frame.emit_json(diagnosis) if json else _show_diagnosis(diagnosis)
            return
        if device is not None and file is not None:
            instructions = verb.analyze_instructions(file, device=device, reporter=terminal)
            _frame.emit_json(instructions) if json else _show_floors(instructions)
            return
        if table:
            comparison = verb.analyze_table(table, reporter=terminal)
            _frame.emit_json(comparison) if json else _show_table(comparison)
            return
        analysis = verb.analyze(
            file,
            arch=arch,
            alpha=alpha,
            groups=groups,
            res=res,
            classes=classes,
            unsafe=unsafe,
            model_explorer=model_explorer,
            reporter=terminal,
        )
    _frame.emit_json(analysis) if json else _show(analysis)


def _show(analysis: verb.Analysis) -> None:
    _frame.show(analysis)
    trainable = (
        "" if analysis.trainable_params is None else f" ({analysis.trainable_params:,} trainable)"
    )
    _frame.sentence(f"{analysis.mult_adds:,} mult-adds, {analysis.params:,} parameters{trainable},")
    _frame.sentence(
        f"{units.size(analysis.peak_activation_bytes)} of activations at once, "
        f"{analysis.intensity:.1f} mult-adds per byte moved"
    )
    if analysis.uncounted:
        _frame.sentence(f"not counted: {', '.join(analysis.uncounted)}")


def _show_floors(found: InstructionFloors) -> None:
    _frame.show(found)
    if found.ratio is not None:
        times = found.multiplying / found.floor
        _frame.sentence(
            f"{found.multiplying:,} of the instructions multiply, {times:.2f} x the floor; "
            "the others load, store, requantize and loop"
        )
    if found.uncounted:
        _frame.sentence(f"not counted in the floor: {', '.join(found.uncounted)}")
    if not found.kinds:
        _frame.sentence(f"{found.runtime} did not report instructions by layer")
    elif found.most:
        # TFLite joins the names of fused operators.
        parts = [f"{one.name.partition(';')[0]} ({one.above:,})" for one in found.most]
        share = units.percent(found.most_share)
        _frame.sentence(
            f"{share} of the {found.above:,} instructions above the floor are in {len(parts)} of "
            f"{units.several(len(found.layers), 'layer')}: {', '.join(parts)}"
        )


def _show_diagnosis(diagnosis: diagnose.QuantizationDiagnosis) -> None:
    _frame.show(diagnosis)
    agreement = units.percent(diagnosis.agreement)
    if diagnosis.task == "classification":
        line = f"logits: {diagnosis.sqnr_db:.1f} dB, the best class is float's on {agreement}"
    else:
        line = f"output: {diagnosis.sqnr_db:.1f} dB, the answer is as float's on {agreement}"
    _frame.sentence(f"{line} of the images")
    if diagnosis.not_told:
        _frame.sentence(f"not apart from the layer after it: {', '.join(diagnosis.not_told)}")
    if diagnosis.most:
        _frame.sentence(_where(diagnosis))
    for number, remedy in enumerate(diagnosis.remedies, start=1):
        _frame.sentence(f"{number}. {remedy.name}: {remedy.why}; {remedy.command}")
    if not diagnosis.remedies:
        _frame.sentence("nothing needs a remedy")


def _where(diagnosis: diagnose.QuantizationDiagnosis) -> str:
    """Says whether the error enters in one layer, in a few, or spread over many."""
    from mobiledeploy.analysis import quantization

    by_name = {row.name: row for row in diagnosis.layers}
    most = [by_name[name] for name in diagnosis.most]
    parts = [f"{units.percent(x.share)} of it, {_CAUSES[x.cause or 'weights']}" for x in most]
    count = f"{len(most)} of {len(diagnosis.layers)} layers"
    if len(most) == 1:
        return f"most of the error enters in {most[0].name}: {parts[0]}"
    if len(most) <= quantization.FEW:
        parts_by_layer = "; ".join(f"{x.name}: {part}" for x, part in zip(most, parts, strict=True))
        return f"most of the error enters in {count}: {parts_by_layer}"
    return f"the error is spread over {count}; its largest part is {most[0].name}'s: {parts[0]}"


def _show_table(comparison: verb.TableComparison) -> None:
    if comparison.rows:
        _frame.table(
            (
                "published",
                "alpha",
                "groups",
                "resolution",
                "mult-adds",
                "computed",
                "difference",
                "params",
                "computed",
                "difference",
            ),
            [_comparison(row) for row in comparison.rows],
            title=f"{comparison.table}: {comparison.rows[0].published.source}",
        )
    elif comparison.layers:
        _frame.table(
            ("published", "stride", "filter", "input", "stride", "filter", "input"),
            [
                (
                    row.published.type,
                    str(row.published.stride),
                    row.published.filter,
                    row.published.size,
                    str(row.stride),
                    row.filter,
                    row.size,
                )
                for row in comparison.layers
            ],
            title=f"{comparison.table}: {comparison.layers[0].published.source}, then as built",
        )
    else:
        _frame.table(
            ("kind of layer", "mult-adds", "computed", "params", "computed"),
            [
                (
                    row.published.kind,
                    *(
                        units.percent(share, 2)
                        for share in (
                            row.published.mult_adds,
                            row.mult_adds,
                            row.published.params,
                            row.params,
                        )
                    ),
                )
                for row in comparison.shares
            ],
            title=f"{comparison.table}: {comparison.shares[0].published.source}",
        )
    _show_reasons(comparison)


def _show_reasons(comparison: verb.TableComparison) -> None:
    """Prints each reason once, because it often holds for many rows."""
    reasons: dict[str, list[str]] = {}
    for row in comparison.rows:
        if row.differs:
            published = row.published
            width = "" if published.alpha is None else f"alpha {published.alpha:g} "
            label = f"{published.model} ({width}at {published.resolution})"
            reasons.setdefault(row.why, []).append(label)
    for layer in comparison.layers:
        if layer.differs:
            reasons.setdefault(layer.why, []).append(f"{layer.published.type} {layer.filter}")
    for share in comparison.shares:
        if share.differs:
            reasons.setdefault(share.why, []).append(share.published.kind)
    for why, labels in reasons.items():
        distinct = list(dict.fromkeys(labels))
        more = f" and {len(distinct) - 1} more" if len(distinct) > 1 else ""
        _frame.sentence(f"why: {distinct[0]}{more}: {why}")


def _comparison(row: verb.NetworkComparison) -> tuple[str, ...]:
    published = row.published
    return (
        published.model,
        "–" if published.alpha is None else f"{published.alpha:g}",
        "–" if published.groups is None else str(published.groups),
        str(published.resolution),
        *_beside(published.mult_adds, row.mult_adds, 1),
        *_beside(published.params, row.params, 2),
    )


def _beside(printed: int | None, counted: int, digits: int) -> tuple[str, str, str]:
    if printed is None:
        return "–", f"{counted / 1e6:.{digits}f} M", "–"
    return (
        f"{printed / 1e6:g} M",
        f"{counted / 1e6:.{digits}f} M",
        f"{100 * (counted - printed) / printed:+.1f} %",
    )


def _show_best(choices: verb.BudgetChoices) -> None:
    _frame.show(choices)
    _frame.sentence(f"Next: `{choices.choices[0].command}`")
