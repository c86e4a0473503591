"""One config per experiment: `get_config(variant=None)` returns a ConfigDict with every key set."""
