"""Models in and out, a few files for each format: the only place that knows foreign names and gate orders."""
