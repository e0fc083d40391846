"""Covariance families by their names in a request."""

from service.mixture.families.diagonal import Diagonal
from service.mixture.families.family import Family
from service.mixture.families.full import Full
from service.mixture.families.spherical import Spherical
from service.mixture.families.tied import Tied

FAMILIES: dict[str, Family] = {family.name: family for family in (Full(), Tied(), Diagonal(), Spherical())}

__all__ = ["FAMILIES", "Family"]
