"""The device double refuses what CuPy refuses, and has nothing that CuPy lacks."""

from __future__ import annotations

import copy
import inspect
import operator

import numpy as np
import pytest
import torch

from tests.checking import TensorsOn
from tests.device_double import (
    CONSTANTS,
    CREATION,
    FUNCTIONS,
    GARBAGE,
    LINALG,
    METHODS,
    TRANSFER,
    UFUNCS,
    DeviceArray,
    device_module,
)
from tinynet import backend
from tinynet.errors import DeviceError

dd = device_module


@pytest.fixture
def host() -> np.ndarray:
    return np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def x(host: np.ndarray) -> DeviceArray:
    return dd.asarray(host)


BINARY = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow,
    operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne,
]  # fmt: skip


@pytest.mark.parametrize("op", BINARY)
def test_operators_take_scalars_and_device_arrays_and_refuse_host_arrays(op, x, host):
    for other in (2, 2.0, True, np.float32(2), np.asarray(2.0)[()]):
        with np.errstate(all="ignore"):  # 2 / 0: NumPy warns, a device does not
            pairs = (op(x, other), op(host, other)), (op(other, x), op(other, host))
        for got, want in pairs:
            assert isinstance(got, DeviceArray)
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got.get(), want)
    np.testing.assert_array_equal(op(x, x + 1).get(), op(host, host + 1))
    for a, b in ((x, host), (host, x), (x, [1.0, 2.0, 3.0]), (x, None)):
        with pytest.raises(TypeError):
            op(a, b)


@pytest.mark.parametrize("op", [operator.iadd, operator.isub, operator.imul, operator.itruediv])
def test_in_place_operators_write_into_the_same_memory(op, x, host):
    view, same = x[0], x
    x = op(x, 2.0)
    assert x is same
    np.testing.assert_array_equal(view.get(), op(host.copy(), 2.0)[0])
    with pytest.raises(TypeError):
        op(x, host)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: np.asarray(x),
        lambda x: np.array(x, dtype=np.float64),
        lambda x: np.sum(x),
        lambda x: np.exp(x),
        lambda x: np.add(x, x),
        lambda x: np.add(np.ones((2, 3), np.float32), x),
        lambda x: np.multiply(x, 2.0),
        lambda x: np.add.reduce(x),
        lambda x: np.concatenate([x, x]),
        lambda x: np.zeros(3, np.float32).__iadd__(x[0]),
        lambda x: np.where(x > 0, x, 0),
        lambda x: np.empty((2, 3)).__setitem__(Ellipsis, x),
        lambda x: np.zeros_like(x),
        lambda x: np.lib.stride_tricks.as_strided(x, (1,), (4,)),
        lambda x: range(5)[x.sum().astype(np.int64)],  # no __index__
        lambda x: hash(x),
    ],
)
def test_numpy_does_not_get_at_it(call, x):
    with pytest.raises(TypeError):
        call(x)


@pytest.mark.parametrize(
    "call",
    [
        lambda x, h: dd.sum(h),
        lambda x, h: dd.sum([1.0, 2.0]),
        lambda x, h: dd.where(h > 0, x, x),
        lambda x, h: dd.where(x > 0, h, 0.0),
        lambda x, h: dd.concatenate([x, h]),
        lambda x, h: dd.matmul(x, h.T),
        lambda x, h: x @ h.T,
        lambda x, h: h.T @ x,
        lambda x, h: dd.maximum(x, h),
        lambda x, h: dd.einsum("ij,ij", x, h),
        lambda x, h: dd.tensordot(x, h, 2),
        lambda x, h: dd.pad(h, 1),
        lambda x, h: dd.copyto(x, h),
        lambda x, h: dd.add(x, x, out=h),
        lambda x, h: dd.lib.stride_tricks.as_strided(h, (1,), (4,)),
        lambda x, h: x.__setitem__(0, h[0]),
        lambda x, h: x.fill(h[0]),
        lambda x, h: x.sum(where=h > 0),
        lambda x, h: x.sum(initial=0.0),
        lambda x, h: dd.max(x, initial=0.0),
        lambda x, h: dd.clip(x, h, None),
        lambda x, h: dd.reshape(x, h),
        lambda x, h: dd.zeros(x.sum()),
        lambda x, h: dd.take_along_axis(x, np.zeros((2, 1), np.int64), 1),
    ],
)
def test_its_functions_refuse_host_arrays_and_parameters_cupy_lacks(call, x, host):
    with pytest.raises(TypeError):
        call(x, host)


@pytest.mark.parametrize("name", ["errstate", "block", "insert", "apply_along_axis", "nditer", "float128", "vecdot", "save"])
def test_what_cupy_lacks_is_not_there(name):
    assert not hasattr(dd, name)


def test_results_stay_on_the_device_with_shape_dtype_and_value(x, host):
    cases = {
        "sum": (x.sum(), host.sum()),
        "sum axis": (dd.sum(x, axis=1, keepdims=True), host.sum(1, keepdims=True)),
        "mean": (x.mean(axis=0), host.mean(axis=0)),
        "index": (x[1, 2], host[1, 2]),
        "slice": (x[:, ::-2], host[:, ::-2]),
        "new axis": (x[None, ..., None], host[None, ..., None]),
        "device index": (x[dd.asarray(np.array([1, 0, 1]))], host[[1, 0, 1]]),
        "host index": (x[np.array([1, 0, 1]), :2], host[[1, 0, 1], :2]),
        "mask": (x[x > 2], host[host > 2]),
        "matmul": (x @ x.T, host @ host.T),
        "where": (dd.where(x > 2, x, -dd.inf), np.where(host > 2, host, -np.inf).astype(np.float32)),
        "cast": (x.astype(np.float64), host.astype(np.float64)),
        "reshape": (x.reshape(3, -1), host.reshape(3, -1)),
        "transpose": (x.transpose(1, 0), host.T),
        "argmax": (dd.argmax(x, axis=1), host.argmax(1)),
        "einsum": (dd.einsum("ij,kj->ik", x, x), host @ host.T),
        "pad": (
            dd.pad(x, ((0, 0), (1, 2)), mode="constant", constant_values=3.0),
            np.pad(host, ((0, 0), (1, 2)), constant_values=3),
        ),
        "stack": (dd.stack([x, x], axis=-1), np.stack([host, host], axis=-1)),
        "bincount": (dd.bincount(dd.asarray(np.array([1, 1, 3])), minlength=5), np.bincount([1, 1, 3], minlength=5)),
        "windows": (
            dd.lib.stride_tricks.as_strided(x, (2, 2, 2), (12, 4, 4)), np.lib.stride_tricks.sliding_window_view(host, 2, 1)
        ),
        "norm": (dd.linalg.norm(x), np.linalg.norm(host)),
        "numpy scalar first": (np.float64(2) * x, np.float64(2) * host),
    }  # fmt: skip
    for name, (got, want) in cases.items():
        assert isinstance(got, DeviceArray), name
        assert (got.shape, got.dtype) == (want.shape, want.dtype), name
        np.testing.assert_array_equal(got.get(), want, err_msg=name)


def test_views_share_memory_and_transfers_copy(x, host):
    x[0, 0] = 42.0
    assert host[0, 0] == 0
    assert x.T[0, 0].item() == 42 == x.reshape(-1)[0].item()
    back = x.get()
    back[0, 0] = 7
    assert x[0, 0].item() == 42
    assert dd.shares_memory(x, x[1:])
    assert dd.asarray(x)._host is x._host
    assert not dd.shares_memory(x, copy.deepcopy(x))
    assert not dd.shares_memory(x, dd.array(x))


def test_scalars_come_back_only_when_asked(x):
    total = x.sum()
    assert (float(total), int(total), total.item(), bool(total)) == (15.0, 15, 15.0, True)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)


def test_empty_memory_is_garbage_and_bad_arithmetic_is_silent(x):
    assert np.isnan(dd.empty((2, 2), np.float32).get()).all()
    assert np.isnan(dd.empty_like(x).get()).all()
    assert (dd.empty(3, np.int64).get() == -77).all()
    with np.errstate(all="raise"):
        assert np.isnan((dd.zeros(1) / dd.zeros(1)).get()).all()
        assert np.isinf(dd.exp(dd.full(1, 1e4)).get()).all()


def test_add_at_adds_repeated_indices(x):
    total = dd.zeros(3)
    dd.add.at(total, dd.asarray(np.array([0, 2, 0])), 1.0)
    np.testing.assert_array_equal(total.get(), [2, 0, 1])


def test_the_backend_finds_the_double_and_refuses_a_mixture(x, host):
    assert backend.array_module(x, None, x) is dd
    np.testing.assert_array_equal(backend.to_host(x), host)
    for mixed in ((x, host), (host, x), (x, np.float32(1)), (None, host, x)):
        with pytest.raises(DeviceError, match="mixed"):
            backend.array_module(*mixed)


def test_the_double_has_only_what_cupy_has():
    # The one test that needs CuPy but no GPU: names and parameters of the double against CuPy's own.
    cupy = pytest.importorskip("cupy")
    for name in [*UFUNCS, *CONSTANTS, "einsum", "result_type", "asnumpy", "ndarray"]:
        assert hasattr(cupy, name), name
    for name in UFUNCS:
        assert isinstance(getattr(cupy, name), cupy.ufunc), name
    for module, table in ((cupy, FUNCTIONS | CREATION | TRANSFER | GARBAGE), (cupy.linalg, LINALG)):
        for name, parameters in table.items():
            expected = [part.lstrip("!?[*") for part in parameters.split()]
            try:
                signature = inspect.signature(getattr(module, name))
            except ValueError:  # compiled without one
                assert name in {"size", "matmul"}, name
                continue
            assert [p for p in expected if p not in signature.parameters] == [], name
    for name in ["as_strided", "sliding_window_view"]:
        assert hasattr(cupy.lib.stride_tricks, name)
    for name in METHODS:
        assert hasattr(cupy.ndarray, name), name
    public = [name for name in vars(DeviceArray) if not name.startswith("_")]
    assert [name for name in public if not hasattr(cupy.ndarray, name)] == []
    operators = [name for name in vars(DeviceArray) if name.startswith("__") and name[2] != "_"]
    class_machinery = {"__module__", "__slots__", "__annotations__", "__firstlineno__", "__static_attributes__"}
    extra = [n for n in operators if n not in class_machinery and not hasattr(cupy.ndarray, n)]
    assert set(extra) <= {"__array_namespace__"}, extra  # the one door that the double adds


@pytest.mark.gpu
def test_cupy_refuses_what_the_double_refuses(host):
    cupy = pytest.importorskip("cupy")
    try:
        backend.device("cuda:0")
    except DeviceError as error:
        pytest.skip(str(error))
    y = cupy.asarray(host)
    for call in (lambda: np.asarray(y), lambda: y + host, lambda: cupy.sum(host), lambda: range(5)[y.sum().astype(int)]):
        with pytest.raises(TypeError):
            call()


def test_a_reference_on_another_device_takes_what_it_closed_over_along():
    # "meta" stands for "cuda", which may not be here: tensors that the reference made on the CPU are moved, too.
    indices, bias = torch.tensor([2, 0]), torch.from_numpy(np.ones(3))
    with TensorsOn("meta"):
        y = torch.nn.functional.embedding(indices, torch.zeros((3, 3))) + bias
    assert y.device.type == "meta" and y.shape == (2, 3)
