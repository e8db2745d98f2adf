"""Non-negative unmixing on a GPU; the kernels are in `cuda.cu`."""

from typing import Any, Final, NamedTuple

import numpy as np

from lithostream.kernels.arrays import output
from lithostream.kernels.loader import cupy, gpu_module
from lithostream.kernels.unmixing import check_numbers

MOST_TABLED: Final = 12
"""Endmembers of a shared table that get an operator for each of their sets, as kMostTabled in `gpu_table.h`."""

MOST_TABLED_CHANNELS: Final = 64
WIDTHS: Final = (6, 8, 12)
"""Endmembers the kernels `quick_*` are compiled for; fewer are filled up with zeros."""

QUICK_THREADS: Final = 128
EXACT_THREADS: Final = 64
"""Threads of a block, as in `cuda.cu`."""

STAGED_BYTES: Final = 48 << 10
"""Shared memory that any launch may ask for."""

TOGETHER: Final = 1 << 22
"""Spectra of a launch: what one leaves for the exact solver is listed in 4 bytes each."""

SCRATCH_BYTES: Final = 32 << 20
"""Of all threads of the exact solver, where one block per multiprocessor does not need more: a cache holds it."""

BLOCKS_EACH: Final = 16
"""Most blocks per multiprocessor; their threads go on to further spectra."""

INSPECT_THREADS: Final = 256


class _Problem(NamedTuple):
    """Contiguous arrays of one call."""

    spectra: Any
    endmembers: Any
    weights: Any
    sum_to_one: bool
    ridge: float
    result: tuple[Any, Any, Any]
    processors: int

    @property
    def tabled(self) -> bool:
        """Whether there are operators for its table."""
        count, channels = self.endmembers.shape[-2:]
        shared = bool(self.endmembers.ndim == 2 and self.weights.ndim == 1)
        return shared and self.ridge == 0 and count <= MOST_TABLED and channels <= MOST_TABLED_CHANNELS


def nnls(
    spectra: Any,
    endmembers: Any,
    *,
    sum_to_one: bool,
    ridge: float,
    weights: Any,
    out: tuple[Any, Any, Any],
    stream: Any,
) -> tuple[Any, Any, Any]:
    """Return what `lithostream.kernels.unmixing.nnls` returns, for arguments proven there but for the numbers.

    The host waits once, to know that the numbers are valid; the rest is queued. One thread solves a spectrum.

    Where all share weights and a table of up to 12 endmembers and 64 channels, without a ridge, each of the 2**E
    sets of endmembers gets an operator of (B + 1) E numbers (E rounded up to 6, 8 or 12): 23 kB for 6 x 6, in shared
    memory up to 48 kB, else in the cache (5 MB for 12 x 12). A step takes 6 B E operations, two to four are usual,
    and 8 B bytes are read and 8 E + 9 written per spectrum, after 8 B read by the check of the numbers. Neighbours
    read spectra 8 B bytes apart, through the first cache. Spectra with a gap, beyond 1e+-100 or too close to call
    are listed and solved like all others: by active sets on Householder factors of at most E + 1 rows, into which
    further channels are rotated (3 B E**2 operations).

    The bits are repeatable and do not depend on the batch, but are not the CPU's: of several answers another may be
    returned, and a flag may differ where a gradient or a distance meets its tolerance but for rounding.

    Scratch: 32 MB for the threads of the exact solver (28 kB each with 32 endmembers) or that of one block per
    multiprocessor, 16 MB for the list and 8 * 2**E * ((B + 1) E + E**2 / 2) bytes for the operators; a copy of its
    table for each spectrum where several share one. Copies inputs that are not C-contiguous.
    """
    xp = cupy()
    with stream or xp.cuda.get_current_stream():
        kernels = gpu_module("unmixing")
        weights = xp.ones(spectra.shape[-1]) if weights is None else weights
        spectra, endmembers, weights = (xp.ascontiguousarray(a) for a in (spectra, endmembers, weights))
        processors = xp.cuda.Device().attributes["MultiProcessorCount"]
        if _inspect(kernels, processors, spectra, endmembers, weights):
            check_numbers(spectra.get(), endmembers.get(), weights.get())
        lead, count = spectra.shape[:-1], endmembers.shape[-2]
        result = (
            output("out.abundances", out[0], dtype=np.float64, shape=(*lead, count), empty=xp.empty),
            output("out.residual", out[1], dtype=np.float64, shape=lead, empty=xp.empty),
            output("out.flags", out[2], dtype=np.uint8, shape=lead, empty=xp.empty),
        )
        if len(lead) == 2:  # several spectra on each table
            endmembers = xp.repeat(endmembers, lead[1], axis=0)
            weights = xp.repeat(weights, lead[1], axis=0) if weights.ndim == 2 else weights
        spectra = spectra.reshape(-1, spectra.shape[-1])
        flat = result[0].reshape(-1, count), result[1].ravel(), result[2].ravel()  # the same memory
        rows = len(spectra)
        problem = _Problem(spectra, endmembers, weights, sum_to_one, ridge, flat, processors)
        if rows and problem.tabled:
            _solve_quickly(kernels, problem)
        elif rows:
            everyone = xp.full(1, -1, np.int32)
            _solve_exactly(kernels, problem, slice(0, rows), everyone, everyone)
    return result


def _inspect(kernels: Any, processors: int, *arrays: Any) -> bool:
    """Whether some number is not allowed, in one pass on the GPU; the host waits for it."""
    found = cupy().zeros(1, np.int32)
    size = max(array.size for array in arrays)
    if size:
        blocks = min(BLOCKS_EACH * processors, -(-size // INSPECT_THREADS))
        given = [argument for array in arrays for argument in (array, np.int64(array.size))]
        kernels.get_function("inspect")((blocks,), (INSPECT_THREADS,), (*given, found))
    return bool(found.get()[0])


def _solve_quickly(kernels: Any, problem: _Problem) -> None:
    """Queue the kernels for a shared table: its operators, then spectra by up to `TOGETHER`."""
    xp = cupy()
    count, channels = problem.endmembers.shape
    width = next(w for w in WIDTHS if w >= count)
    sizes = np.int32(channels), np.int32(count), np.int32(width), np.int32(problem.sum_to_one)
    head = 4 + 2 * width + channels + (channels + 1) * width
    table = xp.empty(head + 2**count * ((channels + 1) * width + 3))
    gram, triangles = xp.empty(count * count), xp.empty(2**count * (count * (count + 1) // 2))
    kernels.get_function("prepare")(
        (1,), (QUICK_THREADS,), (problem.endmembers, problem.weights, *sizes, table, gram)
    )
    kernels.get_function("supports")(
        (-(-(2**count) // QUICK_THREADS),), (QUICK_THREADS,), (table, gram, *sizes, triangles)
    )
    staged = table.nbytes if table.nbytes <= STAGED_BYTES else 0
    rows = len(problem.spectra)
    names = xp.empty(min(rows, TOGETHER), np.int32)
    for first in range(0, rows, TOGETHER):
        part = slice(first, min(first + TOGETHER, rows))
        size = part.stop - first
        named = xp.zeros(1, np.int32)
        given = (
            table,
            np.int32(staged // 8),
            np.int32(channels),
            np.int32(count),
            np.int32(problem.sum_to_one),
        )
        kernels.get_function(f"quick_{width}")(
            (min(BLOCKS_EACH * problem.processors, -(-size // QUICK_THREADS)),),
            (QUICK_THREADS,),
            (problem.spectra[part], *given, np.int32(size), *(r[part] for r in problem.result), named, names),
            shared_mem=staged,
        )
        _solve_exactly(kernels, problem, part, named, names)


def _solve_exactly(kernels: Any, problem: _Problem, part: slice, named: Any, names: Any) -> None:
    """Queue the exact solver for those of the spectra that `names` lists, or all where `named` is -1."""
    channels, count = problem.spectra.shape[1], problem.endmembers.shape[-2]
    size, most = part.stop - part.start, min(channels, count + 1)
    numbers = (count + 1) * (2 * most + count) + 7 * count + 1
    each = problem.processors
    wanted = min(BLOCKS_EACH * each, max(each, SCRATCH_BYTES // (8 * numbers * EXACT_THREADS)))
    blocks = min(wanted, -(-size // EXACT_THREADS))
    table_step = count * channels if problem.endmembers.ndim == 3 else 0
    weight_step = channels if problem.weights.ndim == 2 else 0
    kernels.get_function("exact")(
        (blocks,),
        (EXACT_THREADS,),
        (
            *(problem.spectra[part], problem.endmembers, np.int64(table_step)),
            *(problem.weights, np.int64(weight_step), np.int32(channels), np.int32(count)),
            *(np.int32(problem.sum_to_one), np.float64(problem.ridge), np.int64(size), named, names),
            *(cupy().empty(blocks * EXACT_THREADS * numbers), *(r[part] for r in problem.result)),
        ),
    )
