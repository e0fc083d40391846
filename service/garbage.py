"""How often a process looks for garbage that refers to itself."""

import gc

_YOUNG_OBJECTS = 200_000


def look_seldom() -> None:
    """Has Python's collector look for cycles after many more new objects than by default.

    Loading what a process needs makes hundreds of thousands of objects that stay, and a body of points
    millions of small lists without cycles: looking through them again and again takes a fifth of the time of
    a start, and longer than parsing the body.
    """
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)
