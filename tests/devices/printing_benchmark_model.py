#!/usr/bin/env python3
"""Prints what Google's benchmark_model prints, after as long as a start takes."""

import os
import random
import sys
import time
from pathlib import Path

phone = Path(os.environ["PHONE"])
given = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[1:])
Path(given["graph"]).read_bytes()
print("INFO: STARTING!\nINFO: Loaded model", given["graph"])
if given.get("use_gpu") == "true":
    print(
        "INFO: Replacing 31 out of 31 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1"
    )
time.sleep(0.05)
median = 2000 * random.lognormvariate(0, 0.001)
print(
    "INFO: Initialized session in 5.579ms.\n"
    "INFO: count=1 curr=9000 p5=9000 median=9000 p95=9000\n"
    f"INFO: count=50 first=2100 curr=2000 min=1900 max=2100 avg=2001 std=9 p5=1950 "
    f"median={median:.3f} p95=2060\n"
    "INFO: Inference timings in us: Init: 5579, First inference: 9000, Inference (avg): 2001\n"
    "INFO: Memory footprint delta from the start of the tool (MB): init=6.36328 overall=109.832",
    flush=True,
)
