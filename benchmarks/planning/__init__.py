"""What cells will ask of a device, time, memory and disk, before anything is trained."""
