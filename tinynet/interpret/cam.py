"""Grad-CAM: which places of a layer's maps speak for a class (Selvaraju et al. 2017)."""

from __future__ import annotations

from typing import Any

from ..backend import Array, array_module
from ..errors import ArgumentError, ShapeError
from ..functional import interpolate
from ..nn import Layer
from .attribution import Attribution
from .units import Record, Unit, select, targets


class grad_cam(Attribution):
    """max(Σ_k α_k A_k, 0), with A_k the maps of `layer` and α_k the mean gradient of the class over map k (equations 1 and 2).

    grad_cam(model, "conv5").attribute(x, target=class) returns (N, 1, H, W), enlarged to the size of x; `coarse` the
    map as it is.
    """

    name = "Grad-CAM"

    def __init__(self, model: Layer, layer: str, workers: int | None = None) -> None:
        super().__init__(model, workers)
        self.model.layer(layer)
        self.layer = layer

    def coarse(self, x: Array, target: Any = None) -> Array:
        """The map at the layer's own size: (N, 1, h, w)."""
        return self.share(self._coarse, x, targets(x, target))

    def _coarse(self, x: Array, target: Array | None) -> Array:
        maps: list[Array] = []
        arrived: list[Array] = []

        def watch(path: str, _: Layer, y: Array) -> None:
            if path == self.layer:
                maps.append(y)

        def catch(path: str, _: Layer, signal: Any) -> Any:
            if path != self.layer:
                return signal
            arrived.append(signal)
            return None                                         # what lies below is not wanted

        y, saved = self.model.forward(x, watch=watch)           # type: ignore[call-arg]
        self.model.reverse(saved, select(Record(self.model, saved, y, None), target, None), self.step, catch)
        if not maps:
            raise ArgumentError(f"layer {self.layer!r} has no output of its own; name a layer or a named container")
        if maps[0].ndim != 4:
            shape = ", ".join(map(str, maps[0].shape[1:]))
            raise ShapeError(f"grad_cam: expected a layer with maps (N, C, h, w), {self.layer!r} gives (N, {shape})")
        if not arrived or arrived[0] is None:
            raise ArgumentError(f"grad_cam: no gradient arrives at {self.layer!r}")
        alpha = arrived[0].mean(axis=(2, 3), keepdims=True)     # (N, C, 1, 1)
        return array_module(y).maximum((alpha * maps[0]).sum(axis=1, keepdims=True), 0)

    def attribute(self, x: Array, target: Any = None, *, layer: str | None = None, unit: Unit | None = None) -> Array:
        """The map enlarged to (N, 1, H, W), bilinearly."""
        if layer is not None or unit is not None:
            raise ArgumentError("grad_cam: give the layer to grad_cam(model, layer), and a class as target=")
        return interpolate(self.coarse(x, target), size=tuple(x.shape[2:]), mode="bilinear", align_corners=False)
