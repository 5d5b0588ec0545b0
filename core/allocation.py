"""How the process's allocator treats the activations of a forward.

Every layer asks for tensors of some megabytes and gives them back. glibc returns such memory to the
system and has it mapped and zeroed anew at the next layer, which is some hundredths of a forward
(https://www.gnu.org/software/libc/manual/html_node/Malloc-Tunable-Parameters.html).
"""

from __future__ import annotations

import ctypes
import os
import sys

SWITCH = "ISOGLOSS_MALLOC"
# mallopt's names for its parameters
TRIM_THRESHOLD = -1
MMAP_THRESHOLD = -3
# Freed memory that the process keeps at most.
KEPT_BYTES = 1 << 28
# Tensors up to this size come from memory that is kept; older releases take no more than 32 MiB.
LARGEST_BYTES = (1 << 28, 1 << 25)


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory for the next layer, up to 256 MiB; for the whole process.

    `ISOGLOSS_MALLOC=0` leaves the allocator alone. Other allocators are left alone in any case.

    Returns:
        Whether glibc took the settings.
    """
    if os.environ.get(SWITCH) == "0" or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    # Either setting alone would make things worse: it ends glibc's own adjusting of the other.
    return any(mallopt(MMAP_THRESHOLD, size) for size in LARGEST_BYTES) and bool(
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
    )
