"""Web pages: plain files, read once at start, that load nothing from anywhere else."""
