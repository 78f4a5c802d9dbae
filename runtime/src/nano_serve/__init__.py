"""Serve pictures over HTTP on this machine: a page, and the APIs that other programs already speak.

It stands on the public names of ``nano_runtime``. Its own public face is the command ``nano-serve`` and its routes.
"""
