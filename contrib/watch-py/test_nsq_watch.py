"""Real pynsq readers, kept connected to fake nsqd by what fake lookups say.

    python -m unittest discover contrib/watch-py
"""

import asyncio
import json
import logging
import time
import unittest

import nsq

import nsq_watch

PATIENCE = 20
OK = b"\x00\x00\x00\x06\x00\x00\x00\x00OK"


async def until(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("not in time: " + what)
        await asyncio.sleep(0.005)


class FakeNsqd:
    """Accepts every command, and knows who has subscribed."""

    async def start(self, port=0):
        self.subscribers, self.writers, self.accepted = 0, set(), 0
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader, writer):
        self.writers.add(writer)
        self.accepted += 1
        subscribed = 0
        try:
            await reader.readexactly(4)
            while True:
                verb = (await reader.readuntil(b"\n")).split()[0]
                if verb == b"IDENTIFY":
                    await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
                if verb == b"SUB":
                    subscribed = 1
                    self.subscribers += 1
                if verb in (b"IDENTIFY", b"SUB"):
                    writer.write(OK)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.subscribers -= subscribed
            self.writers.discard(writer)
            writer.close()

    def kill(self):
        self.server.close()
        self.close_connections()

    def close_connections(self):
        for writer in list(self.writers):
            writer.transport.abort()

    def producer(self, http_port=1, **others):
        return dict(broadcast_address="127.0.0.1", tcp_port=self.port, http_port=http_port, **others)


class FakeLookup:
    """Hands each stream that a client opens to the test."""

    async def start(self):
        self.streams, self.status, self.producers, self.writers = asyncio.Queue(), 200, [], []
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if head.startswith("GET /lookup?topic=orders "):
            body = json.dumps({"channels": [], "producers": self.producers})
            respond(writer, 200, body)
        elif self.status != 200:
            respond(writer, self.status, "{}")
        else:
            self.writers.append(writer)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            await self.streams.put(Stream(head, writer))

    def stop(self):
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()

    async def stream(self):
        return await asyncio.wait_for(self.streams.get(), PATIENCE)


def respond(writer, status, body):
    writer.write(b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
        status, len(body), body.encode()))
    writer.close()


class Stream:
    def __init__(self, head, writer):
        self.head, self.writer = head, writer

    def raw(self, text):
        self.writer.write(b"%x\r\n%s\r\n" % (len(text), text.encode()))

    def event(self, event, data, id="00000000000000a1"):
        self.raw("event: %s\nid: %s\ndata: %s\n\n" % (event, id, json.dumps(data)))

    def snapshot(self, settled, *producers):
        self.event("snapshot", {"topic": "orders", "settled": settled, "producers": producers})

    def up(self, producer):
        self.event("up", {"topic": "orders", "producer": producer})

    def down(self, nsqd, reason):
        self.event("down", {"broadcast_address": "127.0.0.1", "tcp_port": nsqd.port, "reason": reason})

    def cut(self):
        self.writer.transport.abort()


class WatchTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)

    async def nsqd(self, port=0):
        nsqd = await FakeNsqd().start(port)
        self.addCleanup(nsqd.kill)
        return nsqd

    async def lookup(self):
        lookup = await FakeLookup().start()
        self.addCleanup(lookup.stop)
        return lookup

    def keep(self, *lookups, **options):
        reader = nsq.Reader("orders", "archive", message_handler=lambda message: True, max_in_flight=5,
                            lookupd_http_addresses=[lookup.address for lookup in lookups])
        # A reader shuffles them.
        reader.lookupd_http_addresses = [lookup.address for lookup in lookups]
        times = dict(grace=0.05, probe=0.02, poll_interval=0.05, tick=0.02)
        watch = nsq_watch.keep(reader, **dict(times, **options))

        async def end():
            watch.stop()
            reader.close()
            await asyncio.sleep(0.01)

        self.addAsyncCleanup(end)
        return watch

    async def connected(self, watch, nsqds, *others):
        for nsqd in nsqds:
            await until("a connection to %d" % nsqd.port, lambda: nsqd.subscribers == 1)
        for nsqd in others:
            await until("no connection to %d" % nsqd.port, lambda: nsqd.subscribers == 0)
        await until("the reader's connections", lambda: len(watch.reader.conns) == len(nsqds))

    async def test_connects_to_what_is_listed(self):
        a, b, lookup = await self.nsqd(), await self.nsqd(), await self.lookup()
        watch = self.keep(lookup)
        stream = await lookup.stream()
        self.assertTrue(stream.head.startswith("GET /watch?topic=orders HTTP/1.1\r\n"), stream.head)
        stream.raw("retry: 10\n\n: a comment\n\n")
        stream.snapshot(True, a.producer())
        await self.connected(watch, [a])
        stream.up(b.producer())
        stream.up(a.producer())
        stream.event("channel", {"topic": "orders", "channel": "a", "change": "deleted"})
        stream.event("future", {})
        await self.connected(watch, [a, b])
        for reason in ["tombstoned", "unregistered", "deleted", "filtered"]:
            stream.down(a, reason)
            await self.connected(watch, [b], a)
            # pynsq alone would ignore an attempt within 10 s.
            stream.up(a.producer())
            await self.connected(watch, [a, b])
            stream.down(a, reason)
            stream.up(a.producer())
            await self.connected(watch, [a, b])
        stream.event("topic", {"topic": "orders", "change": "deleted"})
        await self.connected(watch, [], a, b)

    async def test_an_unlisted_nsqd_is_kept_while_it_lives(self):
        for reason in ["gone", "inactive", None]:
            a, b, lookup = await self.nsqd(), await self.nsqd(), await self.lookup()
            watch = self.keep(lookup)
            stream = await lookup.stream()
            stream.snapshot(True, a.producer(), b.producer())
            await self.connected(watch, [a, b])
            if reason is None:
                stream.snapshot(True, b.producer())
            else:
                stream.down(a, reason)
            # Each probe is one more connection to it.
            await until("several probes", lambda: a.accepted > 5)
            await self.connected(watch, [a, b])
            a.kill()
            await self.connected(watch, [b], a)
            await until("it is forgotten", lambda: len(watch.nodes) == 1)

    async def test_an_nsqd_without_the_topic_is_dropped(self):
        topics = [{"topic_name": "orders"}]
        asked = []

        async def stats(reader, writer):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            respond(writer, 200, json.dumps({"topics": topics}))

        server = await asyncio.start_server(stats, "127.0.0.1", 0)
        self.addCleanup(server.close)
        a, lookup = await self.nsqd(), await self.lookup()
        watch = self.keep(lookup)
        stream = await lookup.stream()
        stream.snapshot(True, a.producer(server.sockets[0].getsockname()[1]))
        await self.connected(watch, [a])
        stream.snapshot(True)
        await until("several probes", lambda: len(asked) > 5)
        self.assertIn(b"GET /stats?format=json&topic=orders", asked[0])
        await self.connected(watch, [a])
        topics.clear()
        await self.connected(watch, [], a)

    async def test_a_connected_nsqd_that_hangs_is_probed_after_the_grace(self):
        a, lookup = await self.nsqd(), await self.lookup()
        watch = self.keep(lookup)
        stream = await lookup.stream()
        stream.snapshot(True, a.producer())
        await self.connected(watch, [a])
        a.server.close()  # its connections stay
        stream.down(a, "gone")
        await self.connected(watch, [], a)

    async def test_only_what_all_lookups_removed_is_disconnected(self):
        a, b, c = [await self.nsqd() for _ in range(3)]
        first, second = await self.lookup(), await self.lookup()
        watch = self.keep(first, second)
        one, two = await first.stream(), await second.stream()
        one.snapshot(True, a.producer())
        two.snapshot(True, a.producer(), b.producer())
        await self.connected(watch, [a, b])
        one.down(a, "unregistered")
        one.up(b.producer())
        one.down(b, "unregistered")
        one.up(c.producer())
        await self.connected(watch, [a, b, c])
        two.down(a, "unregistered")
        await self.connected(watch, [b, c], a)
        self.assertEqual((b.accepted, c.accepted), (1, 1))

    async def test_a_lookup_that_cannot_be_reached_keeps_its_view(self):
        a, b = await self.nsqd(), await self.nsqd()
        first, second = await self.lookup(), await self.lookup()
        watch = self.keep(first, second)
        one, two = await first.stream(), await second.stream()
        two.raw("retry: 10\n\n")
        one.snapshot(True)
        two.snapshot(True, a.producer(), b.producer())
        await self.connected(watch, [a, b])
        two.cut()
        resumed = await second.stream()
        self.assertIn("Last-Event-Id: 00000000000000a1\r\n", resumed.head)
        one.down(b, "gone")
        # But a lookup that can be reached knows better that an nsqd was removed.
        one.up(b.producer())
        one.down(b, "unregistered")
        await self.connected(watch, [a], b)
        resumed.event("same", {"settled": True})
        await self.connected(watch, [a, b])
        self.assertEqual(a.accepted, 1)

    async def test_a_lookup_that_is_not_settled_only_adds(self):
        a, b, lookup = await self.nsqd(), await self.nsqd(), await self.lookup()
        watch = self.keep(lookup)
        stream = await lookup.stream()
        stream.raw("retry: 10\n\n")
        stream.snapshot(True, a.producer())
        await self.connected(watch, [a])
        stream.raw("event: up\nid\ndata: %s\n\n" % json.dumps({"producer": b.producer()}))
        await self.connected(watch, [a, b])
        stream.cut()
        stream = await lookup.stream()
        self.assertNotIn("Last-Event-Id", stream.head)
        stream.snapshot(False)
        stream.up(b.producer())
        a.kill()
        await self.connected(watch, [b])
        self.assertEqual(len(watch.nodes), 2)
        stream.event("settled", {"settled": True})
        await until("it is forgotten", lambda: len(watch.nodes) == 1)

    async def test_failed_first_dials_and_lost_connections_are_repeated(self):
        a, b, lookup = await self.nsqd(), await self.nsqd(), await self.lookup()
        b.kill()
        watch = self.keep(lookup)
        (await lookup.stream()).snapshot(True, a.producer(), b.producer())
        await self.connected(watch, [a])
        await until("a failed dial", lambda: any(node.failures for node in watch.nodes.values()))
        b = await self.nsqd(b.port)
        await self.connected(watch, [a, b])
        a.kill()
        a = await self.nsqd(a.port)
        await self.connected(watch, [a, b])

    async def test_a_lost_connection_waits_for_the_lookups(self):
        """What a lookup said before the topic was deleted may arrive after the connection was closed for it."""
        a, lookup = await self.nsqd(), await self.lookup()
        watch = self.keep(lookup, tick=2)
        stream = await lookup.stream()
        stream.snapshot(True, a.producer())
        await self.connected(watch, [a])
        a.close_connections()
        await until("the reader has noticed", lambda: not watch.reader.conns)
        stream.up(a.producer())
        stream.down(a, "unregistered")
        await until("it is forgotten", lambda: not watch.nodes)
        self.assertEqual(a.accepted, 1)

    async def test_polls_without_watch(self):
        a, b, lookup = await self.nsqd(), await self.nsqd(), await self.lookup()
        lookup.status, lookup.producers = 404, [a.producer()]
        watch = self.keep(lookup)
        await self.connected(watch, [a])
        lookup.producers = [b.producer()]
        await self.connected(watch, [a, b])
        a.kill()
        await self.connected(watch, [b], a)
        lookup.status = 200
        stream = await lookup.stream()
        stream.snapshot(True, b.producer())
        stream.down(b, "unregistered")
        await self.connected(watch, [], b)

    async def test_a_stream_without_bytes_ends(self):
        a, lookup = await self.nsqd(), await self.lookup()
        watch = self.keep(lookup, idle=0.2, headers={"Authorization": "Bearer secret"})
        stream = await lookup.stream()
        self.assertIn("\r\nAuthorization: Bearer secret\r\n", stream.head)
        stream.raw("retry: 10\n\n")
        (await lookup.stream()).snapshot(True, a.producer())
        await self.connected(watch, [a])
        await lookup.stream()

    async def test_a_line_longer_than_any_buffer(self):
        a, lookup = await self.nsqd(), await self.lookup()
        watch = self.keep(lookup)
        (await lookup.stream()).snapshot(True, a.producer(hostname="h" * (1 << 20)))
        await self.connected(watch, [a])

    async def test_the_server_says_when_to_come_back(self):
        lookup = self.keep(await self.lookup(), poll_interval=60).lookups[0]
        for error, failures, polled, least, most in [
            (nsq_watch.Bye(1.234), 9, False, 1.234, 1.234),
            (nsq_watch.Refusal(503, 20), 0, True, 20, 25),
            (nsq_watch.Refusal(404, 0), 0, True, 45, 75),
            (nsq_watch.Refusal(403, 0), 0, False, 1.5, 2.5),
            (ConnectionError(), 1, False, 3, 5),
            (ConnectionError(), 99, False, 22.5, 37.5),
        ]:
            delay = lookup.delay(error, failures, polled)
            self.assertTrue(least <= delay <= most, (error, failures, delay))

    async def test_addresses(self):
        watch = self.keep(await self.lookup())
        for address, url in [
            ("lookup:4161", "http://lookup:4161/watch?topic=orders"),
            ("http://[::1]:4161/", "http://[::1]:4161/watch?topic=orders"),
            ("https://lookup/lookup?zone=a%2Cb", "https://lookup/watch?zone=a%2Cb&topic=orders"),
            ("http://proxy/nsq/?strict=true", "http://proxy/nsq/watch?strict=true&topic=orders"),
        ]:
            lookup = nsq_watch.Lookup(watch, 0, address)
            self.assertEqual(lookup.url, url)
            self.assertEqual(lookup.poll_url, url.replace("/watch", "/lookup"))


class EventParserTest(unittest.TestCase):
    def test_pieces_end_anywhere(self):
        text = "retry: 10\r\n\r\n:c\nevent: up\nid: a\ndata: {\ndata:\u00e9}\n\nid\ndata: x\n\nid: lost\ndata".encode()
        for at in range(len(text) + 1):
            parser = nsq_watch.EventParser()
            events = parser.feed(text[:at]) + parser.feed(text[at:])
            self.assertEqual(events, [("up", "{\n\u00e9}"), ("", "x")])
            self.assertEqual((parser.retry, parser.last_id), (0.01, ""))


if __name__ == "__main__":
    unittest.main()
