"""One file per attention family: how it is recognised, what replaces it."""
