"""Backbones, one file each: the stages of their attentions, and the sizes that they take."""
