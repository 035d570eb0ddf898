"""Replaces modules inside a model and gives them back: what patching and fusing share."""
