"""Which part of an exported graph is the backbone: nearly all of the work, and what changes its precision."""

from onnx import ModelProto, NodeProto, helper

from lithostream.export.graph import strip

BACKBONE = "backbone."  # in the names of its weights


def backbone_convolutions(model: ModelProto) -> list[NodeProto]:
    """Nodes that hold the weights of the backbone."""
    return [node for node in model.graph.node if node.op_type == "Conv" and BACKBONE in node.input[1]]


def backbone_nodes(model: ModelProto) -> list[NodeProto]:
    """Nodes from the first convolutions of the backbone up to the means that leave it."""
    nodes, found = model.graph.node, {node.output[0] for node in backbone_convolutions(model)}
    leads: set[str] = set()  # values that a convolution of the backbone comes after
    for node in reversed(nodes):
        if node.output[0] in found or not leads.isdisjoint(node.output):
            leads |= set(node.input)
    inside: list[NodeProto] = []
    reached: set[str] = set()
    for node in nodes:
        leaves = node.op_type == "ReduceMean" and node.output[0] not in leads
        if node.output[0] in found or (not leaves and not reached.isdisjoint(node.input)):
            inside.append(node)
            reached |= set(node.output)
    return inside


def with_nodes(model: ModelProto, nodes: list[NodeProto]) -> ModelProto:
    """Return the model with these nodes, only the initializers they use, and no trace of who made it."""
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    graph = helper.make_graph(nodes, "properties", model.graph.input, model.graph.output, kept)
    opset = [entry for entry in model.opset_import if entry.domain == ""]
    return strip(helper.make_model(graph, opset_imports=opset, ir_version=model.ir_version))
