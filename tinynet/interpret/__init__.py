"""See inside a trained network: from any unit back to pixels, and the study of Zeiler & Fergus (2014).

    x = …                                                    # (N, 3, H, W), as the model takes it
    picture = interpret.deconvnet(model).attribute(x, layer="conv5", unit=(12, "max"))

All methods are one walk back over the record of a forward pass; they differ in the rule at a layer.
"""

from .attribution import Attribution
from .cam import grad_cam
from .deconvnet import deconv, deconvnet
from .gradients import input_x_gradient, integrated_gradients, saliency, smoothgrad
from .guided import guided_backprop
from .mirror import Mirror, mirror

__all__ = [
    "Attribution", "deconvnet", "deconv", "mirror", "Mirror", "guided_backprop",
    "saliency", "input_x_gradient", "integrated_gradients", "smoothgrad", "grad_cam",
]
