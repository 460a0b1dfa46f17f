"""The benchmark against PyTorch on a CPU: what it compares is the same on both sides, and it counts right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))                    # where its modules find each other, as in a run

import cases  # noqa: E402
import floors  # noqa: E402
import footprint  # noqa: E402
import looking  # noqa: E402
import pages  # noqa: E402
import speed  # noqa: E402
import targets  # noqa: E402
import where  # noqa: E402
from twin import twin  # noqa: E402

from tinynet import interpret, nn  # noqa: E402
from tinynet.data import ArrayDataset  # noqa: E402


def test_it_refuses_a_pinned_blas_in_one_line() -> None:
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Haswell"}
    command = [sys.executable, "benchmarks/speed.py", "--only", "ops"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and run.stderr.count("\n") == 1 and "env -u OPENBLAS_CORETYPE" in run.stderr, run.stderr


@pytest.mark.parametrize("name", [name for name in cases.NETS if "32²" in name or "cat" in name])
def test_the_twin_computes_the_same(name: str) -> None:
    model, size = cases.network(name, np.random.default_rng(0)), cases.NETS[name][1]
    x = np.random.default_rng(1).standard_normal((2, *size[1:]), dtype=np.float32)
    theirs = twin(model).eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(model(x), theirs, rtol=0, atol=2e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("name", cases.OPS)
def test_every_op_has_a_twin(name: str) -> None:
    build, size = cases.OPS[name]
    layer = build(np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((2, *size[1:]), dtype=np.float32)[..., : size[-1]]
    theirs = twin(layer).eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(layer(x), theirs, rtol=0, atol=2e-4 * max(1, np.abs(theirs).max()))


def test_losses_are_the_same_on_both_sides() -> None:
    for name, ((ours, _), (theirs, _)) in speed.losses().items():
        np.testing.assert_allclose(ours(), theirs().numpy(), rtol=1e-4, err_msg=name)


def test_gflops_and_the_geometric_mean() -> None:
    rows = [
        {"name": "a", "tinynet": {"median": 0.5}, "torch": {"median": 1.0}, "ratio": 0.5, "images": 4, "multiply_adds": 25e9,
         "floor": {"median": 0.3}},
        {"name": "b", "tinynet": {"median": 2e-4}, "torch": {"median": 1e-4}, "ratio": 2.0},
    ]
    lines = pages.table(rows, peak=400).splitlines()
    assert lines[2] == "| a | 500.0 | 300.0 | 1000.0 | 0.50 | 8 | 100 | 25 % |"
    assert lines[3] == "| b | 0.20 |  | 0.10 | 2.00 |  |  |  |"
    assert lines[4].startswith("| geometric mean of 2 | | | | 1.00 |")


def test_a_floor_counts_the_products_of_a_step_what_is_laid_out_for_them_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiply-adds of the direct way: of a 1×1 and a 5×5 convolution and a linear layer, for all samples and both threads."""
    rng, count, copied = np.random.default_rng(0), [0], [0]
    model = nn.Sequential(
        nn.Conv2d(3, 4, 5, padding=2, rng=rng), nn.ReLU(), nn.Conv2d(4, 6, 1, rng=rng), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(6 * 16, 10, rng=rng),
    )
    matmul, copyto = np.matmul, np.copyto

    def counted(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
        count[0] += out.size * a.shape[-1]
        return matmul(a, b, out=out)

    def noted(target: np.ndarray, source: np.ndarray) -> None:
        copied[0] += target.size
        copyto(target, source)

    monkeypatch.setattr(floors, "TILES", ())                    # direct alone, whatever is quicker here
    direct = nn.summary(model, (3, 8, 8)).multiply_adds * 4
    first = 4 * 3 * 25 * 64 * 4                                 # whose input gradient nobody asks for
    with floors.Shards(2) as shards:
        for training, expected in ((False, direct), (True, 3 * direct - first)):
            step = floors.floor(model, (4, 3, 8, 8), training, shards)
            count[0] = copied[0] = 0
            with monkeypatch.context() as patch:
                patch.setattr(np, "matmul", counted)
                patch.setattr(np, "copyto", noted)
                step()
            assert count[0] == expected
            pooling, lines = 4 * 6 * 16, 4 * 3 * 5 * 64         # of the 5×5, which need laying out for dW, too; the 1×1 none
            assert copied[0] == (pooling + lines) * (1 + training)


@pytest.mark.parametrize("m", [4, 2])
def test_the_floor_of_winograds_algorithm_has_its_products_and_transforms(monkeypatch: pytest.MonkeyPatch, m: int) -> None:
    count, matmul, (o, c, tiles) = [0], np.matmul, (6, 4, 10)

    def counted(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
        count[0] += out.size * a.shape[-1]
        return matmul(a, b, out=out)

    monkeypatch.setattr(np, "matmul", counted)
    cells, outputs, taps = 36 * 36 * c * tiles, 36 * m * m * o * tiles, 36 * (7 - m) ** 2 * o * c // 2     # shared by two threads
    for training, first, expected in (
        (False, False, cells + outputs + 36 * o * c * tiles), (True, True, 2 * (cells + outputs + 36 * o * c * tiles) + taps),
        (True, False, 3 * (cells + 36 * o * c * tiles) + 2 * outputs + taps),
    ):
        count[0] = 0
        for part in floors._winograd(m, (o, c), tiles, 5, training, first):
            part()
        assert count[0] == expected


def test_a_target_is_reached_open_or_out_of_reach() -> None:
    def row(name: str, ratio: float, floor: float) -> dict:
        return {"name": name, "ratio": ratio, "torch": {"median": 2.0}, "floor": {"median": 2 * floor}}

    nets = [
        row("VGG11, 224², batch 8: training step", 0.59, 0.7), row("VGG11, 224², batch 8: inference", 0.8, 0.41),
        row("AlexNet, 224², batch 16: training step", 0.9, 0.8),
    ]
    one = {"nets": nets, "ops": [row("a", 0.5, 0.1), row("b", 2.0, 1.6)]}
    lines = targets.targets_table({"A": one}).splitlines()[2:]
    assert [line.split(" | ")[-1] for line in lines] == [
        "reached |", "out of reach: the floor is above it |", "open |", "open |", "out of reach: the floor is above it |",
    ]
    assert lines[3] == "| single ops: geometric mean | 0.70 | 1.00 | 0.40 | open |"
    other = {"nets": [row("VGG11, 224², batch 8: training step", 0.61, 0.5)]}
    lines = targets.targets_table({"A": one, "B": other}).splitlines()[2:]
    assert lines[0] == "| VGG11, 224², batch 8: training step | 0.60 | 0.59 | 0.70 | 0.61 | 0.50 | A: reached; B: open |"
    assert lines[1].endswith("| 0.40 | 0.80 | 0.41 |  |  | out of reach: the floor is above it |")      # B did not measure it


def test_the_body_is_held_against_direct_convolution_at_the_peak() -> None:
    body = {"name": "VGG11's convolutions alone, 224², batch 8: inference", "ratio": 1.0, "torch": {"median": 1.0}}
    body |= {"tinynet": {"median": 0.5}, "floor": {"median": 0.2}, "multiply_adds": 50e9}              # 1 s at 100 GFLOP/s
    record = {"machine": {"matrix product": {"tinynet": 100}}, "nets": [body]}
    assert targets.targets_table({"A": record}).splitlines()[2:] == [
        "| VGG11's convolutions, forward: of direct convolution's time at the product's peak | 0.71 | 0.50 | 0.20 | reached |"
    ]


def test_the_clock_counts_every_kind_of_layer_once_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> nn.Sequential:
        rng = np.random.default_rng(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, rng=rng), nn.BatchNorm2d(8),
            nn.Flatten(), nn.Linear(8 * 36, 10, rng=rng),
        )

    x, target = np.random.default_rng(1).standard_normal((6, 3, 16, 16), dtype=np.float32), np.arange(6)
    model, watched = build(), build()
    clock = where.Clock(watched)
    with where.Shards(2) as shards:
        rngs = [np.random.default_rng(i) for i in range(2)]
        for step in (lambda m: shards.infer(m, x), lambda m: shards.step(m, nn.CrossEntropyLoss(), x, target, rngs).logits):
            np.testing.assert_array_equal(step(watched), step(model))
            whole, kinds = where.clocked(clock, lambda step=step: step(watched), 2)
            assert min(kinds.values()) > 0 and sum(kinds.values()) < whole
    linear, ticks = nn.Linear(3, 2, rng=np.random.default_rng(0)), iter(range(100))
    clock = where.Clock(linear)
    with monkeypatch.context() as patch:
        patch.setattr(where.time, "perf_counter", lambda: next(ticks))
        linear.gradients(nn.Linear.Saved(x[0, :, :3, 0]), x[0, :, :2, 0])       # which calls two more of its methods
    assert clock.seconds == {"linear layers": 1}
    lines = where.where_table([{"name": "net: inference", "step": 10.0, "kinds": dict.fromkeys(where.KINDS, 2.0),
                                "floors": dict.fromkeys(where.KINDS, 1.0)}]).splitlines()
    assert lines[2] == "| net: inference | 10.0 | 2.0 (1.0) | 2.0 (1.0) | 2.0 (1.0) | 2.0 (1.0) | 2.0 |"


def test_a_processor_has_one_file_whatever_stands_around_its_name() -> None:
    for name, file in (
        ("Intel(R) Xeon(R) Processor", "speed-intel-xeon.json"), ("AMD EPYC", "speed-amd-epyc.json"),
        ("Intel(R) Core(TM) i7-8565U CPU @ 1.80GHz", "speed-intel-core-i7-8565u-1-80ghz.json"),
        ("", "speed-unknown-processor.json"),
    ):
        assert pages.results(name).name == file == pages.results(pages.short(name)).name


@pytest.mark.parametrize(("side", "other"), [("tinynet", "torch"), ("torch", "tinynet")])
def test_a_process_that_measures_one_side_loads_not_the_other(side: str, other: str, tmp_path: Path) -> None:
    net, file = "cat net, 224², batch 16", tmp_path / "module.pt"
    torch.save((twin(cases.network(net, np.random.default_rng(0))), (2, 3, 64, 64)), file)
    code = (
        f"import sys; sys.path.insert(0, 'benchmarks'); import footprint; footprint._{side}"
        f"({(net if side == 'tinynet' else str(file))!r}, 'nothing', 1); "
        f"assert {other!r} not in sys.modules; assert {side!r} in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_memory_of_a_process_is_its_own() -> None:
    """Linux hands the largest size of the parent down in ru_maxrss; ours is large here."""
    ballast = np.ones(60_000_000)
    assert footprint._peak("tinynet", "cat net, 224², batch 16", "nothing", 1) < ballast.nbytes / 1e6


def test_captums_atlas_is_of_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """The places that both sides project are the same; what Captum is given is caught on its way."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(features=nn.Sequential(nn.Conv2d(3, 4, 3, rng=rng), nn.ReLU(), nn.Conv2d(4, 6, 3, rng=rng), nn.ReLU()))
    images = rng.integers(0, 256, (12, 10, 10, 3), dtype=np.uint8)
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / 255)
    dataset = ArrayDataset(images, np.zeros(12, np.int64), ["photo"])
    top = interpret.top_activations(model, dataset, ["features.3"], progress=False)
    module, picked = twin(model).eval(), []
    layer = dict(module.named_modules())[looking.twin_path(model, "features.3")]

    def attribute(self, photos, neuron_selector):
        with torch.no_grad():
            picked.append(neuron_selector(module(photos)).numpy())

    monkeypatch.setattr(looking, "UNITS", 6)
    monkeypatch.setattr(looking.NeuronDeconvolution, "attribute", attribute)
    looking.captum_atlas(module, layer, x)
    np.testing.assert_allclose(np.array(picked), top["features.3"].values, rtol=1e-5, atol=1e-6)
