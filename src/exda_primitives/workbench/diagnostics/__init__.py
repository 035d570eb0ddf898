"""Small, fully specified CPU experiments that isolate the effect of a non-linear value, of its position, of tokens."""
