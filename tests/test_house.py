"""The rules of the house that no linter knows, and that the linters' own rules bite."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mobiledeploy import __version__
from mobiledeploy.cli import main
from mobiledeploy.core import plugins

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "mobiledeploy"
ROOMS = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
SHELVES = {n: s for n, s in vars(plugins).items() if isinstance(s, plugins.Shelf)}
COMMANDS = main.cli.list_commands(click.Context(main.cli))
HEAVY = {"keras", "tensorflow", "tensorflow_model_optimization", "tf2onnx", "tf_keras"}


def python(code: str) -> str:
    """What `code` prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
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


@pytest.fixture(scope="module")
def assigned() -> dict[str, set[str]]:
    """Constant of core/plugins.py -> the modules that tests/typed_ports.py gives to its port."""
    tree = ast.parse((REPOSITORY / "tests" / "typed_ports.py").read_text("utf-8"))
    modules = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = {}
    for node in tree.body:
        match node:
            case ast.Expr(ast.Call(func=ast.Call(args=[ast.Name(constant)]), args=[*leaves])):
                names = [leaf.id for leaf in leaves if isinstance(leaf, ast.Name)]
                found[constant] = {modules[name] for name in names}
    return found


@pytest.mark.parametrize("constant", SHELVES)
def test_every_plugin_is_held_against_its_port(constant, assigned):
    shelf = SHELVES[constant]
    leaves = {f"mobiledeploy.{shelf.folder}.{name}" for name in shelf.names()}
    assert assigned.get(constant, set()) == leaves


def test_every_file_of_a_shelf_is_a_plugin():
    """A shelf that is split over two constants (formats) leaves no file out.

    But for frameworks, which is a floor too: the ways to load a model stand on common ground.
    """
    for folder in ({shelf.folder for shelf in SHELVES.values()} & ROOMS) - {"frameworks"}:
        files = {p.stem for p in (PACKAGE / folder).glob("*.py") if not p.stem.startswith("_")}
        named = {n for s in SHELVES.values() if s.folder == folder for n in s.names()}
        assert files <= named, folder


# Imports


@pytest.mark.parametrize(
    "verb", ["bench", "check", "doctor", "evaluate", "export", "models", "verify"]
)
def test_a_verb_starts_without_tensorflow(verb):
    said = python(f"import sys, mobiledeploy.verbs.{verb}; print(*sys.modules)")
    assert not HEAVY & set(said.split())


def test_help_imports_next_to_nothing():
    said = python(
        "import sys; sys.argv = ['mobiledeploy', '--help']\n"
        "from mobiledeploy.cli.main import run\n"
        "assert run() == 0\n"
        "print('MODULES', *sys.modules)"
    )
    loaded = set(said.partition("MODULES")[2].split())
    assert "click" in loaded
    assert not (HEAVY | {"numpy", "onnx", "onnxruntime", "PIL", "rich", "scipy"}) & loaded


def test_public_names_are_the_verbs():
    said = python(
        "import sys, mobiledeploy\n"
        "assert 'mobiledeploy.verbs' not in sys.modules\n"
        "from mobiledeploy import bench, evaluate, export\n"
        "print(bench.__module__, evaluate.__module__, export.__module__)"
    )
    assert said.split() == [f"mobiledeploy.verbs.{v}" for v in ("bench", "evaluate", "export")]


@pytest.mark.parametrize(
    ("room", "libraries"), [("core", {"numpy", "PIL"}), ("analysis", {"numpy", "scipy"})]
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


# What is written: core/records.py knows what must not be renamed over, and nobody else does

# The file, and what is called there: none of these is a place that a user named.
OWN_PLACES = {
    ("core/artifacts.py", "rename"): "a folder aside, to the name that tells that it is locked",
    ("core/artifacts.py", "open w"): "the lock in a folder aside, which was just made",
    ("devices/_child.py", "copyfile"): "into the caller's own folder",
    ("devices/adb.py", "open x"): "a name in the cache",
    ("frameworks/loading.py", "open xb"): "into a folder of its own",
    ("runners/python.py", "savez"): "where the protocol says: the caller's own folder",
    ("verbs/child.py", "open wb"): "a log in a folder aside",
    ("verbs/diagnose.py", "save"): "into a folder of its own",
    ("verbs/diagnose.py", "savez"): "into a folder of its own",
    ("verbs/diagnose.py", "write_bytes"): "into a folder of its own",
    ("verbs/equip.py", "rename"): "the parts in the cache, whole",
    ("verbs/equip.py", "write_text"): "into a folder aside",
    ("verbs/evaluate.py", "write_bytes"): "into a folder of its own",
    ("verbs/golden.py", "write_bytes"): "into a folder of its own",
    ("verbs/inputs.py", "write_bytes"): "into the caller's own folder",
    ("verbs/job.py", "open wb"): "a log in a folder aside",
    ("devices/emulator.py", "symlink_to"): "into a folder of its own",
    ("devices/emulator.py", "write_text"): "into a folder of its own",
    ("verbs/train.py", "open a"): "a lock, which is never written to",
}
WRITES = {
    "rename",
    "renames",
    "write_bytes",
    "write_text",
    "savez",
    "savez_compressed",
    "copyfile",
    "copy2",
    "move",
    "link_to",
    "symlink_to",
    "hardlink_to",
    "tofile",
}


def written(tree: ast.AST) -> Iterator[str]:
    """The calls that write a file by its name, or rename one over another."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="replace"), args=[_], keywords=[]):
                yield "replace"
            case ast.Call(func=ast.Attribute(value=ast.Name("os"), attr="replace")):
                yield "replace"
            case ast.Call(func=ast.Attribute(value=ast.Name("np"), attr="save"), args=[target, _]):
                if not isinstance(target, ast.Name):
                    yield "save"
            case ast.Call(func=ast.Attribute(value=ast.Name("np"), attr="savez"), args=[first, *_]):
                # Into a stream in memory, nothing is written.
                if getattr(first, "id", "") != "stream":
                    yield "savez"
            case ast.Call(func=ast.Attribute(attr=name)) if name in WRITES:
                yield name
            case ast.Call(func=ast.Name("open") | ast.Attribute(attr="open")):
                values = [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
                modes = [v.value for v in values if isinstance(v, ast.Constant)]
                yield from (
                    f"open {mode}"
                    for mode in modes
                    if isinstance(mode, str) and re.fullmatch("[rwaxbt+]*[wax+][rwaxbt+]*", mode)
                )


def test_one_place_writes_what_a_user_named():
    found = {
        (str(path.relative_to(PACKAGE)), call)
        for path in PACKAGE.rglob("*.py")
        for call in written(ast.parse(path.read_text("utf-8")))
        if path != PACKAGE / "core" / "records.py"
    }
    assert found == set(OWN_PLACES)


@pytest.mark.parametrize(
    "code",
    [
        "a.replace(b)",
        "os.replace(a, b)",
        "a.rename(b)",
        "shutil.move(a, b)",
        "open(a, 'w')",
        "open(a, mode='ab')",
        "a.open('x')",
        "a.write_text('')",
        "np.savez(a, b=c)",
    ],
)
def test_a_write_is_seen(code):
    assert list(written(ast.parse(code)))


@pytest.mark.parametrize(
    "code", ["a.replace('b', 'c')", "replace(a, b=c)", "open(a)", "a.open('rb')", "Store.open()"]
)
def test_what_writes_nothing_is_no_write(code):
    assert not list(written(ast.parse(code)))


# Files that somebody else may have made

_WAYS = {
    "Image.open", "h5py.File", "h5py.is_hdf5", "io.open", "json.load", "np.fromfile", "np.load",
    "np.memmap", "open", "os.open", "shutil.copy", "shutil.copy2", "shutil.copyfile",
    "shutil.copytree", "sqlite3.connect", "tomllib.load", "zipfile.ZipFile", "zipfile.is_zipfile",
}  # fmt: skip
# What is called `open` too: shelves' plugins, the store, a member of an archive, a web address.
_OTHERS = re.compile(
    r"(Store|cls|runtime|self\._archive|_opener\(\)|dataset\(.*\)|[A-Z]+\.load\(.*\))\.open"
)
_OPENED = re.compile(r"(stream|io\.BytesIO\(.*\))(, .*)?")
_WRITES = re.compile(r"['\"](w|x|a)b?\+?['\"]|O_WRONLY|open_memmap")

MAY_OPEN = {
    "cli/main.py _first_line": "our own source",
    "cli/main.py _open_streams": "the null device, for a stream that its caller closed",
    "core/artifacts.py left_aside": "a lock of ours, no link and without waiting",
    "core/inputs.py _handle": "the one place",
    "core/leases.py hold": "a lock of ours in the user's cache",
    "core/untrusted.py _allowed": "our own list",
    "frameworks/loading.py for_inference": "a copy of ours",
    "core/records.py put": "a file of ours that goes to another disk",
    "core/store.py keeping": "a store in memory",
    "formats/saved_model.py _allowed": "our own list",
    "core/store.py _rescue": "SQLite has opened it just now",
    "core/store.py open": "SQLite opens it",
    "devices/_child.py pull": "what our own runner wrote",
    "devices/host.py _text": "/proc and /sys",
    "reports/html.py render": "our own page",
    "runners/python.py _peak_rss_bytes": "/proc",
    "verbs/child.py events": "what our own child process said",
    "verbs/count.py run": "what our own runner wrote",
    "verbs/diagnose.py _alone": "arrays of ours in a temporary folder",
    "verbs/diagnose.py run": "arrays of ours in a temporary folder",
    "verbs/doctor.py _free_memory": "/proc",
    "verbs/equip.py _build": "a wheel that was fetched by its hash",
    "verbs/equip.py _unpack_library": "a wheel that was fetched by its hash",
    "verbs/export.py _commit": "a folder, to have it written to the disk",
    "verbs/fit.py _prepare": "mapped, a regular file by then",
    "verbs/golden.py isa": "/proc",
    "verbs/job.py _death": "what our own child process said",
    "verbs/plan.py _key": "our own source",
}


def opening(path: Path) -> set[str]:
    """The functions of a module that open a file for reading by its name."""
    tree = ast.parse(path.read_text("utf-8"))
    found = set()
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if not isinstance(node, ast.Call):
                continue
            way, given = ast.unparse(node.func), ", ".join(map(ast.unparse, node.args))
            reads = way in _WAYS or way.endswith((".open", ".read_bytes", ".read_text"))
            if not reads or _OTHERS.fullmatch(way) or _WRITES.search(ast.unparse(node)):
                continue
            if not _OPENED.fullmatch(given):
                found.add(f"{path.relative_to(PACKAGE)} {function.name}")
    return found


def test_one_place_opens_input_files():
    """Pipes, devices, and files without an end are refused there (core/inputs.py)."""
    assert set().union(*map(opening, PACKAGE.rglob("*.py"))) == set(MAY_OPEN)


@pytest.mark.parametrize(
    "line",
    ["path.read_bytes()", "path.open('rb')", "open(path)", "np.load(path)", "h5py.File(path)",
     "zipfile.ZipFile(path)", "Image.open(path)", "shutil.copyfile(path, copy)"],
)  # fmt: skip
def test_another_place_is_noticed(line, monkeypatch, tmp_path):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    module = tmp_path / "module.py"
    module.write_text(f"def load(path):\n    return {line}\n")
    assert opening(module) == {"module.py load"}


# The contracts of pyproject.toml, each broken on purpose

VIOLATIONS = {
    "core knows a verb": ("core/units.py", "import mobiledeploy.verbs.doctor"),
    "a shelf knows another": ("recipes/float32.py", "import mobiledeploy.datasets.shapes"),
    "a leaf knows another": ("recipes/float32.py", "from mobiledeploy.recipes import float16"),
    "a verb knows a leaf": ("verbs/doctor.py", "from mobiledeploy.formats import tflite"),
    "a verb hides an import": ("verbs/doctor.py", "def f():\n    import tf_keras"),
    "a shelf stands on frameworks": ("formats/onnx.py", "import mobiledeploy.frameworks.training"),
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
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_contracts_hold(copy):
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("violation", VIOLATIONS)
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
    assert set(contracts["shelves-by-name"]["forbidden_modules"]) == shelves
    leaves = {name.removesuffix(".*") for name in contracts["leaves"]["modules"]}
    assert shelves - leaves == {"mobiledeploy.frameworks"}


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
        p.name for p in command.params
        if isinstance(p, click.Option) and not p.help and not isinstance(p.type, click.Choice)
    ]  # fmt: skip
    assert not undocumented


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_prints(name):
    done = subprocess.run(
        [sys.executable, "-m", "mobiledeploy", name, "--help"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Example" in done.stdout
    assert not done.stderr


# Files


def tracked() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("git does not know this folder: no list of tracked files")
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
    picture = plan.partition("```text rooms\n")[2].partition("```")[0]
    named = set(re.findall(r"^  (\w+)/", picture, re.MULTILINE))
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
    names = {re.split(r"[^\w-]", line)[0] for lines in wanted for line in lines}
    names -= {"mobiledeploy"}
    assert names <= {block.partition("==")[0] for block in blocks}
