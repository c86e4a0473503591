"""How each recorded system is computed with the package: one file a family.

A module has SYSTEMS, {how `meta.system` of its files begins: function}; the function takes the
arrays of a file without its results, and returns the results under the keys of the file.
"""
