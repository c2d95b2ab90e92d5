"""One trustworthy attendance-fraud model per tenant."""
