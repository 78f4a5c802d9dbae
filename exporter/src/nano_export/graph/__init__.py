"""Traces graphs to ONNX, rewrites, cuts and counts them, converts them to OpenVINO."""
