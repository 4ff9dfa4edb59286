"""Files from the web in the user's cache: each is complete and has a known hash, or is absent."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mobiledeploy import __version__
from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.package import home

TIMEOUT_SECONDS = 30
LARGEST_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class CachedFile:
    """A file in the cache. `pinned`: its sha256 was known before it was first downloaded."""

    path: Path
    sha256: str
    pinned: bool


def cache_dir() -> Path:
    """The user's cache: XDG_CACHE_HOME or ~/.cache, /mobiledeploy."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else home() / ".cache") / "mobiledeploy"


def fetch(
    url: str,
    destination: Path,
    sha256: str | None,
    *,
    check: Callable[[Path], None] = lambda path: None,
    progress: Callable[[int, int], None] = lambda count, total: None,
    hint: str = "",
) -> CachedFile:
    """The file at `destination`; it is downloaded from `url` if it does not exist yet.

    Args:
        url: http or https.
        destination: where the file is kept; it appears only when it is complete and checked.
            Without a pinned hash the sha256 of the first download is written beside it (`.sha256`),
            and a file that has changed since is refused.
        sha256: the hash that the file must have; None if none is published.
        check: inspects the downloaded file; if it raises a DeployError, the file is discarded.
        progress: called with the bytes downloaded so far and the total (0 if not known).
        hint: what the user can do if the download fails.

    Raises:
        MissingError: no network, no such file, or the download ended too early.
        InputError: the file, new or cached, does not have its hash.
        UsageError: `url` is not http or https, or the cache cannot be written.
    """
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"{url} is not an http or https address")
    if destination.exists():
        return _from_cache(destination, sha256)
    folder = destination.parent
    with records.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{destination.name}.")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                digest = _download(url, stream.write, progress, hint)
                stream.flush()
                os.fsync(stream.fileno())
            if sha256 is not None and digest != sha256:
                raise InputError(
                    f"{url} has sha256 {digest[:12]}…, not the published {sha256[:12]}…",
                    "the address serves another file: check it, or your proxy",
                )
            check(part)
            if sha256 is None:
                records.write_atomic(_beside(destination), digest + "\n")
            records.put(part, destination)
        finally:
            part.unlink(missing_ok=True)
    return CachedFile(destination, digest, sha256 is not None)


def _from_cache(path: Path, sha256: str | None) -> CachedFile:
    digest = records.sha256(path)
    note = _beside(path)
    if sha256 is not None:
        expected: str | None = sha256
    else:
        expected = inputs.text(note, inputs.SETTINGS).strip() if note.is_file() else None
    if expected is None:
        # A user put the file there: this is the first time that we see it.
        with records.writing(path.parent):
            records.write_atomic(note, digest + "\n")
    elif digest != expected:
        raise InputError(
            f"{path} has changed: its sha256 is {digest[:12]}…, not {expected[:12]}…",
            "remove it to have it downloaded again",
        )
    return CachedFile(path, digest, sha256 is not None)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _download(
    url: str,
    write: Callable[[bytes], int],
    progress: Callable[[int, int], None],
    hint: str,
) -> str:
    """Passes the body to `write` in chunks; returns its sha256.

    Only network errors are MissingError.
    """
    digest, byte_count = hashlib.sha256(), 0
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked
        url, headers={"User-Agent": f"mobiledeploy/{__version__}"}
    )
    try:
        response = _opener().open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        raise MissingError(f"{url} answers {error.code} {error.reason}", hint) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise MissingError(f"{url} cannot be reached: {reason}", hint) from error
    with response:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else 0
        while True:
            try:
                chunk = response.read(_CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise MissingError(
                    f"{url} broke off after {byte_count} bytes: {error}", hint
                ) from error
            if not chunk:
                break
            byte_count += len(chunk)
            if max(byte_count, total) > LARGEST_BYTES:
                raise InputError(f"{url} is larger than {LARGEST_BYTES >> 30} GiB")
            digest.update(chunk)
            write(chunk)
            progress(byte_count, total)
    if byte_count == 0 or (total and byte_count != total):
        raise MissingError(f"{url} ended after {byte_count} of {total} bytes", hint or "try again")
    return digest.hexdigest()


def _opener() -> urllib.request.OpenerDirector:
    """Like urllib's own, but a redirection cannot lead to a local file or to FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener
