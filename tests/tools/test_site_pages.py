"""The site of `make docs`: all pages, links that lead somewhere, nothing from other servers."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

from tests import namespaces
from tests.scripts import script

for library in ("mkdocs", "pdoc"):
    pytest.importorskip(
        library, reason=f"{library} is not installed (pip install 'mobiledeploy[docs]')"
    )

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CONFIGURATION = REPOSITORY / "mkdocs.yml"


@pytest.fixture(scope="module")
def pages() -> Iterator[ModuleType]:
    with script("tools/api_docs.py"), script("tools/site_pages.py") as module:
        yield module


# Links


@pytest.mark.parametrize(
    ("page", "link", "in_site"),
    [
        ("README.md", "docs/guide.md#read-the-table", "guide.md#read-the-table"),
        ("README.md", "CHANGELOG.md", "repository/CHANGELOG.md"),
        ("docs/json.md", "exit-codes.md", "exit-codes.md"),
        ("docs/json.md", "../android_bench/PROTOCOL.md", "repository/android_bench/PROTOCOL.md"),
        ("SECURITY.md", "docs/security.md", "../security.md"),
        ("CONTRIBUTING.md", "CHANGELOG.md", "CHANGELOG.md"),
        ("docs/json.md", "https://example.org/docs/a.md", "https://example.org/docs/a.md"),
        ("docs/json.md", "#the-object", "#the-object"),
    ],
)
def test_a_link_is_rewritten_for_the_place_of_its_page(page, link, in_site, pages):
    assert pages.rewrite_links(f"see [it]({link}).", page) == f"see [it]({in_site})."


def test_each_place_in_the_site_is_of_one_file(pages):
    files = [*pages.OUTSIDE, "docs/security.md", "docs/images/overview.svg"]
    places = [pages.in_site(path) for path in files]
    # Some file systems do not know SECURITY.md from security.md.
    assert len({place.lower() for place in places}) == len(files)
    assert [pages.in_repository(place) for place in places] == files


def test_every_page_has_a_place_in_the_navigation():
    navigation = re.findall(r"^ +- .+: (\S+\.md)$", CONFIGURATION.read_text("utf-8"), re.MULTILINE)
    docs = {path.name for path in (REPOSITORY / "docs").glob("*.md")}
    assert docs == {path for path in navigation if "/" not in path} - {"README.md"}
    assert len(navigation) == len(set(navigation))


# The whole site


class Document(HTMLParser):
    """What a page links to, what a browser loads for it, and where its anchors are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a":
            self.links += [values["href"]] if "href" in values else []
        elif tag != "meta":
            self.loads += [values[name] for name in ("src", "href", "data") if name in values]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built where there is no network."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        ["unshare", "-Urn", *command], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    namespaces.need(done)
    assert done.returncode == 0, done.stderr
    return folder.resolve()


def documents(folder: Path) -> dict[Path, Document]:
    return {path: Document(path.read_text("utf-8")) for path in folder.rglob("*.html")}


def broken_links(folder: Path) -> list[tuple[str, str]]:
    """(page, link) of each link of a site to itself that has no file or no anchor."""
    all_ = documents(folder)
    broken = []
    for path, document in all_.items():
        for target in (*document.links, *document.loads):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            # The page of a server that finds no file: it is shown in every folder.
            start = folder if path.name == "404.html" else path.parent
            place = parts.path.lstrip("/") if path.name == "404.html" else parts.path
            there = (start / unquote(place)).resolve() if place else path
            there = there / "index.html" if there.is_dir() else there
            has_anchor = not parts.fragment or (
                there in all_ and unquote(parts.fragment) in all_[there].anchors
            )
            if not (there.is_relative_to(folder) and there.is_file() and has_anchor):
                broken.append((path.name, target))
    return broken


@pytest.mark.slow
def test_the_site_has_every_page_and_every_public_name(site, pages):
    import mobiledeploy

    all_ = documents(site)
    sources = [f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")]
    for source in (*sources, *(path for path in pages.OUTSIDE if path.endswith(".md"))):
        page = (site / pages.in_site(source)).with_suffix(".html")
        assert (site / "index.html" if source == "README.md" else page) in all_, source
    assert set(mobiledeploy.__all__) <= all_[site / "python" / "mobiledeploy.html"].anchors


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(site):
    assert not broken_links(site)


@pytest.mark.parametrize("link", ["c.html", "b.html#c", "#b", "/b.html", "../a.html", "b.png"])
def test_a_link_that_leads_nowhere_is_noticed(link, tmp_path):
    (tmp_path / "b.html").write_text('<h1 id="b">b</h1>')
    (tmp_path / "a.html").write_text('<h1 id="a"><a href="b.html#b">b</a><a href="#a">a</a></h1>')
    assert not broken_links(tmp_path)
    (tmp_path / "a.html").write_text(f'<a href="{link}">c</a>')
    assert broken_links(tmp_path) == [("a.html", link)]


# What a browser fetches by itself: of a tag's attributes, of a style, of a script.
ELSEWHERE = re.compile(r"\s*(https?:)?//")
IN_STYLE = re.compile(r"(?:url\(|@import)\s*['\"]?\s*((?:https?:)?//[^)'\"]*)")
IN_SCRIPT = re.compile(
    r"(?:fetch|import|importScripts|open|Worker|EventSource|WebSocket)\s*\([^)]{0,40}"
    r"['\"`]((?:https?|wss?):)?//"
)


def loads_from_elsewhere(name: str, text: str) -> list[str]:
    """What a browser would load from another server for this file of the site."""
    loads = [match[0] for match in IN_STYLE.finditer(text)]
    if name.endswith(".html"):
        loads += [target for target in Document(text).loads if ELSEWHERE.match(target)]
    if name.endswith((".html", ".js")):
        loads += [match[0] for match in IN_SCRIPT.finditer(text)]
    return loads


@pytest.mark.slow
def test_the_site_loads_nothing_from_another_server(site):
    files = [path for path in site.rglob("*") if path.suffix in (".html", ".css", ".js", ".svg")]
    assert {path.suffix for path in files} == {".html", ".css", ".js", ".svg"}
    for path in files:
        assert not loads_from_elsewhere(path.name, path.read_text("utf-8")), path.name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://example.org/a.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="//example.org/a.css">'),
        ("a.html", '<img src="http://example.org/a.png">'),
        ("a.html", '<script>fetch("https://example.org/a.json")</script>'),
        ("a.css", "@import 'https://example.org/a.css';"),
        ("a.css", "@font-face { src: url(//example.org/a.woff2) }"),
        ("a.js", "new Worker('https://example.org/a.js')"),
    ],
)
def test_a_load_from_another_server_is_noticed(name, text):
    assert loads_from_elsewhere(name, text)
    assert not loads_from_elsewhere(name, re.sub(r"(https?:)?//example.org/", "", text))
    assert not loads_from_elsewhere("a.html", '<a href="https://example.org/">elsewhere</a>')
