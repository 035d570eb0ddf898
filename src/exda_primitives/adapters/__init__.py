"""All that the library knows about other people's code: attention families and backbones, one file each.

Importing this package registers all of them. To add an adapter here, add a file to ``families`` or ``backbones``. An
adapter in another package calls ``exda_primitives.register_adapter``, in a module that the package names in the
entry-point group ``exda_primitives.adapters``.
"""

from importlib import import_module
from pkgutil import iter_modules

from . import backbones, families

for _package in (families, backbones):
    for _module in iter_modules(_package.__path__):
        import_module(f"{_package.__name__}.{_module.name}")
