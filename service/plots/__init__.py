"""Figures from mixtures and points, by matplotlib's objects: no pyplot, and the same bytes each time."""

from service.plots.criteria import criteria
from service.plots.density import density
from service.plots.loss import loss
from service.plots.recovery import recovery
from service.plots.rendering import render
from service.plots.scatter import scatter

__all__ = ["criteria", "density", "loss", "recovery", "render", "scatter"]
