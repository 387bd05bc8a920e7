"""Lines of results.jsonl: read in blocks as they would be one by one."""

import json

import pytest

from dendrite_automl.run.records import _BLOCK, parse_records


def test_blocks_hold_every_line_in_order() -> None:
    lines = [{"record": "other", "number": i} for i in range(2 * _BLOCK + 3)]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    assert parse_records(content + b'{"torn') == lines


@pytest.mark.parametrize("damaged", [b'{"record": "a"},{"record": "b"}\n', b'{"record": "a"\n}\n', b"\n", b"[1\n2]\n"])
def test_a_line_that_is_whole_only_with_its_neighbours_is_damaged(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Extra data|line"):
        parse_records(b'{"record": "x"}\n' + damaged)
