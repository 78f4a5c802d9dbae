"""The machine under the program: its processor and memory, its files and clock, the cache on its disk."""
