"""Asks a lookupd with gnsq what gnsq's own tests ask it, and prints what they look at, a line each.

    gnsq_client.py LOOKUPD_PROGRAM LOOKUPD_HTTP_ADDRESS TOPIC
"""

import re
import subprocess
import sys

import gnsq

# BaseIntegrationServer.version_re in tests/integration_server.py of gnsq 1.0.2, which only its source package has.
VERSION = re.compile(' '.join([
    r'(?P<name>[a-z]+)',
    r'v(?P<version>[0-9]+\.[0-9]+\.[0-9]+)(?:-[a-z]+)?',
    r'\(built w\/(?P<go_version>[a-z0-9.-]+)\)'
]))


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: gnsq_client.py LOOKUPD_PROGRAM LOOKUPD_HTTP_ADDRESS TOPIC")
    program, address, topic = sys.argv[1:]
    output = subprocess.check_output([program, '--version']).decode()
    match = VERSION.match(output)
    if match is None:
        sys.exit(f"gnsq's tests do not take this for a version: {output!r}")
    print("program:", match.group('name'), match.group('version'))

    host, port = address.split(':')
    lookupd = gnsq.LookupdClient(host, int(port))
    print("ping:", lookupd.ping().decode())
    print("info:", lookupd.info()['version'])
    print("topics:", *sorted(lookupd.topics()['topics']))
    print("channels:", *sorted(lookupd.channels(topic)['channels']))
    print("nodes:", len(lookupd.nodes()['producers']))
    print("producers:", len(lookupd.lookup(topic)['producers']))
    try:
        lookupd.lookup('nobody')
    except gnsq.errors.NSQHttpError as error:
        print("nobody:", error)


main()
