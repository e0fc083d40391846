"""How the C library keeps memory that was given back."""

import ctypes

# Of its `mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 64 << 20
_OWN_PAGES_BYTES = 16 << 20


def keep_freed_memory() -> None:
    """Has this process use memory again that it gave back, where the C library is GNU's.

    By itself it hands pieces as large as those of bodies and answers back to the kernel at once, and for the
    next ones the kernel clears pages anew: a tenth of the time of an upload.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _OWN_PAGES_BYTES)
