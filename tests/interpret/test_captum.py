"""The gradient's family against Captum, on networks where Captum is right: every ReLU a module used once, not in place."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from tests.checking import close
from tests.interpret.nets import NETS, pair
from tinynet.interpret import grad_cam, guided_backprop, input_x_gradient, integrated_gradients, saliency

pytest.importorskip("captum")
from captum import attr

CAM_LAYERS = {"overlapping": "relu2", "squeeze": "features.3.expand3x3", "residual": "block2", "mixed": "relu3"}


def theirs(method: Any, x: np.ndarray, **how: Any) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                         # Captum says that it sets requires_grad, and hooks
        return np.asarray(method.attribute(torch.tensor(x), **how).detach())


@pytest.mark.parametrize("target", [1, [2, 0, 1]])
@pytest.mark.parametrize("name", NETS)
def test_the_gradients_family(name: str, target: Any) -> None:
    model, module, x = pair(name)
    target = target if isinstance(target, int) else target[: len(x)]
    close(saliency(model, absolute=True).attribute(x, target), theirs(attr.Saliency(module), x, target=target), "float64")
    close(saliency(model).attribute(x, target), theirs(attr.Saliency(module), x, target=target, abs=False), "float64")
    close(input_x_gradient(model).attribute(x, target), theirs(attr.InputXGradient(module), x, target=target), "float64")
    close(guided_backprop(model).attribute(x, target), theirs(attr.GuidedBackprop(module), x, target=target), "float64")


@pytest.mark.parametrize("steps", [1, 7, 20])
@pytest.mark.parametrize("name", NETS)
def test_integrated_gradients(name: str, steps: int) -> None:
    """Captum holds the points and weights of the rule in float32."""
    model, module, x = pair(name)
    baseline = np.full_like(x, 0.2)
    for base, given in ((0.0, None), (0.2, torch.tensor(baseline))):
        expected = theirs(attr.IntegratedGradients(module), x, target=1, n_steps=steps, baselines=given)
        close(integrated_gradients(model, steps).attribute(x, 1, baseline=base), expected, "float64", slack=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_grad_cam(name: str) -> None:
    model, module, x = pair(name)
    layer = CAM_LAYERS[name]
    method = attr.LayerGradCam(module, module.get_submodule(layer))
    coarse = theirs(method, x, target=1, relu_attributions=True)
    ours = grad_cam(model, layer)
    close(ours.coarse(x, 1), coarse, "float64")
    assert coarse.any()
    large = attr.LayerAttribution.interpolate(torch.tensor(coarse), x.shape[2:], "bilinear").numpy()
    close(ours.attribute(x, 1), large, "float64")


@pytest.mark.parametrize("name", NETS)
def test_the_gradient_of_a_unit_inside(name: str) -> None:
    model, module, x = pair(name)
    layer, neuron = CAM_LAYERS[name], (1, 1, 0)
    target = module.get_submodule(layer)
    close(
        saliency(model).attribute(x, layer=layer, unit=neuron),
        theirs(attr.NeuronGradient(module, target), x, neuron_selector=neuron), "float64",
    )
    close(
        guided_backprop(model).attribute(x, layer=layer, unit=neuron),
        theirs(attr.NeuronGuidedBackprop(module, target), x, neuron_selector=neuron), "float64",
    )
