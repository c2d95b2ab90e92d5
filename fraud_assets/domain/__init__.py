"""The words everybody uses: rules, tables, errors."""
