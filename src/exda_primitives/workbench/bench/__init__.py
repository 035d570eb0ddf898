"""Measures time and memory of a patched model and of its original, in one run."""
