"""The dashboard of a listening server, at `/dashboard`: a static page, its state, its events and its controls.

`feed` collects what changed, `rows` shows it as JSON, `routes` handles requests and `app` streams events. It reads
through `Operator`, and only `POST /dashboard/control` writes. See `docs/dashboard.md`.
"""
