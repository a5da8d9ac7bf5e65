"""Recipes from files: reading, checking, and the plan that every stage depends on."""

from lema.errors import Problem, RecipeError
from lema.plan.check import Report, check
from lema.plan.fingerprint import fingerprint
from lema.plan.load import Loaded, load_params, load_recipe, prompt_names
from lema.plan.plan import make_plan, plan_key, plan_text
from lema.plan.schema import schema, schema_text

__all__ = [
    "Loaded",
    "Problem",
    "RecipeError",
    "Report",
    "check",
    "fingerprint",
    "load_params",
    "load_recipe",
    "make_plan",
    "plan_key",
    "plan_text",
    "prompt_names",
    "schema",
    "schema_text",
]
