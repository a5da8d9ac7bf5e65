"""What the stages run on: canonical Parquet, files that appear whole, the completion store and the executors.

`generate` turns requests into completions: the store first, then an executor, in this process or on Ray.
Nothing here knows a stage or a recipe's content.
"""
