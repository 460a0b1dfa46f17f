"""A step that is refused has not happened."""

from __future__ import annotations

import numpy as np
import pytest

from tests.train import runs


def test_an_error_within_a_step_leaves_the_model_as_it_was_and_the_run_can_go_on() -> None:
    whole = runs.trainer()
    whole.fit()
    run, loss, before = runs.trainer(), runs.trainer().loss, {}

    def refuses(logits: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
        if run.state.step == 7 and not before:                  # behind the forward pass, which moves running statistics
            before.update({name: x.copy() for name, x in run.optimizer.param_groups[0]["params"].items()})
            raise ValueError("refused")
        return loss(logits, target)

    run.loss = refuses
    with pytest.raises(ValueError, match="refused"):
        run.fit()
    assert run.model.norm.num_batches_tracked == 7
    for name, x in run.model.named_parameters().items():
        np.testing.assert_array_equal(x, before[name], err_msg=name)
    run.fit()
    assert runs.fingerprint(run) == runs.fingerprint(whole)
