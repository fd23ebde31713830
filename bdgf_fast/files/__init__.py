"""Files that are written whole or not at all: GeoTIFF maps, checkpoints, JSON."""
