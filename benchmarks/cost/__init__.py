"""What a cell costs: multiply-adds, FLOPs, seconds, memory."""
