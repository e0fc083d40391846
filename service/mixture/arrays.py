"""The same lines for numpy's arrays and torch's tensors: on the CPU a small call of numpy's costs a third."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Numbers: TypeAlias = Any
"""A tensor, or in its place an array of numpy's where few numbers lie on the CPU."""


def library(numbers: Numbers) -> Any:
    """The module whose functions these numbers are for: numpy or torch."""
    return np if type(numbers) is np.ndarray else torch


def quick(tensor: Tensor) -> Numbers:
    """The same memory for numpy where it lies on the CPU; a tensor on a GPU stays one."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def tensor_of(numbers: Numbers) -> Tensor:
    """The same memory as a tensor."""
    return torch.from_numpy(numbers) if type(numbers) is np.ndarray else numbers


def like(numbers: Numbers, others: Numbers) -> Numbers:
    """The others' memory in the kind that these numbers are of."""
    if type(numbers) is type(others):
        return others
    return others.numpy() if type(numbers) is np.ndarray else torch.from_numpy(others)


def at_least(numbers: Numbers, lowest: float) -> Numbers:
    """The larger of each number and the lowest."""
    return np.maximum(numbers, lowest) if type(numbers) is np.ndarray else numbers.clamp_min(lowest)


def at_most(numbers: Numbers, highest: float) -> Numbers:
    """The smaller of each number and the highest."""
    return np.minimum(numbers, highest) if type(numbers) is np.ndarray else numbers.clamp_max(highest)


def log_softmax(numbers: Numbers) -> Numbers:
    """Logarithms (R, K) less that of their exponentials' sum over k."""
    if type(numbers) is not np.ndarray:
        return torch.log_softmax(numbers, dim=1)
    shifted = numbers - numbers.max(1, keepdims=True)
    return shifted - np.log(np.add.reduce(np.exp(shifted), axis=1, keepdims=True))


def broadcast(numbers: Numbers, shape: tuple[int, ...]) -> Numbers:
    """The numbers repeated to this shape; torch takes over none of numpy's that share their memory."""
    spread = library(numbers).broadcast_to(numbers, shape)
    return spread.copy() if type(numbers) is np.ndarray else spread
