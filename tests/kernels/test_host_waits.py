"""A training step makes the host wait for nothing but the loss of the step before: the whole way, over the kernels of a GPU."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.device_double import DeviceArray, device_module
from tests.fake_gpu import FakeCuda, fake_gpu
from tests.kernels.cuda_on_cpu import Cpu
from tests.train.runs import loaders, pictures
from tinynet import backend, interpret, nn, optim
from tinynet.data.pinned import fetched
from tinynet.data.transforms import ToArray
from tinynet.distributed import Shards
from tinynet.errors import DeviceMemoryError, FileError
from tinynet.interpret import patches, strongest, top, unit_walks
from tinynet.train import Callback, NonFiniteError, Trainer, TrainingInterrupted, evaluate, predict

ONE_BY_ONE = ("item", "tolist", "nonzero", "__bool__", "__int__", "__float__", "__index__", "__array__", "__iter__")
SIZED_BY_VALUES = ("nonzero", "flatnonzero", "argwhere", "unique", "bincount", "allclose", "asnumpy")


@contextmanager
def watched_host() -> Iterator[list[str]]:
    """Where in tinynet the host asked for what only the device knows, and waited for it."""
    waits: list[str] = []

    def note(what: str) -> None:
        frame = next(f for f in reversed(traceback.extract_stack()) if "/tinynet/" in f.filename)
        waits.append(f"{what} in {frame.filename.rpartition('/tinynet/')[2]}:{frame.lineno} {frame.line}")

    def noting(what: str, target: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if what != "get" or options.get("blocking", True):
                note(what)
            return target(*arguments, **options)

        return call

    def index(self: DeviceArray, key: Any) -> Any:
        for part in key if isinstance(key, tuple) else (key,):
            if isinstance(part, DeviceArray) and part.dtype == bool:
                note("a mask as index")                         # how many it takes, only the device knows
        return taken(self, key)

    taken = DeviceArray.__getitem__
    with pytest.MonkeyPatch.context() as patch:
        for name in (*ONE_BY_ONE, "get"):
            if hasattr(DeviceArray, name):
                patch.setattr(DeviceArray, name, noting(name, getattr(DeviceArray, name)))
        for name in SIZED_BY_VALUES:
            patch.setattr(device_module, name, noting(name, getattr(device_module, name)))
        patch.setattr(DeviceArray, "__getitem__", index)
        yield waits


@pytest.fixture
def gpu(cuda: Cpu) -> Iterator[FakeCuda]:
    with fake_gpu() as fake:
        yield fake


def net() -> nn.Sequential:
    """Every kind of layer that has something to draw, to count, to look for or to remember."""
    rng = np.random.default_rng(0)
    return nn.Sequential(
        conv=nn.Conv2d(3, 4, 3, padding=1, rng=rng), norm=nn.BatchNorm2d(4), relu=nn.ReLU(),
        pool=nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        branches=nn.Residual(main=nn.Sequential(
            deep=nn.Conv2d(4, 4, 3, padding=1, groups=4, rng=rng), counted=nn.BatchNorm2d(4, momentum=None))),
        both=nn.Concat(a=nn.ConvTranspose2d(4, 2, 3, padding=1, rng=rng), b=nn.Sequential(
            pad=nn.Pad((1, 1, 1, 1), "reflect"), mean=nn.AvgPool2d(2, 2), up=nn.Upsample(size=(5, 5), mode="bilinear"),
            one=nn.Conv2d(4, 2, 1, rng=rng), sigmoid=nn.Sigmoid())),
        lrn=nn.LocalResponseNorm(3), leaky=nn.LeakyReLU(), drop=nn.Dropout(0.3), average=nn.AdaptiveAvgPool2d(2), six=nn.ReLU6(),
        flatten=nn.Flatten(), fc=nn.Linear(16, 3, rng=rng), softly=nn.Tanh(), united=nn.GroupLogSumExp([[0], [1, 2]]),
    )  # fmt: skip


def nll(logits: Any, target: Any) -> Any:
    return nn.NLLLoss(device_module.asarray(np.array([0.5, 1], np.float32)))(logits, target)


def squares(logits: Any, target: Any) -> Any:
    return nn.MSELoss()(logits, device_module.stack([1 - target, target], axis=1).astype(np.float32))


LOSSES: dict[str, Any] = {"cross-entropy": nn.CrossEntropyLoss(label_smoothing=0.1), "nll": nll, "squares": squares}
OPTIMISERS: dict[str, Any] = {
    "SGD": lambda p: optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True), "AdamW": lambda p: optim.AdamW(p, lr=0.01),
    "amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
}


SCHEDULE = optim.OneCycleLR(0.05, total_steps=16)


class Batches:
    """A loader of some batches of the training, in front of each of which something may happen."""

    def __init__(self, count: int, before: dict[int, Callable[[np.ndarray], Any]] | None = None) -> None:
        self.items, self.before = [*loaders()[0].batches(0), *loaders()[0].batches(1)][:count], before or {}

    def __len__(self) -> int:
        return len(self.items)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        for number, (x, y) in enumerate(self.items[start:], start):
            x = x.copy()
            self.before.get(number, lambda x: None)(x)
            yield x, y


def run(loss: str = "cross-entropy", optimiser: str = "SGD", train: Any = None, device: str = "cuda", **options: Any) -> Trainer:
    model = net()
    model.to(device)
    return Trainer(
        model, LOSSES[loss], OPTIMISERS[optimiser](model.named_parameters()), train or loaders()[0],
        **{"epochs": 1, "max_norm": 1.0, "clip_value": 0.1, "progress": "none", "seed": 5, "workers": 1, **options},
    )  # fmt: skip


def everything(made: Trainer) -> dict[str, Any]:
    """All that a step changes."""
    state = {f"model {name}": np.array(backend.to_host(x)) for name, x in made.model.state_dict().items()}
    for name, slots in made.optimizer.state.items():
        state |= {f"{slot} {name}": np.array(backend.to_host(x) if hasattr(x, "shape") else x) for slot, x in slots.items()}
    return {**state, "steps": np.array(made.state.step)}


def same(got: dict[str, Any], expected: dict[str, Any], tolerance: float = 0.0) -> None:
    assert got.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_allclose(got[name], x, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("loss, optimiser, precision, more", [
    ("cross-entropy", "SGD", "float32", {}), ("nll", "AdamW", "float16", {"max_norm": None}),
    ("squares", "amsgrad", "tf32", {"clip_value": None}),
])  # fmt: skip
def test_the_host_waits_for_one_loss_a_step_and_has_queued_the_next_one_by_then(
    gpu: FakeCuda, loss: str, optimiser: str, precision: str, more: dict[str, Any]
) -> None:
    made = run(loss, optimiser, epochs=2, schedule=optim.OneCycleLR(0.05, total_steps=10), **more)
    with watched_host() as waits, backend.gpu_options(precision=precision):
        made.fit()
    assert waits == []
    steps = len(made.train_loader)
    assert made.state.step == 2 * steps and len(gpu.blocked) == 2 * steps
    last = gpu.blocked[steps - 1 :: steps]                      # an epoch ends with what is known of all its steps
    others = [behind for i, behind in enumerate(gpu.blocked) if i % steps != steps - 1]
    assert last == [0, 0] and min(others) >= 1, gpu.blocked


def test_a_callback_that_looks_at_steps_finds_the_model_as_that_step_left_it(gpu: FakeCuda) -> None:
    class Seen(Callback):
        def __init__(self) -> None:
            self.steps: list[Any] = []

        def on_batch_end(self, trainer: Trainer, loss: float) -> None:
            self.steps.append(everything(trainer))

    seen = []
    for device in ("cpu", "cuda"):
        callback = Seen()
        run(device=device, callbacks=[callback]).fit()
        seen.append(callback.steps)
    assert len(seen[0]) == len(seen[1]) == 5
    for host, there in zip(*seen, strict=True):
        same(there, host, 1e-4)


def stopped(train: Batches, error: type[BaseException], match: str, **options: Any) -> Trainer:
    """A training that ends with that error."""
    made = run(train=train, schedule=SCHEDULE, **options)
    with pytest.raises(error, match=match) as caught:
        made.fit()
    assert "\n" not in str(caught.value)
    return made


@pytest.mark.parametrize("optimiser, bad", [("SGD", 0), ("SGD", 1), ("AdamW", 3), ("amsgrad", 4), ("SGD", 6), ("AdamW", 7)])
def test_a_loss_that_is_not_finite_stops_at_its_own_step_and_nothing_from_there_on_has_happened(
    gpu: FakeCuda, optimiser: str, bad: int
) -> None:
    message = (
        rf"^step {bad} \(epoch 1, batch {bad + 1}\): the loss is nan at learning rate {SCHEDULE.lr_at(bad):.3g}; "
        r"it begins in the input batch \(sample 0 of 8 holds nan or inf\)"
    )
    made = stopped(Batches(8, {bad: lambda x: x.fill(np.nan)}), NonFiniteError, message, optimiser=optimiser)
    assert made.state.step == made.state.batch == bad
    good = run(optimiser=optimiser, train=Batches(max(bad, 1)), epochs=min(bad, 1), schedule=SCHEDULE)
    good.fit()
    same(everything(made), everything(good))


def test_an_error_of_the_loader_finds_every_step_counted_and_the_training_can_go_on(gpu: FakeCuda) -> None:
    def broken(x: np.ndarray) -> None:
        raise FileError("a broken photo")

    train = Batches(8, {4: broken})
    made = stopped(train, FileError, "a broken photo", optimiser="AdamW")
    assert made.state.step == 3                                 # the one on its way was not begun
    train.before.clear()
    made.fit()
    whole = run(optimiser="AdamW", train=Batches(8), schedule=SCHEDULE)
    whole.fit()
    same(everything(made), everything(whole))
    assert made.history.to_dicts()[0]["train_loss"] == whole.history.to_dicts()[0]["train_loss"]


@pytest.mark.parametrize("at", [1, 4])
def test_ctrl_c_saves_whole_steps_and_the_run_goes_on_to_the_bit(gpu: FakeCuda, tmp_path: Path, at: int) -> None:
    options: dict[str, Any] = {"optimiser": "amsgrad", "epochs": 2}
    train = Batches(8, {at: lambda x: signal.raise_signal(signal.SIGINT)})
    first = stopped(train, TrainingInterrupted, f"after {at - 1} steps .*saved as", output=tmp_path, **options)
    assert first.state.step == at - 1
    rest, whole = (run(train=Batches(8), schedule=SCHEDULE, output=tmp_path / name, **options) for name in ("rest", "whole"))
    whole.fit()
    rest.fit(resume=tmp_path / "last.safetensors")
    same(everything(rest), everything(whole))


def test_ctrl_c_within_an_update_saves_nothing_of_it(gpu: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(train=Batches(8), output=tmp_path)
    whole = made.optimizer.step

    def interrupted(*arguments: Any) -> None:
        whole(*arguments)
        if made._queue.number == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(made.optimizer, "step", interrupted)
    with pytest.raises(TrainingInterrupted, match=r"interrupted within step 3, half .* not saved; there is no checkpoint"):
        made.fit()
    assert made.state.step == 3


def test_a_step_without_memory_names_itself_and_those_before_it_count(gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    good = run(optimiser="AdamW", train=Batches(4), schedule=SCHEDULE)
    good.fit()
    whole, made = device_module.empty, run(optimiser="AdamW", train=Batches(8), schedule=SCHEDULE)

    def full(shape: Any, dtype: Any) -> Any:
        # The columns of a convolution: the only array of one axis that is so large.
        if isinstance(shape, int) and shape >= 1000 and made._queue.number == 4:
            raise MemoryError("Out of memory allocating 55,296 bytes")
        return whole(shape, dtype)

    monkeypatch.setattr(device_module, "empty", full)
    message = (
        r"^step 4, 8 samples: conv: out of memory on the GPU: the columns of a convolution, \(27, 512\) of float32, takes "
        r"0\.1 MiB; try a smaller workspace, .*gpu_options\(workspace=.*the model is as it was before$"
    )
    with pytest.raises(DeviceMemoryError, match=message):
        made.fit()
    assert made.state.step == 4
    same(everything(made), everything(good))


def test_evaluation_and_prediction_wait_for_the_batch_before_and_fetch_the_one_behind(gpu: FakeCuda) -> None:
    model, (_, loader) = net(), loaders()
    expected = evaluate(model, loader, nn.CrossEntropyLoss()), predict(model, loader)
    model.to("cuda")
    with watched_host() as waits:
        got = evaluate(model, loader, nn.CrossEntropyLoss())
    assert waits == []
    assert len(gpu.blocked) == 3 * len(loader) and min(gpu.blocked[:-3]) >= 3      # the three copies of the next batch's results
    assert gpu.log.count("own waits for event") == len(loader)
    np.testing.assert_allclose(got.logits, expected[0].logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got.labels, expected[0].labels)
    assert got.loss == pytest.approx(expected[0].loss, rel=1e-5)
    gpu.blocked.clear()
    with watched_host() as waits:
        probabilities = predict(model, loader)
    assert waits == [] and len(gpu.blocked) == len(loader) and min(gpu.blocked[:-1]) >= 1
    np.testing.assert_allclose(probabilities, expected[1], rtol=1e-4, atol=1e-5)


def test_the_search_of_an_atlas_waits_for_the_batch_before_and_fetches_the_one_behind(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, photos, model = ["relu", "flatten"], pictures(9), net()
    monkeypatch.setattr(strongest, "PASS", 2)

    def search() -> list[tuple[int, list[Any]]]:
        with Shards(1) as shards:
            return list(strongest.strongest(model, photos, layers, "max", ToArray(), 0, 4, shards))

    expected = search()
    model.to("cuda")
    with watched_host() as waits:
        got = search()
    assert waits == [] and [done for done, _ in got] == [2, 4, 6, 8, 9, 9]
    assert len(gpu.blocked) == 5 * 4 and min(gpu.blocked[:-4]) >= 4      # the four copies of the next batch's results
    assert gpu.log.count("own waits for event") == 5
    for one, other in zip(*([photo for _, seen in side for photo in seen] for side in (got, expected)), strict=True):
        assert one.image == other.image
        for layer in layers:
            np.testing.assert_array_equal(one.layers[layer][0], other.layers[layer][0])
            np.testing.assert_allclose(one.layers[layer][1], other.layers[layer][1], rtol=1e-4, atol=1e-5)


def test_the_projections_of_an_atlas_wait_for_the_photos_before_and_fetch_those_behind(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = pictures(9)
    side = photos.images.shape[1]
    model, other = (nn.Sequential(
        conv=nn.Conv2d(3, 4, 3, padding=1, rng=np.random.default_rng(seed)), norm=nn.BatchNorm2d(4), relu=nn.ReLU(),
        pool=nn.MaxPool2d(2), deep=nn.Conv2d(4, 4, 3, padding=1, rng=np.random.default_rng(seed)), again=nn.ReLU(),
        pad=nn.Pad((1, 1, 1, 1), "reflect"), flatten=nn.Flatten(), fc=nn.Linear(
            4 * (side // 2 + 2) ** 2, 3, rng=np.random.default_rng(seed)),
    ) for seed in (0, 1))
    monkeypatch.setattr(patches, "_CHUNK", 4)
    monkeypatch.setattr(unit_walks, "_MOST", 1.0)
    for layer in ("relu", "again", "fc"):                       # small parts, large ones, and a layer without maps
        found = top.top_activations(model, photos, [layer], 6, progress=False)
        images = len(np.unique(found[layer].images))

        def make(layer: str = layer, found: top.TopActivations = found) -> Any:
            return patches.unit_patches(model, photos, found, layer, control=other)

        expected, areas = make(), [unit.areas for unit in patches.unit_patches(model, photos, found, layer, [0], steps=3)]
        model.to("cuda")
        other.to("cuda")
        monkeypatch.setattr(unit_walks, "GPU_BYTES", 1 << 30)
        gpu.blocked.clear()
        gpu.log.clear()
        with watched_host() as waits:
            got = make()
        batches = -(-images // 4)
        assert waits == [] and gpu.log.count("own waits for event") == batches
        assert len(gpu.blocked) == 2 * batches and min(gpu.blocked[:-2], default=2) >= 2      # a copy by each of the two ways
        for unit, its in zip(patches.unit_patches(model, photos, found, layer, [0], steps=3), areas, strict=True):
            np.testing.assert_allclose(unit.areas, its, rtol=1e-3)
        model.to("cpu")
        other.to("cpu")
        for unit, its in zip(got, expected, strict=True):
            np.testing.assert_array_equal(unit.patches, its.patches)
            for name in ("projections", "controls"):
                whole = np.abs(getattr(its, name)).max()
                np.testing.assert_allclose(getattr(unit, name), getattr(its, name), rtol=0, atol=1e-5 * whole)


def test_experiments_over_many_photos_wait_for_the_batch_before_and_fetch_the_one_behind(gpu: FakeCuda) -> None:
    model, photos = net(), pictures(9)
    x = np.stack([ToArray()(image, np.random.default_rng(0)) for image, _ in (photos[i] for i in range(9))])
    evolution = interpret.Evolution(x, {"relu": [0, 3], "flatten": [1, 2, 5]}, batch_size=2)

    def shares() -> dict[str, np.ndarray]:
        return interpret.active_shares(model, ((x[i : i + 2], None) for i in range(0, 9, 2)), ["relu", "leaky"])

    def invariance() -> Any:
        return interpret.invariance(
            model, photos.images[:2], [0, 1], lambda photo, _: ToArray()(photo, np.random.default_rng(0)), first="relu",
            last="flatten", shifts=[-2, 0, 3], scales=[1.0, 1.5], angles=[90], batch_size=2,
        )

    def strengths() -> list[Any]:
        with Shards(1) as shards:
            return [[np.asarray(part) for part in found] for _, *found in fetched(evolution._strengths(model, shards))]

    # What each gives, its batches, and the arrays that come back of each.
    experiments: list[tuple[Callable[[], Any], int, int]] = [(shares, 5, 2), (invariance, 9, 3), (strengths, 5, 2)]
    projected = interpret.Evolution(x, {"relu": [0, 3]}, batch_size=2)
    expected, frames = [call() for call, _, _ in experiments], projected.look(model, 1)
    model.to("cuda")
    found = []
    for call, batches, copies in experiments:
        gpu.blocked.clear()
        gpu.log.clear()
        with watched_host() as waits:
            found.append(call())
        assert waits == [] and gpu.log.count("own waits for event") == batches
        assert len(gpu.blocked) == batches * copies and min(gpu.blocked[:-copies]) >= copies
    for layer, share in expected[0].items():
        np.testing.assert_array_equal(found[0][layer], share)
    for curve, other in zip(found[1].curves, expected[1].curves, strict=True):
        for part in ("first", "last", "probability"):
            np.testing.assert_allclose(getattr(curve, part), getattr(other, part), rtol=1e-3, atol=1e-5)
    for one, other in zip(found[2], expected[2], strict=True):
        for part, its in zip(one, other, strict=True):
            np.testing.assert_allclose(part, its, rtol=1e-4, atol=1e-5)
    for frame, its in zip(projected.look(model, 1), frames, strict=True):
        assert frame[:5] == its[:5]
        np.testing.assert_allclose(frame.projection, its.projection, atol=2e-3)
