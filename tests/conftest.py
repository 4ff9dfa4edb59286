"""What the tests share: where the real models and images are."""

from __future__ import annotations

import ctypes.util
import dataclasses
import functools
import gc
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from mobiledeploy.cli._frame import Terminal
from mobiledeploy.core import apart, artifacts, assets, native, preprocessing, records
from mobiledeploy.core.plugins import FORMATS, RECIPES, WRITERS, dataset
from mobiledeploy.core.types import (
    Artifact,
    DataRef,
    Golden,
    InputOutput,
    Model,
    ModelSpec,
    NamedWarning,
    Output,
    Preprocessing,
    Recipe,
    Source,
    Weights,
)
from mobiledeploy.runners import python as runner
from mobiledeploy.steps import child_process, conversion_process
from tests import shared, warm
from tests.networks import taking_images
from tests.oracles import environment

REPOSITORY = Path(__file__).resolve().parent.parent
# Seconds; the others have the `timeout` of pyproject.toml.
SLOW_TEST_LIMIT = 3600

# An example that took long on a busy machine is no counterexample.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


# Before a worker of several is bound to its share of them.
ALL_CORES = frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ())


def pytest_configure(config: pytest.Config) -> None:
    """Workers share the cores out; programs that the tests start have default signals.

    A shell starts what it puts into the background with SIGINT and SIGQUIT ignored, and some CI
    runners block signals. A program inherits both, and then no interrupt could end it.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Each of the programs would compile our modules anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    # Thousands of tests and TensorFlow are a heap that costs much to search for garbage.
    gc.set_threshold(50_000, 20, 50)
    if "PYTEST_XDIST_WORKER" in os.environ:
        _bind_worker()
    elif config.getoption("numprocesses", None):
        # The workers inherit it, and they import numpy before they are bound.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores: some tests only wait, for a time limit or a browser."""
    return len(ALL_CORES or range(os.cpu_count() or 1)) + 1


def _bind_worker() -> None:
    """This worker and all that it starts run on its share of the cores.

    Libraries start a thread for each core. The threads of several workers would wait for each
    other, and most of them wait in a loop: a conversion takes twice the CPU time then.
    """
    number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    cores = sorted(ALL_CORES)
    if cores:
        os.sched_setaffinity(0, cores[number % len(cores) :: count])


@pytest.fixture(scope="module")
def all_cores() -> Iterator[None]:
    """All cores, for tests of what is shared out among them."""
    if not ALL_CORES:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ALL_CORES)
    yield
    os.sched_setaffinity(0, own)


# Rooms of TensorFlow's wing, and what a file of pure tests does not import.
_WING = {"architectures", "compressions", "frameworks", "hostile", "objectives", "sources"}
_WING |= {"training"}
_IMPURE = re.compile(
    r"^ *(import|from) (asyncio|subprocess|tensorflow|tf_keras|keras|nbclient|selenium"
    rf"|mobiledeploy\.({'|'.join(sorted(_WING))}|cli\.analyze)"
    r"|tests\.(figures|lite|namespaces|warm)"
    r"|tests import .*\b(namespaces|warm)|mobiledeploy\.steps import .*_process)\b",
    re.MULTILINE,
)
_DEAR = frozenset(
    {"converted", "emulator", "exported", "mediapipe", "model_files", "phone", "real_data"}
    | {"torch_python", "unsigned"}
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--quick`, for `make test-quick`."""
    parser.addoption(
        "--quick", action="store_true", help="only tests without TensorFlow and converted files"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--quick`, a file of tests that start processes or TensorFlow is not even imported."""
    if not config.getoption("--quick") or collection_path.suffix != ".py":
        return None
    impure = collection_path.parent.name in _WING
    return impure or bool(_IMPURE.search(collection_path.read_text("utf-8"))) or None


def pytest_collection_finish() -> None:
    """What is there before the first test is no garbage."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A slow test has a longer time limit; `--quick` leaves out what takes a dear fixture.

    What may take longest comes first, so that no worker ends with it while the others wait.
    """
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)
    if config.getoption("--quick"):
        dear = [i for i in items if _DEAR.intersection(getattr(i, "fixturenames", ()))]
        config.hook.pytest_deselected(items=dear)
        items[:] = [item for item in items if item not in dear]
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TEST_LIMIT))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of published models and photographs; skips the test where it is not here."""
    chosen = os.environ.get("MOBILEDEPLOY_REAL_DATA")
    folder = Path(chosen) if chosen else REPOSITORY.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"no real models and photographs at {folder} (set MOBILEDEPLOY_REAL_DATA)")
    return folder


# Where `make emulator` puts what it fetched, before the tests have a cache of their own.
EQUIPPED = assets.cache_dir() / "native"


@pytest.fixture(scope="session")
def emulator() -> Path:
    """The native parts, in the tests' cache; skips where `make emulator` has not been run."""
    wanted = native.folder()
    if not (EQUIPPED / wanted.name).is_dir():
        pytest.skip(f"no native parts at {EQUIPPED / wanted.name} (make emulator)")
    if not wanted.parent.exists():
        wanted.parent.parent.mkdir(parents=True, exist_ok=True)
        wanted.parent.symlink_to(EQUIPPED)
    return wanted


# Chromium's GPU that is a program, and what finds it: Debian's chromium has it.
SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")


@pytest.fixture
def software_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only GPU of the processes that the test starts."""
    if not SWIFTSHADER.is_file():
        pytest.skip(f"no {SWIFTSHADER} (apt install chromium)")
    if ctypes.util.find_library("vulkan") is None:
        pytest.skip("no libvulkan.so.1 (apt install libvulkan1)")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(SWIFTSHADER))


# Where `mobiledeploy doctor --torch` puts what opens a .pt2.
APART = assets.cache_dir() / "apart"


@pytest.fixture(scope="session")
def torch_python() -> Path:
    """The interpreter that has torch, in the tests' cache; skips where it was not fetched."""
    wanted = apart.folder(apart.TORCH)
    if not (APART / wanted.name / apart.WHOLE).is_file():
        pytest.skip(f"no torch at {APART / wanted.name} (mobiledeploy doctor --torch)")
    if not wanted.parent.exists():
        wanted.parent.parent.mkdir(parents=True, exist_ok=True)
        wanted.parent.symlink_to(APART)
    return apart.python(apart.TORCH)


class Oracle:
    """A library that judges our files, in an environment of its own (tests/oracles)."""

    def __init__(self, name: str) -> None:
        self._name = name
        python = environment.python(name)
        if python is None:
            pytest.skip(f"no oracle at {environment.place(name)} (make oracle)")
        self.python = python

    def ask(self, *arguments: object) -> Any:
        """The JSON that `<name>_scores.py` of tests/oracles answers with."""
        script = environment.HERE / f"{self._name}_scores.py"
        done = subprocess.run(
            [self.python, script, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        missing = re.search(r"(\S+\.so\S*): cannot open shared object", done.stderr)
        if missing:
            pytest.skip(f"the oracle {self._name} lacks {missing[1]} (.ci/run installs it)")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def mediapipe() -> Oracle:
    """MediaPipe's ImageClassifier: answers for a model file and an .npy of images."""
    return Oracle("mediapipe")


@pytest.fixture(scope="session", autouse=True)
def _empty_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests, and the processes that they start, have empty folders as the user's.

    Nothing of the user's settings reaches a test, and no test leaves anything with the user.
    """
    home = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "CONFIG", "DATA", "STATE"):
            patch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
        for name in tuple(os.environ):
            if name.startswith("MOBILEDEPLOY_") and name != "MOBILEDEPLOY_REAL_DATA":
                patch.delenv(name)
        _own_adb(patch, home)
        yield
        if adb := shutil.which("adb"):
            subprocess.run([adb, "kill-server"], capture_output=True, check=False)


@pytest.fixture(scope="session", autouse=True)
def _warm(_empty_user: None, shared_folder: Path) -> Iterator[None]:
    """Conversions, trainings and analyses have TensorFlow imported when they start.

    Exports time each file for a moment only, and what is converted again is not opened again.
    """
    opened = shared_folder / "opened"
    opened.mkdir(exist_ok=True)
    with warm.session(opened), pytest.MonkeyPatch.context() as patch:
        for module in (child_process, runner):
            patch.setattr(module, "INTERPRETER", (warm.program(), "-P"))
        patch.setattr("mobiledeploy.verbs.export.BENCH_SECONDS", warm.BENCH_SECONDS)
        yield


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions and runners start as users have them: for tests of the process itself."""
    for module in (child_process, runner):
        monkeypatch.setattr(module, "INTERPRETER", (sys.executable, "-P"))


def _own_adb(patch: pytest.MonkeyPatch, home: Path) -> None:
    """An adb server of the tests' own, with keys of their own, that sees no phone of the user's."""
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT", "ANDROID_SERIAL"):
        patch.delenv(name, raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
    patch.setenv("ANDROID_SDK_HOME", str(home))
    # It looks for emulators from port 5555 on.
    patch.setenv("ADB_LOCAL_TRANSPORT_MAX_PORT", "5553")
    patch.setenv("ADB_MDNS", "0")


def press(
    model: Model,
    recipe: str | Recipe,
    format_: str,
    images: np.ndarray,
    *,
    io: InputOutput = "int8",
    output: Output = "logits",
) -> bytes:
    """A model of TensorFlow's -> the file, unsealed, by the ways that export goes."""
    floats = float_tflite(model, images.shape[1:3], output)
    return press_floats(floats, recipe, format_, images, io=io)


def float_tflite(model: Model, size: tuple[int, ...], output: Output = "logits") -> bytes:
    """A model of TensorFlow's -> its float TFLite."""
    from mobiledeploy.sources._tensorflow import TensorFlowModel

    return TensorFlowModel(taking_images(model, size), ["scores"]).floats(output)


def press_floats(
    floats: bytes,
    recipe: str | Recipe,
    format_: str,
    images: np.ndarray,
    *,
    io: InputOutput = "int8",
) -> bytes:
    """A float TFLite -> the file, unsealed, by the ways that export goes."""
    from mobiledeploy.graphs import quantized

    chosen = RECIPES.load(recipe).RECIPE if isinstance(recipe, str) else recipe
    if chosen.full_integer:
        made = quantized.finish(quantized.start(floats, chosen, io, images))
    else:
        made = quantized.without_calibration(floats, chosen)
    return WRITERS.load(format_).write(made)


def few_images(path: Path) -> DataRef:
    """An archive of built-in images, five of each class: enough for a choice, and quickly read."""
    drawn = dataset("demo").open("demo", "validation", resolution=(64, 64), labels=())
    labels = np.array([drawn.label(index) for index in range(200)])
    kept = np.concatenate([np.flatnonzero(labels == c)[:5] for c in range(len(drawn.classes))])
    np.savez(path, images=np.stack([drawn.image(i) for i in kept]), labels=labels[kept])
    return DataRef(str(path), "validation", (64, 64))


class Converted(Mapping[tuple[str, str], bytes]):
    """(recipe, format) -> the file, of a shallow v1 0.25 at 64 with random weights.

    A recipe's files are made when one of them is first asked for, once for all workers; with those
    of all others that have neither alternatives nor a training.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        known = [RECIPES.load(name).RECIPE for name in RECIPES.names()]
        self._formats = {recipe.name: recipe.formats for recipe in known}
        quick = tuple(r.name for r in known if len(r.passes) == 1 and not r.training)
        self._together = {name: quick if name in quick else (name,) for name in self._formats}

    def __getitem__(self, key: tuple[str, str]) -> bytes:
        recipe, format_ = key
        if format_ not in self._formats.get(recipe, ()):
            raise KeyError(key)
        recipes = self._together[recipe]
        folder = shared.once(self._folder / recipes[0], functools.partial(self._make, recipes))
        return (folder / conversion_process.file_name(recipe, format_)).read_bytes()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter([(recipe, f) for recipe, formats in self._formats.items() for f in formats])

    def __len__(self) -> int:
        return sum(map(len, self._formats.values()))

    def __contains__(self, key: object) -> bool:
        return key in list(self)

    def _make(self, recipes: tuple[str, ...], folder: Path) -> None:
        spec = ModelSpec(
            "v1",
            "mobilenet_v1",
            "mobilenet_v1",
            {"alpha": 0.25, "variant": "shallow"},
            (64, 64),
            12,
            Preprocessing((-1.0, 1.0)),
            Weights("random", "", pinned=False),
        )
        request = conversion_process.ConversionRequest(
            source=Source(spec),
            jobs=tuple((name, format_) for name in recipes for format_ in self._formats[name]),
            data=few_images(folder / "images.npz"),
            golden=(0,),
            io="int8",
            output="softmax",
            folder=str(folder),
        )
        (recipe, *_) = recipes
        if not RECIPES.load(recipe).RECIPE.training:
            conversion_process.produce(request, folder / "log", Terminal(quiet=True))
            return
        # The file is what a training gives, and need not be a good one: in this process, where
        # the training can be short.
        from mobiledeploy.training import qat

        plugin = RECIPES.load(recipe)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plugin, "RECIPE", dataclasses.replace(plugin.RECIPE, training=("qat",)))
            patch.setattr(conversion_process, "TRAINING_IMAGES", 100)
            patch.setattr(qat, "STEPS", 4)
            conversion_process._work(request, child_process.Speaker(io.StringIO()))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session's that all its workers have in common."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def converted(shared_folder: Path) -> Converted:
    """(recipe, format) -> the file, of a v1 0.25 at 64 with random weights; made when asked for."""
    return Converted(shared_folder / "converted")


@pytest.fixture(scope="session")
def model_files(shared_folder: Path) -> Path:
    """A folder of small models as Keras 2, Keras 3 and TensorFlow save them.

    `k2` and `k3` tell the Keras, `_lambda` a Lambda layer, `_ops` bare tensor functions, `_two`
    two inputs; `.h5`, `.keras`, `_weights.h5`, `_saved` for a SavedModel; all workers read them.
    """
    return shared.once(shared_folder / "models", _save_models)


def _save_models(folder: Path) -> None:
    import keras
    import tf_keras

    for name, library in (("k2", tf_keras), ("k3", keras)):
        library.utils.set_random_seed(0)
        layers = library.layers
        image = layers.Input((32, 32, 3))
        x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv1")(image)
        x = layers.BatchNormalization(name="conv1_bn")(x)
        x = layers.GlobalAveragePooling2D()(layers.ReLU(6.0)(x))
        scores = layers.Dense(5, activation="softmax", name="preds")(x)
        plain = library.Model(image, scores)
        doubled = layers.Lambda(lambda x: x * 2, name="doubled")(image)
        marked = layers.Dense(3)(layers.GlobalAveragePooling2D()(doubled))
        sliced = layers.GlobalAveragePooling2D()((image * 2 + 1)[:, ::2])
        other = layers.Input((32, 32, 3))
        both = layers.GlobalAveragePooling2D()(layers.Add()([image, other]))
        models = {
            "": plain,
            "_lambda": library.Model(image, marked),
            "_ops": library.Model(image, sliced),
            "_two": library.Model([image, other], both),
        }
        for kind, model in models.items():
            model.save(folder / f"{name}{kind}.keras")
        for kind in ("", "_lambda", "_two"):
            models[kind].save(folder / f"{name}{kind}.h5")
    tf_keras.models.load_model(folder / "k2.keras").save_weights(folder / "k2_weights.h5")
    plain.save_weights(folder / "k3.weights.h5")
    plain.export(folder / "k3_saved", verbose=False)
    for kind in ("", "_lambda", "_two"):
        model = tf_keras.models.load_model(folder / f"k2{kind}.h5", compile=False)
        model.save(folder / f"k2{kind}_saved")


def reconfigured(whole: Path, path: Path, config: object) -> None:
    """Writes `path`: the .keras file `whole` with another configuration."""
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, json.dumps(config) if name == "config.json" else old.read(name))


@dataclass(frozen=True)
class Web:
    """A server on this machine: `files` maps a path to (status, headers, body)."""

    url: str
    files: dict[str, tuple[int, dict[str, str], bytes]]
    asked: list[str]


@pytest.fixture
def web() -> Iterator[Web]:
    """An HTTP server; what `files` does not hold is answered with 404."""
    files: dict[str, tuple[int, dict[str, str], bytes]] = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, headers, body = files.get(self.path, (404, {}, b"nothing here"))
            self.send_response(status)
            for key, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Web(f"http://127.0.0.1:{server.server_port}", files, asked)
        server.shutdown()
        thread.join()


class Exported(Mapping[tuple[str, str], Path]):
    """(recipe, format) -> the file as an artifact, its record beside it, all in one folder.

    Its images are two classes of eight photos each; all but three of them are for validation. An
    artifact is there when it was first asked for, its format's float32 with it: that is what a
    verb compares it with.
    """

    def __init__(self, converted: Converted, folder: Path) -> None:
        self._converted, self._folder = converted, folder
        self._paths: dict[tuple[str, str], Path] = {}
        photos = folder / "photos"
        dice = np.random.Generator(np.random.PCG64(1))
        for number in range(16):
            place = photos / "ab"[number % 2] / f"{number:02}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = dice.integers(0, 256, (40, 50, 3), np.uint8)
            Image.fromarray(pixels // (1 + number % 4)).save(place)
        labels = tuple("abcdefghijkl")
        held = dataset(str(photos)).open(
            str(photos), "validation", resolution=(64, 64), labels=labels
        )
        (folder / "golden").mkdir()
        image = folder / "golden" / "0.png"
        Image.fromarray(held.image(0)).save(image)
        image = image.rename(image.with_stem(records.sha256(image)[:16]))
        self._spec = ModelSpec(
            "v1",
            "mobilenet_v1",
            "mobilenet_v1",
            {"alpha": 0.25, "variant": "shallow"},
            (64, 64),
            12,
            Preprocessing((-1.0, 1.0), labels=labels),
            Weights("random", "", pinned=False),
        )
        self._photos, self._held, self._golden = photos, held, image

    def __getitem__(self, key: tuple[str, str]) -> Path:
        if key not in self._paths:
            for one in dict.fromkeys((("float32", key[1]), key)):
                if one not in self._paths:
                    self._paths[one] = self._write(*one, self._converted[one])
        return self._paths[key]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._converted)

    def __len__(self) -> int:
        return len(self._converted)

    def _write(self, recipe: str, format_: str, content: bytes) -> Path:
        shelf = FORMATS.load(format_)
        facts = shelf.inspect(content)
        path = self._folder / f"{recipe}{shelf.SUFFIX}"
        path.write_bytes(content)
        # A file with int8 pixels states them itself; the others take what the model takes.
        how = self._spec.preprocessing
        on_codes = preprocessing.on_codes(how) if facts.inputs[0].dtype == "int8" else None
        spec = dataclasses.replace(self._spec, preprocessing=on_codes or how)
        artifact = Artifact(
            path=path.name,
            sha256=records.sha256(content),
            size_bytes=len(content),
            gzip_bytes=len(content),
            sparsity=0.0,
            format=format_,
            spec=spec,
            recipe=RECIPES.load(recipe).RECIPE,
            output="softmax",
            io="int8",
            layout=facts.layout,
            inputs=facts.inputs,
            outputs=facts.outputs,
            logits=facts.logits,
            golden=Golden(
                (self._held.id(0),), (f"golden/{self._golden.name}",), ((0.0,) * 12,), ""
            ),
            sqnr_db=30.0,
            data=DataRef(
                str(self._photos),
                "validation",
                (64, 64),
                self._spec.preprocessing.labels,
                self._held.identity,
            ),
            calibration="",
            calibration_images=1,
            key="",
            convert_seconds=1.0,
            tools={},
        )
        records.write_atomic(artifacts.record_path(path), records.dumps(artifact))
        return path


@pytest.fixture(scope="session")
def exported(converted: Converted, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """(recipe, format) -> the file as an artifact, its record beside it, all in one folder."""
    return Exported(converted, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def unsigned(model_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with ends of uint8, of a small model for 32x32 and five classes: its folder.

    It holds int8_ptq.tflite and float32.tflite. No calibration image has a pixel below 40.
    """
    from mobiledeploy.verbs.export import export

    folder = tmp_path_factory.mktemp("unsigned")
    dice = np.random.default_rng(1)
    for number in range(60):
        path = folder / "photos" / "abcde"[number % 5] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = dice.integers(40, 160 + 20 * (number % 5), (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(folder / "store"))
        done = export(
            model_files / "k2.h5",
            data=folder / "photos",
            io="uint8",
            recipe=("float32", "int8_ptq"),
            format="tflite",
            out=folder,
            input_range=(-1, 1),
            timed=False,
        )
        return Path(done.folder)


class Heard:
    """A Reporter that remembers."""

    def __init__(self) -> None:
        self.warnings: list[NamedWarning] = []
        self.said: list[str] = []
        self.steps: list[tuple[str, int, int]] = []

    def progress(self, what: str, done: int, total: int) -> None:
        self.steps.append((what, done, total))

    def warn(self, warning: NamedWarning) -> None:
        self.warnings.append(warning)

    def say(self, line: str) -> None:
        self.said.append(line)


@pytest.fixture
def heard() -> Heard:
    """What a verb said meanwhile."""
    return Heard()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """The test's own folder is the current one, so that its store is there."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)
