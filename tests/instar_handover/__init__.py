"""Tests of what components import."""
