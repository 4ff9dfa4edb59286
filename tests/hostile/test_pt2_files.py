"""Archives of torch.export from strangers: each is refused before torch has it, or what is hostile
in it is never read."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from mobiledeploy.core.errors import InputError
from mobiledeploy.sources import _pt2
from mobiledeploy.steps import model_files
from tests.hostile import pt2_files
from tests.hostile.files import touched
from tests.hostile.pt2_files import FILES, UNREAD

# With bare torch: what is refused above, done.
BARE = """
import sys, torch
for path in sys.argv[1:]:
    try:
        answer = torch.export.load(path).module()(torch.zeros(1, 3, 4, 4))
        print(path, tuple(answer.shape))
    except Exception as error:
        print(path, type(error).__name__, str(error)[:300])
"""


def test_the_good_file_is_taken(tmp_path):
    path = tmp_path / "model.pt2"
    path.write_bytes(pt2_files.archive(tmp_path / "canary"))
    assert model_files.detect(path).framework == "torch"
    program = _pt2.read(path.read_bytes(), "it")
    assert (program.resolution, program.classes) == ((4, 4), 2)
    (weight,) = _pt2.numbers(path.read_bytes(), program).values()
    made = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    assert np.array_equal(weight, made)


@pytest.mark.parametrize("unsafe", [False, True])
@pytest.mark.parametrize("hostile", FILES, ids=lambda hostile: hostile.name)
def test_a_hostile_file_is_refused(hostile, unsafe, tmp_path):
    canary = tmp_path / "canary"
    path = hostile.write(tmp_path, canary)
    with pytest.raises(InputError) as caught:
        model_files.detect(path, unsafe=unsafe)
    assert hostile.said in str(caught.value)
    assert str(caught.value).count("\n") == 0
    assert caught.value.exit_code == 7
    assert not touched(canary)


@pytest.mark.parametrize("hostile", UNREAD, ids=lambda hostile: hostile.name)
def test_what_is_not_needed_is_not_read(hostile, tmp_path):
    canary = tmp_path / "canary"
    path = hostile.write(tmp_path, canary)
    file = model_files.detect(path)
    program = _pt2.read(path.read_bytes(), file.path)
    assert str(canary) not in repr(program)
    assert not touched(canary)


@pytest.mark.slow
def test_bare_torch_runs_them(torch_python, tmp_path):
    """Else the refusals would prove nothing."""
    good = tmp_path / "good.pt2"
    good.write_bytes(pt2_files.archive(tmp_path))
    written = {}
    for hostile in (*FILES, *UNREAD):
        if hostile.runs:
            folder = tmp_path / hostile.name
            folder.mkdir()
            written[hostile.name] = (hostile.write(folder, folder / "canary"), folder / "canary")
    paths = [good, *(path for path, _ in written.values())]
    done = subprocess.run(
        [torch_python, "-I", "-c", BARE, *paths], capture_output=True, text=True, check=True
    )
    assert f"{good} (1, 2)" in done.stdout
    harmless = [name for name, (_, canary) in written.items() if not touched(canary)]
    assert not harmless, done.stdout
