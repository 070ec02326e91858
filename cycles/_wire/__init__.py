"""Calls to requests, replies to outcomes. The only importer of `cycles_client`."""
