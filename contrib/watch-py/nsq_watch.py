"""Keeps a pynsq reader connected to the nsqd nodes that one or several lookups list. It learns of a change at once, from
/watch, and polls a lookup that has no /watch.

    reader = nsq.Reader(topic="orders", channel="archive", message_handler=handle,
                        lookupd_http_addresses=["http://lookup:4161"])
    nsq_watch.keep(reader)
    nsq.run()
"""

import asyncio
import json
import logging
import random
import ssl
import time
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httpclient import AsyncHTTPClient
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine
from tornado.ioloop import PeriodicCallback
from tornado.tcpclient import TCPClient

logger = logging.getLogger(__name__)

# What a lookup says of an nsqd, and what all of them together say.
ABSENT = "absent"
LISTED = "listed"  # connect
UNCONFIRMED = "unconfirmed"  # listed before the lookup restarted, which does not know every nsqd again yet
REMOVED = "removed"  # tombstoned, unregistered, deleted or filtered: disconnect at once

NETWORK_TIMEOUT = 5
CONNECT_TIMEOUT = 10


def keep(reader, **options):
    """Starts a Watch, in place of the reader's own polls. To be called before the loop runs."""
    return Watch(reader, **options)


class Watch:
    """
    :param reader: the nsq.Reader; its topic and its lookupd_http_addresses are watched
    :param headers: sent to the lookups, {"Authorization": "Bearer ..."} for example
    :param grace: how many seconds an nsqd may be unlisted before a failed probe drops it
    :param probe: seconds between two probes of an unlisted nsqd
    :param poll_interval: seconds between two polls of a lookup without /watch
    :param ssl_options: an ssl.SSLContext for lookups at https addresses
    """

    def __init__(self, reader, headers=None, grace=30, probe=15, poll_interval=60, ssl_options=None, tick=1, idle=40):
        self.reader = reader
        self.headers = headers or {}
        self.grace, self.probe, self.poll_interval = grace, probe, poll_interval
        self.ssl_options = ssl_options
        self.tick = tick  # between two looks at the connections
        self.idle = idle  # without a byte for so long a stream is dead
        self.lookups = [Lookup(self, i, address) for i, address in enumerate(reader.lookupd_http_addresses)]
        self.live = [False] * len(self.lookups)  # its view is of now, not of the time before its stream broke
        self.nodes = {}
        self.tasks = set()
        self.periodic = PeriodicCallback(self.step_all, tick * 1000)
        self.stopped = False

        async def no_query():
            pass

        reader.query_lookupd = no_query
        if reader.query_periodic is not None:
            reader.query_periodic.stop()
        reader.io_loop.add_callback(self._start)

    def _start(self):
        if self.stopped:
            return
        self.periodic.start()
        for lookup in self.lookups:
            self.spawn(lookup.run())

    def stop(self):
        """Ends the watch; the connections stay. To be called before the reader's close()."""
        self.stopped = True
        self.periodic.stop()
        for task in self.tasks:
            task.cancel()

    def spawn(self, work):
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def apply(self, i, event, data):
        """Takes over what a lookup has said."""
        if event == "snapshot":
            self.live[i] = True
            # A lookup that is not settled yet only adds.
            self._replace(i, ABSENT if data["settled"] else UNCONFIRMED, LISTED, UNCONFIRMED)
            for producer in data["producers"]:
                self._list(i, producer)
        elif event == "same":
            self.live[i] = True
            if data["settled"]:
                self._replace(i, ABSENT, UNCONFIRMED)
        elif event == "settled":
            self._replace(i, ABSENT, UNCONFIRMED)
        elif event == "up":
            self._list(i, data["producer"])
        elif event == "down":
            node = self.nodes.get((data["broadcast_address"], data["tcp_port"]))
            if node:
                node.views[i] = ABSENT if data["reason"] in ("gone", "inactive") else REMOVED
        elif event == "topic" and data["change"] == "deleted":
            self._replace(i, REMOVED, LISTED, UNCONFIRMED)
        elif event == "broken":
            self.live[i] = False
        self.step_all()

    def _replace(self, i, by, *old):
        for node in self.nodes.values():
            if node.views[i] in old:
                node.views[i] = by

    def _list(self, i, producer):
        key = producer["broadcast_address"], producer["tcp_port"]
        node = self.nodes.setdefault(key, Node(*key, len(self.lookups)))
        node.http_port = producer.get("http_port")
        node.views[i] = LISTED
        if not node.connected:
            node.failures, node.next = 0, 0

    def view(self, node):
        """What all lookups say of a node. One that cannot be reached keeps its last view, unless one that can says that
        the nsqd was removed."""
        if any(view == LISTED and live for view, live in zip(node.views, self.live)):
            return LISTED
        if REMOVED in node.views:
            return REMOVED
        return UNCONFIRMED if LISTED in node.views or UNCONFIRMED in node.views else ABSENT

    def step_all(self):
        for node in list(self.nodes.values()):
            self._step(node)

    def _step(self, node):
        now = time.monotonic()
        view = self.view(node)
        if view == REMOVED:
            self._drop(node, "removed")
        elif view == ABSENT:
            if node.id not in self.reader.conns:
                self._drop(node, "unlisted")
                return
            if node.absent_since is None:
                node.absent_since = node.next = now
            if now >= node.next and not node.probing:
                node.next, node.probing = now + self.probe, True
                self.spawn(self._probe(node))
        else:
            node.absent_since = None
            self._connect(node, now)

    def _connect(self, node, now):
        if node.id in self.reader.conns:
            node.connected, node.dialled, node.failures = True, None, 0
        elif node.connected:
            # A lookup has a moment to say that the topic was deleted there: a new connection would make the topic again.
            node.connected, node.hold = False, now + 2 * self.tick
            for lookup in self.lookups:
                lookup.recheck.set()
        elif node.dialled is not None:
            # pynsq has no deadline for this. A second connection beside it would remove the first from reader.conns.
            if not node.dialled.closed() and now < node.deadline:
                return
            node.disconnect(self.reader)
            node.next = now + jitter(self.tick * 2 ** min(node.failures, 4))
            node.failures += 1
        elif now >= max(node.next, node.hold):
            # pynsq silently ignores a second attempt within 10 s.
            self.reader.connection_attempts.pop(node.id, None)
            node.dialled = self.reader.connect_to_nsqd(node.host, node.port)
            node.deadline = now + CONNECT_TIMEOUT

    def _drop(self, node, why):
        """Disconnects, and forgets the node unless a lookup that cannot be reached may list it again."""
        if node.disconnect(self.reader):
            logger.info("[%s] disconnected from %s: %s", self.reader.name, node.id, why)
        node.connected, node.next = False, 0
        if LISTED not in node.views and UNCONFIRMED not in node.views:
            self.nodes.pop((node.host, node.port), None)

    async def _probe(self, node):
        try:
            why = await self._serves(node)
        except Exception as error:
            why = "unlisted, %s" % error if time.monotonic() - node.absent_since >= self.grace else None
        finally:
            node.probing = False
        if why and self.view(node) == ABSENT:
            self._drop(node, why)

    async def _serves(self, node):
        """Asks an nsqd for the topic. Where its HTTP port gives no response, a TCP connection shows that it lives."""
        host = "[%s]" % node.host if ":" in node.host else node.host
        query = urlencode({"format": "json", "topic": self.reader.topic, "include_clients": "false"})
        try:
            response = await AsyncHTTPClient().fetch(
                "http://%s:%s/stats?%s" % (host, node.http_port, query),
                connect_timeout=NETWORK_TIMEOUT, request_timeout=NETWORK_TIMEOUT, raise_error=False)
        except Exception:
            (await TCPClient().connect(node.host, node.port, timeout=NETWORK_TIMEOUT)).close()
            return None
        try:
            has_topic = response.code != 200 or json.loads(response.body)["topics"] != []
        except (ValueError, KeyError, TypeError):
            has_topic = True
        return None if has_topic else "unlisted, it has no such topic"


class Node:
    """An nsqd that a lookup lists, or that the reader may still be connected to."""

    def __init__(self, host, port, lookups):
        self.host, self.port, self.http_port = host, port, None
        self.id = "%s:%s" % (host, port)  # as in reader.conns
        self.views = [ABSENT] * lookups
        self.connected = False  # it was when last looked at
        self.dialled = None  # a connection that is not in reader.conns yet
        self.deadline = 0
        self.failures = 0
        self.next = 0  # when to connect or to probe
        self.hold = 0  # no new connection before, after one was lost
        self.absent_since = None
        self.probing = False

    def disconnect(self, reader):
        conn = reader.conns.get(self.id) or self.dialled
        self.dialled = None
        if conn is not None:
            conn.close()
        return conn is not None


class Refusal(Exception):
    """A response that is no stream."""

    def __init__(self, status, retry_after):
        super().__init__("status %s" % status)
        self.retry_after = retry_after


class Silence(Exception):
    """A response without an event."""


class Bye(Exception):
    """The end that the server has announced."""

    def __init__(self, delay):
        super().__init__("the server ends the stream, again in %s s" % delay)
        self.delay = delay


class Lookup:
    """One of the lookups."""

    def __init__(self, watch, index, address):
        self.watch, self.index = watch, index
        scheme, self.netloc, path, query, _ = urlsplit(address if "://" in address else "http://" + address)
        path = path.rstrip("/")
        path = path[:-len("/lookup")] if path.endswith("/lookup") else path
        query = urlencode([pair for pair in parse_qsl(query) if pair[0] != "topic"] + [("topic", watch.reader.topic)])
        self.target = "%s/watch?%s" % (path, query)
        self.url = urlunsplit((scheme, self.netloc, path + "/watch", query, ""))
        self.poll_url = urlunsplit((scheme, self.netloc, path + "/lookup", query, ""))
        parts = urlsplit(self.url)
        self.host, self.port = parts.hostname, parts.port or (443 if scheme == "https" else 80)
        self.ssl_options = (watch.ssl_options or ssl.create_default_context()) if scheme == "https" else None
        self.events = EventParser()
        self.recheck = asyncio.Event()

    async def run(self):
        """Watches. Where there is a server but no stream, it polls."""
        failures, said = 0, None
        while True:
            heard, error = await self._stream()
            if heard:
                failures, said = 0, None
            polled = isinstance(error, (Refusal, Silence)) and await self._poll()
            if not polled:
                self.watch.apply(self.index, "broken", {})
            text = "%s; polling instead" % error if polled else str(error)
            if text != said:
                said = text
                logger.warning("[%s] %s: %s", self.watch.reader.name, self.url, text)
            await self._wait(self.delay(error, failures, polled), polled)
            failures += 1

    def delay(self, error, failures, polled):
        """The seconds until the next attempt."""
        if isinstance(error, Bye):
            return error.delay
        if isinstance(error, Refusal) and error.retry_after:
            return error.retry_after * (1 + random.random() / 4)
        if isinstance(error, Refusal) and polled:
            return jitter(self.watch.poll_interval)
        retry = self.events.retry
        return jitter(min(retry * 2 ** min(failures, 5), max(retry, 30)))

    async def _wait(self, delay, polling):
        self.recheck.clear()
        delay = max(delay, 0.1)
        if not polling:
            await asyncio.sleep(delay)
            return
        try:
            await asyncio.wait_for(self.recheck.wait(), delay)
        except asyncio.TimeoutError:
            pass

    async def _poll(self):
        """Asks for the producers once, as a reader does without this module."""
        try:
            response = await AsyncHTTPClient().fetch(
                self.poll_url, headers=dict(self.watch.headers, Accept="application/vnd.nsq; version=1.0"),
                connect_timeout=NETWORK_TIMEOUT, request_timeout=2 * NETWORK_TIMEOUT, raise_error=False,
                ssl_options=self.watch.ssl_options)
            if response.code == 404 and b"TOPIC_NOT_FOUND" in response.body:
                producers = []
            elif response.code == 200:
                producers = json.loads(response.body)["producers"]
            else:
                return False
        except Exception as error:
            logger.warning("[%s] %s: %s", self.watch.reader.name, self.poll_url, error)
            return False
        self.events.last_id = ""  # it stands for what this replaces
        self.watch.apply(self.index, "snapshot", {"settled": True, "producers": producers})
        return True

    async def _stream(self):
        """Follows a stream to its end. Returns whether it brought an event, and why it has ended."""
        try:
            stream = await TCPClient().connect(
                self.host, self.port, ssl_options=self.ssl_options, timeout=NETWORK_TIMEOUT)
        except Exception as error:
            return False, error
        self.events.restart()
        body = Body(self, stream)
        cause = ConnectionError("the stream has ended")
        try:
            stream.set_nodelay(True)
            connection = HTTP1Connection(
                stream, True, HTTP1ConnectionParameters(no_keep_alive=True, max_body_size=1 << 62))
            headers = HTTPHeaders(self.watch.headers)
            headers.update({"Host": self.netloc.rpartition("@")[2], "Accept": "text/event-stream", "Connection": "close"})
            if self.events.last_id:
                headers["Last-Event-ID"] = self.events.last_id
            await connection.write_headers(RequestStartLine("GET", self.target, ""), headers)
            connection.finish()
            await connection.read_response(body)
        except Exception as error:
            cause = error
        finally:
            body.end(Silence("no event") if body.reached and not body.heard else cause)
        return body.heard, body.error


class Body(HTTPMessageDelegate):
    """What comes in on a stream; it ends the stream when that is silent."""

    def __init__(self, lookup, stream):
        self.lookup, self.stream = lookup, stream
        self.reached = self.heard = False
        self.error = None
        self.timer = None
        self.loop = lookup.watch.reader.io_loop
        self._rearm()

    def _rearm(self):
        if self.timer is not None:
            self.loop.remove_timeout(self.timer)
        self.timer = self.loop.call_later(self.lookup.watch.idle, self.stream.close)

    def end(self, error):
        """The first error is the reason."""
        if self.error is None:
            self.error = error
        self.loop.remove_timeout(self.timer)
        self.stream.close()

    def headers_received(self, start_line, headers):
        self.reached = True
        if start_line.code != 200 or not headers.get("Content-Type", "").startswith("text/event-stream"):
            retry_after = headers.get("Retry-After", "")
            self.end(Refusal(start_line.code, int(retry_after) if retry_after.isdecimal() else 0))

    def data_received(self, chunk):
        if self.error is not None:
            return
        self._rearm()
        for event, text in self.lookup.events.feed(chunk):
            if not self.heard:
                self.heard = True
                logger.info("[%s] %s: watching", self.lookup.watch.reader.name, self.lookup.url)
            try:
                data = json.loads(text)
                if event == "bye":
                    self.end(Bye(data["retry_ms"] / 1000))
                    return
                self.lookup.watch.apply(self.lookup.index, event, data)
            except Exception as error:
                self.lookup.events.last_id = ""  # what comes next would be based on this event
                self.end(error)
                return


class EventParser:
    """Parses text/event-stream; its pieces may end anywhere, and its lines be of any length."""

    def __init__(self):
        self.last_id = ""
        self.retry = 2.0  # seconds
        self.restart()

    def restart(self):
        """At the start of a stream; the id of the last event stays."""
        self._buffer = bytearray()
        self._id, self._event, self._data = self.last_id, "", []

    def feed(self, piece):
        """The events, as pairs of name and data, that the piece completes."""
        self._buffer += piece
        if b"\n" not in piece:
            return []
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        events = []
        for line in lines:
            name, _, value = line.decode("utf-8", "replace").rstrip("\r").partition(":")
            value = value[1:] if value.startswith(" ") else value
            if name == "event":
                self._event = value
            elif name == "data":
                self._data.append(value)
            elif name == "id":
                self._id = value
            elif name == "retry" and value.isdecimal():
                self.retry = int(value) / 1000
            elif line.rstrip(b"\r") == b"":
                self.last_id = self._id
                if self._data:
                    events.append((self._event, "\n".join(self._data)))
                self._event, self._data = "", []
        return events


def jitter(seconds):
    """Within a quarter of it, so that consumers do not all come back at once."""
    return seconds * (0.75 + random.random() / 2)
