"""The numerical core: mixtures, their densities, and fits by gradient descent. Torch and numpy, no I/O."""

from service.mixture.blocked_points import BlockedPoints, Points, in_memory
from service.mixture.blocks import FetchedBlocks, MappedBlocks
from service.mixture.fit import fit
from service.mixture.gaussian_mixture import GaussianMixture
from service.mixture.invalid import InvalidFit, InvalidMixture
from service.mixture.memory import estimate_fit_bytes, stays_on_disk
from service.mixture.options import COVARIANCE_TYPES, CRITERIA, INITIALIZATIONS, OPTIMIZERS, FitOptions
from service.mixture.out_of_memory import is_out_of_memory
from service.mixture.progress import ASKED, Outcome, Progress
from service.mixture.recovery import recover
from service.mixture.report import FitReport
from service.mixture.shards import ALONE, Group, Shards
from service.mixture.traces import Traces

__all__ = [
    "ALONE",
    "ASKED",
    "COVARIANCE_TYPES",
    "CRITERIA",
    "INITIALIZATIONS",
    "OPTIMIZERS",
    "BlockedPoints",
    "FetchedBlocks",
    "FitOptions",
    "FitReport",
    "GaussianMixture",
    "Group",
    "InvalidFit",
    "InvalidMixture",
    "MappedBlocks",
    "Outcome",
    "Points",
    "Progress",
    "Shards",
    "Traces",
    "estimate_fit_bytes",
    "fit",
    "in_memory",
    "is_out_of_memory",
    "recover",
    "stays_on_disk",
]
