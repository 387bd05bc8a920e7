"""Detached signatures of artifacts: over SHA256SUMS, which holds the hash of every other file, made with any common tool."""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from dendrite_automl.errors import ArtifactMismatch, RequestError
from dendrite_automl.export.artifact.seal import SEAL

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    PublicKey = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey

_LARGEST_BYTES = 2**16  # of a key or a signature
_LEAST_RSA_BITS = 2048


def check_signature(folder: Path, signature: Path, key: Path) -> str:
    """Check a signature of an artifact's SHA256SUMS.

    Ed25519 signs the file itself, ECDSA and RSA (PKCS #1 v1.5) its SHA-256, as `openssl pkeyutl -sign -rawin`,
    `openssl dgst -sha256 -sign` and `cosign sign-blob --key` do.

    Args:
        signature: raw bytes, or in base64.
        key: the public key in PEM.

    Returns:
        The algorithm and the SHA-256 of the key (of its DER), such as `Ed25519, key SHA-256 5f3c…`.

    Raises:
        RequestError: a file cannot be read, or is no public key of these kinds.
        ArtifactMismatch: the signature is not of this artifact by this key.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
    except ImportError:
        raise RequestError('verify: a signature needs cryptography; install "dendrite-automl[sign]"') from None
    public, signed = _read_key(key), _decoded(_read(signature, "signature"))
    if not (folder / SEAL).is_file():
        raise ArtifactMismatch(f"{folder}: expected {SEAL}, which is what is signed; got no such file")
    message = (folder / SEAL).read_bytes()
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signed, message)
            name = "Ed25519"
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signed, message, ec.ECDSA(hashes.SHA256()))
            name = f"ECDSA {public.curve.name}"
        else:
            public.verify(signed, message, padding.PKCS1v15(), hashes.SHA256())
            name = f"RSA {public.key_size}"
    except InvalidSignature:
        raise ArtifactMismatch(
            f"{signature}: expected a signature of {folder / SEAL} by the key in {key}; "
            "it is by another key or of something else"
        ) from None
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"{name}, key SHA-256 {hashlib.sha256(der).hexdigest()}"


def _read_key(path: Path) -> PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _read(path, "key")
    if b"PRIVATE KEY" in content:
        raise RequestError(
            f"key: {path}: expected a public key, got a private one; make it with `openssl pkey -in KEY -pubout`"
        )
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise RequestError(f"key: {path}: expected a public key in PEM, got something else") from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
        raise RequestError(f"key: {path}: expected an RSA key of at least {_LEAST_RSA_BITS} bits, got {key.key_size}")
    if not isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise RequestError(f"key: {path}: expected an Ed25519, ECDSA or RSA key, got {type(key).__name__}")
    return key


def _read(path: Path, what: str) -> bytes:
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise RequestError(f"{what}: {path}: expected a file, got something else")
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise RequestError(f"{what}: {path}: cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST_BYTES:
        raise RequestError(f"{what}: {path}: expected at most {_LARGEST_BYTES:,} bytes, got more")
    return content


def _decoded(signature: bytes) -> bytes:
    """The bytes of a signature in base64; others as they are."""
    try:
        return base64.b64decode(b"".join(signature.split()), validate=True)
    except binascii.Error:
        return signature
