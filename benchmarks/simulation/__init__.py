"""A simulated cluster on which the store's own code is tried: processes, their deaths, and a shared folder."""
