"""The parts of ``exda demo``: a photograph, synthetic degradations, and a small network to restore it."""
