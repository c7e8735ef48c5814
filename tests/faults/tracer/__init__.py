"""What Python finds on PYTHONPATH in the traced processes."""
