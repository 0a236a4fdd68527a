"""Prints the body of each message of a topic on a line of its own, until it is killed. contrib/watch-py keeps it
connected; with -watch=false pynsq's own polls do.

    watching_consumer.py [-watch=false] [-poll=SECONDS] TOPIC LOOKUPD_HTTP_ADDRESS...
"""

import argparse
import logging

import nsq
import nsq_watch


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-watch", default="true")
    parser.add_argument("-poll", type=int, default=1)
    parser.add_argument("topic")
    parser.add_argument("lookupds", nargs="+")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")

    def on_message(message):
        print(message.body.decode(), flush=True)
        return True

    reader = nsq.Reader(
        topic=args.topic,
        channel="archive",
        message_handler=on_message,
        lookupd_http_addresses=args.lookupds,
        lookupd_poll_interval=args.poll,
        max_in_flight=10,
    )
    if args.watch == "true":
        nsq_watch.keep(reader, grace=2, probe=1, poll_interval=args.poll)
    nsq.run()


main()
