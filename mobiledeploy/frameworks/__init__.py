"""The base of all rooms that use TensorFlow; importing it sets TensorFlow's switches.

TensorFlow reads them once, at its first import: every room that imports it imports this first.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Conversions do not need a GPU, and the search for one costs time and prints warnings.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# By default it is on only for CPUs with AVX512-VNNI or AMX, and gradients of grouped convolutions
# need it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
