"""The torch modules that become graphs, in the form in which they are exported."""
