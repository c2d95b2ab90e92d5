"""Everything that touches disk, a database or MLflow."""
