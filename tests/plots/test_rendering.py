"""The bytes of a picture: valid, the same each time, and made without matplotlib's global machinery."""

import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor

import pytest

from service import plots
from tests.plots.conftest import drawn

FORMATS = ["png", "svg"]


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_same_figure_gives_the_same_bytes(gold, image_format):
    first, second = (
        plots.render(plots.scatter(gold, *drawn(gold), title="gold"), image_format) for _ in range(2)
    )
    assert first == second


def test_threads_that_draw_at_once_draw_the_same(gold):
    def picture(_: int) -> bytes:
        return plots.render(plots.scatter(gold, *drawn(gold, 50)), "svg")

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(picture, range(8)))) == 1


def test_a_png_is_a_png_and_says_nothing_of_when_or_by_what(gold):
    content = plots.render(plots.scatter(gold, *drawn(gold)), "png")
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (672, 648)
    assert b"tEXt" not in content


def test_an_svg_is_xml_and_says_nothing_of_when(gold):
    content = plots.render(plots.scatter(gold, *drawn(gold)), "svg")
    root = ET.fromstring(content)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in content


def test_many_points_do_not_make_an_svg_of_megabytes(gold):
    content = plots.render(plots.scatter(gold, *drawn(gold, 20_000)), "svg")
    assert len(content) < 1_000_000
    assert b"<image" in content


def test_pyplot_is_never_imported():
    code = "import sys, service.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
