"""Turns calls into requests and replies into outcomes. The only importer of `cycles_client`."""
