"""The emulator itself: if it let a wrong kernel pass, every test built on it would be worth nothing."""

import inspect
import re
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import cupy_on_host
import numpy as np
import pytest
from cupy_signatures import FUNCTIONS, METHODS, VIEWS, reduceat

SOURCE = """
#include "gpu.h"
extern "C" __global__ void scale(const float* in, float* out, int n, double by) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = float(in[i] * by);
}
extern "C" __global__ void block_sums(const int* in, int* out) {
    __shared__ int partial[8];
    DYNAMIC_SHARED(int, staged);
    staged[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    int sum = staged[blockDim.x - 1 - threadIdx.x];
    for (int by = 16; by > 0; by /= 2) sum += __shfl_down_sync(~0u, sum, by);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        int total = 0;
        for (unsigned w = 0; w < blockDim.x / 32; ++w) total += partial[w];
        out[blockIdx.x] = total;
    }
}
extern "C" __global__ void half_a_barrier(int* out) {
    if (threadIdx.x < 16) __syncwarp(~0u); else __syncthreads();
    out[0] = 1;
}
extern "C" __global__ void last_writer(int* out) { out[0] = blockIdx.x; }
extern "C" __global__ void unset_shared(int* out) {
    __shared__ int never;
    out[0] = never;
}
extern "C" __global__ void beside(char* out, int at) { out[at] = 0; }
extern "C" __global__ void histogram(const int* in, int* counts, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned in_range = __ballot_sync(~0u, i < n);
    if (i < n) {
        const unsigned same = __match_any_sync(in_range, in[i]);
        if (__ffs(same) - 1 == int(threadIdx.x % 32)) atomicAdd(&counts[in[i]], __popc(same));
    }
}
"""


@pytest.fixture
def kernels(cupy: ModuleType, request: pytest.FixtureRequest) -> Any:
    folder = request.config.rootpath / "kernels"
    return cupy.RawModule(code=SOURCE, options=(f"-I{folder}",))


def test_arguments_and_grid(cupy: ModuleType, kernels: Any) -> None:
    values = np.arange(1000, dtype=np.float32)
    out = cupy.empty(1000, np.float32)
    kernels.get_function("scale")((4,), (256,), (cupy.asarray(values), out, np.int32(1000), np.float64(3)))
    np.testing.assert_array_equal(out.get(), 3 * values)


@pytest.mark.parametrize("order", [0, 1, 5])
def test_barriers_shuffles_and_shared_memory(cupy: ModuleType, kernels: Any, order: int) -> None:
    values = np.arange(256 * 3, dtype=np.int32)
    out = cupy.empty(3, np.int32)
    with cupy_on_host.ordered(order):
        kernels.get_function("block_sums")((3,), (256,), (cupy.asarray(values), out), shared_mem=1024)
    np.testing.assert_array_equal(out.get(), values.reshape(3, 256).sum(axis=1))


def test_ballots_matches_and_atomics(cupy: ModuleType, kernels: Any) -> None:
    values = np.random.default_rng(0).integers(0, 7, 1000).astype(np.int32)
    counts = cupy.zeros(7, np.int32)
    kernels.get_function("histogram")((8,), (128,), (cupy.asarray(values), counts, np.int32(1000)))
    np.testing.assert_array_equal(counts.get(), np.bincount(values))


def test_an_incomplete_barrier_is_an_error(cupy: ModuleType, kernels: Any) -> None:
    with pytest.raises(RuntimeError, match="half_a_barrier: a barrier is not reached by every thread"):
        kernels.get_function("half_a_barrier")((1,), (32,), (cupy.empty(1, np.int32),))


def test_order_shows_a_race(cupy: ModuleType, kernels: Any) -> None:
    found = []
    for order in (0, 1):
        out = cupy.empty(1, np.int32)
        with cupy_on_host.ordered(order):
            kernels.get_function("last_writer")((5,), (1,), (out,))
        found.append(out.item())
    assert found == [4, 0]


def test_memory_starts_as_garbage(cupy: ModuleType, kernels: Any) -> None:
    out = cupy.empty(1, np.int32)
    assert out.item() == -1
    kernels.get_function("unset_shared")((1,), (1,), (out,))
    assert out.item() == -0x32323233  # 0xCDCDCDCD


@pytest.mark.parametrize("at", [-1, 16])
def test_a_write_beside_an_array_is_an_error(cupy: ModuleType, kernels: Any, at: int) -> None:
    with pytest.raises(RuntimeError, match="outside its arrays"):
        kernels.get_function("beside")((1,), (1,), (cupy.empty(16, np.uint8), np.int32(at)))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((np.int32(3), np.float64(1)), "expected 4 arguments, got 3"),
        ((np.int64(3), np.float64(1)), "expected i32, got i64"),
        ((np.int32(3), np.float32(1)), "expected f64, got f32"),
    ],
)
def test_arguments_of_another_width(
    cupy: ModuleType, kernels: Any, args: tuple[Any, ...], message: str
) -> None:
    arrays = (cupy.zeros(4, np.float32), cupy.zeros(4, np.float32))
    given = (*arrays[: 1 if "arguments" in message else 2], *args)
    with pytest.raises(RuntimeError, match=message):
        kernels.get_function("scale")((1,), (4,), given)


def test_python_numbers_have_no_width(cupy: ModuleType, kernels: Any) -> None:
    with pytest.raises(TypeError, match="argument 1: expected an array or a NumPy scalar, got int"):
        kernels.get_function("beside")((1,), (1,), (cupy.empty(1, np.uint8), 0))


def test_no_silent_way_to_numpy(cupy: ModuleType) -> None:
    with pytest.raises(TypeError, match="not allowed"):
        np.asarray(cupy.zeros(3))
    with pytest.raises(TypeError, match="Unsupported type"):
        cupy.zeros(3) + np.zeros(3)


def test_numbers_of_numpy_are_arrays_without_an_axis(cupy: ModuleType) -> None:
    flags = cupy.asarray(np.array([True, False, True]))
    for found in (cupy.count_nonzero(flags), flags.sum(), flags.any(), flags[0]):
        assert isinstance(found, cupy_on_host.ndarray) and found.shape == ()
    assert int(cupy.count_nonzero(flags)) == 2


def test_only_what_cupy_has(cupy: ModuleType) -> None:
    values = cupy.zeros((2, 3), np.int64)
    for function, given in ((values.sum, ()), (cupy.count_nonzero, (values,)), (cupy.stack, ([values],))):
        function(*given, axis=0)
        with pytest.raises(TypeError, match="unexpected keyword"):
            function(*given, axis=0, where=True)
    assert not hasattr(cupy.maximum, "reduceat") and not hasattr(cupy, "divmod")  # CuPy has the latter
    with pytest.raises(AssertionError, match="contiguous arrays alone"):
        cupy.zeros((4, 4))[:, ::2].set(np.zeros((4, 2)), stream=cupy.cuda.Stream())


def names_of(function: Any) -> list[str]:
    """Parameters as CuPy's source has them; a compiled method tells them in its documentation."""
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:
        given = re.match(r"\w+\.\w+\((.*?)\)", function.__doc__)
        assert given is not None
        return [part.split("=")[0].lstrip("*") for part in given[1].split(", ")]


def test_parameters_are_those_of_cupy() -> None:
    cupy = pytest.importorskip("cupy", reason="needs CuPy, though no GPU: the extra [cuda13]")
    there = [(like, getattr(cupy, name)) for name, like in FUNCTIONS.items()]
    there += [(like, getattr(cupy.ndarray, name)) for name, like in {**METHODS, **VIEWS}.items()]
    for like, real in there:
        assert isinstance(real, cupy.ufunc) or names_of(like) == names_of(real)
    assert ["self", *names_of(reduceat)] == names_of(cupy.add.reduceat)
    for path in ("runtime.CUDARuntimeError", "driver.CUDADriverError", "nvrtc.NVRTCError"):
        where, _, name = path.partition(".")
        assert issubclass(getattr(getattr(cupy.cuda, where), name), RuntimeError)
    assert not issubclass(cupy.cuda.driver.CUDADriverError, cupy.cuda.runtime.CUDARuntimeError)


def test_each_thread_has_its_current_stream(cupy: ModuleType) -> None:
    default, own = cupy.cuda.get_current_stream(), cupy.cuda.Stream(non_blocking=True)
    with own, ThreadPoolExecutor(1) as other:
        assert cupy.cuda.get_current_stream() is own
        assert other.submit(cupy.cuda.get_current_stream).result() is default
    assert cupy.cuda.get_current_stream() is default


def test_what_a_copy_reads_must_stay_as_it_is(cupy: ModuleType) -> None:
    stream, target, source = cupy.cuda.Stream(), cupy.zeros(4), np.ones((2, 4))
    target.set(source[1], stream=stream)
    stream.synchronize()
    target.set(source[1], stream=stream)
    source[1, 2] = 5
    with pytest.raises(RuntimeError, match="changed what a copy"):
        stream.synchronize()
    target.set(source[1] + 1, stream=stream)
    with pytest.raises(RuntimeError, match="gave up what a copy"):
        stream.synchronize()
    stream.synchronize()


@pytest.mark.parametrize(("asked", "given"), [(1, 512), (512, 512), (513, 1024), (3000, 4096)])
def test_pinned_memory_is_longer_than_asked(cupy: ModuleType, asked: int, given: int) -> None:
    assert len(cupy.cuda.alloc_pinned_memory(asked)) == given


@pytest.mark.parametrize(
    ("grid", "block", "shared"),
    [((0,), (32,), 0), ((1, 65536), (32,), 0), ((1,), (1025,), 0), ((1,), (32,), 49153)],
)
def test_limits_of_a_launch(
    cupy: ModuleType, kernels: Any, grid: tuple[int, ...], block: tuple[int, ...], shared: int
) -> None:
    with pytest.raises(ValueError, match=r"last_writer: no (grid|block)"):
        kernels.get_function("last_writer")(grid, block, (cupy.empty(1, np.int32),), shared_mem=shared)
