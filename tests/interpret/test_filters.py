"""Filters: figures of planted filters, dead units, and the paper's constraint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinynet import nn
from tinynet.errors import ArgumentError
from tinynet.interpret import filters
from tinynet.interpret.filters import (
    FilterConstraint,
    active_shares,
    filter_pictures,
    filter_statistics,
    plot_filters,
    renormalise_filters,
)
from tinynet.optim import SGD


def planted(stride: int = 1) -> nn.Sequential:
    """Four filters of 8×8: flat, the finest stripes, their double, and nothing."""
    conv = nn.Conv2d(3, 4, 8, stride=stride, bias=False)
    stripes = np.tile(np.array([1.0, -1.0]), 4) * np.ones((8, 1))
    conv.weight = np.zeros((4, 3, 8, 8), np.float32)
    conv.weight[0] = 0.2
    conv.weight[1] = 0.5 * stripes
    conv.weight[2] = -0.25 * stripes
    return nn.Sequential(conv1=conv, relu1=nn.ReLU(), conv2=nn.Conv2d(4, 2, 1, rng=np.random.default_rng(0)))


def test_figures_of_planted_filters() -> None:
    found = filter_statistics(planted())
    assert found.layer == "conv1"
    np.testing.assert_allclose(found.rms, [0.2, 0.5, 0.25, 0], atol=1e-7)
    assert found.high_frequency[0] < 0.1
    assert found.high_frequency[1:3].min() > 0.8
    assert found.high_frequency[3] == 0
    assert [pair[:2] for pair in found.duplicates] == [(1, 2)]
    assert found.duplicates[0][2] == pytest.approx(-1)
    assert (found.aliased == 0).all()                           # every frequency of a grid passes at stride 1
    assert filter_statistics(planted(2)).aliased[1] > 0.8       # the finest stripes do not at stride 2
    assert filter_statistics(planted(2)).aliased[0] < 0.1
    assert "4 filters" in found.table()


def test_shares_are_of_the_whole_energy() -> None:
    """White noise spreads its energy evenly: above r = 1/4 lies 1 − π/16 of it, beyond a stride of 2 three quarters."""
    conv = nn.Conv2d(3, 200, 11, stride=2)
    conv.weight = np.random.default_rng(0).standard_normal(conv.weight.shape)
    found = filter_statistics(nn.Sequential(conv1=conv))
    assert found.high_frequency.mean() == pytest.approx(1 - np.pi / 16, abs=0.02)
    assert found.aliased.mean() == pytest.approx(0.75, abs=0.02)
    assert found.random_high_frequency.mean() == pytest.approx(found.high_frequency.mean(), abs=0.01)
    assert found.random_aliased.mean() == pytest.approx(found.aliased.mean(), abs=0.01)
    assert found.duplicates == ()


def test_dead_units_are_counted() -> None:
    x = np.random.default_rng(0).random((10, 3, 8, 8)).astype(np.float32)
    x[:6] = 0                                                   # nothing is active for nothing
    model = planted()
    shares = active_shares(model, [x[:3], (x[3:8], np.zeros(5)), x[8:]], workers=2)
    assert list(shares) == ["relu1", "conv2"]
    np.testing.assert_allclose(shares["relu1"][[0, 3]], [0.4, 0])
    x[5, :, 3, 3] = 1                                           # and one pixel makes one place active, which is enough
    spot = nn.Sequential(conv1=nn.Conv2d(3, 1, 1, bias=False), relu1=nn.ReLU())
    spot["conv1"].weight[...] = 1  # type: ignore[attr-defined]
    np.testing.assert_allclose(active_shares(spot, [x])["relu1"], [0.5])
    with pytest.raises(ArgumentError, match="nearest"):
        active_shares(model, [x], ["relu9"])
    with pytest.raises(ArgumentError, match="none"):
        active_shares(model, [])


def test_renormalised_filters_have_at_most_the_radius_and_keep_their_direction() -> None:
    model = planted()
    before = model["conv1"].weight.copy()  # type: ignore[attr-defined]
    scaled = renormalise_filters(model, 0.22)
    after = model["conv1"].weight  # type: ignore[attr-defined]
    assert scaled["conv1"] == 2
    rms = np.sqrt((after**2).mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(rms, [0.2, 0.22, 0.22, 0], rtol=1e-6)
    np.testing.assert_array_equal(after[0], before[0])          # below the radius: untouched
    np.testing.assert_allclose(after[1], before[1] * 0.44, rtol=1e-6)
    renormalise_filters(model)
    for conv in (model["conv1"], model["conv2"]):
        assert np.sqrt((conv.weight**2).mean(axis=(1, 2, 3))).max() <= 0.1 + 1e-7  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match="above 0"):
        renormalise_filters(model, 0)


def test_the_constraint_holds_after_every_step_of_a_training() -> None:
    from tests.interpret.test_evolution import Batches, net
    from tinynet.train import Callback, Trainer

    model = net()
    seen = []

    class Look(Callback):
        def on_batch_end(self, trainer: Trainer, loss: float) -> None:
            seen.append(max(np.sqrt((model[c].weight ** 2).mean(axis=(1, 2, 3))).max() for c in ("conv1", "conv2")))

    Trainer(model, nn.CrossEntropyLoss(), SGD(model.named_parameters(), lr=0.5), Batches(), epochs=2, workers=1, progress="none",
            callbacks=[FilterConstraint(0.1), Look()]).fit()
    assert len(seen) == 6
    assert max(seen) <= 0.1 + 1e-6


def test_pictures_show_zero_as_mid_grey_and_weak_filters_as_weak() -> None:
    common, own = filter_pictures(planted()), filter_pictures(planted(), common=False)
    assert len(common) == 4
    assert common[0].shape == (8, 8, 3)
    assert set(np.unique(common[3])) <= {127, 128}
    assert np.ptp(common[1].astype(int)) > np.ptp(common[2].astype(int)) > 100
    assert np.ptp(own[1].astype(int)) == np.ptp(own[2].astype(int)) == 255
    with pytest.raises(ArgumentError, match="4 channels, no colours"):
        filter_pictures(planted(), "conv2")
    with pytest.raises(ArgumentError, match="no Conv2d; there is conv1, conv2"):
        filter_statistics(planted(), "relu1")
    with pytest.raises(ArgumentError, match="no two-dimensional"):
        filter_statistics(nn.Sequential(nn.ReLU()))


def test_the_picture_is_written_and_says_what_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(filters, "notes_below", lambda figure, notes, command: said.append(notes))
    for shares in (np.array([1, 0.5, 1, 0]), np.array([1, 0.5, 1, 0.1]), None):
        assert plot_filters(planted(), tmp_path / "a.png", active=shares).stat().st_size > 5000
    ends = ("Dead: never active on the photos.", "Each is active on some photo.", "Dead units were not looked for.")
    assert all(notes.endswith(end) for notes, end in zip(said, ends, strict=True))
    assert all("a filter whose RMS exceeds 0.1 is set back to it" in notes for notes in said)
