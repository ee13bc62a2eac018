"""Published files: what is declared of them (``configs/files``), how they are fetched, checked and unpacked."""
