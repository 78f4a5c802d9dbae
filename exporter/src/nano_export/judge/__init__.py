"""The original's pictures, and how far the bundle's are from them."""
