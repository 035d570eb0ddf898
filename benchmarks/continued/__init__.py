"""What the primitives do for a network that is trained already: further training, and learning a new degradation.

``python -m benchmarks.continued run --form continued --train CROPS --test PHOTOGRAPHS --minutes 60`` trains what is
missing until the time is up; the same command goes on. ``--form adaptation`` likewise, and the forms for a GPU, of
which ``--minutes 8`` makes a piece: what it leaves in ``--work`` and ``--out`` is what the next one goes on from.
"""
