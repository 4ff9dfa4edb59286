"""User namespaces, in which a test mounts what it likes without being root."""

from __future__ import annotations

import subprocess

import pytest

REMEDY = (
    "run as root; or sysctl kernel.unprivileged_userns_clone=1 "
    "kernel.apparmor_restrict_unprivileged_userns=0; or docker run --privileged"
)


def need(done: subprocess.CompletedProcess[str]) -> None:
    """Skips the test where `unshare -Urm` was not let into a namespace, or to mount in it."""
    if "unshare" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()} ({REMEDY})")
