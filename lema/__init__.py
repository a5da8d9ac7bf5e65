"""Make for mistake-correction data: recipes in, versioned LEMA datasets, adapters and an honest report out."""

__version__ = "0.1.0"
