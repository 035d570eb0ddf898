"""Shows what a model's attentions know about degradations: embeddings, clusters, projections, token maps, spectra."""

from .clusters import Score, agreement
from .embeddings import concatenated, embeddings
from .projections import project
from .spectra import radial_spectrum, spectra
from .token_maps import area, token_maps

__all__ = [
    "Score",
    "agreement",
    "area",
    "concatenated",
    "embeddings",
    "project",
    "radial_spectrum",
    "spectra",
    "token_maps",
]
