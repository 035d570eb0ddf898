"""What the demonstration needs: a photograph, ways to spoil it, and a small network to restore it."""
