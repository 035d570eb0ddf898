"""Small, fully specified CPU experiments that isolate what a non-linear value, its position and a token do."""
