"""The executor that params.yaml asks for; above both executors, which do not know of each other."""

from lema.compute.executor import Executor, LocalExecutor
from lema.recipe.params import Run


def make_executor(run: Run) -> Executor:
    """A local executor, or one on Ray, which starts with its first work."""
    if run.executor == "local":
        return LocalExecutor()
    from lema.compute.ray_pool import RayExecutor

    return RayExecutor()
