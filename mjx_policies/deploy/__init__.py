"""Running an exported policy on a robot: numpy and onnxruntime only, never JAX."""
