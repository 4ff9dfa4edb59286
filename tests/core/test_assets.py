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


def file_names(place):
    return sorted(path.name for path in place.parent.iterdir()) if place.parent.exists() else []


def test_a_file_is_fetched_once(web, place):
    web.files["/w.h5"] = (200, {}, BODY)
    steps = []
    first = assets.fetch(
        f"{web.url}/w.h5", place, SHA256, progress=lambda count, total: steps.append((count, total))
    )
    assert first == assets.CachedFile(place, SHA256, pinned=True)
    assert place.read_bytes() == BODY
    assert steps[-1] == (len(BODY), len(BODY))
    assert assets.fetch(f"{web.url}/w.h5", place, SHA256) == first
    assert web.asked == ["/w.h5"]
    assert file_names(place) == ["weights.h5"]


def test_another_file_than_the_pinned_one_is_refused(web, place):
    web.files["/w.h5"] = (200, {}, BODY[:-1])
    with pytest.raises(InputError, match="not the published"):
        assets.fetch(f"{web.url}/w.h5", place, SHA256)
    assert file_names(place) == []


def test_an_unpinned_file_must_stay_as_first_downloaded(web, place):
    web.files["/w.h5"] = (200, {}, BODY)
    file = assets.fetch(f"{web.url}/w.h5", place, None)
    assert file == assets.CachedFile(place, SHA256, pinned=False)
    assert file_names(place) == ["weights.h5", "weights.h5.sha256"]
    assert assets.fetch(f"{web.url}/w.h5", place, None) == file
    place.write_bytes(BODY + b"x")
    with pytest.raises(InputError, match="has changed"):
        assets.fetch(f"{web.url}/w.h5", place, None)


def test_a_file_placed_by_hand_is_accepted_and_must_not_change(place):
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
    assert file_names(place) == []


def test_an_empty_answer_is_not_a_file(web, place):
    web.files["/w.h5"] = (200, {}, b"")
    with pytest.raises(MissingError):
        assets.fetch(f"{web.url}/w.h5", place, None)
    assert file_names(place) == []


@pytest.mark.parametrize("status", [404, 403, 500])
def test_a_refusal_says_what_to_do(web, place, status):
    web.files["/w.h5"] = (status, {}, b"sorry")
    with pytest.raises(MissingError, match=str(status)) as excinfo:
        assets.fetch(f"{web.url}/w.h5", place, None, hint="place it by hand")
    assert excinfo.value.hint == "place it by hand"
    assert file_names(place) == []


def test_a_missing_network_is_reported_in_one_line(place):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{server.getsockname()[1]}/w.h5"
        with pytest.raises(MissingError, match="cannot be reached") as excinfo:
            assets.fetch(address, place, None, hint="place it by hand")
    assert "\n" not in str(excinfo.value)
    assert file_names(place) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "weights.h5", ""])
def test_only_web_addresses_are_accepted(place, url):
    with pytest.raises(UsageError, match="not an http or https"):
        assets.fetch(url, place, None)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirection_out_of_the_web_is_refused(web, place, target):
    web.files["/w.h5"] = (302, {"Location": target}, b"")
    with pytest.raises(MissingError):
        assets.fetch(f"{web.url}/w.h5", place, None)
    assert file_names(place) == []


def test_a_redirection_on_the_web_is_followed(web, place):
    web.files["/w.h5"] = (302, {"Location": f"{web.url}/there"}, b"")
    web.files["/there"] = (200, {}, BODY)
    assert assets.fetch(f"{web.url}/w.h5", place, SHA256).sha256 == SHA256


def test_a_file_that_the_check_refuses_is_discarded(web, place):
    web.files["/w.h5"] = (200, {}, b"<html>please log in</html>")

    def check(path):
        raise InputError(f"{path.read_bytes()[:6]!r} is no model")

    with pytest.raises(InputError, match="<html>"):
        assets.fetch(f"{web.url}/w.h5", place, None, check=check)
    assert file_names(place) == []


def test_a_place_that_cannot_be_written_is_a_usage_error(web, tmp_path):
    web.files["/w.h5"] = (200, {}, BODY)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        assets.fetch(f"{web.url}/w.h5", tmp_path / "file" / "w.h5", None)


def test_an_interrupt_leaves_nothing(web, place):
    web.files["/w.h5"] = (200, {}, BODY)

    def interrupt(count, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        assets.fetch(f"{web.url}/w.h5", place, None, progress=interrupt)
    assert file_names(place) == []


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert assets.cache_dir() == tmp_path / "mobiledeploy"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert assets.cache_dir() == tmp_path / ".cache" / "mobiledeploy"
