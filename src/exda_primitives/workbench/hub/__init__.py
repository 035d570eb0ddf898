"""Saves and loads networks and patches as Hugging Face Hub folders: weights, ``config.json`` and a model card."""

from .pretrained import from_pretrained, save_pretrained
from .push import push_to_hub

__all__ = ["from_pretrained", "push_to_hub", "save_pretrained"]
