"""What an index type holds, which GPU a kernel runs on, and which allocation did not fit: for every kernel that this concerns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.checking import values
from tests.device_double import DeviceArray, device_module
from tests.fake_gpu import fake_gpu
from tests.kernels.cuda_on_cpu import Cpu
from tinynet import functional as F
from tinynet import nn, optim
from tinynet.backend import gpu_options
from tinynet.errors import DeviceError, DeviceMemoryError
from tinynet.kernels.cuda import batch_norm, launch


@pytest.fixture(autouse=True)
def on_cuda(cuda: Cpu) -> Iterator[None]:
    yield


def array(*shape: int) -> DeviceArray:
    return device_module.asarray(values(0, shape).astype(np.float32))


@pytest.mark.parametrize("sums", [
    batch_norm.channel_sums, lambda x: batch_norm.gradient_sums(x, x, device_module.zeros(1, np.float32)),
], ids=["channel", "gradient"])  # fmt: skip
def test_the_last_step_of_a_threads_loop_fits_its_index(
    cuda: Cpu, monkeypatch: pytest.MonkeyPatch, sums: Callable[..., Any]
) -> None:
    """One channel of 32768 numbers is shared by 16 blocks of 256 threads: an index goes up to 4096 beyond the last number."""
    x = array(1, 1, 32768)
    for bound, kind in ((32768 + 4096, "int"), (32768 + 4095, "long long")):
        monkeypatch.setattr(launch, "_INT", bound)
        before = len(cuda.launches)
        found = sums(x)
        assert cuda.launches[before][0].endswith(f"<float, {kind}>")
        np.testing.assert_allclose(found.get().ravel()[0], x.get().astype(float).sum(), rtol=1e-4)


def test_a_kernel_and_a_product_run_on_the_gpu_of_their_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on the current one, which may be another. Where arrays are made anew that is refused, but not what works in place."""
    seen = []
    with fake_gpu(3) as fake:
        monkeypatch.setattr(DeviceArray, "device", property(lambda self: fake.Device(2)))
        y, handle = array(2, 3), fake.get_cublas_handle                  # type: ignore[attr-defined]
        monkeypatch.setattr(fake, "get_cublas_handle", lambda: (seen.append(fake.number), handle())[1])
        plain = launch._function
        monkeypatch.setattr(launch, "_function", lambda *a: (seen.append(fake.number), plain(*a))[1])
        with launch.watching(lambda kernel, arguments, run: (seen.append(fake.number), run())[1]):
            launch.launch("pointwise", "bias_relu", (np.float32, np.int32), (
                y, None, np.int32(3), np.int32(1), np.int32(1), np.int32(6)), threads=6)
        with gpu_options(precision="tf32"):
            F.linear(array(2, 3), array(4, 3))
        assert seen == [2, 2, 2] and fake.number == 0


def test_parameters_of_two_gpus_are_refused_before_anything_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """70 parameters take two launches: the first would be done before the second finds the other GPU."""
    parameters = {f"p{i}": array(3) for i in range(70)}
    before = [p.get() for p in parameters.values()]
    other = id(parameters["p69"])
    monkeypatch.setattr(DeviceArray, "device", property(lambda self: SimpleNamespace(id=int(id(self) == other))))
    gradients = {name: p for name, p in parameters.items() if name != "p69"}
    elsewhere = array(3)
    for optimizer in (optim.SGD(parameters, lr=0.1, momentum=0.9), optim.Adam(parameters, lr=0.1)):
        monkeypatch.setattr(
            DeviceArray, "device", property(lambda self: SimpleNamespace(id=int(id(self) in (other, id(elsewhere))))))
        with pytest.raises(DeviceError, match="arrays of cuda:0 and cuda:1 were mixed"):
            optimizer.step({**gradients, "p69": elsewhere})
        assert not any(optimizer.state.get(name) for name in parameters)
        for p, old in zip(parameters.values(), before, strict=True):
            np.testing.assert_array_equal(p.get(), old)


def operations() -> dict[str, Callable[[], Any]]:
    x, w, dy, bias = array(2, 4, 8, 8), array(4, 4, 3, 3), array(2, 4, 8, 8), array(4)
    pool, norm = nn.MaxPool2d(2), nn.BatchNorm2d(4)
    for name in ("weight", "bias", "running_mean", "running_var"):
        setattr(norm, name, device_module.asarray(getattr(norm, name)))
    y, saved = pool.forward(x)
    one = array(4, 4, 1, 1)
    found: dict[str, Callable[[], Any]] = {
        "max-pooling": lambda: pool.forward(x), "its way back": lambda: pool.input_gradient(saved, y),
        "normalisation": lambda: norm.forward(x), "its gradient": lambda: norm.input_gradient(norm.forward(x)[1], dy),
        "1x1": lambda: F.conv2d(x, one, bias), "1x1, weights": lambda: F.conv2d_weight_gradient(x, (4, 4, 1, 1), dy),
    }
    for way in ("im2col", "winograd4x4"):
        how: Any = {"padding": 1, "algorithm": way}
        found |= {
            way: lambda how=how: F.conv2d(x, w, bias, **how),
            f"{way}, input": lambda how=how: F.conv2d_input_gradient((2, 4, 8, 8), w, dy, **how),
            f"{way}, weights": lambda how=how: F.conv2d_weight_gradient(x, (4, 4, 3, 3), dy, **how),
        }
    return found


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_whatever_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """Each allocation in turn fails, those of a number a channel apart; what does not name itself would reach the user bare."""
    empty, matmul, astype = device_module.empty, device_module.matmul, DeviceArray.astype
    for what, call in operations().items():
        for failing in range(20):
            count = [0]

            def taken(size: int, count: list[int] = count, failing: int = failing) -> None:
                if size >= 32:
                    count[0] += 1
                    if count[0] > failing:
                        raise MemoryError("Out of memory allocating 9 bytes")

            def limited(shape: Any, dtype: Any, taken: Callable[[int], None] = taken) -> Any:
                taken(int(np.prod(shape)))
                return empty(shape, dtype)

            def product(a: Any, b: Any, taken: Callable[[int], None] = taken, **out: Any) -> Any:
                taken(0 if out else int(np.prod(a.shape[:-1])) * b.shape[-1])
                return matmul(a, b, **out)

            def cast(self: Any, dtype: Any, taken: Callable[[int], None] = taken, **options: Any) -> Any:
                taken(self.size if dtype == np.float16 else 0)
                return astype(self, dtype, **options)

            with monkeypatch.context() as patch, gpu_options(precision=precision):
                patch.setattr(device_module, "empty", limited)
                patch.setattr(device_module, "matmul", product)
                patch.setattr(DeviceArray, "astype", cast)
                try:
                    call()
                except DeviceMemoryError as error:
                    assert re.search(r"out of memory on the GPU: .+, takes [\d.,]+ MiB; try ", str(error)), (what, error)
                    assert count[0] == failing + 1
                    continue
                break
        assert failing > 0, what
