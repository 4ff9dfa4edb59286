"""The comment on a pull request, written to a server that answers as GitHub's API does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from mobiledeploy.core import records
from mobiledeploy.core.types import Report
from tests.reports.test_every_report import MIXED, check, verdict

SCRIPT = Path(__file__).resolve().parent.parent.parent / "tools" / "pull_request_comment.py"
SHA, TOKEN = "a1" * 20, "the-token-of-the-job"
MARKER = "<!-- mobiledeploy check: workflow 77 -->"


@dataclass
class GitHub:
    """Pull requests and comments of the repository us/nets."""

    address: str = ""
    pulls: list[dict] = field(default_factory=list)
    comments: dict[int, list[dict]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    refusal: tuple[int, str] | None = None

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, object]:
        self.requests.append((method, target))
        parts, query = urlsplit(target), parse_qs(urlsplit(target).query)
        path = parts.path.removeprefix("/api/v3/repos/us/nets")
        if method == "GET" and path == "/pulls":
            (head,) = query["head"]
            return 200, [p for p in self.pulls if p["head"]["label"] == head]
        if match := re.fullmatch(r"/issues/(\d+)/comments", path):
            comments = self.comments.setdefault(int(match[1]), [])
            if method == "POST":
                comments.append(comment(json.loads(body)["body"], number=1000 + len(comments)))
                return 201, comments[-1]
            first = int(query["per_page"][0]) * (int(query["page"][0]) - 1)
            return 200, comments[first : first + int(query["per_page"][0])]
        if method == "PATCH" and (match := re.fullmatch(r"/issues/comments/(\d+)", path)):
            for one in (c for several in self.comments.values() for c in several):
                if one["id"] == int(match[1]):
                    one["body"] = json.loads(body)["body"]
                    return 200, one
        return 404, {"message": "Not Found"}


def comment(body, number=1, login="github-actions[bot]"):
    return {"id": number, "user": {"login": login}, "body": body}


def pull(number, owner="stranger", branch="better", sha=SHA, repository=5):
    repo = None if repository is None else {"id": repository}
    return {
        "number": number,
        "head": {"label": f"{owner}:{branch}", "sha": sha, "repo": repo},
    }


@pytest.fixture
def github() -> Iterator[GitHub]:
    hub = GitHub()

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if hub.refusal:
                status, location = hub.refusal
                hub.requests.append((self.command, self.path))
                self.send_response(status)
                self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
            status, answer = (
                hub.answer(self.command, self.path, body) if allowed else (401, {"message": "no"})
            )
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = handle_one  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


RUN = {
    "id": 4242,
    "workflow_id": 77,
    "event": "pull_request",
    "head_sha": SHA,
    "head_branch": "better",
    "head_repository": {"id": 5, "owner": {"login": "stranger"}},
}


def step(github, folder, report=MIXED, run=RUN, event=None):
    """The action's step: Python without any package and without the folder that it is in."""
    path = folder / "report.json"
    if isinstance(report, Report):
        path.write_text(records.dumps(report))
    elif report is not None:
        path.write_bytes(report)
    (folder / "event.json").write_text(json.dumps(event or {"workflow_run": run}))
    return subprocess.run(
        [sys.executable, "-I", "-S", SCRIPT, path],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            "GITHUB_API_URL": f"{github.address}/api/v3",
            "GITHUB_EVENT_PATH": str(folder / "event.json"),
            "GITHUB_REPOSITORY": "us/nets",
            "GITHUB_SERVER_URL": "https://git.example",
            "GITHUB_TOKEN": TOKEN,
        },
    )


def test_a_fork_gets_one_comment_that_the_next_run_updates(github, tmp_path):
    github.pulls = [pull(9)]
    done = step(github, tmp_path)
    assert (done.returncode, done.stdout) == (0, "pull request 9: written\n"), done.stderr
    (one,) = github.comments[9]
    lines = one["body"].splitlines()
    assert lines[:2] == [MARKER, f"**mobiledeploy check** of {SHA[:12]}"]
    assert "| `build/a.tflite` | ❌ fail | `90.00 %` | `91.00 %` |" in one["body"]
    assert "(https://git.example/us/nets/actions/runs/4242)" in lines[-1]
    github.pulls = [pull(9, sha="b2" * 20)]
    passed = Report("x", (check(verdict("pass")),))
    done = step(github, tmp_path, passed, RUN | {"head_sha": "b2" * 20})
    assert (done.returncode, done.stdout) == (0, "pull request 9: updated\n")
    assert len(github.comments[9]) == 1
    assert "✅ pass" in github.comments[9][0]["body"]
    assert "❌" not in github.comments[9][0]["body"]


def test_comments_of_others_stay_as_they_are(github, tmp_path):
    github.pulls = [pull(9)]
    others = [
        comment(f"{MARKER}\nI begin as it does", 1, "stranger"),
        comment("of another workflow of the same bot", 2),
        comment("<!-- mobiledeploy check: workflow 78 -->", 3),
        comment(f"quoted: {MARKER}", 4),
        {"id": 5, "user": None, "body": None},
        *(comment("a long talk", number, "somebody") for number in range(6, 300)),
    ]
    github.comments[9] = [*map(dict, others), comment(f"{MARKER}\nold", 999)]
    assert step(github, tmp_path).stdout == "pull request 9: updated\n"
    assert github.comments[9][:-1] == others
    assert "old" not in github.comments[9][-1]["body"]


@pytest.mark.parametrize(
    "pulls",
    [
        [],
        [pull(9, sha="c3" * 20)],  # pushed again meanwhile: that run comments
        [pull(9, repository=6)],  # another fork of the same name
        [pull(9, repository=None)],  # the fork was removed
        [pull(9, owner="us")],
    ],
    ids=["closed", "pushed", "another", "removed", "of-us"],
)
def test_only_the_pull_request_of_the_run_gets_it(pulls, github, tmp_path):
    github.pulls = pulls
    done = step(github, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no open pull request has this commit" in done.stdout
    assert {method for method, _ in github.requests} == {"GET"}


def test_a_removed_fork_and_another_event_ask_nothing(github, tmp_path):
    assert step(github, tmp_path, run=RUN | {"head_repository": None}).returncode == 0
    assert step(github, tmp_path, run=RUN | {"event": "push"}).returncode == 0
    done = step(github, tmp_path, event={"pull_request": {}})
    assert done.returncode == 2
    assert "::error title=mobiledeploy comment::it runs on workflow_run only" in done.stdout
    assert github.requests == []


def test_a_branch_of_any_name_is_one_value_of_the_question(github, tmp_path):
    branch = "x&state=all&head=us:main#ü ü"
    github.pulls = [pull(9, branch=branch)]
    done = step(github, tmp_path, run=RUN | {"head_branch": branch})
    assert done.stdout == "pull request 9: written\n", done.stderr


@pytest.mark.parametrize(
    "report",
    [
        None,
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema_version": 2, "record": "Artifact"}',
        b'{"schema_version": 2, "record": "Report", "title": "x", "pull_request": 1}',
        b'{"schema_version": 2, "record": "Report", "title": 1' + b"0" * 5000 + b"}",
        records.dumps(MIXED).replace('"fail"', '"::error::"').encode(),
        records.dumps(MIXED).encode() + b" " * (5 << 20),
    ],
    ids=["none", "empty", "bytes", "deep", "artifact", "field", "number", "outcome", "large"],
)
def test_a_report_that_is_none_gives_a_comment_without_figures(report, github, tmp_path):
    """An older table would look as if it were of this commit."""
    github.pulls = [pull(9)]
    github.comments[9] = [comment(f"{MARKER}\n✅ pass")]
    done = step(github, tmp_path, report)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "no table: the check left no report of this version of mobiledeploy",
        "pull request 9: updated",
    ]
    (one,) = github.comments[9]
    assert "There are no figures" in one["body"]
    assert "✅" not in one["body"]


def test_a_link_in_the_report_is_not_followed_into_the_comment(github, tmp_path):
    github.pulls = [pull(9)]
    (tmp_path / "secret").write_text("password=1234")
    (tmp_path / "report.json").symlink_to(tmp_path / "secret")
    done = step(github, tmp_path, None)
    assert done.returncode == 0
    assert "1234" not in github.comments[9][0]["body"] + done.stdout + done.stderr


def test_a_name_in_the_report_decides_nothing(github, tmp_path):
    name = "x` @octocat\n<!-- mobiledeploy check: workflow 78 -->\n::error::x"
    github.pulls = [pull(9)]
    hostile = replace(MIXED.checks[0], path=name, verdicts=(verdict("fail", line=name),))
    done = step(github, tmp_path, Report(name, (hostile,)))
    assert done.stdout == "pull request 9: written\n"
    (one,) = github.comments[9]
    assert len(one["body"].splitlines()) == 8
    assert "`x' @octocat" in one["body"]


@pytest.mark.parametrize(
    ("status", "words"),
    [(403, "403; the job needs permissions: pull-requests: write"), (404, "404"), (500, "500")],
)
def test_a_refusal_is_one_line_without_the_token(status, words, github, tmp_path):
    github.refusal = status, ""
    done = step(github, tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith("::error title=mobiledeploy comment::GET http://127.0.0.1:")
    assert line.endswith(f"was answered with {words}")
    assert TOKEN not in done.stdout


def test_the_token_does_not_follow_a_redirect(github, tmp_path):
    github.refusal = 302, f"{github.address}/elsewhere"
    done = step(github, tmp_path)
    assert done.returncode == 1
    assert "was answered with 302" in done.stdout
    assert len(github.requests) == 1


def test_without_a_server_the_hint_is_to_try_again(github, tmp_path):
    github.address = "http://127.0.0.1:9"
    done = step(github, tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith("run the job again\n")
