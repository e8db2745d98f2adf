"""What the two graphs of a segmenter take and give."""

from pathlib import Path

from onnx import ModelProto, TensorProto

from lithostream.engine.errors import BundleError
from lithostream.engine.graph_check import PROMPTS, VIEW, check_graph
from lithostream.engine.graph_size import FIX

IMAGE_SIDE = ("image", "keys", "values", "queries")  # what all prompts on a view share
MASKS = 3  # a prompt

Described = list[tuple[str, int, tuple[int, ...]]]


def check_segmenter(encoder: bytes, decoder: bytes, files: tuple[Path, Path], view_px: int) -> None:
    """Hold the graphs of a segmenter to the rules of a bundle's graphs, to each other and to the edge of a view.

    Raises
    ------
    BundleError
        Naming the file, and what does not fit.
    """
    first, second = check_graph(encoder, files[0], VIEW), check_graph(decoder, files[1], PROMPTS)
    shared = _described(first, "output")
    taken: Described = [
        ("view", TensorProto.UINT8, (1, view_px, view_px, 3)),
        ("valid", TensorProto.INT64, (2,)),
    ]
    if _described(first, "input") != taken or tuple(name for name, *_ in shared) != IMAGE_SIDE:
        raise _misfit(first, files[0], f"takes {taken} and gives {IMAGE_SIDE}")
    taken = [*shared, ("points", TensorProto.FLOAT, (0, 2)), ("boxes", TensorProto.FLOAT, (0, 4))]
    side = view_px // 4
    given: Described = [
        ("logits", TensorProto.FLOAT, (0, MASKS, side, side)),
        ("quality", TensorProto.FLOAT, (0, MASKS)),
    ]
    if _described(second, "input") != taken or _described(second, "output") != given:
        raise _misfit(second, files[1], f"takes {taken} and gives {given}")


def _misfit(graph: ModelProto, file: Path, wanted: str) -> BundleError:
    found = f"graph takes {_described(graph, 'input')} and gives {_described(graph, 'output')}"
    return BundleError(f"{found} (name, type, shape; 0 is free), a segmenter {wanted}", file=file, fix=FIX)


def _described(model: ModelProto, kind: str) -> Described:
    values = model.graph.input if kind == "input" else model.graph.output
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
        )
        for value in values
    ]
