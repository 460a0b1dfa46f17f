"""A loss that gives no gradient is told so wherever a loss is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.train import runs
from tinynet import functional as F
from tinynet import nn
from tinynet.errors import ArgumentError
from tinynet.nn.loss import asked
from tinynet.train import evaluate

X, TARGET = np.ones((2, 3), np.float32), np.array([0, 2])


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss, lambda x, t: (1, x, t)], ids=["op", "class", "three"])
def test_a_loss_gives_value_and_gradient(loss: Any) -> None:
    message = r"loss: expected \(value, gradient\) of \(input, target\), as of nn\.CrossEntropyLoss\(\), got"
    with pytest.raises(ArgumentError, match=message):
        asked(loss, X, TARGET)
    with pytest.raises(ArgumentError, match=message):
        evaluate(nn.Identity(), [(X, TARGET)], loss)
    run = runs.trainer()
    run.loss = loss
    with pytest.raises(ArgumentError, match=message):
        run.fit()


def test_whatever_gives_the_two_is_a_loss() -> None:
    value, gradient = asked(lambda x, t: [x.sum(), x], X, TARGET)  # type: ignore[arg-type,return-value]
    assert value == 6 and gradient is X
