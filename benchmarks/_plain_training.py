"""What Keras does by itself when everything lies in memory.

    python benchmarks/_plain_training.py ALPHA RESOLUTION PICTURES.npz EPOCHS

Prints the median seconds of the epochs but the first.
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tf_keras
from tf_keras.applications import mobilenet

BATCH = 32


class Clock(tf_keras.callbacks.Callback):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.seconds.append(time.perf_counter() - self.started)


def main(alpha: float, size: int, archive: str, epochs: int) -> None:
    with np.load(archive) as file:
        images, labels = file["images"].astype(np.float32) / 127.5 - 1, file["labels"]
    classes = int(labels.max()) + 1
    # Whole batches only, as ours.
    count = len(images) // BATCH * BATCH
    model = mobilenet.MobileNet(
        input_shape=(size, size, 3), alpha=alpha, weights=None, classes=classes
    )
    model.compile(
        tf_keras.optimizers.RMSprop(0.015, rho=0.9, momentum=0.9, epsilon=1.0),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    clock = Clock()
    model.fit(
        images[:count],
        tf_keras.utils.to_categorical(labels[:count], classes),
        batch_size=BATCH,
        epochs=epochs,
        callbacks=[clock],
        verbose=0,
    )
    print(np.median(clock.seconds[1:]))


if __name__ == "__main__":
    alpha_, size_, archive_, epochs_ = sys.argv[1:]
    main(float(alpha_), int(size_), archive_, int(epochs_))
