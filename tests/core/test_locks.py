"""Locks of files, and the package on systems that lack what POSIX has."""

import json
import subprocess
import sys

import pytest

from mobiledeploy.core import locks

# No module of these is on Windows, or they are not of the base package.
POSIX = ("fcntl", "resource", "pwd", "grp", "termios", "pty", "tty")
FUNCTIONS = {
    "os": ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_NOFOLLOW", "geteuid", "getuid", "fork"),
    "signal": ("SIGKILL", "SIGBUS", "SIGHUP", "SIGQUIT", "pthread_sigmask"),
}
EXTRAS = ("h5py", "keras", "matplotlib", "pycocotools", "ray", "tensorflow", "tf_keras", "torch")
EXTRAS += ("tensorflow_model_optimization", "tflite_runtime", "vl_convert", "jinja2")
IMPORTS = f"""
import sys
# The standard library has read what it takes from them already, as it would elsewhere.
import asyncio, importlib, json, multiprocessing, os, pathlib, pkgutil, random, shutil, signal
import subprocess, tempfile, numpy

class Absent:
    # It finds none of the modules that this system does not have.

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {(*POSIX, *EXTRAS)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
for module in {POSIX}:
    sys.modules.pop(module, None)
for module, names in {FUNCTIONS}.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
import mobiledeploy
answers = {{}}
for found in pkgutil.walk_packages(mobiledeploy.__path__, "mobiledeploy."):
    if found.name.rpartition(".")[2] == "__main__":
        continue
    try:
        importlib.import_module(found.name)
        answers[found.name] = ""
    except ImportError as error:
        answers[found.name] = str(error)
    except AttributeError as error:
        answers[found.name] = f"{{type(error).__name__}}: {{error}}"
print(json.dumps(answers))
"""


def test_every_module_is_imported_on_a_system_without_posix():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    # TensorFlow's rooms need an extra, and name it.
    refused = {name: why for name, why in answers.items() if why}
    others = {
        name: why for name, why in refused.items() if not any(extra in why for extra in EXTRAS)
    }
    assert others == {}
    for name in ("evaluate", "check", "verify", "diff", "bench", "doctor"):
        assert answers[f"mobiledeploy.verbs.{name}"] == answers[f"mobiledeploy.cli.{name}"] == ""


def test_shared_locks_go_together_and_exclude_the_exclusive_one(tmp_path):
    paths = [(tmp_path / "lock").open("a") for _ in range(3)]
    locks.lock(paths[0], exclusive=False)
    locks.lock(paths[1], exclusive=False, wait=False)
    with pytest.raises(BlockingIOError):
        locks.lock(paths[2], wait=False)
    paths[0].close()
    paths[1].close()
    locks.lock(paths[2], wait=False)
    paths[2].close()
