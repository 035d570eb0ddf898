"""KBNet_l (2023): Restormer with learnt kernel bases in place of its feed-forward. KBNet_s has no channel attention."""

from exda_primitives.patching import Backbone
from exda_primitives.patching.registry import register_own

from .restormer import CHILDREN, STAGES

# The layers of every block that compute the weights of the kernel bases at each pixel.
_BASES = {"latent.0.attn.conv2", "latent.0.attn.conv211"}

register_own(Backbone("kbnet", CHILDREN | _BASES, STAGES, multiple_of=8))
