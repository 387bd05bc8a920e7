"""The address of a Ray cluster: one that does not answer is reported within seconds."""

import socket
import threading
from contextlib import closing

import pytest

from dendrite_automl.errors import RequestError
from dendrite_automl.plan import ray_address
from dendrite_automl.plan.ray_address import check_address


def error_of(address: str) -> str:
    with pytest.raises(RequestError) as caught:
        check_address(address)
    text = str(caught.value)
    assert text.startswith(f"ray-address: expected a running Ray cluster at {address}: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("address", ["nonsense", "localhost", "localhost:", ":6379", "localhost:x", "localhost:99999"])
def test_an_address_must_be_one(address: str) -> None:
    assert "expected host:port or auto" in error_of(address)


def test_a_search_runs_on_a_machine_of_the_cluster() -> None:
    assert "run the search on a machine of the cluster" in error_of("ray://head:10001")


def test_where_nothing_answers_that_is_known_at_once() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as door:
        address = f"127.0.0.1:{door.getsockname()[1]}"
    assert "nothing answers" in error_of(address)


@pytest.mark.parametrize(
    ("reply", "says"),
    [(None, "nothing answers"), (b"", "is not a Ray cluster"), (b"HTTP/1.0 400 Bad Request\r\n", "is not a Ray cluster")],
    ids=["silent", "hangs up", "another service"],
)
def test_another_service_at_the_address_is_told_apart(monkeypatch: pytest.MonkeyPatch, reply: bytes | None, says: str) -> None:
    monkeypatch.setattr(ray_address, "_ANSWER_SECONDS", 0.2)
    done = threading.Event()

    def serve(door: socket.socket) -> None:
        caller, _ = door.accept()
        with caller:
            caller.recv(100)
            if reply is not None:
                caller.sendall(reply)
            else:
                done.wait()

    with closing(socket.create_server(("127.0.0.1", 0))) as door:
        thread = threading.Thread(target=serve, args=(door,))
        thread.start()
        try:
            assert says in error_of(f"127.0.0.1:{door.getsockname()[1]}")
        finally:
            done.set()
            thread.join()
