import hashlib
import socket

import pytest

from mobiledeploy.core import assets
from mobiledeploy.core.errors import InputError, MissingError, UsageError

BODY = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "cache" / "weights.h5"


def left(place):
    return sorted(path.name for path in place.parent.iterdir()) if place.parent.exists() else []


def test_a_file_is_fetched_once(web, place):
    web.files["/w.h5"] = (200, {}, BODY)
    steps = []
    first = assets.fetch(
        f"{web.url}/w.h5", place, SHA256, progress=lambda done, total: steps.append((done, total))
    )
    assert first == assets.Fetched(place, SHA256, pinned=True)
    assert place.read_bytes() == BODY
    assert steps[-1] == (len(BODY), len(BODY))
    assert assets.fetch(f"{web.url}/w.h5", place, SHA256) == first
    assert web.asked == ["/w.h5"]
    assert left(place) == ["weights.h5"]


def test_another_file_than_the_pinned_one_is_refused(web, place):
    web.files["/w.h5"] = (200, {}, BODY[:-1])
    with pytest.raises(InputError, match="not the published"):
        assets.fetch(f"{web.url}/w.h5", place, SHA256)
    assert left(place) == []


def test_an_unpinned_file_is_held_to_its_first_download(web, place):
    web.files["/w.h5"] = (200, {}, BODY)
    fetched = assets.fetch(f"{web.url}/w.h5", place, None)
    assert fetched == assets.Fetched(place, SHA256, pinned=False)
    assert left(place) == ["weights.h5", "weights.h5.sha256"]
    assert assets.fetch(f"{web.url}/w.h5", place, None) == fetched
    place.write_bytes(BODY + b"x")
    with pytest.raises(InputError, match="has changed"):
        assets.fetch(f"{web.url}/w.h5", place, None)


def test_a_file_placed_by_hand_is_taken_and_held_to(place):
    place.parent.mkdir()
    place.write_bytes(BODY)
    assert assets.fetch("http://127.0.0.1:9/none", place, None).sha256 == SHA256
    place.write_bytes(b"other")
    with pytest.raises(InputError, match="has changed"):
        assets.fetch("http://127.0.0.1:9/none", place, None)


@pytest.mark.parametrize("length", [len(BODY) + 1, 10 * len(BODY)])
def test_a_download_that_ends_too_early_leaves_nothing(web, place, length):
    web.files["/w.h5"] = (200, {"Content-Length": str(length)}, BODY)
    with pytest.raises(MissingError, match=f"{len(BODY)} (of|bytes)"):
        assets.fetch(f"{web.url}/w.h5", place, None)
    assert left(place) == []


def test_an_empty_answer_is_no_file(web, place):
    web.files["/w.h5"] = (200, {}, b"")
    with pytest.raises(MissingError):
        assets.fetch(f"{web.url}/w.h5", place, None)
    assert left(place) == []


@pytest.mark.parametrize("status", [404, 403, 500])
def test_a_refusal_says_what_to_do(web, place, status):
    web.files["/w.h5"] = (status, {}, b"sorry")
    with pytest.raises(MissingError, match=str(status)) as caught:
        assets.fetch(f"{web.url}/w.h5", place, None, hint="place it by hand")
    assert caught.value.hint == "place it by hand"
    assert left(place) == []


def test_no_network_is_said_in_one_line(place):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/w.h5"
        with pytest.raises(MissingError, match="cannot be reached") as caught:
            assets.fetch(address, place, None, hint="place it by hand")
    assert "\n" not in str(caught.value)
    assert left(place) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "weights.h5", ""])
def test_only_the_web_is_asked(place, url):
    with pytest.raises(UsageError, match="no http or https"):
        assets.fetch(url, place, None)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirection_leads_nowhere_else(web, place, target):
    web.files["/w.h5"] = (302, {"Location": target}, b"")
    with pytest.raises(MissingError):
        assets.fetch(f"{web.url}/w.h5", place, None)
    assert left(place) == []


def test_a_redirection_on_the_web_is_followed(web, place):
    web.files["/w.h5"] = (302, {"Location": f"{web.url}/there"}, b"")
    web.files["/there"] = (200, {}, BODY)
    assert assets.fetch(f"{web.url}/w.h5", place, SHA256).sha256 == SHA256


def test_what_the_check_refuses_is_thrown_away(web, place):
    web.files["/w.h5"] = (200, {}, b"<html>please log in</html>")

    def check(path):
        raise InputError(f"{path.read_bytes()[:6]!r} is no model")

    with pytest.raises(InputError, match="<html>"):
        assets.fetch(f"{web.url}/w.h5", place, None, check=check)
    assert left(place) == []


def test_a_place_that_cannot_be_written_is_a_usage_error(web, tmp_path):
    web.files["/w.h5"] = (200, {}, BODY)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        assets.fetch(f"{web.url}/w.h5", tmp_path / "file" / "w.h5", None)


def test_an_interrupt_leaves_nothing(web, place):
    web.files["/w.h5"] = (200, {}, BODY)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        assets.fetch(f"{web.url}/w.h5", place, None, progress=interrupt)
    assert left(place) == []


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert assets.cache_dir() == tmp_path / "mobiledeploy"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert assets.cache_dir() == tmp_path / ".cache" / "mobiledeploy"
