"""`docker://...` and `oci:...`: names parsed, sources and sinks opened, images copied."""
