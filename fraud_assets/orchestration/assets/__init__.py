"""The four assets of a tenant and the source that they read."""
