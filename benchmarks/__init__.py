"""Benchmarks. A package and no mere folder: some distributions install a package of this name, which would win."""
