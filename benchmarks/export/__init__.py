"""Trained cells given back: as a model in Python, as a folder to hand on, as ONNX."""
