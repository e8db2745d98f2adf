"""Mutate a bundle's graph, seed by seed: it must be refused with a reason, or serve within its golden gate."""

import hashlib
import json
import random
import resource
import shutil
import sys
from collections import Counter
from pathlib import Path

import onnx

from lithostream.engine.bundle import GOLDEN, MANIFEST, MODEL, load_bundle
from lithostream.engine.errors import BundleError, LithostreamError
from lithostream.engine.inference import open_session

MEMORY = 8 << 30  # of addresses: what asks for more than any bundle needs fails at once
NUMBERS = (0, 1, 2, -1, 7, 255, 1 << 12, 1 << 31, (1 << 62) + 1, -(1 << 62))


def flip(content: bytearray, draw: random.Random) -> None:
    """Change single bits, mostly among the structure that lies beside the weights."""
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(min(len(content), draw.choice((12_000, len(content)))))
        content[place] ^= 1 << draw.randrange(8)


def cut(content: bytearray, draw: random.Random) -> None:
    """Remove, double or overwrite a piece."""
    start = draw.randrange(min(len(content), 12_000))
    end = start + draw.randrange(1, 64)
    content[start:end] = draw.choice((b"", content[start:end] * 2, draw.randbytes(end - start)))


def rewire(content: bytearray, draw: random.Random) -> None:
    """Change a name, an operator, an attribute, a shape or a type, in a file that still parses."""
    model = onnx.load_model_from_string(bytes(content))
    graph = model.graph
    node, tensor = draw.choice(graph.node), draw.choice(graph.initializer)
    kind = draw.randrange(9)
    if kind == 0:
        node.op_type = draw.choice(graph.node).op_type
    elif kind == 1 and node.input:
        node.input[draw.randrange(len(node.input))] = draw.choice(draw.choice(graph.node).output)
    elif kind == 2 and node.attribute:
        attribute = draw.choice(node.attribute)
        attribute.i = draw.choice(NUMBERS)
        attribute.ints[:] = [draw.choice(NUMBERS) for _ in attribute.ints]
    elif kind == 3:
        tensor.dims[:] = [draw.choice((*NUMBERS, 3, 8)) for _ in tensor.dims]
    elif kind == 4:
        tensor.data_type = draw.randrange(-1, 30)
    elif kind == 5:
        tensor.raw_data = draw.randbytes(len(tensor.raw_data))
    elif kind == 6:
        draw.choice((graph.node, graph.initializer, graph.input, graph.output)).pop()
    elif kind == 7:
        graph.node.insert(draw.randrange(len(graph.node)), node)
    else:
        draw.choice(graph.output).type.tensor_type.elem_type = draw.randrange(30)
    content[:] = model.SerializeToString()


def outcome(bundle: Path, content: bytes) -> str:
    """Load as a run does."""
    (bundle / MODEL).write_bytes(content)
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][MODEL] = hashlib.sha256(content).hexdigest()
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    try:
        loaded = load_bundle(bundle)
    except BundleError:
        return "refused"
    try:
        open_session(loaded, batch=len(loaded.golden_tiles), threads=1, backend="onnxruntime")
    except LithostreamError:
        return "gated"
    return "served"


def main(source: Path, folder: Path, count: int) -> None:
    """Print how many mutations ended how."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    bundle = Path(shutil.copytree(source, folder / "fuzzed"))
    original = (source / MODEL).read_bytes()
    assert (bundle / GOLDEN).is_file()
    found: Counter[str] = Counter()
    for seed in range(count):
        draw, content = random.Random(seed), bytearray(original)
        draw.choice((flip, cut, rewire, rewire))(content, draw)
        print("seed", seed, flush=True)  # the last line tells which one crashed
        found[outcome(bundle, bytes(content))] += 1
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
