"""The HTTP side: defences, routes, and the forms of each API."""
