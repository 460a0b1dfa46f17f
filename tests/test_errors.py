"""What an error says beside its own words."""

from __future__ import annotations

from tinynet.errors import nearest


def test_the_nearest_names() -> None:
    known = ["conv1", "conv2", "relu1", "relu2", "fc"]
    assert nearest("conv3", known).startswith("conv2, conv1")
    assert nearest("conv1", known, 1) == "conv1"
    assert nearest("xyz", known) == "conv1, conv2, relu1", "none is near: the first ones"
    assert nearest("xyz", {"a": 1}) == "a" and nearest("a", []) == ""
