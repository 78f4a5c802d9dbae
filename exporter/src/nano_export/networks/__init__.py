"""The torch modules to export, in the form in which they become graphs."""
