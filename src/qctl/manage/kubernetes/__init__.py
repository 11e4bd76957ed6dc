"""Kubernetes: the pods of deployments and stateful sets, through ``kubectl``."""
