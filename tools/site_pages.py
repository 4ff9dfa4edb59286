"""What the site of `make docs` holds besides docs/: a hook of MkDocs, named in mkdocs.yml.

docs/ is the root of the site, and README.md its first page. Other files of the repository, which
pages link to, lie below repository/, and the reference of the Python API below python/. Links are
written for the repository, so each is rewritten for the place of its page in the site.
"""

from __future__ import annotations

import posixpath
import re
import tempfile
from pathlib import Path
from typing import Any

import api_docs
from mkdocs.structure.files import File

import mobiledeploy

REPOSITORY = Path(__file__).resolve().parent.parent
OUTSIDE = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "SECURITY.md",
    "SKILL.md",
    "android_bench/PROTOCOL.md",
    "mobiledeploy/core/allowed/keras.toml",
    "mobiledeploy/core/allowed/saved_model_operators.txt",
    "mobiledeploy/core/allowed/torch_operators.txt",
)

# The theme keeps a cell in one line, however long it is.
STYLE = """\
.wy-table-responsive table td, .wy-table-responsive table th { white-space: normal; }
.wy-nav-content { max-width: 64rem; }
"""


def on_config(config: Any) -> Any:
    """Set the version that the site shows (MkDocs calls this)."""
    config.extra["version"] = mobiledeploy.__version__
    return config


def in_site(path: str) -> str:
    """The place in the site of a file of the repository; both with slashes."""
    if path == "README.md":
        return path
    # Not beside the pages: SECURITY.md and security.md are one name to some file systems.
    return path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"


def in_repository(place: str) -> str:
    """The file of the repository that lies at `place` in the site."""
    if place == "README.md":
        return place
    outside = place.startswith("repository/")
    return place.removeprefix("repository/") if outside else f"docs/{place}"


def rewrite_links(text: str, path: str) -> str:
    """The Markdown of the page `path` of the repository, with the links that it has in the site."""
    folder, place = posixpath.dirname(path), posixpath.dirname(in_site(path))

    def link(match: re.Match[str]) -> str:
        target, anchor = match.groups("")
        if "://" in target:
            return match[0]
        there = in_site(posixpath.normpath(posixpath.join(folder, target)))
        return f"]({posixpath.relpath(there, place or '.')}{anchor})"

    return re.sub(r"\]\(([^)#\s]+)(#[^)\s]*)?\)", link, text)


def on_files(files: Any, config: Any) -> Any:
    """Add what lies outside docs/ (MkDocs calls this)."""
    for path in OUTSIDE:
        content = (REPOSITORY / path).read_bytes()
        files.append(File.generated(config, in_site(path), content=content))
    files.append(File.generated(config, "style.css", content=STYLE))
    with tempfile.TemporaryDirectory() as folder:
        api_docs.main(Path(folder))
        for file in Path(folder).glob("*"):
            files.append(File.generated(config, f"python/{file.name}", content=file.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite a page's links (MkDocs calls this)."""
    return rewrite_links(markdown, in_repository(page.file.src_uri))
