"""A bundle is signed and checked by keys; another key, file or signature is refused by name."""

from __future__ import annotations

import contextlib
import random
import socket
import sys

import pytest

from mobiledeploy.core.errors import InputError, MissingError
from mobiledeploy.steps import bundle_signature
from mobiledeploy.steps.bundle_signature import Signer
from tests.keys import write_keys

pytest.importorskip(
    "model_signing", reason="model-signing is not there (pip install 'mobiledeploy[sign]')"
)


@pytest.fixture
def signed(tmp_path, monkeypatch):
    """bundle.zip with its signature, and two pairs of keys; nobody can reach a network."""

    def refuse(*_):
        raise AssertionError("a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    write_keys(tmp_path, "own")
    write_keys(tmp_path, "other")
    path = tmp_path / "bundle.zip"
    path.write_bytes(b"anything" * 100)
    assert Signer(tmp_path / "own.pem").sign(path, tmp_path) == tmp_path / "bundle.zip.sig"
    return path


def test_the_own_key_fits(signed, capsys):
    bundle_signature.verify(signed, signed.parent / "own.pub")
    assert capsys.readouterr().out == ""


def test_a_bundle_may_have_another_name(signed):
    moved = signed.rename(signed.parent / "renamed.zip")
    (signed.parent / "bundle.zip.sig").rename(signed.parent / "renamed.zip.sig")
    bundle_signature.verify(moved, signed.parent / "own.pub")


def test_a_wrong_key_is_named(signed):
    with pytest.raises(
        InputError, match=r"bundle\.zip\.sig was made with another key than .*other"
    ):
        bundle_signature.verify(signed, signed.parent / "other.pub")


def test_a_changed_file_is_named(signed):
    signed.write_bytes(signed.read_bytes() + b"x")
    with pytest.raises(InputError, match=r"bundle\.zip is not the file of which .*\.sig was made"):
        bundle_signature.verify(signed, signed.parent / "own.pub")


def test_a_signature_that_names_another_key_is_no_signature(signed):
    """The key that a signature names is a hint, and anybody can write it."""
    path = bundle_signature.path_beside(signed)
    other = signed.parent / "copy.zip"
    other.write_bytes(signed.read_bytes())
    forged = Signer(signed.parent / "other.pem").sign(other, signed.parent).read_text()
    hint = '"hint":"'
    own = path.read_text().partition(hint)[2][:64]
    wrong = forged.partition(hint)[2][:64]
    path.write_text(forged.replace(wrong, own))
    with pytest.raises(InputError, match="is no valid signature of"):
        bundle_signature.verify(signed, signed.parent / "own.pub")


def test_changed_signatures_are_refused(signed):
    path = bundle_signature.path_beside(signed)
    whole = path.read_bytes()
    dice = random.Random(0)
    refused = 0
    for _ in range(200):
        changed = bytearray(whole)
        changed[dice.randrange(len(whole))] = dice.randrange(256)
        path.write_bytes(changed)
        # The few others changed a byte that says nothing: of a field's name that may be absent.
        with contextlib.suppress(InputError):
            bundle_signature.verify(signed, signed.parent / "own.pub")
            continue
        refused += 1
    assert refused > 150


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "[" * 100_000, '{"a": ' * 50_000, "\xff"])
def test_what_is_no_signature_is_refused(signed, text):
    bundle_signature.path_beside(signed).write_text(text)
    with pytest.raises(InputError, match="is no valid signature of"):
        bundle_signature.verify(signed, signed.parent / "own.pub")


def test_an_absent_signature_is_missing(signed):
    bundle_signature.path_beside(signed).unlink()
    with pytest.raises(MissingError, match="there is no signature"):
        bundle_signature.verify(signed, signed.parent / "own.pub")


@pytest.mark.parametrize("name", ["own.pem", "bundle.zip"])
def test_what_is_no_public_key_is_refused(signed, name):
    with pytest.raises(InputError, match=r"is no public key: .*; openssl ec"):
        bundle_signature.verify(signed, signed.parent / name)


@pytest.mark.parametrize("name", ["own.pub", "bundle.zip"])
def test_what_is_no_private_key_is_refused(signed, name):
    with pytest.raises(InputError, match=r"is no private key that can sign: .*; openssl"):
        Signer(signed.parent / name)


def test_keys_that_cannot_sign_are_refused(tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    write_keys(tmp_path, "locked", password=b"secret")
    write_keys(tmp_path, "curve", ec.SECP256K1())
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "ed25519.pem").write_bytes(other)
    for name, reason in (("locked", "Password"), ("curve", "curve"), ("ed25519", "curve")):
        with pytest.raises(InputError, match=f"no private key that can sign: .*{reason}"):
            Signer(tmp_path / f"{name}.pem")
    with pytest.raises(InputError, match="cannot be read"):
        Signer(tmp_path / "none.pem")


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MissingError, match=r"pip install 'mobiledeploy\[sign\]'"):
        Signer(tmp_path / "key.pem")
