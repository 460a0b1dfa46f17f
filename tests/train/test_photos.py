"""Which photos of a folder are to train on, and which to test on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tinynet.train.photos import folder_parts, train_and_test


def test_train_and_test_lie_beside_each_other_or_are_none(tmp_path: Path) -> None:
    assert train_and_test(tmp_path) == (tmp_path, None)
    (tmp_path / "train").mkdir()
    assert train_and_test(tmp_path) == (tmp_path, None)
    (tmp_path / "test").mkdir()
    assert train_and_test(str(tmp_path)) == (tmp_path / "train", tmp_path / "test")


def test_a_test_folder_of_its_own_takes_the_place_of_the_one_beside(tmp_path: Path) -> None:
    for part, count in (("photos/train", 10), ("photos/test", 3), ("other", 2)):
        for name in ("cat", "notcat"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / part / name / f"{i}.png")
    for test, count in ((None, 6), (tmp_path / "other", 4)):
        parts = folder_parts(tmp_path / "photos", test)
        assert parts.train.classes == ["cat", "notcat"] and len(parts.train) + len(parts.validation) == 20
        assert parts.test is not None and len(parts.test) == count
