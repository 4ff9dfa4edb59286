"""Networks with hard swish or swish, and squeeze-excite, trained on the built-in images.

    python benchmarks/_trained.py v3
    python benchmarks/_trained.py efficientnet

trains one and keeps it in build/benchmarks/trained; benchmarks/quantization.py does so where it is
missing. The images have 64 x 64 pixels, and the easier half of the levels of hardness. `v3` is
MobileNet v3 small with alpha 0.5. What the demo weights of the segmenter have for its layers is its
start: so some minutes of one core are enough. `efficientnet` is EfficientNet B0 of Keras
Applications, which takes pixels of 0 to 255; it starts from random weights.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import demo_weights
import numpy as np
import tf_keras
from numpy.typing import NDArray

from mobiledeploy.architectures import mobilenet_v3
from mobiledeploy.datasets import shapes

HERE = Path(__file__).resolve().parent
KEPT = Path("build/benchmarks/trained")
RESOLUTION = (64, 64)
LEVELS = shapes.LEVELS // 2
"""Images of so many levels of hardness, from the easiest on."""
STEPS = {"v3": 600, "efficientnet": 1500}
"""Of 64 images each, for each network."""
RANGES = {"v3": (-1.0, 1.0), "efficientnet": (0.0, 255.0)}
"""Of the pixels that each network takes."""
_TRAINING = 8000
_START = HERE.parent / "models" / "weights" / "lraspp_mobilenet_v3_small_0.5.h5"


def images(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [N, H, W, 3] of a split of the built-in data, and their labels."""
    samples = shapes.open("demo", split, resolution=RESOLUTION)
    chosen = [i for i in range(len(samples)) if shapes.hardness(i) < LEVELS][:_TRAINING]
    pixels = np.stack([samples.image(i) for i in chosen])
    return pixels, np.array([samples.label(i) for i in chosen])


def _untrained(name: str) -> tf_keras.Model:
    """From images [N, H, W, 3] in the network's range to probabilities [N, classes]."""
    if name == "efficientnet":
        return tf_keras.applications.EfficientNetB0(
            weights=None, input_shape=(*RESOLUTION, 3), classes=len(shapes.CLASSES)
        )
    model = mobilenet_v3.build(
        variant="small", alpha=0.5, resolution=RESOLUTION, classes=len(shapes.CLASSES)
    )
    # The last blocks of the segmenter have half as many channels: these start fresh.
    model.load_weights(_START, by_name=True, skip_mismatch=True)
    return model


def network(name: str) -> Path:
    """The file of a trained network, trained now if there is none."""
    kept = KEPT / f"{name}.h5"
    if not kept.exists():
        demo_weights.seed(0)
        model = _untrained(name)
        low, high = RANGES[name]
        # The training gives pixels of -1 to 1.
        scale = tf_keras.layers.Rescaling((high - low) / 2, offset=(high + low) / 2)
        trained = model if (low, high) == (-1, 1) else tf_keras.Sequential([scale, model])
        trained.build((None, *RESOLUTION, 3))
        steps = STEPS[name]

        def progress(step: int, loss: float, accuracy: float) -> None:
            line = f"{name} step {step}/{steps} loss {loss:.3f} accuracy {accuracy:.3f}"
            print(line, file=sys.stderr, flush=True)

        phases = [demo_weights.Phase(steps, [(images("train"), 1.0)])]
        demo_weights.fit(trained, phases, demo_weights.Settings(), on_progress=progress, every=100)
        top1 = demo_weights.accuracy(trained, images("validation"))
        print(f"{name}: top-1 {top1:.3f} on validation images", file=sys.stderr)
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(".tmp.h5")
        model.save(unfinished)
        unfinished.rename(kept)
    return kept


if __name__ == "__main__":
    print(network(sys.argv[1]))
