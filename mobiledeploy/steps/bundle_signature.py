"""Signs a bundle with a private key and checks it with the public one, without a network.

The signature is that of OpenSSF model-signing: a Sigstore bundle (DSSE, in-toto) in a file beside
the zip file, which other tools read too. It holds the sha256 of the zip file, so a bundle may be
renamed. Keys are elliptic, in PEM files: P-256, P-384 or P-521.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mobiledeploy.core import inputs, records, units
from mobiledeploy.core.errors import InputError, MissingError
from mobiledeploy.core.plugins import missing

SUFFIX = ".sig"
_MAKE_KEY = "openssl ecparam -genkey -name prime256v1 -noout -out key.pem makes one"
_MAKE_PUBLIC = "openssl ec -in key.pem -pubout -out pub.pem writes the public one"


def path_beside(bundle: Path) -> Path:
    """<bundle>.sig."""
    return bundle.parent / f"{bundle.name}{SUFFIX}"


class Signer:
    """A private key that can be used: found out before the work starts.

    Raises:
        InputError: the key cannot be read, or is of another kind.
        MissingError: model-signing is not installed.
    """

    def __init__(self, key: Path) -> None:
        signing = _library("signing")
        _check_file(key)
        with _refusing(f"{inputs.printable(key)} is no private key that can sign", _MAKE_KEY):
            self._config = signing.Config().use_elliptic_key_signer(private_key=key)

    def sign(self, bundle: Path, scratch: Path) -> Path:
        """Writes the signature beside the bundle, and returns its path.

        `scratch` is a folder for it until it is complete.
        """
        draft = scratch / "signature"
        self._config.sign(bundle.resolve(), draft)
        path = path_beside(bundle)
        records.put(draft, path)
        return path


def verify(bundle: Path, key: Path) -> None:
    """Returns if the signature beside the bundle was made of it by the private key of `key`.

    Raises:
        MissingError: there is no signature, or model-signing is not installed.
        InputError: the signature is of another file, was made with another key or was changed; the
            key cannot be read.
    """
    verifying = _library("verifying")
    signature = path_beside(bundle)
    try:
        _check_file(signature)
    except inputs.Absent as error:
        raise MissingError(
            f"there is no signature {inputs.printable(signature)}",
            "take it from where the bundle was made, or sign it: --sign key.pem",
        ) from error
    _check_file(key)
    with _refusing(f"{inputs.printable(key)} is no public key", _MAKE_PUBLIC):
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    name = inputs.printable(signature)
    try:
        # The library prints of signatures in an older form, and standard output is ours.
        with contextlib.redirect_stdout(io.StringIO()):
            config.verify(bundle.resolve(), signature.resolve())
    except _invalid() as error:
        text = str(error)
        if text.startswith("Key mismatch"):
            raise InputError(
                f"{name} was made with another key than {inputs.printable(key)}",
                "give the public key of whoever signed it",
            ) from error
        if text.startswith("Signature mismatch"):
            raise InputError(
                f"{inputs.printable(bundle)} is not the file of which {name} was made"
            ) from error
        raise InputError(
            f"{name} is no valid signature of {inputs.printable(key)}: "
            f"{units.one_line(text) or type(error).__name__}"
        ) from error


def _library(part: str) -> Any:
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise missing("model_signing") from error
    return {"signing": signing, "verifying": verifying}[part]


def _invalid() -> tuple[type[Exception], ...]:
    """What the library raises for a signature of another form, key or file."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    return (
        ArithmeticError,
        AttributeError,
        InvalidSignature,
        LookupError,
        RecursionError,
        TypeError,
        UnsupportedAlgorithm,
        ValueError,
    )


def _check_file(path: Path) -> None:
    """InputError unless the library may open it: a regular file of a plausible size."""
    with inputs.open_file(path, inputs.SETTINGS):
        pass


@contextmanager
def _refusing(message: str, hint: str) -> Iterator[None]:
    """InputError for what the library raises for a key of another kind, or no key."""
    try:
        yield
    # TypeError for a key with a password; AttributeError for one that is not elliptic.
    except (AttributeError, TypeError, ValueError) as error:
        reason = units.one_line(str(error)).partition(". ")[0]
        raise InputError(f"{message}: {reason}", hint) from error
