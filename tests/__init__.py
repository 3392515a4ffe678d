"""The tests, as a package: no other package called `tests` on the path takes its place."""
