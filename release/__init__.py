"""Check and make what a release contains: files, extras, types, the bill of materials, licences, secrets, advisories."""
