"""The version: of the package, of what it writes."""

__version__ = "0.1.0"
