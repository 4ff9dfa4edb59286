"""The names of the built-in images: `demo` means those with what the model's task is judged by."""

from __future__ import annotations

DEMO = "demo"
"""The built-in images, as `--data` names them: one shape an image, with its class."""
OF_ANNOTATION = {"boxes": "demo-boxes", "mask": "demo-masks"}
"""A field of `Annotation` -> the built-in images that have it: several shapes an image."""
NAMES = (DEMO, *OF_ANNOTATION.values())
