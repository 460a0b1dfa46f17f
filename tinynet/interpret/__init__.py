"""See inside a trained network: from any unit back to pixels, and the study of Zeiler & Fergus (2014).

    x = …                                                    # (N, 3, H, W), as the model takes it
    picture = interpret.deconvnet(model).attribute(x, layer="conv5", unit=(12, "max"))

All methods are one walk back over the record of a forward pass; they differ in the rule at a layer.
"""

from ..nn import ReceptiveField, receptive_field
from .atlas import LayerAtlas, layer_atlas, layer_sheet
from .attribution import Attribution
from .cam import grad_cam
from .control import cascade, control_projection, randomised
from .correspondence import Correspondence, correspondence, plot_correspondence
from .deconvnet import deconv, deconvnet
from .deletion import deletion, insertion
from .evolution import Evolution, plot_evolution
from .explain import Explanation, explain
from .explain_photos import explain_photos
from .family import family, localisation
from .filters import (
    FilterConstraint,
    active_shares,
    filter_pictures,
    filter_statistics,
    plot_filters,
    renormalise_filters,
)
from .gradients import input_x_gradient, integrated_gradients, saliency, smoothgrad
from .guided import guided_backprop
from .invariance import Invariance, invariance, plot_invariance
from .maximise import Maximisation, first_layer_optimum, maximise, plot_maximisation
from .mirror import Mirror, mirror
from .occlusion import Covered, Occlusion, covered, occlusion, plot_occlusion
from .patches import UnitPatches, unit_patches
from .report import make_atlas
from .scores import centre_guess, chance, energy_inside, pointing, rank_correlation, ssim
from .top import TopActivations, top_activations

__all__ = [
    "Attribution", "deconvnet", "deconv", "mirror", "Mirror", "guided_backprop",
    "saliency", "input_x_gradient", "integrated_gradients", "smoothgrad", "grad_cam",
    "Occlusion", "occlusion", "plot_occlusion", "Covered", "covered", "Invariance", "invariance", "plot_invariance",
    "Evolution", "plot_evolution", "Correspondence", "correspondence", "plot_correspondence",
    "FilterConstraint", "active_shares", "filter_pictures", "filter_statistics", "plot_filters", "renormalise_filters",
    "TopActivations", "top_activations", "UnitPatches", "unit_patches", "LayerAtlas", "layer_atlas", "layer_sheet",
    "make_atlas", "Explanation", "explain", "explain_photos", "family", "localisation",
    "receptive_field", "ReceptiveField", "randomised", "cascade", "control_projection",
    "rank_correlation", "ssim", "deletion", "insertion", "pointing", "energy_inside", "chance", "centre_guess",
    "Maximisation", "first_layer_optimum", "maximise", "plot_maximisation",
]
