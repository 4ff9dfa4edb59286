"""The rules of the house that no linter knows, and that the linters' own rules bite."""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click
import pytest

from mobiledeploy import __version__
from mobiledeploy.cli import main
from mobiledeploy.core import plugins
from tests.variants import slow_but

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "mobiledeploy"
ROOMS = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
SHELVES = {n: s for n, s in vars(plugins).items() if isinstance(s, plugins.Shelf)}
COMMANDS = main.cli.list_commands(click.Context(main.cli))
HEAVY = {"keras", "tensorflow", "tensorflow_model_optimization", "tf_keras"}


def python(code: str) -> str:
    """What `code` prints in a process of its own, which has no lines counted."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=bare
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imports(path: Path) -> set[str]:
    """The modules that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


# Ports


def fits(folder: Path, lines: list[str]) -> subprocess.CompletedProcess[str]:
    """mypy on a script that holds modules against the ports of their shelves."""
    script = folder / "ports.py"
    script.write_text("\n".join(("from mobiledeploy.core import plugins", *lines)) + "\n")
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", script],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_plugin_fits_its_port(tmp_path):
    lines = []
    for constant, shelf in SHELVES.items():
        for name in shelf.names():
            module = f"{shelf.folder}_{name}"
            lines.append(f"from mobiledeploy.{shelf.folder} import {name} as {module}")
            lines.append(f"plugins.{constant}.fits({module})")
    done = fits(tmp_path, lines)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_module_that_does_not_fit_its_port_is_noticed(tmp_path):
    lines = ["from mobiledeploy.recipes import float32", "plugins.RUNTIMES.fits(float32)"]
    done = fits(tmp_path, lines)
    assert done.returncode == 1
    assert 'expected "Runtime"' in done.stdout


def test_every_file_of_a_shelf_is_a_plugin():
    for folder in {shelf.folder for shelf in SHELVES.values()} & ROOMS:
        files = {p.stem for p in (PACKAGE / folder).glob("*.py") if not p.stem.startswith("_")}
        named = {n for s in SHELVES.values() if s.folder == folder for n in s.names()}
        assert files <= named, folder


# Imports


@pytest.mark.parametrize(
    "verb",
    slow_but(
        ["bench", "check", "doctor", "evaluate", "export", "models", "verify"], "check", "export"
    ),
)
def test_a_verb_starts_without_tensorflow(verb):
    said = python(f"import sys, mobiledeploy.verbs.{verb}; print(*sys.modules)")
    assert not HEAVY & set(said.split())


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_next_to_nothing(command):
    said = python(
        f"import sys; sys.argv = ['mobiledeploy', *{command.split()}, '--help']\n"
        "from mobiledeploy.cli.main import run\n"
        "assert run() == 0\n"
        "print('MODULES', *sys.modules)"
    )
    loaded = set(said.partition("MODULES")[2].split())
    assert "click" in loaded
    heavy = {"dataclasses", "numpy", "onnx", "onnxruntime", "PIL", "rich", "scipy", "sqlite3"}
    assert not (HEAVY | heavy) & loaded
    rooms = {name.split(".")[1] for name in loaded if name.startswith("mobiledeploy.")}
    assert rooms <= {"cli", "core", "steps"}


def test_public_names_are_the_verbs():
    said = python(
        "import sys, mobiledeploy\n"
        "assert 'mobiledeploy.verbs' not in sys.modules\n"
        "from mobiledeploy import bench, evaluate, export\n"
        "print(bench.__module__, evaluate.__module__, export.__module__)"
    )
    assert said.split() == [f"mobiledeploy.verbs.{v}" for v in ("bench", "evaluate", "export")]


@pytest.mark.parametrize(
    ("room", "libraries"),
    [("core", {"numpy", "PIL", "portalocker"}), ("analysis", {"numpy", "scipy"})],
)
def test_the_ground_stands_on_little(room, libraries):
    allowed = libraries | set(sys.stdlib_module_names) | {"mobiledeploy"}
    for path in (PACKAGE / room).glob("*.py"):
        assert {name.partition(".")[0] for name in imports(path)} <= allowed, path.name


def test_analysis_opens_no_files_and_starts_no_processes():
    for path in (PACKAGE / "analysis").glob("*.py"):
        assert not imports(path) & {"os", "pathlib", "shutil", "socket", "subprocess"}, path.name


def test_no_verb_prints():
    for path in (PACKAGE / "verbs").glob("*.py"):
        assert not imports(path) & {"click", "rich"}, path.name


# What a command of the command line does is a verb of its own name; options that do something else
# have verbs of theirs.
OF_OPTIONS = {
    "calibrate": "devices calibrate",
    "cold_start": "bench --cold",
    "compare": "bench --compare",
}


def test_a_verb_is_a_command():
    verbs = {p.stem for p in (PACKAGE / "verbs").glob("*.py")} - {"__init__"}
    assert verbs == set(COMMANDS) | set(OF_OPTIONS)
    for stem in verbs:
        tree = ast.parse((PACKAGE / "verbs" / f"{stem}.py").read_text("utf-8"))
        assert stem in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, stem


@functools.cache
def imported_from_core() -> dict[tuple[str, str], set[str]]:
    """(module of core, name in it or "") -> the rooms whose files import it.

    Verbs count as one room with the steps that they are made of.
    """
    rooms: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = node.module.removeprefix("mobiledeploy.core.")
                for name in (alias.name for alias in node.names):
                    keys = [(name, "")] if node.module == "mobiledeploy.core" else [(module, name)]
                    for key in (*keys, (module, "")):
                        rooms[key].add("verbs" if room == "steps" else room)
    return rooms


@pytest.mark.parametrize("module", sorted(p.stem for p in (PACKAGE / "core").glob("[a-z]*.py")))
def test_core_holds_what_several_rooms_speak(module):
    rooms = imported_from_core()[module, ""]
    # What core itself stands on serves every room that uses core.
    assert "core" in rooms or len(rooms) > 1


def test_a_type_that_one_room_uses_lies_there():
    tree = ast.parse((PACKAGE / "core" / "types.py").read_text("utf-8"))
    kinds = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    fields = {
        name: {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        for name, node in kinds.items()
    }
    for name in kinds:
        if not any(name in used for other, used in fields.items() if other != name):
            assert len(imported_from_core()["types", name]) > 1, name


def test_every_class_has_a_name_of_its_own():
    """The record field of --json is a class's name; and a name that means two things means less."""
    places = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


# Files by their names: core/inputs.py opens what somebody else may have made, core/records.py
# writes what a user named, and no other module does either. Who reaches files of ours says why.

REACH_FILES = {
    "the one place that opens": ["core/inputs.py descriptor"],
    "the one place that writes": [
        "core/records.py _rename",
        "core/records.py append",
        "core/records.py put",
        "core/records.py write_atomic",
    ],
    "what came with the package": [
        "__init__.py _places",
        "apps/_templates.py read",
        "cli/main.py _first_line",
        "core/untrusted.py _allowed",
        "sources/saved_model.py _allowed",
        "steps/export_plan.py _key",
    ],
    "what pip wrote about a package": ["verbs/doctor.py _files_size"],
    "what the system makes: /proc, /sys, /dev/null": [
        "cli/main.py _open_streams",
        "cli/main.py write",
        "core/cpu.py info",
        "devices/host.py _text",
        "runners/python.py _peak_rss_bytes",
        "verbs/doctor.py _free_memory",
    ],
    "a lock, or the name of whoever takes one": [
        "core/artifacts.py staging",
        "core/leases.py hold",
        "devices/_remote.py owner",
        "verbs/train.py _alone",
    ],
    "SQLite's, which opens the store": [
        "store/database.py keeping",
        "store/database.py open",
    ],
    "a folder of this process, or of its runner or child": [
        "core/pixels.py get",
        "core/pixels.py put",
        "devices/_child.py pull",
        "devices/ssh.py pull",
        "devices/emulator.py _furnish",
        "frameworks/loading.py _copy_file",
        "frameworks/loading.py for_inference",
        "runners/python.py _layers",
        "steps/bundle_archive.py extract",
        "steps/bundle_archive.py write",
        "sources/_torch_process.py main",
        "sources/torch.py __init__",
        "sources/torch.py answers",
        "steps/child_process.py events",
        "steps/conversion_process.py training_images",
        "steps/count.py _copy",
        "steps/count.py run",
        "steps/diagnose.py _alone",
        "steps/diagnose.py _examine",
        "steps/diagnose.py _subgraph",
        "steps/diagnose.py run",
        "steps/golden_inputs.py data_set",
        "steps/golden_inputs.py sample",
        "steps/sweep_job.py _death",
        "steps/sweep_job.py work",
    ],
    "an app's own code, which runs in a folder of its user without this package": [
        "apps/python-app/app.py __init__",
        "apps/python-app/app.py main",
        "apps/python-app/golden_test.py of_sample",
        "apps/python-app/golden_test.py recorded_outputs",
        "apps/python-app/preprocess.py read",
    ],
    "what was fetched by its hash": [
        "steps/equip.py _build",
        "steps/equip.py _unpack_library",
        "steps/equip.py _wheel",
        "steps/equip.py equip",
    ],
    "mapped, for it is larger than memory": [
        "steps/training_process.py _decode",
        "steps/training_process.py _prepare",
    ],
    "a new folder, complete when it gets its name": ["steps/site_folder.py write"],
    "a folder, to have it written to the disk": ["steps/export_files.py _commit"],
}
# Calls that open, write or rename a file by its name.
BY_NAME = re.compile(
    r"open|.+\.(open|open_memmap|read_bytes|read_text|write_bytes|write_text|tofile)"
    r"|.+\.(rename|renames|replace|symlink_to|hardlink_to)"
    r"|shutil\.(copy|copy2|copyfile|copytree|move)|(json|tomllib)\.load"
    r"|np\.(fromfile|load|memmap|save|savez|savez_compressed)"
    r"|h5py\.(File|is_hdf5)|zipfile\.(ZipFile|is_zipfile)|sqlite3\.connect"
)
# What is called `open` too: shelves' plugins, the store, a member of an archive, a web address.
OTHERS = re.compile(
    r"(Store|cls|runtime|archive|self\._archive|_opener\(\)|dataset\(.*\)|source_of\(.*\)|[A-Z]+\.load\(.*\))\.open"
)
# What is open already, or in memory.
STREAM = re.compile(r"(stream|content)|io\.BytesIO\(.*\)")


def by_name(tree: ast.AST) -> Iterator[str]:
    """Calls that reach a file by its name."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        way, given = ast.unparse(call.func), list(map(ast.unparse, call.args))
        # A path is replaced with one argument, text with two, a field of a record with a keyword.
        other = way.endswith(".replace") and (len(given) != 1 or call.keywords)
        if way != "os.replace" and (other or not BY_NAME.fullmatch(way) or OTHERS.fullmatch(way)):
            continue
        if not (given and STREAM.fullmatch(given[0])):
            yield ast.unparse(call)


def test_two_places_open_and_write_files():
    found = {
        f"{path.relative_to(PACKAGE)} {function.name}"
        for path in PACKAGE.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef) and list(by_name(function))
    }
    assert found == set(chain.from_iterable(REACH_FILES.values()))


def test_one_place_lists_what_a_damaged_zip_raises():
    names = ("BadZipFile", "LargeZipFile")
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(name in path.read_text("utf-8") for name in names)
    }
    assert found == {"core/zips.py"}


@pytest.mark.parametrize(
    "code",
    [
        "a.open('rb')",
        "a.open('x')",
        "a.read_bytes()",
        "a.rename(b)",
        "a.replace(b)",
        "a.write_text('')",
        "h5py.File(a)",
        "Image.open(a)",
        "np.load(a)",
        "np.savez(a, b=c)",
        "open(a)",
        "open(a, mode='ab')",
        "os.replace(a, b)",
        "shutil.copyfile(a, b)",
        "shutil.move(a, b)",
        "zipfile.ZipFile(a)",
    ],
)
def test_a_file_by_its_name_is_noticed(code):
    assert list(by_name(ast.parse(code))) == [code]


@pytest.mark.parametrize(
    "code",
    [
        "a.replace('b', 'c')",
        "dataclasses.replace(a, b=c)",
        "Store.open()",
        "np.load(stream)",
        "Image.open(stream)",
    ],
)
def test_no_other_call_is(code):
    assert not list(by_name(ast.parse(code)))


# The contracts of pyproject.toml, each broken on purpose

VIOLATIONS = {
    "core knows a verb": ("core/units.py", "import mobiledeploy.verbs.doctor"),
    "a shelf knows another": ("recipes/float32.py", "import mobiledeploy.datasets.shapes"),
    "a leaf knows another": ("recipes/float32.py", "from mobiledeploy.recipes import float16"),
    "a verb knows a leaf": ("verbs/doctor.py", "from mobiledeploy.formats import tflite"),
    "a verb hides an import": ("verbs/doctor.py", "def f():\n    import tf_keras"),
    "a shelf stands on frameworks": ("formats/onnx.py", "import mobiledeploy.training.loop"),
    "core knows TensorFlow": ("core/units.py", "import tensorflow"),
    "a format knows tfmot": ("formats/tflite.py", "import tensorflow_model_optimization"),
    "a verb runs an engine": ("verbs/doctor.py", "import onnxruntime"),
    "a verb knows the terminal": ("verbs/doctor.py", "import rich.table"),
    "a room nobody planned": ("misc/__init__.py", ""),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and its contracts, apart, to be broken."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(PACKAGE, folder / "mobiledeploy", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    return folder


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contracts_hold(copy):
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("violation", slow_but(VIOLATIONS, *list(VIOLATIONS)[:3]))
def test_the_contracts_bite(violation, copy):
    name, line = VIOLATIONS[violation]
    path = copy / "mobiledeploy" / name
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((before or b"") + f"\n{line}\n".encode())
    try:
        done = lint_imports(copy)
    finally:
        if before is None:
            shutil.rmtree(path.parent)
        else:
            path.write_bytes(before)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout


def test_the_contracts_name_every_shelf():
    config = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    contracts = {c["id"]: c for c in config["tool"]["importlinter"]["contracts"]}
    shelves = {f"mobiledeploy.{s.folder}" for s in SHELVES.values() if s.folder in ROOMS}
    assert set(contracts["shelves-by-name"]["forbidden_modules"]) == shelves | {
        "mobiledeploy.frameworks"
    }
    leaves = {name.removesuffix(".*") for name in contracts["leaves"]["modules"]}
    assert shelves == leaves


# The command line


def test_there_are_commands():
    assert {"bench", "doctor", "evaluate", "export", "models"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example(name):
    command = main.cli.get_command(click.Context(main.cli), name)
    assert command is not None
    assert f"mobiledeploy {name}" in (command.epilog or "")
    assert command.help
    module = ast.parse((PACKAGE / "cli" / f"{name}.py").read_text("utf-8"))
    assert (ast.get_docstring(module) or "").partition("\n")[0].endswith(".")
    options = {option for param in command.params for option in param.opts}
    assert {"--json", "--quiet", "--verbose"} <= options
    undocumented = [
        p.name
        for p in command.params
        if isinstance(p, click.Option) and not p.help and not isinstance(p.type, click.Choice)
    ]
    assert not undocumented


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_prints(name):
    done = subprocess.run(
        [sys.executable, "-m", "mobiledeploy", name, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Example" in done.stdout
    assert not done.stderr


# Skips

# Reasons that are of what is tested: nothing is missing.
NOTHING_MISSING = {
    "numpy is … here, with which tflite_runtime works",
    "… does not save its own … as …: …",
}


def reasons(path: Path) -> Iterator[str]:
    """Why tests are skipped, an ellipsis for what is put in; where no words are given, none."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        given = {k.arg: k.value for k in node.keywords}
        match node.func.attr:
            case "skip" if node.args:
                found = node.args[0]
            case "importorskip" | "skipif":
                found = given.get("reason", ast.Constant("no reason"))
            case _:
                continue
        parts = found.values if isinstance(found, ast.JoinedStr) else [found]
        yield "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in parts)


def test_a_skip_names_its_remedy() -> None:
    found = {r for path in (REPOSITORY / "tests").rglob("*.py") for r in reasons(path)}
    # A single ellipsis is an error of ours, which says how to get what is missing.
    assert {r for r in found if not r.endswith(")") and r != "…"} == NOTHING_MISSING
    assert len(found) > 20


# Files


def tracked() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("no list of tracked files (work in a clone)")
    return [p for n in done.stdout.split("\0") if n and (p := REPOSITORY / n).is_file()]


def test_no_file_names_a_registry_or_this_machine():
    places = [f"{p}/" for p in (REPOSITORY, REPOSITORY.parent / "shared", Path.home())]
    places += [f"{sys.base_prefix}/"] if sys.base_prefix not in ("/usr", "/usr/local") else []
    registry = (
        r"pypi\.org|pythonhosted\.org|--(?:extra-)?index-url[ =]|--find-links[ =]|://\S*/simple\b"
    )
    pattern = re.compile("|".join([registry, *map(re.escape, places)]))
    for path in tracked():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found = pattern.search(text)
        assert not found, f"{path.relative_to(REPOSITORY)}: {found[0]}"


def test_the_plan_of_the_house_names_the_rooms_that_stand():
    plan = (REPOSITORY / "docs" / "architecture.md").read_text("utf-8")
    image = plan.partition("```text rooms\n")[2].partition("```")[0]
    named = set(re.findall(r"^  (\w+)/", image, re.MULTILINE))
    assert named == ROOMS


def test_the_changelog_has_this_version():
    changelog = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## \[{re.escape(__version__)}\]", changelog, re.MULTILINE)


def test_the_lock_is_whole():
    """Every requirement is pinned and hashed, and every direct one is there but for Ray."""
    text = (REPOSITORY / "requirements.lock").read_text("utf-8")
    blocks = re.split(r"\n(?=[a-z0-9])", text.partition("\n#    make lock\n")[2])
    assert len(blocks) > 50
    for block in blocks:
        assert re.match(r"[a-z0-9.-]+==\S+", block), block.partition("\n")[0]
        assert "--hash=sha256:" in block, block.partition("\n")[0]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [project["dependencies"], *project["optional-dependencies"].values()]
    # 240 MB, for sweeps on a cluster only: whoever has one installs its own version.
    wanted.remove(project["optional-dependencies"]["ray"])
    # The lock is for Linux.
    linux = [line for lines in wanted for line in lines if "'win32'" not in line]
    names = {re.split(r"[^\w-]", line)[0] for line in linux}
    names -= {"mobiledeploy"}
    assert names <= {block.partition("==")[0] for block in blocks}
