"""The tests of tinynet.functional once more, on the double that takes the path of a GPU: the same bodies, against PyTorch."""

from __future__ import annotations

import importlib

import pytest

from tests.checking import Backend
from tests.device_double import device_module
from tests.kernels.cuda_on_cpu import Cpu

FAMILIES = (
    "batch_norm", "conv", "conv_transpose", "cross_entropy", "dropout", "interpolate", "linear", "local_response_norm",
    "max_pool", "max_unpool", "pad", "squared_error",
)


@pytest.fixture(scope="module")
def backend(cuda: Cpu) -> Backend:
    return Backend("cuda on a CPU", device_module)


for family in FAMILIES:
    for name, test in vars(importlib.import_module(f"tests.functional.test_{family}")).items():
        if name.startswith("test_"):
            globals()[f"test_{family}_{name.removeprefix('test_')}"] = test
