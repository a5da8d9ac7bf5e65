"""Texts of solutions: steps, answers, numbers, the correction format."""
