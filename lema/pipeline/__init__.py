"""From a recipe to artifacts: plan, run, status, estimate."""
