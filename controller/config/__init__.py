"""What the controller reads from the outside before it works: its settings, and the manifests in bundles."""
