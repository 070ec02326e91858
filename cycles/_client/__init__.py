"""The objects of users: client, operations, reservation, guards, decorator, streams, series."""
