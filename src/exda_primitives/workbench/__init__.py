"""The tools that use the library, a package each, and ``shared``: what several of them need."""
