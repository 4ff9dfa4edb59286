"""The links and URLs of the package, as an index shows them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email import message_from_string
from email.message import Message

import pytest

from tests.conftest import REPOSITORY
from tools.package_metadata import absolute_links

ON_GITHUB = {
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "somebody/mobiledeploy",
    "GITHUB_REF_NAME": "v1.2.3",
}
FILES = "https://github.com/somebody/mobiledeploy/blob/v1.2.3"


def built(folder, **environment) -> Message:
    """The metadata of the wheel."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=REPOSITORY,
        env=rest | environment,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith("/METADATA"))
        return message_from_string(files.read(name).decode("utf-8"))


def links(text: str) -> list[str]:
    """Where the links and images of a README lead that are not within it."""
    return [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("#")]


def test_a_build_of_a_tag_names_its_repository(tmp_path):
    metadata = built(tmp_path, **ON_GITHUB, GITHUB_REF_TYPE="tag")
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL"))
    assert urls["Changelog"] == f"{FILES}/CHANGELOG.md"
    assert urls["Source"] == "https://github.com/somebody/mobiledeploy"
    text = metadata.get_payload()
    assert f"]({FILES}/docs/guide.md#read-the-table)" in text
    assert all(link.startswith("https://") for link in links(text))
    # Each leads to a file that the tag has.
    own = [link.split("/v1.2.3/")[1] for link in links(text) if "/v1.2.3/" in link]
    assert len(own) > 20
    assert all((REPOSITORY / link.partition("#")[0]).is_file() for link in own)


@pytest.mark.parametrize("environment", [{}, ON_GITHUB | {"GITHUB_REF_TYPE": "branch"}])
def test_any_other_build_has_the_readme_as_it_is(tmp_path, environment):
    metadata = built(tmp_path, **environment)
    assert metadata.get_all("Project-URL") is None
    assert metadata.get_payload() == (REPOSITORY / "README.md").read_text("utf-8")


def test_links_of_a_page_to_itself_and_to_others_stay():
    text = "[one](#here), [two](https://example.org/a.md), [mail](mailto:a@example.org)"
    assert absolute_links(text, "https://github.com/a/b", "v1") == text
    image = "![a picture](docs/images/a.svg)"
    made = absolute_links(image, "https://github.com/a/b", "v1")
    assert made == "![a picture](https://github.com/a/b/raw/v1/docs/images/a.svg)"
