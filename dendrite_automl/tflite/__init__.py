"""Artifacts as int8 files of TensorFlow Lite, for TensorFlow Lite Micro."""
