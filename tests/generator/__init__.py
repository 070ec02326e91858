"""The protocol document, the generated layer, and what happens to both when the protocol changes."""
