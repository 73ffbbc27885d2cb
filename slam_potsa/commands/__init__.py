"""One module a group of commands; each has `add(commands)`, and imports what is heavy when run."""
