"""Configs that come with the package: for one's own data, by the form of the files."""
