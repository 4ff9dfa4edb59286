"""A small MobileNet v3, trained on the built-in images.

    python benchmarks/_trained.py

trains it and keeps it in build/benchmarks/trained; benchmarks/quantization.py does so where it is
missing. It is MobileNet v3 small with alpha 0.5, for images of 64 x 64 pixels of the easier half of
the levels of hardness. What the demo weights of the segmenter have for its layers is its start: so
some minutes of one core are enough.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.datasets import shapes

HERE = Path(__file__).resolve().parent
KEPT = Path("build/benchmarks/trained/mobilenet_v3_small_0.5_64.h5")
RESOLUTION = (64, 64)
LEVELS = shapes.LEVELS // 2
"""Images of so many levels of hardness, from the easiest on."""
STEPS = 600
"""Of 64 images each."""
_TRAINING = 8000
_START = HERE.parent / "models" / "weights" / "lraspp_mobilenet_v3_small_0.5.h5"


def images(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [N, H, W, 3] of a split of the built-in data, and their labels."""
    samples = shapes.open("demo", split, resolution=RESOLUTION)
    chosen = [i for i in range(len(samples)) if shapes.hardness(i) < LEVELS][:_TRAINING]
    pixels = np.stack([samples.image(i) for i in chosen])
    return pixels, np.array([samples.label(i) for i in chosen])


def v3() -> Path:
    """The file of the trained network, trained now if there is none."""
    if not KEPT.exists():
        sys.path.insert(0, str(HERE.parent / "tools"))
        import demo_weights

        from mobiledeploy.architectures import mobilenet_v3

        demo_weights.seed(0)
        model = mobilenet_v3.build(
            variant="small", alpha=0.5, resolution=RESOLUTION, classes=len(shapes.CLASSES)
        )
        # The last blocks of the segmenter have half as many channels: these start fresh.
        model.load_weights(_START, by_name=True, skip_mismatch=True)

        def progress(step: int, loss: float, accuracy: float) -> None:
            line = f"v3 step {step}/{STEPS} loss {loss:.3f} accuracy {accuracy:.3f}"
            print(line, file=sys.stderr, flush=True)

        phases = [demo_weights.Phase(STEPS, [(images("train"), 1.0)])]
        demo_weights.fit(model, phases, demo_weights.Settings(), on_progress=progress, every=100)
        top1 = demo_weights.accuracy(model, images("validation"))
        print(f"v3: top-1 {top1:.3f} on validation images", file=sys.stderr)
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        unfinished = KEPT.with_suffix(".tmp.h5")
        model.save(unfinished)
        unfinished.rename(KEPT)
    return KEPT


if __name__ == "__main__":
    print(v3())
