"""The version: said once, here. `pyproject.toml` reads it from this file, the verdict and `--version` import it."""

__version__ = "0.1.0"
