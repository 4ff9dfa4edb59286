"""Convert a model to TFLite and ONNX files, check and measure them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

import click

from mobiledeploy.cli import _frame, _settings

if TYPE_CHECKING:
    from mobiledeploy.core.types import InputOutput, Output
    from mobiledeploy.steps.arguments import ImageOptions

_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}


@click.command(
    epilog="Example:  mobiledeploy export --alpha 0.5 --res 160",
    short_help=__doc__,
)
@click.argument("model", required=False, type=click.Path(path_type=Path))
@_settings.option("--arch", help="Default: mobilenet_v1; see `mobiledeploy models`.")
@_settings.option("--alpha", type=float, help="Width multiplier, above 0.")
@_settings.option("--groups", type=int, help="Groups of the pointwise convolutions (ShuffleNet).")
@_settings.option("--res", type=int, help="Height and width of the input in pixels.")
@_settings.option(
    "--weights", metavar="demo|imagenet|random|FILE", help="Default: the built-in demo weights."
)
@_settings.option(
    "--data",
    metavar="demo|DIR|FILE",
    help="Images for calibration and, others of them, for evaluation (docs/data.md).",
)
@_settings.option("--recipe", type=_frame.Names(), metavar="NAME,...|all", help="Recipes to use.")
@_settings.option("--format", type=_frame.Names(), metavar="tflite,onnx", help="Default: both.")
@_settings.option(
    "--io",
    type=click.Choice(["int8", "uint8", "float"]),
    default="int8",
    show_default=True,
    help="Type of a full-integer model's input and output; uint8 is for TFLite only.",
)
@_settings.option(
    "--output",
    type=click.Choice(["model", "softmax", "logits", "pooled", "detections"]),
    default="model",
    show_default=True,
    help="Output of a file: as in its model, a softmax, the logits before a softmax, the features "
    "of the last global pooling, or the best boxes of a detector (TFLite only).",
)
@_settings.option(
    "--within",
    metavar="POINTS",
    help="Write the cheapest files that surely lose fewer points of the task's metric than this "
    "against the float model (1 or 1pt); exits with 1 or 3 if there are none.",
)
@_settings.option(
    "--max-disagreement",
    metavar="PERCENT",
    help="The same for the percent of answers that may change (1 or 1%); needs no labels.",
)
@_settings.option(
    "--cost",
    type=click.Choice(["instructions", "bytes"]),
    help="What cheap means for these two; default: instructions if an emulator is set up, else "
    "bytes.",
)
@_settings.option(
    "--keep-float",
    multiple=True,
    metavar="LAYER",
    help="Layer that integer files compute in float; can be repeated.",
)
@_settings.option(
    "--no-shrink",
    is_flag=True,
    help="Keep the filters that no answer depends on, such as those without weights.",
)
@_settings.option(
    "--for",
    "--core",
    "core",
    metavar="CORE",
    help="Core that the files are for, such as cortex-a72: of the forms of a file, write that with "
    "the fewest instructions on this emulated core.",
)
@_frame.task_option
@_settings.output(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("build"),
    show_default=True,
    help="Folder for the model's folder.",
)
@_settings.option(
    "--app",
    type=_frame.Names(),
    metavar="NAME,...",
    help="Write an app too, which answers images by one of the files (docs/app.md): python, cpp, "
    "javascript, android (Kotlin), or that of a plugin.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Make all files again, even if nothing changed, and an --app over your changes in it.",
)
@click.option(
    "--custom-objects",
    metavar="FILE.py",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Your own Python file with the layers that a Keras file names; it is executed with "
    "your rights.",
)
@click.option("--unsafe", is_flag=True, help="Open a model file even if it can run its own code.")
@_frame.preprocessing_options
@_frame.common
def command(
    model: Path | None,
    arch: str | None,
    alpha: float | None,
    groups: int | None,
    res: int | None,
    weights: str | None,
    data: str | None,
    recipe: tuple[str, ...] | None,
    format: tuple[str, ...] | None,  # noqa: A002
    io: InputOutput,
    output: Output,
    within: str | None,
    max_disagreement: str | None,
    cost: Literal["instructions", "bytes"] | None,
    keep_float: tuple[str, ...],
    no_shrink: bool,
    core: str | None,
    task: str | None,
    out: Path,
    app: tuple[str, ...] | None,
    force: bool,
    custom_objects: Path | None,
    unsafe: bool,
    json: bool,
    quiet: bool,
    verbose: int,
    **images: Unpack[ImageOptions],
) -> None:
    """Convert MODEL, or a built-in architecture, to TFLite and ONNX files.

    MODEL is a whole Keras model (.h5, .keras), a SavedModel folder, a float .tflite, a .pt2 of
    torch.export, or a run folder of `mobiledeploy train`. Your own model needs --input-range unless
    its metadata has it. Without MODEL, --arch is built with --alpha, --res and --weights. Every
    file is opened again after conversion and compared with the float model. All models need
    TensorFlow except a .tflite and a .pt2; a .pt2 needs `mobiledeploy doctor --torch` once.
    """
    from mobiledeploy.verbs import export as verb

    with _frame.Terminal(quiet, verbose) as terminal:
        result = verb.export(
            model,
            arch=arch,
            alpha=alpha,
            groups=groups,
            res=res,
            weights=weights,
            data=data,
            recipe=recipe,
            format=format,
            io=io,
            output=output,
            within=within,
            max_disagreement=max_disagreement,
            cost=cost,
            keep_float=keep_float,
            no_shrink=no_shrink,
            core=core,
            task=task,
            out=out,
            app=app or (),
            force=force,
            custom_objects=custom_objects,
            unsafe=unsafe,
            reporter=terminal,
            **images,
        )
    if json:
        _frame.emit_json(result)
    else:
        _frame.show(result)
        if result.reused:
            _frame.sentence(
                "Nothing changed since these files were made; --force makes them again."
            )
        if result.rows:
            _frame.sentence("Next: `mobiledeploy bench` times these files more exactly.")
    _frame.failures(result.failed)
    if result.within is not None:
        click.get_current_context().exit(_CODES[result.within.outcome])
