"""What the library knows of other people's code: attention families and backbones, one file each.

Importing this package registers all of them. A new adapter is a new file in ``families`` or ``backbones``; one that
lives in another package calls ``exda_primitives.register_adapter`` in the same way, in a module that the package names
in the entry-point group ``exda_primitives.adapters``.
"""

from importlib import import_module
from pkgutil import iter_modules

from . import backbones, families

for _package in (families, backbones):
    for _module in iter_modules(_package.__path__):
        import_module(f"{_package.__name__}.{_module.name}")
