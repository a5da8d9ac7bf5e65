"""Where work runs and how its results reach the disk: executors, Ray, canonical Parquet, atomic files."""
