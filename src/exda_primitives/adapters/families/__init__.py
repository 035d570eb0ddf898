"""Attention families, one file each: how an attention is recognised, and what replaces it."""
