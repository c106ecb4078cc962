"""The data an engine takes and gives."""
