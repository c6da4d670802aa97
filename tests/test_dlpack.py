"""Arrays of other libraries: results that offer DLPack, and CuPy, for which a package stands in that needs no GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnspec.adapters import load
from nnspec.adapters.blame import Unusable, watched
from nnspec.adapters.for_numpy import NumPy

CUPY = '''
    """A stand-in for CuPy: arrays of its own that NumPy's functions do not take, and the functions that a file uses."""

    import numpy

    __version__ = "0.0"

    class ndarray:
        def __init__(self, host):
            self._host = host

        dtype, shape = property(lambda self: self._host.dtype), property(lambda self: self._host.shape)

        def __array__(self, *_, **__):
            raise TypeError("implicit conversion to a NumPy array is not allowed")

        def __gt__(self, other):
            return ndarray(self._host > other)

    def asarray(array):
        return ndarray(numpy.array(array))

    def asnumpy(array):
        return array._host

    def maximum(a, b):
        return ndarray(numpy.maximum(a._host, b))

    def where(mask, a, b):
        return ndarray(numpy.where(mask._host, a._host, a._host.dtype.type(b)))
'''
FILE = """
    import cupy as cp

    def relu(x):
        return cp.maximum(x, 0)

    def relu_vjp(cotangent, x):
        return cp.where(x > 0, cotangent, 0)
"""


def test_a_result_of_another_library_is_read_by_dlpack():
    x = np.array([-1, 2], np.float32)
    subject = load({"relu": lambda x: torch.relu(torch.from_numpy(x))}, framework="numpy")
    [y] = subject.call("relu", "function", {"x": x}, {})
    assert isinstance(y, np.ndarray)
    assert y.tolist() == [0, 2]


@pytest.mark.parametrize("value", [torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16), [1.0]])
def test_what_dlpack_cannot_carry_is_no_result(value):
    with pytest.raises(Unusable):
        watched(NumPy()).to_numpy(value)


def test_a_result_on_a_device_is_copied_to_the_host():
    class OnDevice:
        def __init__(self, host):
            self.host, self.asked = host, None

        def __dlpack_device__(self):
            return (2, 0)

        def __dlpack__(self, *, dl_device=None, copy=None, **_):
            self.asked = dl_device, copy
            return self.host.__dlpack__()

    value = OnDevice(np.array([1.0, 2.0]))
    assert NumPy().to_numpy(value).tolist() == [1, 2]
    assert value.asked == ((1, 0), True)


def test_a_file_on_cupy_gets_cupys_arrays(desk):
    desk.write("cupy.py", CUPY)
    done = desk.check(FILE, "--block", "relu", "--dtype", "float32", "-n", "1")
    assert done.code == 0, done.out + done.err
    assert done.report["versions"]["cupy"] == "0.0"
    assert "relu.gradient.positive" in done.verdicts("pass")
