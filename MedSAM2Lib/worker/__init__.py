"""The engine as a process of its own: `server` runs it, `client` starts and talks to it, docs/worker.md is the protocol."""
