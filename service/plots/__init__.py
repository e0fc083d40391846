"""Figures from mixtures and points, by matplotlib's objects: no pyplot, and the same bytes each time."""

from service.plots.recovery import recovery
from service.plots.rendering import render
from service.plots.scatter import scatter

__all__ = ["recovery", "render", "scatter"]
