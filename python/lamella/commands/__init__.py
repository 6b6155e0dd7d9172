"""What the command line does, a file a command; `lamella.cli` has the arguments and the help."""
