"""Measurements of the platform beside what a user would pick instead. Nothing here is imported by it."""
