"""A published table as data: its cells, layout, published numbers and claims."""
