"""One page that stands alone: plots, tables and images inside it, nothing from the network.

It can also be a site: a front page, and a page for each model. `_page.py` and `_site.py` say what
is shown, `templates/` how. `_difference.py` is a page about two
files. Every text goes through `_one_line` and is escaped.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from mobiledeploy.core import units
from mobiledeploy.core.types import AcceptedDifference, FileFigures, Pair, Report
from mobiledeploy.reports import _difference, _page, _site

SUFFIX = ".html"
_TEMPLATES = Path(__file__).with_name("templates")


def render(report: Report) -> str:
    """The page. Its data are columns of numbers and of indices into lists of words."""
    context = _page.context(report) | {"vega": _vega()}
    return _environment().get_template("page.html").render(context) + "\n"


def pages(report: Report, accepted: Sequence[AcceptedDifference]) -> Iterator[tuple[str, str]]:
    """(path, text) of each file of a site: the plotting library once, models, the front page."""
    yield "vega.js", _bundle() + "\n"
    for path, context in _site.models(report, accepted):
        yield path, _environment().get_template("model.html").render(context) + "\n"
    text = _environment().get_template("index.html").render(_site.index(report))
    yield "index.html", text + "\n"


def difference(
    paths: tuple[str, str],
    size_bytes: tuple[int, int],
    layers: Sequence[Pair],
    figures: Sequence[FileFigures],
) -> str:
    """A page that draws two graphs beside each other; it has no script."""
    context = _difference.context(paths, size_bytes, layers, figures)
    return _environment().get_template("difference.html").render(context) + "\n"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_one_line,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.globals["script"] = _script
    environment.globals["style"] = _style
    environment.globals["drawn"] = _drawn
    environment.filters["breakable"] = _breakable
    return environment


def _one_line(value: Any) -> Any:
    """Text on one line, without control characters: names are the user's."""
    return units.one_line(value) if isinstance(value, str) and not _is_markup(value) else value


def _breakable(name: str) -> Markup:
    """A name that a narrow column breaks between its words, as `breakable` of page.js does."""
    text = units.one_line(name)
    return Markup("<wbr>").join(re.split(r"(?<=[_/])(?=\w)|(?<=\.)(?=[A-Za-z])", text))


def _is_markup(value: str) -> bool:
    return isinstance(value, Markup)


def _source(name: str) -> str:
    """A file of the folder as it is."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _style(name: str = "page.css") -> Markup:
    return Markup(_source(name))  # noqa: S704 - a file of ours


def _script() -> Markup:
    return _inline(_source("page.js"))


def _drawn(plot: dict[str, Any]) -> Markup:
    """A plot that needs no script."""
    return Markup(vl_convert.vegalite_to_svg(plot))  # noqa: S704 - numbers and titles of ours


def _vega() -> Markup:
    return _inline(_bundle())


@functools.cache
def _bundle() -> str:
    return str(vl_convert.javascript_bundle("window.vegaEmbed=vegaEmbed;"))


def _inline(code: str) -> Markup:
    """Code of ours or of a library, which cannot end the script element that it is in."""
    text = code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return Markup(text)  # noqa: S704 - no text of a user's
