"""What must hold of a project before anything is paid for: recipes, prompts, parts and params.yaml."""
