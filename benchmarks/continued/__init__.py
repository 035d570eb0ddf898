"""Measures what the primitives add to a trained network: in further training, and in learning a new degradation.

``python -m benchmarks.continued run --form continued --train CROPS --test PHOTOGRAPHS --minutes 60`` trains what is
missing until the time is up; the same command resumes. ``--form adaptation`` and the forms for a GPU work in the same
way. On a GPU that is lent for minutes, ``--minutes 8`` runs one piece; the next resumes from ``--work`` and ``--out``.
"""
