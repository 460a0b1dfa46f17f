"""What goes wrong with a GPU is told in one line, and leaves nothing half done."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer

from tests.device_double import device_module
from tests.fake_gpu import fake_gpu
from tests.test_cli import refused
from tests.train.runs import net, trainer
from tinynet import backend, functional, optim
from tinynet.cli_common import plainly
from tinynet.distributed import Shards
from tinynet.errors import ArgumentError, DeviceError, DeviceMemoryError, TinynetError
from tinynet.kernels.cuda.launch import launch
from tinynet.kernels.cuda.memory import allocating


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


def fake_cupy(monkeypatch: pytest.MonkeyPatch, count: Any) -> None:
    """A module cupy whose getDeviceCount gives that number, or raises it."""

    def device_count() -> int:
        if isinstance(count, Exception):
            raise count
        return count

    cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=device_count))
    cupy = SimpleNamespace(ndarray=type("ndarray", (), {}), cuda=cuda)
    monkeypatch.setitem(sys.modules, "cupy", cupy)


DRIVER = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
CASES = {
    "no GPU": (0, "CUDA was asked for, but this machine shows no GPU"),
    "driver": (RuntimeError(DRIVER), f"no GPU can be used: {DRIVER}; is there a GPU here, and is its driver new enough"),
    "other": (RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected\nmore"), "no CUDA-capable device is detected"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", ["train", "evaluate x", "predict x y", "explain x y", "atlas x", "study x"])
def test_no_gpu_is_one_line_of_every_command(monkeypatch: pytest.MonkeyPatch, case: str, command: str) -> None:
    count, message = CASES[case]
    fake_cupy(monkeypatch, count)
    assert message in refused(*command.split(), "--device", "cuda")


def test_no_cupy_is_one_line_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert 'pip install "tinynet[cuda12]"' in refused("train", "--device", "cuda")


class Array:
    """An array of one of several GPUs, as far as it is looked at before it is refused."""

    flags = SimpleNamespace(c_contiguous=True)
    shape, dtype = (2, 2), np.dtype(np.float32)

    def __init__(self, number: int) -> None:
        self.device = SimpleNamespace(id=number)

    def __array_namespace__(self) -> Any:
        return device_module


@pytest.mark.parametrize("call", [
    lambda a, b: backend.array_module(a, None, b), functional.relu_input_gradient, functional.linear,
    lambda a, b: functional.conv1d(b, a),
], ids=["array_module", "relu", "linear", "conv"])  # fmt: skip
def test_arrays_of_two_gpus_are_refused_before_anything_is_done(call: Any) -> None:
    with pytest.raises(DeviceError, match=r'arrays of cuda:1 and cuda:3 were mixed; .*to_device\(x, "cuda:1"\)$'):
        call(Array(3), Array(1))
    assert backend.array_module(Array(1), Array(1), None) is device_module


def test_an_array_goes_to_the_gpu_of_another_and_stays_where_it_is_already(monkeypatch: pytest.MonkeyPatch) -> None:
    x, asarray, inside = np.arange(3.0), device_module.asarray, []
    assert backend.beside(x, None) is x and backend.beside(x, np.zeros(1)) is x
    with fake_gpu(2) as fake:
        monkeypatch.setattr(device_module, "asarray", lambda a: (inside.append(fake.number), asarray(a))[1])
        there = backend.beside(x, Array(1))
        assert inside == [1] and backend.device_of(there).index == 0    # the double has but one place
        assert backend.beside(there, there) is there and inside == [1]
        backend.beside(there, Array(1))
        assert inside == [1, 1]
        np.testing.assert_array_equal(backend.beside(there, np.zeros(1)), x)


def test_another_gpu_is_the_current_one_of_a_command_and_of_its_threads() -> None:
    seen: list[Any] = []

    @plainly
    def command(device: str) -> None:
        seen.append((fake.number, backend.current_device()))
        with Shards(2) as shards:
            seen.extend(shards.each(lambda _: (fake.number, backend.current_device()), range(4)))
        raise ArgumentError("as every command may end")

    with fake_gpu(3) as fake:
        with pytest.raises(typer.Exit):
            command(device="cuda:2")
        assert seen == [(2, backend.Device("cuda", 2))] * 5
        assert (fake.number, backend.current_device()) == (0, backend.Device("cpu"))
        with backend.on("cuda:1"), backend.on("cpu"):
            assert backend.current_device() == backend.Device("cpu")


def test_arrays_of_two_gpus_are_not_mixed_in_a_kernel() -> None:
    with pytest.raises(DeviceError, match=r'bias_relu: arrays of cuda:0 and cuda:1 were mixed; .*to_device\(x, "cuda:0"\)'):
        launch("pointwise", "bias_relu", (np.float32, np.int32), (Array(0), Array(1)), threads=1)


def test_of_two_allocations_one_within_the_other_the_inner_one_is_named() -> None:
    with (
        pytest.raises(DeviceMemoryError, match="on the GPU: the copy, "), allocating("all", (2,), np.float32),
        allocating("the copy", (3,), np.float32),
    ):
        raise OutOfMemoryError("Out of memory allocating 512 bytes")


@pytest.mark.parametrize("workspace", [True, False])
def test_out_of_memory_names_the_allocation_and_what_helps(workspace: bool) -> None:
    with backend.gpu_options(workspace=64 << 20), pytest.raises(DeviceMemoryError) as caught:  # noqa: SIM117
        with allocating("the columns of a convolution", (576, 12544), np.float32, workspace):
            raise OutOfMemoryError("Out of memory allocating 28,901,376 bytes")
    line = str(caught.value)
    assert "\n" not in line and "the columns of a convolution, (576, 12544) of float32, takes 27.6 MiB" in line
    assert ("gpu_options(workspace=16 << 20)" in line) == workspace
    assert isinstance(caught.value, MemoryError) and isinstance(caught.value, TinynetError)


@pytest.mark.parametrize("options", [{"precision": "half"}, {"workspace": 0}, {"workspace": 1.5}, {"workspace": True}])
def test_wrong_gpu_options_are_refused_and_change_nothing(options: dict[str, Any]) -> None:
    before = backend.current_gpu_options()
    with pytest.raises(TinynetError, match="gpu_options: expected"), backend.gpu_options(**options):
        pass
    assert backend.current_gpu_options() == before


def test_gpu_options_hold_within_their_block() -> None:
    with backend.gpu_options(precision="tf32") as outer, backend.gpu_options(workspace=5) as inner:
        assert (outer.precision, inner.precision, inner.workspace) == ("tf32", "tf32", 5)
    assert backend.current_gpu_options() == backend.GpuOptions("float32", 64 << 20)


def test_blocks_of_gpu_options_may_end_in_any_order() -> None:
    first, second = backend.gpu_options(precision="tf32"), backend.gpu_options(workspace=5)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert backend.current_gpu_options().workspace == 5
    second.__exit__(None, None, None)
    assert backend.current_gpu_options() == backend.GpuOptions("float32", 64 << 20)


@pytest.mark.parametrize("where, left", [("maximum", [2]), ("zeros_like", [0])])
def test_a_step_without_memory_has_not_happened(monkeypatch: pytest.MonkeyPatch, where: str, left: list[int]) -> None:
    # In the forward pass, and at the state that AdamW makes at its first step.
    with fake_gpu():
        made = trainer()
        model = net()
        model.to("cuda")
        optimizer = optim.AdamW(model.named_parameters())
        made = type(made)(model, made.loss, optimizer, made.train_loader, epochs=1, workers=1, progress="none")
        before = {name: x.get() for name, x in model.state_dict().items()}
        whole = getattr(device_module, where)

        def fails(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise OutOfMemoryError("Out of memory allocating 512 bytes")
            return whole(*arguments, **options)

        monkeypatch.setattr(device_module, where, fails)
        message = r"step 0, 8 samples: .*allocating 512 bytes.*; the model is as it was before"
        with pytest.raises(DeviceMemoryError, match=message):
            made.fit()
        for name, x in model.state_dict().items():
            np.testing.assert_array_equal(x.get(), before[name], err_msg=name)
        assert not any(made.optimizer.state.values())
