import io
import os
import pickle
import subprocess

import numpy as np
import pytest

from dendrite_automl.errors import RequestError


class Calls:
    """An object whose pickle has a function called."""

    def __init__(self, function, *values):
        self.call = function, values

    def __reduce__(self):
        return self.call


def load(pickled):
    from safe_pickle import load_pickle

    return load_pickle(io.BytesIO(pickled))


def fragment(value):
    """The opcodes that build a value, without protocol and stop."""
    return pickle.dumps(value, 2)[2:-1]


def old_table(columns):
    """A table as pandas 1.0 pickled it with protocol 2."""
    names, values = np.array(list(columns), object), np.stack(list(columns.values()))
    axis = b"cpandas.core.indexes.base\n_new_Index\n(cpandas.core.indexes.base\nIndex\n" + fragment({"data": names}) + b"tR"
    place = b"c__builtin__\nslice\n" + fragment((0, len(columns), 1)) + b"R"
    block = b"}(" + fragment("values") + fragment(values) + fragment("mgr_locs") + place + b"u"
    parts = b"}(" + fragment("axes") + b"](" + axis + b"e" + fragment("blocks") + b"](" + block + b"eu"
    empty = b"ccopy_reg\n_reconstructor\n(c%b\nc__builtin__\nobject\nNtR"
    manager = (
        b"cpandas.core.internals.managers\nBlockManager\n)\x81" + b"(" + b"N" * 3 + b"}" + fragment("0.14.1") + parts + b"stb"
    )
    return b"\x80\x02" + empty % b"pandas.core.frame\nDataFrame" + b"}" + fragment("_data") + manager + b"sb."


def test_arrays_and_plain_values_come_back_as_they_were():
    held = {"x": np.arange(6.0).reshape(2, 3), "y": np.array([1, 2]), "names": ["a", "b"], "odd": np.array(["c", None], object)}
    for protocol in (2, 4):
        found = load(pickle.dumps(held, protocol))
        assert found.keys() == held.keys()
        for key, value in held.items():
            np.testing.assert_array_equal(found[key], value)


def test_a_table_of_an_old_pandas_is_read_without_pandas():
    from safe_pickle import table_columns

    columns = table_columns(load(old_table({"acc-x": np.array([0.5, 0.25]), "label": np.array([1.0, 6.0])})))
    assert list(columns) == ["acc-x", "label"]
    np.testing.assert_array_equal(columns["label"], [1, 6])


@pytest.mark.parametrize("function", [os.system, subprocess.check_output, eval, getattr, np.load, pickle.loads, open, bytes])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_anything_else_is_refused_before_it_is_called(function, protocol):
    with pytest.raises(RequestError, match=r"^pickle: expected only NumPy arrays and pandas tables, got [\w.]+; refused"):
        load(pickle.dumps({"x": Calls(function, "touch never")}, protocol))


def test_a_name_within_an_allowed_module_is_refused():
    with pytest.raises(RequestError, match=r"got numpy\.core\.multiarray\.fromfile; refused"):
        load(b"cnumpy.core.multiarray\nfromfile\n(Vsecret\ntR.")
    with pytest.raises(RequestError, match=r"got numpy\.ndarray\.tofile; refused"):
        load(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")


@pytest.mark.parametrize("opcodes", [b"V1\n", b"N", b"K\x01"])
def test_arrays_are_only_made_empty(opcodes):
    make = b"cnumpy.core.multiarray\n_reconstruct\n(c%b\n" + opcodes + b"NtR."
    with pytest.raises(RequestError, match="pickle: expected an empty ndarray"):
        load(make % b"numpy\nndarray")


def test_a_damaged_file_is_one_line():
    whole = pickle.dumps({"x": np.arange(4)}, 2)
    for cut in (0, 1, 10, len(whole) - 3):
        with pytest.raises(RequestError, match=r"^pickle: expected a complete file, got .*") as caught:
            load(whole[:cut])
        assert "\n" not in str(caught.value)


def test_what_is_no_table_is_refused():
    from safe_pickle import table_columns

    for other in (
        {},
        3,
        None,
        load(b"ccopy_reg\n_reconstructor\n(cpandas.core.frame\nDataFrame\nc__builtin__\nobject\nNtR}b."),
    ):
        with pytest.raises(RequestError, match=r"expected a table of pandas 0\.14 to 1\.1"):
            table_columns(other)
