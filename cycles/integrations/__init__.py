"""Guards inside frameworks that users already use: one module per framework.

Each module needs the framework that it is named after and is imported by the code that uses it; `import cycles` loads
none of them. If the framework is not installed, importing the module raises an `ImportError` with the line that
installs it.
"""
