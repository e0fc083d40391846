"""What a device says that has no more memory."""

from __future__ import annotations

import errno

import torch

# The CPU's allocator, a library's workspace, and the driver, whose device is as it was before.
_IN_WORDS = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had; in places torch says so in words only."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return any(words in str(error) for words in _IN_WORDS)
