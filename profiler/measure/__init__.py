"""Measuring what a model costs on one device. ``run.measure`` does it all; ``profiler.fit`` makes costs of it."""
