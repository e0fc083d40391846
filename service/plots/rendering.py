"""From a figure to the bytes of a file."""

import io
from typing import Literal

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Identifiers in an SVG are hashes; unsalted they would be random. Matplotlib takes the salt from here only.
mpl.rcParams["svg.hashsalt"] = "mixserve"


def render(figure: Figure, image_format: Literal["png", "svg"]) -> bytes:
    """The figure as a PNG or SVG file: the same bytes for the same figure, with no date in them."""
    file = io.BytesIO()
    if image_format == "png":
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    else:
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    return file.getvalue()
