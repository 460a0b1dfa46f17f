"""What an error says beside its own words."""

from __future__ import annotations

from tinynet.errors import FileError, nearest, some


def test_the_nearest_names() -> None:
    known = ["conv1", "conv2", "relu1", "relu2", "fc"]
    assert nearest("conv3", known).startswith("conv2, conv1")
    assert nearest("conv1", known, 1) == "conv1"
    assert nearest("xyz", known) == "conv1, conv2, relu1", "none is near: the first ones"
    classes = ["crate", "oxcart", "catamaran", "Madagascar cat", "tiger cat", "crane (bird)", "crane (machine)"]
    assert nearest("cat", classes) == "Madagascar cat, tiger cat, crate", "what it is a word of, then what looks like it"
    assert nearest("crane", classes, 2) == "crane (bird), crane (machine)"
    assert nearest("tigre cat", classes).startswith("tiger cat")
    assert nearest("xyz", {"a": 1}) == "a" and nearest("a", []) == ""


def test_some_of_many_names() -> None:
    assert some([]) == "" and some(["cat", "dog"]) == "cat, dog" and some("abcd", 4) == "a, b, c, d"
    assert some([str(i) for i in range(1000)], 3) == "0, 1, 2, … (1,000 in all)"


def test_a_name_that_would_drive_a_terminal_is_shown_escaped() -> None:
    error = FileError("net.onnx: Foo (evil\x1b[2J\x07\nsecond\u202e line; größer × 3 …)")
    assert str(error) == "net.onnx: Foo (evil\\x1b[2J\\x07\\nsecond\\u202e line; größer × 3 …)"
