"""Exports networks to files that other programs run, ONNX or ``torch.export``'s; each is checked before it is kept."""

from .run import FORMATS, Exported, export

__all__ = ["FORMATS", "Exported", "export"]
