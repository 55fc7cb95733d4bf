"""The command line: `main` dispatches to one module per command. The only part of the library that prints."""
