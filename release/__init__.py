"""Check and make what a release contains: files, extras, types, bill of materials, licences, secrets, advisories."""
