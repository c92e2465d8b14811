"""Weights are read where they lie, and nothing can be written there."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kerasfold.backend import in_memory, rounded

VALUES = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int32"])
def test_a_variable_of_any_dtype_is_read(dtype):
    found = in_memory(keras.Variable(VALUES, dtype=dtype))
    np.testing.assert_array_equal(np.asarray(found, "float64"), VALUES)
    assert str(found.dtype) == dtype


def test_a_tensor_is_read():
    np.testing.assert_array_equal(in_memory(keras.ops.convert_to_tensor(VALUES)), VALUES)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_one_number_is_read(dtype):
    for value in (keras.Variable(1.5, dtype=dtype), keras.ops.convert_to_tensor(1.5, dtype=dtype)):
        assert (in_memory(value).shape, float(in_memory(value))) == ((), 1.5)


def test_nothing_is_copied():
    variable = keras.Variable(VALUES, dtype="float32")
    assert np.shares_memory(in_memory(variable), in_memory(variable))


def test_the_memory_of_a_variable_is_not_to_be_written():
    with pytest.raises(ValueError, match="read-only"):
        in_memory(keras.Variable(VALUES, dtype="float32"))[0] = 1.0


def test_what_was_read_stays_when_the_variable_goes_on():
    variable = keras.Variable(VALUES, dtype="float32")
    found = in_memory(variable)
    variable.assign_add(np.ones_like(VALUES))
    np.testing.assert_array_equal(found, VALUES)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(1,), (0, 3), (5, 7), (3, 3, 4, 11)])
def test_rounded_values_are_those_of_a_variable_of_their_own(shape, dtype):
    values = np.random.default_rng(0).normal(size=shape)
    variable = keras.Variable(lambda shape, dtype: rounded(values, dtype), shape=shape, dtype=dtype)
    expected = keras.ops.convert_to_numpy(keras.ops.cast(values, dtype)).astype("float64")
    values += 1.0

    def now():
        return np.asarray(in_memory(variable), "float64")

    assert variable.shape == shape
    np.testing.assert_array_equal(now(), expected)
    if values.size:
        variable.assign(expected + 1.0)
        assert not np.array_equal(now(), expected)
