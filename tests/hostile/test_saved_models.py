"""SavedModels of strangers: each is refused before anything of it runs."""

import subprocess
import sys

import pytest

from mobiledeploy.core.errors import InputError
from mobiledeploy.sources import saved_model
from mobiledeploy.steps import model_files
from tests.hostile.files import touched
from tests.hostile.saved_models import FILES, IMAGE

# With bare TensorFlow: what is refused above, done.
RUN = f"""
import sys, tensorflow as tf
for path in sys.argv[1:]:
    try:
        tf.saved_model.load(path, tags=["serve"]).signatures["serving_default"](
            image=tf.zeros({IMAGE})
        )
    except Exception as error:
        print(path, error)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Name -> (the SavedModel, its canary)."""
    made = {}
    for hostile in FILES:
        folder = tmp_path_factory.mktemp(hostile.name)
        canary = folder / "canary"
        made[hostile.name] = (hostile.write(folder / "model", canary), canary)
    return made


@pytest.mark.parametrize("hostile", FILES, ids=lambda hostile: hostile.name)
def test_a_hostile_saved_model_is_refused(written, hostile):
    path, canary = written[hostile.name]
    code = saved_model.detect(path).code
    assert any(hostile.said in line for line in code)
    with pytest.raises(InputError, match="could run code of its own: .*--unsafe") as caught:
        model_files.detect(path)
    assert caught.value.exit_code == 7
    assert not touched(canary)


@pytest.mark.slow
def test_bare_tensorflow_runs_them(written):
    """Else the refusals would prove nothing."""
    biting = [hostile.name for hostile in FILES if hostile.runs]
    paths = [str(written[name][0]) for name in biting]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *paths], capture_output=True, text=True, check=True
    )
    harmless = [name for name in biting if not touched(written[name][1])]
    assert not harmless, done.stdout
