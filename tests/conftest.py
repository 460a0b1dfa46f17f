"""The backends that every op is run on, and how Hypothesis draws."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from tests.checking import Backend
from tests.device_double import device_module
from tinynet.backend import device
from tinynet.errors import DeviceError

# The same examples in every run, so that a failure on another machine is one here too; no deadline, since the first call of
# an op pays for imports. `pytest --hypothesis-profile=search` draws afresh, and more.
settings.register_profile(
    "repeatable", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("few", settings.get_profile("repeatable"), max_examples=8)      # under the address sanitiser
settings.register_profile("mutation", settings.get_profile("repeatable"), phases=[Phase.generate])  # for mutate.py
settings.load_profile("repeatable")

# Left to itself, Hypothesis also draws numbers that stand in those of the project's modules that are loaded by then: a constant
# changed anywhere, or a test run by itself, would draw other examples.
with contextlib.suppress(ImportError, AttributeError):              # older versions do not, and this is not their interface
    from hypothesis.internal.conjecture import providers

    providers._get_local_constants = lambda: providers.Constants()

torch.set_num_threads(1)  # tiny arrays: threads only cost


@pytest.fixture(scope="session", params=["numpy", "double", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Backend:
    """NumPy, the strict device double, and CuPy where a GPU can be used (`pytest -m gpu` runs those alone)."""
    if request.param == "numpy":
        return Backend("numpy", np)
    if request.param == "double":
        return Backend("double", device_module)
    try:
        device("cuda:0")
    except DeviceError as error:
        pytest.skip(str(error))
    import cupy

    return Backend("cupy", cupy)
