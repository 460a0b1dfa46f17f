"""evaluate and predict: what they give does not depend on batches or threads, and the mirror means what it says."""

from __future__ import annotations

import numpy as np
import pytest

from tinynet import nn
from tinynet.distributed import Shards
from tinynet.errors import ArgumentError, ShapeError, TinynetError
from tinynet.train import evaluate, predict


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    return nn.Sequential(
        conv=nn.Conv2d(3, 4, 3, rng=rng), relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(), fc=nn.Linear(16, 3, rng=rng)
    ).to(dtype=np.float64)


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(1)
    return rng.standard_normal((7, 3, 6, 6)), rng.integers(0, 3, 7)


def batches(x, y, size):
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_and_threads_change_nothing(model, photos, size, workers):
    x, y = photos
    with Shards(workers) as shards:
        result = evaluate(model, batches(x, y, size), nn.CrossEntropyLoss(), shards)
    np.testing.assert_allclose(result.logits, model(x), rtol=0, atol=1e-14)
    assert result.loss == pytest.approx(float(nn.CrossEntropyLoss()(model(x), y)[0]), abs=1e-14)
    np.testing.assert_array_equal(result.labels, y)


def test_the_mirror_is_the_mean_of_both_views(model, photos):
    x, y = photos
    both = (model(x) + model(x[..., ::-1])) / 2
    np.testing.assert_allclose(evaluate(model, batches(x, y, 4), views=2).logits, both, rtol=0, atol=1e-14)
    e = np.exp(both)
    np.testing.assert_allclose(predict(model, x, views=2), e / e.sum(axis=1, keepdims=True), rtol=0, atol=1e-14)
    assert not np.allclose(both, model(x))
    seen_mirrored = evaluate(model, batches(np.ascontiguousarray(x[..., ::-1]), y, 4), views=2)
    np.testing.assert_allclose(seen_mirrored.logits, both, rtol=0, atol=1e-14)


def test_ten_views_are_the_centre_and_the_corners_in_and_out_of_the_mirror():
    """On 32×32 pixels the corners are two pixels away; a model that adds up all pixels with weights sees each view."""
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((2, 1, 32, 32)), rng.standard_normal((1, 32 * 32))
    model = nn.Sequential(flatten=nn.Flatten(), fc=nn.Linear(32 * 32, 1, bias=False)).to(dtype=np.float64)
    model.load_state_dict({"fc.weight": w})
    wide = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    views = [wide[:, :, i : i + 32, j : j + 32] for i, j in [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)]]
    views += [view[..., ::-1] for view in views]
    expected = np.mean([view.reshape(2, -1) @ w.T for view in views], axis=0)
    np.testing.assert_allclose(evaluate(model, [(x, np.zeros(2, int))], views=10).logits, expected, rtol=0, atol=1e-12)
    with pytest.raises(ArgumentError, match="10 views"):
        predict(model, x, views=3)


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_a_batch_has_a_whole_number_of_images(model, size):
    with pytest.raises(TinynetError, match=r"predict: expected batch_size .*, got"):
        predict(model, np.zeros((2, 3, 8, 8), np.float32), batch_size=size)


def test_nothing_to_look_at_is_an_error(model):
    with pytest.raises(ArgumentError, match="empty loader"):
        evaluate(model, [])
    with pytest.raises(ArgumentError, match="at least one image"):
        predict(model, [])


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(-1)], ids=repr)
@pytest.mark.parametrize("views", [1, 2])
def test_a_model_that_ends_in_softmax_gets_no_second_one(model, photos, end, views):
    x, y = photos
    whole = nn.Sequential(net=model, prob=end)
    np.testing.assert_array_equal(predict(whole, x, views=views), predict(model, x, views=views))
    found, plain = (evaluate(m, batches(x, y, 3), views=views) for m in (whole, model))
    np.testing.assert_array_equal(found.logits, plain.logits)
    assert found.metrics()["auc"] == plain.metrics()["auc"]


def test_the_loss_is_of_what_the_model_gives(model, photos):
    x, y = photos
    plain = evaluate(model, [(x, y)], nn.CrossEntropyLoss()).loss
    logs = nn.Sequential(net=model, log=nn.LogSoftmax(1))
    assert evaluate(logs, [(x, y)], nn.NLLLoss()).loss == pytest.approx(plain, abs=1e-12)
    whole, one_hot = nn.Sequential(net=model, prob=nn.Softmax(1)), np.eye(3)[y]

    def squares(output, labels):
        return nn.MSELoss()(output, np.eye(3)[labels])

    assert evaluate(whole, [(x, y)], squares).loss == pytest.approx(((whole(x) - one_hot) ** 2).mean(), abs=1e-12)


def test_a_model_without_classes_is_one_line(model, photos):
    x, _ = photos
    maps = nn.Sequential(conv=nn.Conv2d(3, 4, 3, rng=np.random.default_rng(0))).to(dtype=np.float64)
    with pytest.raises(ShapeError, match=r"expected a model with an output \(N, classes\), got \(7, 4, 4, 4\)"):
        predict(maps, x)
    with pytest.raises(ArgumentError, match="ends in Sigmoid"):
        predict(nn.Sequential(net=model, yes=nn.Sigmoid()), x)
