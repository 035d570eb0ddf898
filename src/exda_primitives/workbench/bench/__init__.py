"""Time and memory of a patched model beside the original it came from, in one run."""
