"""No file of the corpus gets as far as a framework; and the corpus is one that would bite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mobiledeploy.core import untrusted
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import SOURCES
from mobiledeploy.steps import model_files
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


OWN = """
import {library}


@{library}.saving.register_keras_serializable("mine")
class Thing({library}.layers.Layer):
    pass
"""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_custom_objects_of_the_users_let_no_hostile_file_through(file, tmp_path):
    canary = tmp_path / "canary"
    path = file.write(tmp_path, canary)
    looked_at = model_files.detect(path, custom=True)
    library = {"keras3": "keras", "tf_keras": "tf_keras"}[looked_at.framework]
    own = tmp_path / "own_objects.py"
    own.write_text(OWN.format(library=library))
    with pytest.raises(InputError, match=r"code of its own: .*does not register it"):
        SOURCES.load(looked_at.framework).load(looked_at, str(own))
    assert not touched(canary)


@pytest.mark.parametrize(
    ("node", "allowed"),
    [
        ({"class_name": "mine>Thing"}, True),
        ({"class_name": "Thing", "module": "x", "registered_name": "mine>Thing"}, True),
        ({"class_name": "Thing", "module": "x"}, False),
        ({"class_name": "Thing", "module": "x", "registered_name": "Other"}, False),
        ({"class_name": "function", "config": "mine>act", "module": "x"}, True),
        ({"class_name": "function", "config": "other", "module": "x"}, False),
        ({"class_name": "Thing", "config": {"x": {"class_name": "Lambda"}}}, False),
        ({"class_name": "Thing", "config": {"mode": "any text"}}, True),
    ],
)
def test_a_name_of_the_users_is_the_one_that_keras_looks_up_first(node, allowed):
    own = {"Thing", "mine>Thing", "mine>act"}
    config = {"class_name": "Sequential", "config": {"layers": [{"config": {}} | node]}}
    assert bool(untrusted.keras_code(config, own)) != allowed
    assert untrusted.keras_code(config)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_hostile_file_is_refused_and_nothing_runs(file, tmp_path):
    canary = tmp_path / "canary"
    path = file.write(tmp_path, canary)
    with pytest.raises(InputError, match=r"code of its own: .*--unsafe") as caught:
        model_files.detect(path)
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
        capture_output=True,
        text=True,
        check=True,
    )
    harmless = [name for name, canary in canaries.items() if not touched(canary)]
    assert not harmless, done.stdout
