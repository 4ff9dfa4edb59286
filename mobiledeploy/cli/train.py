"""Train or fine-tune a network on your images; resumable."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.steps import defaults

if TYPE_CHECKING:
    from mobiledeploy.steps.arguments import ImageOptions


@click.command(
    epilog="Example:  mobiledeploy train --alpha 0.25 --res 96 --init demo --data photos",
    short_help=__doc__,
)
@_settings.option("--arch", help="Default: mobilenet_v1; see `mobiledeploy models`.")
@_settings.option("--task", help="Default: that of --arch, such as classification.")
@_settings.option("--alpha", type=float, help="Width multiplier, above 0.")
@_settings.option("--groups", type=int, help="Groups of the pointwise convolutions (ShuffleNet).")
@_settings.option("--res", type=int, help="Height and width of the input in pixels.")
@_settings.option(
    "--data",
    metavar="demo|DIR|FILE",
    default="demo",
    show_default=True,
    help="Images: a folder per class, an .npz, COCO's .json, or the built-in ones.",
)
@_settings.option("--epochs", type=int, help="Default: the schedule's, 20 for finetune.")
@_settings.output(
    "--out", type=click.Path(path_type=Path), help="Default: runs/<arch>_<alpha>_<res>_<data>."
)
@_settings.option(
    "--init",
    metavar="demo|backbone|imagenet|FILE|RUN",
    help="Initial weights; default: random.",
)
@_settings.option("--freeze", is_flag=True, help="Train the classifier only, or what --init lacks.")
@_settings.option(
    "--schedule",
    type=click.Choice(defaults.SCHEDULES),
    help="Default: paper; finetune with --init.",
)
@_settings.option(
    "--teacher", metavar="demo|imagenet|FILE|RUN", help="A trained model for distillation."
)
@click.option(
    "--strategy",
    type=click.Choice(["none", "mirrored", "multiworker"]),
    default="none",
    show_default=True,
    help="Strategy of tf.distribute; multiworker reads TF_CONFIG.",
)
@_settings.option("--ema", is_flag=True, help="Keep a moving average of the weights.")
@_settings.option(
    "--label-smoothing",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Share of each label that is spread over all classes.",
)
@_settings.option(
    "--prune",
    type=float,
    metavar="SHARE",
    help="Train until this share of each layer's weights is zero, such as 0.5: a smaller download, "
    "not a faster network.",
)
@_settings.option(
    "--cluster", type=int, metavar="N", help="Train with N different weights per layer, such as 16."
)
@_settings.option(
    "--prune-channels",
    type=float,
    metavar="SHARE",
    help="Train --init until this share of its channels is zero, such as 0.5; export leaves them "
    "out.",
)
@_settings.option(
    "--max-mult-adds",
    type=_frame.Amount(),
    help="Likewise, until the network has at most so many mult-adds, such as 20M.",
)
@_settings.option(
    "--max-instructions",
    type=_frame.Amount(),
    help="Likewise, until its int8 TFLite takes at most so many instructions, such as 5M.",
)
@_settings.option(
    "--for",
    "--core",
    "core",
    metavar="CORE",
    help="Emulated core that counts them; default: cortex-a76.",
)
@_settings.option(
    "--batch",
    type=int,
    default=32,
    show_default=True,
    help="Images per step; the learning rate grows with it.",
)
@_settings.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed of weights, order and augmentation.",
)
@click.option("--unsafe", is_flag=True, help="Open a teacher even if it can run its own code.")
@_frame.preprocessing_options
@_frame.common
def command(
    arch: str | None,
    task: str | None,
    alpha: float | None,
    groups: int | None,
    res: int | None,
    data: str,
    epochs: int | None,
    out: Path | None,
    init: str | None,
    freeze: bool,
    schedule: str | None,
    teacher: str | None,
    strategy: Literal["none", "mirrored", "multiworker"],
    ema: bool,
    label_smoothing: float,
    prune: float | None,
    cluster: int | None,
    prune_channels: float | None,
    max_mult_adds: int | None,
    max_instructions: int | None,
    core: str | None,
    batch: int,
    seed: int,
    unsafe: bool,
    json: bool,
    quiet: bool,
    verbose: int,
    **images: Unpack[ImageOptions],
) -> None:
    """Train a network of --arch, --alpha and --res on the images of --data.

    Images are prepared as for inference, then mirrored, moved and changed in brightness at random.
    The folder --out gets weights, a record, a log and TensorBoard's events. The same command again
    resumes an interrupted training; with more --epochs it continues a finished one.
    """
    from mobiledeploy.verbs import train as verb

    with _frame.Terminal(quiet, verbose) as terminal:
        try:
            result = verb.train(
                arch=arch,
                task=task,
                alpha=alpha,
                groups=groups,
                res=res,
                data=data,
                epochs=epochs,
                out=out,
                init=init,
                freeze=freeze,
                schedule=schedule,
                teacher=teacher,
                strategy=strategy,
                ema=ema,
                label_smoothing=label_smoothing,
                prune=prune,
                cluster=cluster,
                prune_channels=prune_channels,
                max_mult_adds=max_mult_adds,
                max_instructions=max_instructions,
                core=core,
                batch=batch,
                seed=seed,
                unsafe=unsafe,
                reporter=terminal,
                **images,
            )
        except KeyboardInterrupt:
            terminal.say("interrupted; the same command resumes the training")
            raise SystemExit(130) from None
    if json:
        _frame.emit_json(result)
        return
    _frame.show(result)
    if result.reused:
        click.echo("This training is already finished; more --epochs continue it.")
    click.echo(f"Next: mobiledeploy export {shlex.quote(result.folder)}")
