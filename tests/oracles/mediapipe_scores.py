"""MediaPipe's ImageClassifier on one file: prints, per image, its categories, as one JSON line.

Run by the Python of MediaPipe's own environment (`make oracle`), with a model file and an .npy of
uint8 [N, H, W, 3]. A file that MediaPipe refuses is told as {"error": ...}.
"""

import json
import os
import sys

# What it prints itself goes to standard error; standard output holds the answer alone.
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import mediapipe  # noqa: E402
import numpy  # noqa: E402
from mediapipe.tasks.python import BaseOptions, vision  # noqa: E402


def classify(model, images):
    """[N][classes] of index, name and score, best first."""
    options = vision.ImageClassifierOptions(BaseOptions(model_asset_path=model))
    with vision.ImageClassifier.create_from_options(options) as classifier:
        made = []
        for image in images:
            pixels = mediapipe.Image(mediapipe.ImageFormat.SRGB, numpy.ascontiguousarray(image))
            (head,) = classifier.classify(pixels).classifications
            made.append(
                [
                    {"index": c.index, "name": c.category_name, "score": c.score}
                    for c in head.categories
                ]
            )
        return made


try:
    told = {"images": classify(sys.argv[1], numpy.load(sys.argv[2], allow_pickle=False))}
except (RuntimeError, ValueError) as error:
    told = {"error": str(error)}
json.dump(told, answer)
answer.close()
