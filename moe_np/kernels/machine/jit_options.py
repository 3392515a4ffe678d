"""Options of `numba.njit` that the compiled loops share: use them as `@njit(**ENTRY)`."""

# called from Python, never from C: kept on disk, and other threads of Python run at the same time
ENTRY = {"cache": True, "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}

# called from compiled loops only: nothing that Python or C could call has to be compiled
INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

# the same, and copied into the loop that calls it: a call takes longer than the function itself
INLINE = {**INNER, "forceinline": True}

# a part of the loop that calls it, and compiled with it: for parts without options like "fastmath",
# because those of the loop count. Compiled by itself first, as INLINE is, it would take longer
PART = {"error_model": "numpy", "inline": "always"}
