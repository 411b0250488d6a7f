"""The S3 server of tests: moto's, with puts one after the other.

moto looks whether an object is there and puts it in two steps, between which another request may
come. The condition of a put would then hold for two of them, which it does on no real server.
"""

import os
import threading

import moto.server

run_simple = moto.server.run_simple
puts = threading.Lock()
ignores_conditions = "IGNORES_CONDITIONS" in os.environ


def run(host, port, app, **options):
    def one_put_at_a_time(environ, start_response):
        if environ["REQUEST_METHOD"] != "PUT":
            return app(environ, start_response)
        if ignores_conditions:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with puts:
            return list(app(environ, start_response))

    run_simple(host, port, one_put_at_a_time, **options)


moto.server.run_simple = run
moto.server.main()
