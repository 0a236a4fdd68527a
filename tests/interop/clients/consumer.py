"""Finds a topic through nsqlookupd with pynsq, prints the body of each message on a line of its own, and exits
once COUNT of them are finished.

    consumer.py TOPIC CHANNEL COUNT LOOKUPD_HTTP_ADDRESS...
"""

import sys

import nsq
from tornado.ioloop import IOLoop


def main():
    if len(sys.argv) < 5:
        sys.exit("usage: consumer.py TOPIC CHANNEL COUNT LOOKUPD_HTTP_ADDRESS...")
    topic, channel, count, *lookupds = sys.argv[1:]
    remaining = int(count)

    def on_message(message):
        nonlocal remaining
        print(message.body.decode(), flush=True)
        remaining -= 1
        if remaining == 0:
            # pynsq sends FIN after this handler returns: the next turn of the loop comes after it.
            IOLoop.current().add_callback(stop)
        return True

    def stop():
        reader.close()
        IOLoop.current().stop()

    reader = nsq.Reader(
        topic=topic,
        channel=channel,
        message_handler=on_message,
        lookupd_http_addresses=lookupds,
        lookupd_poll_interval=1,
        max_in_flight=10,
    )
    nsq.run()


main()
