"""Pictures through a restoration network: files of any size, whole or in tiles."""
