"""As much of CuPy as the kernels use, on the host: arrays that no NumPy function accepts, and the `.cu` code run
by `cuda_on_host.h`. An array is surrounded by guard bytes, checked after every launch, and starts as garbage.
"""

import ctypes
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).parent
BUILDS = Path(tempfile.gettempdir()) / "lithostream-cuda-on-host"
GUARD = 512
POISON = 0xA5
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')
order = 0
"""How blocks and threads are ordered: 0 forwards, 1 backwards, above: shuffled by this seed."""

_memory: list[npt.NDArray[np.uint8]] = []
moved: dict[str, list[int]] = {"up": [], "down": []}
"""Bytes of each copy from the host and to it, since a test last cleared the lists."""


class ndarray:
    """An array of the device: only `get` brings it to NumPy."""

    def __init__(self, host: npt.NDArray[Any]) -> None:
        self._host = host
        self.device = SimpleNamespace(id=0)

    dtype = property(lambda self: self._host.dtype)
    shape = property(lambda self: self._host.shape)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    T = property(lambda self: ndarray(self._host.T))

    @property
    def flags(self) -> SimpleNamespace:
        flags = self._host.flags
        return SimpleNamespace(
            c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata
        )

    @property
    def data(self) -> SimpleNamespace:
        return SimpleNamespace(ptr=self._host.ctypes.data)

    def __array__(self, *_: object, **__: object) -> npt.NDArray[Any]:
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use .get()")

    def __len__(self) -> int:
        return len(self._host)

    def __bool__(self) -> bool:
        return bool(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __float__(self) -> float:
        return float(self._host)

    def __iter__(self) -> Iterator["ndarray"]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, key: Any) -> "ndarray":
        return ndarray(np.asarray(self._host[_unwrap(key)]))

    def __setitem__(self, key: Any, value: Any) -> None:
        self._host[_unwrap(key)] = _unwrap(value)

    def get(self, stream: "Stream | None" = None, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        moved["down"].append(self.nbytes)
        if out is None:
            return self._host.copy()
        assert out.flags.c_contiguous and out.dtype == self.dtype and out.shape == self.shape
        out[...] = self._host
        return out

    def set(self, value: npt.NDArray[Any], stream: "Stream | None" = None) -> None:
        assert value.flags.c_contiguous and value.shape == self.shape and value.dtype == self.dtype
        moved["up"].append(self.nbytes)
        self._host[...] = value
        if stream is not None:
            stream.reads.append((value, value.copy()))

    def item(self) -> Any:
        return self._host.item()

    def fill(self, value: Any) -> None:
        self._host.fill(value)


def _unwrap(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, tuple):
        return tuple(_unwrap(v) for v in value)
    if isinstance(value, list):
        return [_unwrap(v) for v in value]
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value


def _wrap(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return asarray(np.asarray(value))
    if isinstance(value, tuple):
        return tuple(_wrap(v) for v in value)
    return value


def _through(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return _wrap(function(*map(_unwrap, args), **{k: _unwrap(v) for k, v in kwargs.items()}))

    return call


def _view(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        found = function(self._host, *map(_unwrap, args), **kwargs)
        return ndarray(found) if np.shares_memory(found, self._host) else asarray(found)

    return call


for _name in [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "and",
    "or",
    "xor",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
    "neg",
    "invert",
    "lshift",
    "rshift",
]:
    setattr(ndarray, f"__{_name}__", _through(getattr(np.ndarray, f"__{_name}__")))
for _name in ["radd", "rsub", "rmul", "rtruediv"]:
    setattr(ndarray, f"__{_name}__", _through(getattr(np.ndarray, f"__{_name}__")))
for _name in ["sum", "max", "min", "any", "all", "mean", "cumsum", "nonzero", "astype", "copy"]:
    setattr(ndarray, _name, _through(getattr(np.ndarray, _name)))
for _name in ["reshape", "ravel", "view", "transpose", "squeeze"]:
    setattr(ndarray, _name, _view(getattr(np.ndarray, _name)))
ndarray.__module__ = "cupy"


def empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike = float) -> ndarray:
    kind = np.dtype(dtype)
    count = int(np.prod(shape))
    room = np.full(count * kind.itemsize + 3 * GUARD, POISON, np.uint8)
    start = GUARD + -room.ctypes.data % GUARD
    _memory.append(room)
    room[start + count * kind.itemsize :] = room[:start] = POISON
    body = room[start : start + count * kind.itemsize]
    body[:] = 0xFF
    _bounds[id(room)] = (start, start + body.size)
    return ndarray(body.view(kind).reshape(shape))


_bounds: dict[int, tuple[int, int]] = {}


def check_guards() -> None:
    """Raise if a kernel wrote beside an array."""
    for room in _memory:
        start, stop = _bounds[id(room)]
        if (room[:start] != POISON).any() or (room[stop:] != POISON).any():
            raise RuntimeError("a kernel wrote outside its arrays")


def forget() -> None:
    """Drop the guards of all arrays made so far."""
    _memory.clear()
    _bounds.clear()


def asarray(value: Any, dtype: npt.DTypeLike | None = None) -> ndarray:
    if isinstance(value, ndarray):
        return value if dtype is None or value.dtype == dtype else asarray(value._host.astype(dtype))
    host = np.asarray(value, dtype)
    made = empty(host.shape, host.dtype)
    made._host[...] = host
    return made


def array(value: Any, dtype: npt.DTypeLike | None = None) -> ndarray:
    return asarray(value._host if isinstance(value, ndarray) else value, dtype)


def ascontiguousarray(value: ndarray) -> ndarray:
    return value if value._host.flags.c_contiguous else asarray(np.ascontiguousarray(value._host))


def _brought(value: Any, dtype: npt.DTypeLike | None = None) -> ndarray:
    """Do what `cupy.asarray` does, and count it."""
    made = asarray(value, dtype)
    if not isinstance(value, ndarray):
        moved["up"].append(made.nbytes)
    return made


def asnumpy(value: ndarray) -> npt.NDArray[Any]:
    return value.get()


def zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike = float) -> ndarray:
    return full(shape, 0, dtype)


def full(shape: int | tuple[int, ...], value: Any, dtype: npt.DTypeLike = float) -> ndarray:
    made = empty(shape, dtype)
    made.fill(value)
    return made


class CUDARuntimeError(RuntimeError):
    """Stands for `cupy.cuda.runtime.CUDARuntimeError`."""


class Stream:
    """Work is done at once; a stream only records that it was entered.

    A copy from the host may read until the stream is waited for: what it reads must not change before.
    """

    def __init__(self, non_blocking: bool = False) -> None:
        self.entered = 0
        self.ptr = 0
        self.reads: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []

    def __enter__(self) -> Self:
        self.entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        for source, was in self.reads:
            if not np.array_equal(source, was):
                raise RuntimeError("the host changed what a copy to the device was still reading")
        self.reads.clear()


class Device:
    """The one emulated device; no fatbin holds code for it."""

    compute_capability = "host"
    attributes = {"MultiProcessorCount": 4, "MaxSharedMemoryPerBlock": 48 << 10}  # noqa: RUF012

    def __init__(self, index: int = 0) -> None:
        self.id = index

    def synchronize(self) -> None:
        pass


class RawModule:
    """CUDA C++ source compiled for the host; kept between processes by the hash of all it is made of."""

    def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
        names = KERNEL.findall(code)
        entries = "".join(
            f'extern "C" const char* emulate_{n}(const unsigned* s, size_t b, uint64_t o, void** a, const char* k, '
            f"const size_t* z, size_t c) {{ return emulator::emulate({n}, s, b, o, a, k, z, c); }}\n"
            for n in names
        )
        folders = [Path(option[2:]) for option in options if option.startswith("-I")]
        headers = [p for folder in [HERE, *folders] for p in sorted(folder.glob("*.h"))]
        text = f'#include "cuda_on_host.h"\n#line 1 "cuda.cu"\n{code}\n{entries}'
        key = hashlib.sha256(text.encode() + b"".join(p.read_bytes() for p in headers)).hexdigest()[:24]
        library = BUILDS / f"{key}.so"
        if not library.is_file():
            _compile(text, [HERE, *folders], library)
        self._library = ctypes.CDLL(str(library))
        self._names = names

    def get_function(self, name: str) -> Callable[..., None]:
        if name not in self._names:
            raise KeyError(f"no kernel {name}: {self._names}")
        entry = self._library[f"emulate_{name}"]
        entry.restype = ctypes.c_char_p

        def launch(
            grid: tuple[int, ...],
            block: tuple[int, ...],
            args: tuple[Any, ...],
            *,
            shared_mem: int = 0,
            stream: Stream | None = None,
        ) -> None:
            shape = [*grid, 1, 1][:3] + [*block, 1, 1][:3]
            held = [_argument(name, k, value) for k, value in enumerate(args)]
            kinds = "".join(kind for kind, _ in held).encode()
            sizes = (ctypes.c_size_t * len(held))(*(value.nbytes for _, value in held))
            places = (ctypes.c_void_p * len(held))(*(value.ctypes.data for _, value in held))
            failure = entry(
                (ctypes.c_uint * 6)(*map(int, shape)),
                ctypes.c_size_t(shared_mem),
                ctypes.c_uint64(order),
                places,
                kinds,
                sizes,
                ctypes.c_size_t(len(held)),
            )
            if failure is not None:
                raise RuntimeError(f"{name}: {failure.decode()}")
            check_guards()

        return launch


def _argument(name: str, index: int, value: Any) -> tuple[str, npt.NDArray[Any]]:
    if isinstance(value, ndarray):
        return "p", np.array([value.data.ptr], np.uint64)
    if isinstance(value, np.generic):
        return ("f" if value.dtype.kind == "f" else "i"), np.array([value])
    raise TypeError(
        f"{name}, argument {index}: expected an array or a NumPy scalar, got {type(value).__name__}"
    )


def _compile(text: str, folders: list[Path], library: Path) -> None:
    BUILDS.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILDS) as scratch:
        source = Path(scratch) / "kernel.cpp"
        source.write_text(text, encoding="utf-8")
        made = source.with_suffix(".so")
        flags = [
            "-std=c++20",
            "-O1",
            "-g",
            "-fPIC",
            "-shared",
            "-ffp-contract=off",
            "-Wall",
            "-Wno-unknown-pragmas",
        ]
        command = ["g++", *flags, *(f"-I{f}" for f in folders), str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the host compiler refuses the kernels:\n{done.stderr[:4000]}")
        made.replace(library)


def module() -> ModuleType:
    """Return the stand-in as a module named cupy."""
    made = ModuleType("cupy")
    for name in (
        "ndarray",
        "empty",
        "asarray",
        "array",
        "ascontiguousarray",
        "asnumpy",
        "zeros",
        "full",
        "RawModule",
    ):
        setattr(made, name, globals()[name])
    for name in [
        "isfinite",
        "isnan",
        "isinf",
        "any",
        "all",
        "abs",
        "maximum",
        "minimum",
        "where",
        "cumsum",
        "concatenate",
        "stack",
        "arange",
        "unique",
        "count_nonzero",
        "zeros_like",
        "ones",
        "ones_like",
        "sqrt",
        "diff",
        "flatnonzero",
        "nonzero",
        "empty_like",
        "take",
        "bincount",
    ]:
        setattr(made, name, _through(getattr(np, name)))
    made.asarray = _brought  # type: ignore[attr-defined]
    made.add = SimpleNamespace(reduceat=_through(np.add.reduceat))  # type: ignore[attr-defined]
    current = Stream()
    made.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        Device=Device,
        Stream=Stream,
        get_current_stream=lambda: current,
        is_available=lambda: True,
        alloc_pinned_memory=bytearray,
        runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError),
    )
    return made


@contextmanager
def ordered(how: int) -> Iterator[None]:
    """Run what is launched inside in another order of blocks and threads."""
    global order
    before, order = order, how
    try:
        yield
    finally:
        order = before
