"""Sound files of every kind that mobiledeploy reads, as small as they come.

python benchmarks/_sound_files.py FOLDER
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from mobiledeploy.core.package import shipped

COMMANDS = (
    "export own.h5 --input-range -1,1 --data photos --recipe float32,int8_ptq --out net",
    "bench net/int8_ptq.tflite --runs 6 --record recording.json",
    "bench net/int8_ptq.onnx --runs 6",
    "check net/int8_ptq.tflite net/int8_ptq.onnx --update-baseline --baseline baseline.json",
    "bench net/float32.tflite net/int8_ptq.tflite --compare --rounds 6",
    "train --arch mobilenet_v1 --alpha 0.25 --res 32 --data photos --epochs 1 --out run",
    "results export results.jsonl",
)


def make(folder: Path, environment: dict[str, str]) -> None:
    """All of them in `folder`: models, artifacts, images, records, a store, and what reads them."""
    subprocess.run(
        [sys.executable, "-P", __file__, folder],
        check=True,
        env=environment,
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    for line in COMMANDS:
        _run(folder, environment, *line.split())
        if line == COMMANDS[0]:
            # The store names the place of an artifact: it is the one that it stays in.
            (made,) = (path for path in (folder / "net").iterdir() if path.is_dir())
            for path in made.iterdir():
                path.rename(folder / "net" / path.name)
            made.rmdir()
    for name in ("figure.json", "other.json"):
        line = ("bench", "net/int8_ptq.tflite", "--runs", "6", "--json")
        (folder / name).write_text(_run(folder, environment, *line))


def _run(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mobiledeploy", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended in {done.returncode}: {done.stderr}")
    return done.stdout


def _images(folder: Path) -> None:
    dice = np.random.Generator(np.random.PCG64(1))
    pixels = dice.integers(0, 256, (20, 40, 40, 3), np.uint8)
    for number, image in enumerate(pixels):
        path = (
            folder / "photos" / "ab"[number % 2] / f"{number:02}.{'png' if number % 3 else 'jpg'}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image // (1 + number % 2)).save(path)
    np.savez_compressed(folder / "images.npz", images=pixels[:, :32, :32], labels=np.arange(20) % 2)


def _models(folder: Path) -> None:
    # Its own Keras decides the format by what the name ends in.
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    image = layers.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv1")(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="conv1_bn")(x))
    scores = layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model = tf_keras.Model(image, scores)
    for name in ("own.h5", "own.keras", "saved"):
        model.save(folder / name)


def _main(folder: Path) -> None:
    _images(folder)
    (folder / "labels.txt").write_text("a\nb\n")
    (folder / "measured.csv").write_text("file,latency_ms\nnet/int8_ptq.tflite,1.5\n")
    shutil.copy(shipped("android_bench") / "devices" / "pixel-1.toml", folder / "devices.toml")
    shutil.copy(shipped("models") / "mobilenet_v1.toml", folder / "models.toml")
    _models(folder)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
