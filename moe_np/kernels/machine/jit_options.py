"""Options of `numba.njit` that the compiled loops share: use them as `@njit(**ENTRY)`."""

# called from Python: kept on disk, and other threads of Python run at the same time
ENTRY = {"cache": True, "nogil": True, "error_model": "numpy"}

# called from compiled loops only: nothing that Python or C could call has to be compiled
INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

# the same, and copied into the loop that calls it: a call takes longer than the function itself
INLINE = {**INNER, "forceinline": True}
