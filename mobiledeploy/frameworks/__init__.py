"""The floor of the TensorFlow wing; entering it sets TensorFlow's switches.

TensorFlow reads them once, when it is first imported: every room that imports it enters here first.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# No conversion gains from a GPU, and looking for one costs time and warnings.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# By itself it is on only where a CPU has AVX512-VNNI or AMX, and gradients of grouped convolutions
# need it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
