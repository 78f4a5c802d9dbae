"""Graphs as files: traced to ONNX, rewritten, cut, counted, converted to OpenVINO."""
