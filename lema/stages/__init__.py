"""Stages: one pure function an artifact, named after it; its positional parameters are named after what it reads.

What a stage needs of the world (`generate`, `pmap`, `train`...) is passed in as keywords by `lema.pipeline`; no stage
knows of Ray, endpoints, DVC or Parquet. Its inputs are rows sorted by id that can be iterated over more than once: a
stage streams over them and keeps a few bytes a row at most, so that its memory does not grow with the dataset.
"""
