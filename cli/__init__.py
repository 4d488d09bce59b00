"""The `lcpu` command: one file per subcommand, and what they share."""
