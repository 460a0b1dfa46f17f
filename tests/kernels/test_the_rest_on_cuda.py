"""The tests of layers and walks back once more, on the double that takes the path of a GPU: the same bodies, against PyTorch."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

import pytest

from tests.checking import Backend
from tests.device_double import device_module
from tests.fake_gpu import fake_gpu
from tests.kernels.cuda_on_cpu import Cpu

PAGES = (
    "nn.test_containers", "nn.test_layers", "nn.test_pytorch_modules", "interpret.test_control", "interpret.test_deletion",
    "interpret.test_fork", "interpret.test_maximise", "interpret.test_occlusion", "interpret.test_top", "interpret.test_walks",
    "models.test_interpretation",
)


@pytest.fixture(scope="module")
def backend(cuda: Cpu) -> Iterator[Backend]:
    with fake_gpu():
        yield Backend("double", device_module)


for page in PAGES:
    for name, test in vars(importlib.import_module(f"tests.{page}")).items():
        if name.startswith("test_") and "backend" in inspect.signature(test).parameters:
            globals()[f"test_{page.partition('.test_')[2]}_{name.removeprefix('test_')}"] = test
