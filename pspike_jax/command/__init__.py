"""The program `pspike`: what a shell can ask of this package, from any folder."""
