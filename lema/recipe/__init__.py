"""The recipe language: its shape, its files, its messages."""
