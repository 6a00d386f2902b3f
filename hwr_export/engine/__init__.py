"""ONNX -> TensorRT plan, for `tensorrt` 10.3 and later, 11, and `tensorrt_rtx`. Torch-free.

Strongly typed always: the precision is in the ONNX file, the builder gets no say in it.
"""
