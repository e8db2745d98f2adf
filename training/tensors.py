"""Tables of tensors from files of others: read without running what may be pickled in them."""

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lithostream.engine.errors import LithostreamError


def read_tensors(path: Path, refused: Callable[[str], LithostreamError]) -> dict[str, Tensor]:
    """Read a `.safetensors` file, or one of `torch.save` that holds tensors alone.

    Parameters
    ----------
    path : Path
    refused : callable
        Makes the error that is raised, of its reason.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise refused(f"cannot be read: {error.strerror or error}") from error
    except UnpicklingError as error:
        raise refused("is damaged, or holds code beside tensors, which is never run") from error
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise refused(f"is damaged: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise refused("is not a plain table of tensors")
    return found
