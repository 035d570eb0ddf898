"""Modules put in the place of others inside a model, and given back: what patching and fusing both do."""
