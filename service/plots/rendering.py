"""From a figure to the bytes of a file."""

import io
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure

# Identifiers in an SVG are hashes; unsalted they would be random. Matplotlib takes the salt from here only.
mpl.rcParams["svg.hashsalt"] = "mixserve"

# Matplotlib writes the time of day and its own name and version into files, unless told not to.
_METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def render(figure: Figure, image_format: Literal["png", "svg"]) -> bytes:
    """The figure as a PNG or SVG file: the same bytes for the same figure, with no date in them."""
    file = io.BytesIO()
    figure.savefig(file, format=image_format, metadata=_METADATA[image_format])
    return file.getvalue()
