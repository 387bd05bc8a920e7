"""Detached signatures: what is accepted, and one clear line for what is not."""

import base64
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dendrite_automl.errors import ArtifactMismatch, RequestError
from dendrite_automl.export.artifact.seal import SEAL, write_seal
from dendrite_automl.export.artifact.signature import check_signature
from dendrite_automl.runtimes.verify import verify_artifact

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa

KINDS = ("ed25519", "ecdsa", "rsa")


def make_private(kind: str) -> Any:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else rsa.generate_private_key(65537, 2048)


def write_public(private: Any, path: Path) -> Path:
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.write_bytes(pem)
    return path


def sign(private: Any, message: bytes) -> bytes:
    more: dict[type, tuple[Any, ...]] = {
        ec.EllipticCurvePrivateKey: (ec.ECDSA(hashes.SHA256()),),
        rsa.RSAPrivateKey: (padding.PKCS1v15(), hashes.SHA256()),
    }
    arguments = next((found for kind, found in more.items() if isinstance(private, kind)), ())
    signature: bytes = private.sign(message, *arguments)
    return signature


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "artifact"
    made.mkdir()
    (made / "model.onnx").write_bytes(b"a network")
    write_seal(made)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_base64", [False, True])
def test_a_signature_by_the_key_is_accepted(folder: Path, tmp_path: Path, kind: str, in_base64: bool) -> None:
    private = make_private(kind)
    key, signature = write_public(private, tmp_path / "public.pem"), tmp_path / "signature"
    raw = sign(private, (folder / SEAL).read_bytes())
    signature.write_bytes(base64.encodebytes(raw) if in_base64 else raw)
    found = check_signature(folder, signature, key)
    name, digest = found.split(", key SHA-256 ")
    assert name == {"ed25519": "Ed25519", "ecdsa": "ECDSA secp256r1", "rsa": "RSA 2048"}[kind]
    assert len(digest) == 64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", ["key", "message", "bytes"])
def test_any_other_signature_is_refused(folder: Path, tmp_path: Path, kind: str, wrong: str) -> None:
    private = make_private(kind)
    raw = bytearray(sign(private, (folder / SEAL).read_bytes()))
    if wrong == "message":
        (folder / "model.onnx").write_bytes(b"another network")
        write_seal(folder)
    if wrong == "bytes":
        raw[-1] ^= 1
    key = write_public(make_private(kind) if wrong == "key" else private, tmp_path / "public.pem")
    (tmp_path / "signature").write_bytes(raw)
    with pytest.raises(ArtifactMismatch, match="by another key or of something else"):
        check_signature(folder, tmp_path / "signature", key)


def test_it_is_checked_before_anything_else_of_the_artifact(folder: Path, tmp_path: Path) -> None:
    """The folder has no artifact.json."""
    key = write_public(make_private("ed25519"), tmp_path / "public.pem")
    (tmp_path / "signature").write_bytes(b"x" * 64)
    with pytest.raises(ArtifactMismatch, match="by another key"):
        verify_artifact(folder, signature=tmp_path / "signature", key=key)


def test_what_is_no_key_or_no_signature_is_told(folder: Path, tmp_path: Path) -> None:
    private = make_private("ed25519")
    key, signature = write_public(private, tmp_path / "public.pem"), tmp_path / "signature"
    signature.write_bytes(sign(private, (folder / SEAL).read_bytes()))
    secret = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    others = {
        "private.pem": (secret, "expected a public key, got a private one"),
        "text.pem": (b"-----BEGIN PUBLIC KEY-----\nnothing\n", "expected a public key in PEM, got something else"),
        "long.pem": (b"x" * 70_000, "expected at most 65,536 bytes, got more"),
    }
    for name, (content, message) in others.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RequestError, match=message):
            check_signature(folder, signature, tmp_path / name)
    weak = write_public(rsa.generate_private_key(65537, 1024), tmp_path / "weak.pem")
    with pytest.raises(RequestError, match="expected an RSA key of at least 2048 bits, got 1024"):
        check_signature(folder, signature, weak)
    other = write_public(dsa.generate_private_key(2048), tmp_path / "dsa.pem")
    with pytest.raises(RequestError, match="expected an Ed25519, ECDSA or RSA key, got DSAPublicKey"):
        check_signature(folder, signature, other)
    with pytest.raises(RequestError, match=r"signature: .*nowhere: cannot be read: No such file or directory"):
        check_signature(folder, tmp_path / "nowhere", key)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "artifact"):
        with pytest.raises(RequestError, match=r"key: .*: expected a file, got something else"):
            check_signature(folder, signature, tmp_path / name)
    (folder / SEAL).unlink()
    with pytest.raises(ArtifactMismatch, match="expected SHA256SUMS, which is what is signed"):
        check_signature(folder, signature, key)


@pytest.mark.parametrize(("given", "missing"), [("signature", "key"), ("key", "signature")])
def test_one_without_the_other_is_refused(folder: Path, given: str, missing: str) -> None:
    with pytest.raises(RequestError, match=f"verify: expected {missing} together with {given}, got {given} alone"):
        verify_artifact(folder, **{given: folder / SEAL})  # type: ignore[arg-type]


def test_a_signature_in_the_folder_is_not_sealed(folder: Path) -> None:
    (folder / f"{SEAL}.sig").write_bytes(b"signature")
    write_seal(folder)
    assert (folder / SEAL).read_text().count("\n") == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_the_commands_of_the_docs_make_one(folder: Path, tmp_path: Path) -> None:
    for command in (
        "openssl genpkey -algorithm ed25519 -out private.pem",
        "openssl pkey -in private.pem -pubout -out public.pem",
        f"openssl pkeyutl -sign -rawin -inkey private.pem -in {folder}/SHA256SUMS -out {folder}/SHA256SUMS.sig",
    ):
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    assert check_signature(folder, folder / "SHA256SUMS.sig", tmp_path / "public.pem").startswith("Ed25519")
