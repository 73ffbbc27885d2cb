"""One self-contained page about any set of run directories: `slam-potsa report RUN [RUN …]`."""
