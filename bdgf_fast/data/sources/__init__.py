"""Readers: rasters, arrays and vectors behind one interface, brought to one grid."""
