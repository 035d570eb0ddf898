"""KBNet_l (2023): Restormer with learnt kernel bases for its feed-forward. KBNet_s has no channel attention."""

from exda_primitives.patching import Backbone
from exda_primitives.patching.registry import register_own

from .restormer import CHILDREN, STAGES

# In every block, what weighs the kernel bases for each pixel.
_BASES = {"latent.0.attn.conv2", "latent.0.attn.conv211"}

register_own(Backbone("kbnet", CHILDREN | _BASES, STAGES, multiple_of=8))
