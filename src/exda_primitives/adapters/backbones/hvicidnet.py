"""HVI-CIDNet (CVPR 2025): a colour and an intensity branch, each of which attends to the other's map."""

from exda_primitives.patching import Backbone, Stage
from exda_primitives.patching.registry import register_own

# Stage and downscale of LCA1 to LCA6, the same in both branches.
_SIZES = (("encoder", 2), ("encoder", 4), ("latent", 8), ("latent", 8), ("decoder", 4), ("decoder", 2))
_STAGES = tuple(
    Stage(f"{branch}_LCA{number}", stage, downscale)
    for branch in ("HV", "I")
    for number, (stage, downscale) in enumerate(_SIZES, 1)
)
register_own(Backbone("hvicidnet", frozenset(stage.prefix for stage in _STAGES), _STAGES, multiple_of=8))
