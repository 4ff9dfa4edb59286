"""What the package says of its repository: a hook of Hatchling, named in pyproject.toml.

A package index shows README.md alone, where links to other files of the repository lead nowhere. On
GitHub Actions, a build of a tag knows the address of its repository. It makes these links absolute,
to the files of the tag, and adds the URLs of the project. Any other build takes README.md as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


class PackageMetadata(MetadataHookInterface):
    """Sets `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in what pyproject.toml calls dynamic (Hatchling calls this)."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        tag = os.environ.get("GITHUB_REF_NAME", "")
        repository = tagged_repository(os.environ)
        metadata["urls"] = {}
        if repository is not None:
            text = absolute_links(text, repository, tag)
            metadata["urls"] = project_urls(repository, tag)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def tagged_repository(environment: Mapping[str, str]) -> str | None:
    """The address of the repository where GitHub Actions builds a tag of it; None elsewhere."""
    if environment.get("GITHUB_REF_TYPE") != "tag":
        return None
    return f"{environment['GITHUB_SERVER_URL']}/{environment['GITHUB_REPOSITORY']}"


def absolute_links(text: str, repository: str, tag: str) -> str:
    """Markdown whose links to files and images lead to those of the tag."""

    def link(match: re.Match[str]) -> str:
        image, shown, target = match.groups()
        return f"{image}[{shown}]({repository}/{'raw' if image else 'blob'}/{tag}/{target})"

    return _LINK.sub(link, text)


def project_urls(repository: str, tag: str) -> dict[str, str]:
    """The URLs by the names that package indexes know."""
    files = f"{repository}/blob/{tag}"
    return {
        "Source": repository,
        "Documentation": f"{files}/docs/guide.md",
        "Changelog": f"{files}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
