"""Configs, records and the main job; the only place that knows `ml_collections`."""
