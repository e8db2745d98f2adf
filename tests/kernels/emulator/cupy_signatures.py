"""The functions of CuPy 14 that the project uses, and methods of its arrays, with the parameters its source gives them.

NumPy's have more: `where=`, `initial=`, `keepdims=` of `count_nonzero`, `axis=` of `unique`. What is not named here the
stand-in does not have; `test_emulator.py` compares these with CuPy itself where it is installed.
"""

from collections.abc import Callable

FUNCTIONS: dict[str, Callable[..., None]] = {
    "arange": lambda start, stop=None, step=1, dtype=None: None,
    "bincount": lambda x, weights=None, minlength=None: None,
    "concatenate": lambda tup, axis=0, out=None, *, dtype=None, casting="same_kind": None,
    "count_nonzero": lambda a, axis=None: None,
    "cumsum": lambda a, axis=None, dtype=None, out=None: None,
    "flatnonzero": lambda a: None,
    "isnan": lambda x, /, out=None, *, dtype=None: None,
    "maximum": lambda x1, x2, /, out=None, *, dtype=None: None,
    "nonzero": lambda a: None,
    "repeat": lambda a, repeats, axis=None: None,
    "stack": lambda tup, axis=0, out=None, *, dtype=None, casting="same_kind": None,
}
METHODS: dict[str, Callable[..., None]] = {
    "all": lambda self, axis=None, out=None, keepdims=False: None,
    "any": lambda self, axis=None, out=None, keepdims=False: None,
    "astype": lambda self, dtype, order="K", casting=None, subok=None, copy=True: None,
    "copy": lambda self, order="C": None,
    "max": lambda self, axis=None, out=None, keepdims=False: None,
    "min": lambda self, axis=None, out=None, keepdims=False: None,
    "nonzero": lambda self: None,
    "sum": lambda self, axis=None, dtype=None, out=None, keepdims=False: None,
}
VIEWS: dict[str, Callable[..., None]] = {
    "ravel": lambda self, order="C": None,
    "reshape": lambda self, *shape, order="C", copy=None: None,
    "transpose": lambda self, *axes: None,
    "view": lambda self, dtype=None, type=None: None,
}
"""Methods whose result may share the memory."""


def reduceat(array: object, indices: object, axis: int = 0, dtype: object = None, out: object = None) -> None:
    """Of `add`; no other ufunc of CuPy has one."""
