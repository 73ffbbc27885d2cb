"""The functions that `cli.yaml` names, a module a group of commands."""
