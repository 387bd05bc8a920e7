"""Checks within seconds whether something like a Ray cluster answers at an address."""

from __future__ import annotations

import os
import socket

from dendrite_automl.errors import RequestError

_ANSWER_SECONDS = 5.0  # for a cluster to answer; Ray itself would wait two minutes
# HTTP/2's greeting with an empty SETTINGS frame; the other side answers with a SETTINGS frame too (RFC 9113, 3.4).
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def check_address(address: str) -> None:
    """Check that something like a Ray cluster answers at an address.

    Raises:
        RequestError: nothing answers, or it does not speak gRPC.
    """
    where = f"ray-address: expected a running Ray cluster at {address}"
    if "://" in address:
        raise RequestError(f"{where}: expected host:port or auto; run the search on a machine of the cluster")
    host, colon, port = address.rpartition(":")
    if address == "auto":
        return
    if not (colon and host and port.isdecimal() and 0 < int(port) < 2**16):
        raise RequestError(f"{where}: expected host:port or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS) as door:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return
            door.sendall(_GREETING)
            speaks = door.recv(9)[3:4] == b"\4"
    except OSError as error:
        raise RequestError(f"{where}: nothing answers: {error.strerror or error}") from None
    if not speaks:
        raise RequestError(f"{where}: what answers there is not a Ray cluster")
