"""Covariance families by their names in a request."""

from service.mixture.families.diagonal import Diagonal
from service.mixture.families.diagonal_shapes import (
    EqualDiagonals,
    EqualSpheres,
    EqualVolumeDiagonals,
    ScaledDiagonals,
)
from service.mixture.families.family import Family
from service.mixture.families.full import Full
from service.mixture.families.full_shapes import EqualVolumeMatrices, ScaledMatrices
from service.mixture.families.oriented_shapes import (
    EqualVolumeParallelEllipsoids,
    ParallelEllipsoids,
    TurnedEllipsoids,
    TurnedScaledEllipsoids,
)
from service.mixture.families.spherical import Spherical
from service.mixture.families.tied import Tied

# scikit-learn's four names, then mclust's fourteen; VVV, EEE, VVI and VII are the same four again.
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Full(),
        Tied(),
        Diagonal(),
        Spherical(),
        EqualSpheres(),
        Spherical("VII"),
        EqualDiagonals(),
        ScaledDiagonals(),
        EqualVolumeDiagonals(),
        Diagonal("VVI"),
        Tied("EEE"),
        ScaledMatrices(),
        EqualVolumeParallelEllipsoids(),
        ParallelEllipsoids(),
        TurnedEllipsoids(),
        TurnedScaledEllipsoids(),
        EqualVolumeMatrices(),
        Full("VVV"),
    )
}

__all__ = ["FAMILIES", "Family"]
