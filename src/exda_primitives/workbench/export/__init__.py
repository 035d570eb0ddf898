"""Networks as files that other programs run: ONNX, and what ``torch.export`` saves; each checked before it is there."""

from .run import FORMATS, Exported, export

__all__ = ["FORMATS", "Exported", "export"]
