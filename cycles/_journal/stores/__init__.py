"""Journals that several machines share: the protocol of a store, the stores, and what one client has in them."""
