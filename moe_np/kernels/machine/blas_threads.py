"""Former home of what now lies in `moe_np.base.machine`; goes with its last two callers."""

from moe_np.base.machine import blas_threads as threads
from moe_np.base.machine import one_blas_thread

__all__ = ["one_blas_thread", "threads"]
