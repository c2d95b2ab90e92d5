"""The demo company: a seeded generator of several tenants and their attendance."""
