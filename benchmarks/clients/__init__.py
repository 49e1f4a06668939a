"""Programs that are measured; each prints "ok NAME" when a device's command has ended with 0.  Nothing of ours."""
