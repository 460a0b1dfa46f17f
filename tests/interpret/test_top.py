"""Top activations: PyTorch's feature maps sorted plainly; the same bits however the pass is cut; bounded memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checking import Backend
from tests.fake_gpu import fake_gpu
from tests.interpret.nets import NETS, pair
from tests.nn.helpers import place, randomise
from tinynet import nn
from tinynet.data import ArrayDataset, Subset
from tinynet.data.transforms import ToArray
from tinynet.errors import ArgumentError, FileError
from tinynet.interpret.top import TopActivations, default_layers, top_activations


def photos(count: int, size: tuple[int, int], seed: int = 0) -> ArrayDataset:
    rng = np.random.default_rng(seed)
    return ArrayDataset(rng.integers(0, 256, (count, *size, 3), dtype=np.uint8), np.arange(count) % 2, ["a", "b"])


def small(seed: int = 0) -> nn.Layer:
    """Convolution, overlapping pool, a linear layer: (N, 3, 9, 10) in float32."""
    model = nn.Sequential(
        conv1=nn.Conv2d(3, 5, 3, 2), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2, 1), conv2=nn.Conv2d(5, 7, 3, padding=1),
        relu2=nn.ReLU(), flatten=nn.Flatten(), fc=nn.Linear(63, 4),
    )
    return randomise(model, seed).to(dtype=np.float32)


def same(a: TopActivations, b: TopActivations) -> None:
    assert list(a.layers) == list(b.layers) and (a.k, a.by, a.done, a.total) == (b.k, b.by, b.done, b.total)
    for layer in a.layers:
        for part, other in zip(a[layer], b[layer], strict=True):
            assert part.dtype == other.dtype
            np.testing.assert_array_equal(part, other, err_msg=layer)


@pytest.mark.parametrize("by", ["max", "mean"])
@pytest.mark.parametrize("name", NETS)
def test_equals_pytorch_s_maps_sorted(name: str, by: str):
    model, module, x = pair(name)
    layers = NETS[name][3]
    dataset = photos(11, x.shape[2:])
    found = top_activations(model, dataset, layers, k=4, by=by, batch_size=3, progress=False)
    maps: dict[str, Any] = {}
    for layer in layers:
        module.get_submodule(layer).register_forward_hook(
            lambda _m, _i, y, layer=layer: maps.__setitem__(layer, y.detach().numpy())
        )
    module(torch.tensor(dataset.images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255), dtype=torch.float64))
    for layer in layers:
        y = maps[layer]
        for channel in range(y.shape[1]):
            flat = y[:, channel].reshape(len(y), -1)
            values = flat.max(axis=1) if by == "max" else flat.mean(axis=1)
            # Values that differ by rounding alone are equal for this purpose; that the ties are broken by index is tested below.
            order = sorted(range(len(y)), key=lambda i: (-round(float(values[i]), 9), i))[:4]
            where = [np.unravel_index(flat[i].argmax(), y.shape[2:]) for i in order]
            np.testing.assert_allclose(found[layer].values[channel], values[order], rtol=0, atol=1e-9)
            if len({round(float(v), 7) for v in values}) == len(values):
                assert found[layer].images[channel].tolist() == order, (layer, channel)
                assert found[layer].positions[channel].tolist() == [list(map(int, p)) for p in where], (layer, channel)


class Interrupting:
    """A dataset whose photo `at` is met by Ctrl-C, once."""

    def __init__(self, dataset: ArrayDataset, at: int) -> None:
        self.dataset, self.at, self.classes, self.labels = dataset, at, dataset.classes, dataset.labels
        self.looked = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if index == self.at and self.looked > 0:
            raise KeyboardInterrupt
        self.looked += index == self.at                         # the fingerprint looks as well
        return self.dataset[index]

    def name(self, index: int) -> str:
        return self.dataset.name(index)


@settings(max_examples=15)
@given(batch=st.integers(1, 9), workers=st.integers(1, 3), k=st.integers(1, 12), by=st.sampled_from(["max", "mean"]))
def test_no_bit_depends_on_batches_or_workers(batch: int, workers: int, k: int, by: str):
    dataset, model, layers = photos(10, (9, 10)), small(), ["conv1", "relu2", "fc"]
    how: Any = {"k": k, "by": by, "progress": False}
    same(top_activations(model, dataset, layers, batch_size=batch, workers=workers, **how),
         top_activations(model, dataset, layers, batch_size=10, workers=1, **how))


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_goes_on_after_ctrl_c_to_the_same_bits(batch: int, tmp_path):
    dataset, model = photos(15, (9, 10)), small()
    whole = top_activations(model, dataset, progress=False)
    state = tmp_path / "state.safetensors"
    at = 6                                                      # the fingerprint's probes include it: 0, 2, 4, 6, …
    with pytest.raises(KeyboardInterrupt, match=r"interrupted after \d+ of 15 photos; what was found is in"):
        top_activations(model, Interrupting(dataset, at), batch_size=batch, workers=1, resume=state, progress=False)
    part = TopActivations.load(state)
    assert part.done == at // batch * batch
    looked: list[int] = []

    class Counting(Interrupting):
        def __getitem__(self, index: int) -> Any:
            looked.append(index)
            return self.dataset[index]

    resumed = top_activations(model, Counting(dataset, -1), batch_size=5, workers=2, resume=state, progress=False)
    same(resumed, whole)
    assert len(looked) == 8 + 15 - part.done                    # eight probes, and only what was left
    same(top_activations(model, dataset, resume=state, progress=False), whole)     # finished: nothing to do
    same(TopActivations.load(state), whole)


def test_without_a_state_ctrl_c_says_that_nothing_was_saved():
    with pytest.raises(KeyboardInterrupt, match="after 0 of 15 photos; nothing was saved"):
        top_activations(small(), Interrupting(photos(15, (9, 10)), 0), workers=1, progress=False)


@pytest.mark.parametrize("what", ["model", "photos", "labels", "layers", "k", "by", "transform"])
def test_a_state_of_another_question_is_refused(what: str, tmp_path):
    state = tmp_path / "state.safetensors"
    dataset, model = photos(15, (9, 10)), small()
    top_activations(model, dataset, ["conv1"], resume=state, progress=False)
    how: dict[str, Any] = {"model": model, "dataset": dataset, "layers": ["conv1"]}
    change: dict[str, dict[str, Any]] = {
        "model": {"model": small(1)}, "photos": {"dataset": photos(15, (9, 10), 1)}, "layers": {"layers": ["relu1"]},
        "k": {"k": 3},
        "labels": {"dataset": ArrayDataset(dataset.images, 1 - dataset.labels, ["a", "b"])}, "by": {"by": "mean"},
        "transform": {"transform": lambda image, rng: ToArray()(image, rng) * np.float32(2)},
    }
    kind = {"model": "another model", "photos": "other photos", "labels": "other photos", "transform": "other photos"}
    with pytest.raises(FileError, match=f"state.safetensors: the state of a pass with {kind.get(what, 'another question')}"):
        top_activations(**{**how, **change[what]}, resume=state, progress=False)


def test_equal_values_go_to_the_earlier_photo():
    one = photos(1, (9, 10)).images
    dataset = ArrayDataset(np.repeat(one, 7, axis=0), np.zeros(7, int), ["a"])
    found = top_activations(small(), dataset, ["relu1", "fc"], k=5, batch_size=2, workers=2, progress=False)
    for layer in found.layers.values():
        np.testing.assert_array_equal(layer.images, np.broadcast_to(np.arange(5), layer.images.shape))


def test_fewer_photos_than_k_give_fewer():
    found = top_activations(small(), photos(3, (9, 10)), ["relu1"], k=9, progress=False)
    assert found["relu1"].images.shape == (5, 3) and found["relu1"].positions.shape == (5, 3, 2)


def test_memory_does_not_grow_with_the_photos():
    class Endless:
        def __init__(self, count: int) -> None:
            self.classes = ["a"]
            self.labels = np.zeros(count, int)

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int) -> Any:
            return np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8), 0

    model = nn.Sequential(conv=nn.Conv2d(3, 16, 3, rng=np.random.default_rng(0)), relu=nn.ReLU())

    def peak(count: int) -> int:
        tracemalloc.start()
        top_activations(model, Endless(count), batch_size=8, workers=1, progress=False)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(8)                                                     # imports
    one_map = 16 * 30 * 30 * 4
    assert peak(160) < peak(16) + one_map                       # 144 photos more, not one map more


def test_default_layers_are_the_rectified_maps():
    assert default_layers(small()) == ["relu1", "relu2"]
    assert default_layers(nn.Sequential(flatten=nn.Flatten(), fc=nn.Linear(3, 2), relu=nn.ReLU())) == ["relu"]
    with pytest.raises(ArgumentError, match="neither a convolution nor a ReLU"):
        default_layers(nn.Sequential(nn.Flatten()))


@pytest.mark.parametrize(("change", "message"), [
    ({"layers": ["rleu1"]}, r"no layer 'rleu1'; nearest: relu1"), ({"by": "sum"}, 'expected by "max" or "mean"'),
    ({"k": 0}, "expected k of at least 1, got 0"), ({"batch_size": True}, "expected batch_size of at least 1"),
    ({"layers": []}, "expected at least one layer"), ({"dataset": Subset(photos(1, (9, 10)), [])}, "expected photos, got none"),
])  # fmt: skip
def test_says_what_is_wrong(change: dict[str, Any], message: str):
    with pytest.raises(ArgumentError, match=message):
        top_activations(**{"model": small(), "dataset": photos(3, (9, 10)), "progress": False, **change})


def test_a_file_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "broken").write_bytes(b"nothing")
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, tmp_path / "foreign")
    for name, message in (("missing", "no such file"), ("broken", "damaged"), ("foreign", "not top activations")):
        with pytest.raises(FileError, match=message):
            TopActivations.load(tmp_path / name)
    with pytest.raises(ArgumentError, match="there are those of conv1"):
        top_activations(small(), photos(3, (9, 10)), ["conv1"], progress=False)["relu1"]


def test_a_bar_is_shown_at_a_terminal_only(capsys, monkeypatch):
    top_activations(small(), photos(3, (9, 10)))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    top_activations(small(), photos(3, (9, 10)))
    shown = capsys.readouterr()
    assert "strongest activations" in shown.err and not shown.out
    top_activations(small(), photos(3, (9, 10)), progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", NETS)
def test_inference_shows_the_watch_what_forward_shows(name: str):
    model, _, x = pair(name)
    seen: list[list[tuple[str, nn.Layer, np.ndarray]]] = [[], []]
    y, _ = model.forward(x, watch=lambda *what: seen[0].append(what))            # type: ignore[call-arg]
    np.testing.assert_array_equal(model.infer(x, lambda *what: seen[1].append(what)), y)
    assert [(path, layer) for path, layer, _ in seen[0]] == [(path, layer) for path, layer, _ in seen[1]]
    for (_, _, a), (_, _, b) in zip(*seen, strict=True):
        np.testing.assert_array_equal(a, b)


def test_runs_where_the_model_is(backend: Backend):
    dataset, layers = photos(5, (9, 10)), ["relu1", "fc"]
    expected = top_activations(small(), dataset, layers, k=3, progress=False)
    found = top_activations(place(small(), backend), dataset, layers, k=3, progress=False)
    for layer in layers:
        np.testing.assert_array_equal(found[layer].images, expected[layer].images)
        np.testing.assert_array_equal(found[layer].positions, expected[layer].positions)
        np.testing.assert_allclose(found[layer].values, expected[layer].values, rtol=1e-4)


@pytest.mark.parametrize("at", [2, 6, 8, 14])                # of the fingerprint's probes
def test_a_gpu_goes_on_after_ctrl_c_to_the_same_bits(at: int, tmp_path) -> None:
    dataset, model = photos(15, (9, 10)), small()
    state = tmp_path / "state.safetensors"
    with fake_gpu():
        model.to("cuda")
        whole = top_activations(model, dataset, batch_size=4, progress=False)
        with pytest.raises(KeyboardInterrupt, match=r"interrupted after \d+ of 15 photos; what was found is in"):
            top_activations(model, Interrupting(dataset, at), batch_size=4, workers=1, resume=state, progress=False)
        assert TopActivations.load(state).done % 4 == 0
        same(top_activations(model, dataset, batch_size=4, workers=2, resume=state, progress=False), whole)
