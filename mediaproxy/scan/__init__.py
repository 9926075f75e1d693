"""The scanner: what was left in a recording, and the manifests beside it."""
