"""What this room raises: a value that cannot be served, and where in the request it lies."""

from __future__ import annotations


class InvalidMixture(ValueError):
    """Parameters that describe no Gaussian mixture; the message says which value and what to do.

    Attributes:
        path: where the value lies in the specification, such as ``("covariances", 2)``.
    """

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


class InvalidFit(ValueError):
    """A fit that cannot be run on these points; the message says what to change.

    Attributes:
        path: where the value lies in the request, such as ``("n_components",)``.
    """

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path
