"""A network beside onnxruntime and beside exact arithmetic, node by node: whether every difference is explained."""
