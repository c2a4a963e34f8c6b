"""A WSGI application that tells who serves it."""

import os


def app(_environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
