"""What a training of a classifier says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinynet.data import ArrayDataset
from tinynet.errors import ArgumentError
from tinynet.models import load_model
from tinynet.train import load_checkpoint
from tinynet.train.classifier import recipe_for, train_classifier
from tinynet.train.photos import Parts


def parts(*classes: str, unions: dict[str, list[str]] | None = None) -> Parts:
    """Pictures of 16×16, brighter from class to class."""
    rng = np.random.default_rng(0)
    labels = np.arange(48) % len(classes)
    images = (rng.integers(0, 180, (48, 16, 16, 3)) + 70 * labels[:, None, None, None] // (len(classes) - 1)).astype(np.uint8)
    train, validation = (ArrayDataset(images[part], labels[part], list(classes)) for part in (slice(32), slice(32, 48)))
    return Parts(train, validation, None, "noise", unions)


def classify(output: Path, photos: Parts | None = None, **options: Any) -> list[str]:
    """What it says."""
    said: list[str] = []
    photos = parts("kitten", "notcat") if photos is None else photos
    train_classifier(photos, recipe_for(16), output, workers=1, progress="none", say=said.append, **options)
    return said


def test_the_losses_of_the_epochs_and_of_the_table_are_told_apart(tmp_path: Path) -> None:
    said = classify(tmp_path / "two", epochs=1)
    assert said[1] == "each epoch's loss: labels smoothed by 0.1, one view of a photo"
    unions = {"cat": ["cat"], "notcat": ["dog", "fox"]}
    said = classify(tmp_path / "united", parts("cat", "dog", "fox", unions=unions), epochs=1)
    assert said[1] == (
        "each epoch's loss: over 3 finer classes, labels smoothed by 0.1, one view of a photo; its accuracy: over cat, notcat"
    )
    head, *rows = said[2].splitlines()
    assert head.split()[:4] == ["photos", "views", "loss", "accuracy"]
    assert [row.split()[:3] for row in rows] == [["train", "32", "1"], ["validation", "16", "10"]]


def test_a_resumed_classifier_goes_on_to_its_own_number_of_epochs(tmp_path: Path) -> None:
    classify(tmp_path, epochs=2)
    classify(tmp_path, resume=True)
    assert load_checkpoint(tmp_path / "last.safetensors").record["state"]["epochs"] == 2
    classify(tmp_path, resume=True, epochs=1)
    assert load_model(tmp_path / "model.safetensors").notes["epochs"] == 2, "of the weights, not of the call"
    classify(tmp_path, resume=True, epochs=3)
    assert load_model(tmp_path / "model.safetensors").notes["epochs"] == 3


def test_a_classifier_is_refused_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = r"\(1 of 1 epochs; tinynet train\); --overwrite replaces it, or give another --output$"
    classify(tmp_path, epochs=1, command="tinynet train")
    with monkeypatch.context() as patch:
        patch.setattr("tinynet.train.classifier.create", None)
        for options in ({"epochs": 1, "seed": 1}, {"epochs": 2}):
            with pytest.raises(ArgumentError, match=words):
                classify(tmp_path, command="tinynet train", **options)
        with pytest.raises(ArgumentError, match="no class 'cat' to be positive; nearest: notcat"):
            classify(tmp_path / "new", positive="cat")
    classify(tmp_path, epochs=1, command="tinynet train")
    classify(tmp_path, epochs=1, command="another", overwrite=True)
