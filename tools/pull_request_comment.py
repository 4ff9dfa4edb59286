"""Write the table of a check as a comment on its pull request, or into the comment of before.

`python3 -I tools/pull_request_comment.py REPORT` is the step of tools/comment/action.yml. It runs
on `workflow_run`: after a check of a pull request, with a token of the base repository, and with
the check's report, which is the stranger's. Nothing of the report decides where the comment goes:
that is taken from GitHub's event. The comment says that the report is the pull request's own.

It needs the standard library and this checkout only. The environment is that of a job on GitHub,
with the token in GITHUB_TOKEN, which needs `pull-requests: write`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mobiledeploy.core import inputs, records, units
from mobiledeploy.core.errors import DeployError, InputError
from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.types import Report

# Who writes with a job's token.
BOT = "github-actions[bot]"
_REPORT = 4 << 20
_ANSWER = 64 << 20
_PER_PAGE, _MOST_PAGES = 100, 30
_SECONDS = 30
_SHA = re.compile("[0-9a-f]{40,64}")


class RefusedError(DeployError):
    """GitHub does not do it."""

    exit_code = 1


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token goes to one server only."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Repository:
    """A repository on GitHub, by its REST API."""

    def __init__(self, api: str, name: str, token: str) -> None:
        self._base, self._token = f"{api}/repos/{name}", token
        self._opener = urllib.request.build_opener(_NoRedirect)

    def open_pull_requests(self, run: dict[str, Any]) -> list[int]:
        """The numbers of the open pull requests whose last commit a run was of."""
        head = run["head_repository"]
        if head is None:
            return []
        branch = f"{head['owner']['login']}:{run['head_branch']}"
        query = {"state": "open", "head": branch, "per_page": _PER_PAGE}
        return [
            one["number"]
            for one in self._ask("GET", f"/pulls?{urllib.parse.urlencode(query)}")
            if one["head"]["sha"] == run["head_sha"]
            and (one["head"]["repo"] or {}).get("id") == head["id"]
        ]

    def comment(self, number: int, marker: str, text: str) -> str:
        """Writes `text` into our comment that begins with `marker`, or as a new one: which."""
        for page in range(1, _MOST_PAGES + 1):
            query = f"per_page={_PER_PAGE}&page={page}"
            comments = self._ask("GET", f"/issues/{number}/comments?{query}")
            for one in comments:
                mine = (one["user"] or {}).get("login") == BOT
                if mine and (one["body"] or "").startswith(marker):
                    self._ask("PATCH", f"/issues/comments/{int(one['id'])}", text)
                    return "updated"
            if len(comments) < _PER_PAGE:
                break
        self._ask("POST", f"/issues/{number}/comments", text)
        return "written"

    def _ask(self, method: str, path: str, text: str | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the runner's own GITHUB_API_URL
            self._base + path,
            None if text is None else json.dumps({"body": text}).encode(),
            {
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
                "User-Agent": "mobiledeploy",
                "X-GitHub-Api-Version": "2022-11-28",
            },
            method=method,
        )
        what = f"{method} {request.full_url.partition('?')[0]}"
        try:
            with self._opener.open(request, timeout=_SECONDS) as answer:
                return json.loads(answer.read(_ANSWER))
        except urllib.error.HTTPError as error:
            hint = "the job needs permissions: pull-requests: write" if error.code == 403 else ""
            raise RefusedError(f"{what} was answered with {error.code}", hint) from error
        except (OSError, ValueError) as error:
            raise RefusedError(f"{what} got no answer: {error}", "run the job again") from error


def read_report(path: Path) -> Report | None:
    """The report that a check left; None if it left none, or what it left is none."""
    try:
        return records.loads(Report, inputs.read(path, _REPORT), path.name)
    except InputError:
        # The reason may hold the stranger's words, which could be a command in the log.
        print("no table: the check left no report of this version of mobiledeploy")
        return None


def body(report: Report | None, run: dict[str, Any], marker: str, address: str) -> str:
    """The comment: the marker, which GitHub does not show, the table, and whose figures these are.

    Args:
        report: of the check; None if there is none.
        run: `workflow_run` of the event.
        marker: by which the comment is recognized next time.
        address: of the run's page.
    """
    sha = run["head_sha"] if _SHA.fullmatch(run["head_sha"]) else ""
    if report is None:
        table = "There are no figures: the check ended without a report.\n"
    else:
        table = REPORTS.load("comment").render(report)
    head = f"**mobiledeploy check** of {sha[:12]}"
    source = f"This is what [the pull request's own run]({address}) reports."
    return f"{marker}\n{head}\n\n{table}\n{source}\n"


def main(path: Path) -> int:
    """Comments on the pull requests of the event's run; 0 also if there are none any more."""
    environment = os.environ
    event = json.loads(Path(environment["GITHUB_EVENT_PATH"]).read_text("utf-8"))
    run = event.get("workflow_run")
    if run is None:
        print("::error title=mobiledeploy comment::it runs on workflow_run only (docs/check.md)")
        return 2
    if run["event"] != "pull_request":
        print(f"nothing to comment on: the run was of {units.one_line(run['event'])}")
        return 0
    name = environment["GITHUB_REPOSITORY"]
    repository = Repository(environment["GITHUB_API_URL"], name, environment["GITHUB_TOKEN"])
    marker = f"<!-- mobiledeploy check: workflow {int(run['workflow_id'])} -->"
    address = f"{environment['GITHUB_SERVER_URL']}/{name}/actions/runs/{int(run['id'])}"
    text = body(read_report(path), run, marker, address)
    try:
        numbers = repository.open_pull_requests(run)
        for number in numbers:
            print(f"pull request {number}: {repository.comment(number, marker, text)}")
    except RefusedError as error:
        line = units.one_line(str(error)).replace("%", "%25")
        print(f"::error title=mobiledeploy comment::{line}")
        return error.exit_code
    if not numbers:
        print("nothing to comment on: no open pull request has this commit as its last")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
