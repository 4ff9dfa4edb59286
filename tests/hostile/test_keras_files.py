"""No file of the corpus gets as far as a framework; and the corpus is one that would bite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mobiledeploy.core.errors import InputError
from mobiledeploy.verbs import models
from tests.hostile.files import touched
from tests.hostile.keras_files import FILES

# Loads a model as careless code does, and calls it on one image.
BARE = """
import os, sys
os.environ["KERAS_BACKEND"] = "tensorflow"
import numpy as np
{imports}
for path in sys.argv[1:]:
    sys.path.insert(0, os.path.dirname(path))
    try:
        model = library.models.load_model(path, compile=False, safe_mode=False)
        model(np.zeros((1, 4, 4, 3), "float32"))
    except Exception as error:
        print(path, type(error).__name__, str(error)[:200])
"""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_hostile_file_is_refused_and_nothing_runs(file, tmp_path):
    canary = tmp_path / "canary"
    path = file.write(tmp_path, canary)
    with pytest.raises(InputError, match=r"code of its own: .*--unsafe") as caught:
        models.detect(path)
    assert file.said in str(caught.value)
    assert not touched(canary)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["tf_keras", "keras"])
def test_a_bare_framework_runs_them(library, tmp_path):
    canaries: dict[str, Path] = {}
    paths = []
    for file in FILES:
        if file.runs and file.name.startswith("keras-3") == (library == "keras"):
            folder = tmp_path / file.name
            folder.mkdir()
            canaries[file.name] = folder / "canary"
            paths.append(file.write(folder, canaries[file.name]))
    imports = f"import {library} as library"
    done = subprocess.run(
        [sys.executable, "-c", BARE.format(imports=imports), *map(str, paths)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    harmless = [name for name, canary in canaries.items() if not touched(canary)]
    assert not harmless, done.stdout
