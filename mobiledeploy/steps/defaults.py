"""Defaults and names that the command line shows in its help. Importing this file costs nothing."""

from __future__ import annotations

BUILD = "build"
"""The folder of exports."""
RUNS = "runs"
"""The folder of trainings."""
COMPARE_ROUNDS = 8
"""Rounds of A B B A of `bench --compare`."""
COLD_PROCESSES = 10
"""Fresh processes of `bench --cold`."""
BASELINE = "mobiledeploy-baseline.json"
UNLABELLED_FLIPS = 0.05
"""The share of answers that may change if there are no labels."""
REPORT_FORMATS = ("html", "markdown", "csv", "json", "svg", "png")
REPORT_TITLE = "MobileNet results"
SCHEDULES = ("finetune", "paper", "v2")
"""The names of the schedules in steps/training_plan.py."""
DIFF_LAYERS = 20
"""Layers that `diff` shows."""
