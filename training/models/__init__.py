"""Networks that export to one ONNX graph."""
