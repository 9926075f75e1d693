"""Header fields, one file a family; each class has `parse` and `__str__`."""
