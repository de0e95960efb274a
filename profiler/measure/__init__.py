"""Measuring what a model costs on one device. ``run.measure`` does it all; ``profiler.fit.forward`` makes costs of
it."""
