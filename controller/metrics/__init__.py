"""Figures of the fleet: where they come from, how long they are kept, and what they are watched for."""
