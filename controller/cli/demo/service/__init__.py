"""What the demo's releases hold: `service.py` goes into each bundle as it stands."""
