#!/usr/bin/env python3
"""Compares lookups within TLS with nginx, which terminates TLS over a response that never changes.

    perf/tls/compare.py target/release/ringlookupd [ROUNDS]

Needs nginx, wrk, openssl and taskset, two cores, and 20,000 open files. Each server has one worker on the second core in
turn, and wrk has the first; both have the same certificate and the same cipher suite. A round is a slice of each server, and the ratios
are taken within rounds. Prints medians, with the smallest and the largest sample: requests and new handshakes for each second of
the server's CPU time, and bytes of memory for an idle connection.
"""

import json
import os
import re
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time

SUITE = "TLS_AES_128_GCM_SHA256"
SLICE = 3
IDLE = 4000

NGINX = """worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 12000; }}
http {{ access_log off; keepalive_requests 100000000; ssl_session_cache shared:SSL:10m;
  server {{ listen 127.0.0.1:{port} ssl backlog=8192;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_conf_command Ciphersuites {suite};
    location / {{ default_type application/json; return 200 '{body}'; }} }} }}
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def register(port):
    """Registers a producer whose lookup is about as long as one in a real cluster."""
    producer = socket.create_connection(("127.0.0.1", port))
    fields = {"broadcast_address": "n" * 100, "hostname": "h" * 130, "tcp_port": 1, "http_port": 2, "version": "1"}
    body = json.dumps(fields).encode()
    producer.sendall(b"  V1IDENTIFY\n" + struct.pack(">i", len(body)) + body + b"REGISTER t c\n")
    received = b""
    while not received.endswith(b"OK"):
        received += producer.recv(4096)
    return producer


class Server:
    """A server that runs, pinned to the second core."""

    def __init__(self, name, program, folder):
        self.port = free_port()
        self.producer = None
        if name == "nginx":
            with open(f"{folder}/nginx.conf", "w") as file:
                file.write(NGINX.format(folder=folder, port=self.port, suite=SUITE, body="x" * BODY_LEN))
            command, self.path = ["nginx", "-c", f"{folder}/nginx.conf"], "/"
        else:
            tcp = free_port()
            command = [program, "-workers=1", "-log-level=error", f"-tcp-address=127.0.0.1:{tcp}"]
            command += ["-http-address=127.0.0.1:0", f"-https-address=127.0.0.1:{self.port}"]
            command += [f"-tls-cert={folder}/cert.pem", f"-tls-key={folder}/key.pem"]
            self.path = "/lookup?topic=t"
        self.process = subprocess.Popen(["taskset", "-c", "1"] + command, stderr=subprocess.DEVNULL)
        self.await_listening()
        if name != "nginx":
            self.producer = register(tcp)
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout
        self.pids = [self.process.pid] + [int(pid) for pid in children.split()]

    def await_listening(self):
        deadline = time.monotonic() + 10
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def cpu(self):
        """Seconds of CPU time, of all threads."""
        nanoseconds = 0
        for pid in self.pids:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                    nanoseconds += int(file.read().split()[0])
        return nanoseconds / 1e9

    def memory(self):
        """Anonymous resident bytes."""
        total = 0
        for pid in self.pids:
            with open(f"/proc/{pid}/status") as file:
                total += int(re.search(r"RssAnon:\s+(\d+)", file.read()).group(1)) * 1024
        return total

    def wrk(self, seconds, *args):
        """Requests that wrk has had a response to."""
        command = ["taskset", "-c", "0", "wrk", "-t1", "-c64", f"-d{seconds}s", *args]
        report = subprocess.run(command + [f"https://localhost:{self.port}{self.path}"], capture_output=True, text=True)
        if "Non-2xx" in report.stdout:
            sys.exit(report.stdout)
        return int(re.search(r"(\d+) requests in", report.stdout).group(1))

    def rate(self, *args):
        """Responses for each second of CPU time."""
        self.wrk(1, *args)
        before = self.cpu()
        return self.wrk(SLICE, *args) / (self.cpu() - before)

    def idle(self, context):
        """Bytes for each idle connection, after a first request."""

        def connect():
            client = context.wrap_socket(socket.create_connection(("127.0.0.1", self.port)), server_hostname="localhost")
            client.sendall(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % self.path.encode())
            client.recv(4096)
            return client

        kept = [connect() for _ in range(200)]
        before = self.memory()
        kept += [connect() for _ in range(IDLE)]
        return (self.memory() - before) / IDLE

    def stop(self):
        self.process.terminate()
        self.process.wait()


# The body of ringlookupd's response to `register`.
BODY_LEN = 443


def certificate(folder):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def version(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()


def main():
    program, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    load = os.getloadavg()
    samples = {}
    with tempfile.TemporaryDirectory() as folder:
        certificate(folder)
        context = ssl.create_default_context(cafile=f"{folder}/cert.pem")
        for nth in range(rounds):
            for name in ["nginx", "ringlookupd"][:: 1 if nth % 2 else -1]:
                server = Server(name, program, folder)
                for kind, sample in [
                    ("lookups, kept connections", server.rate),
                    ("new handshakes", lambda server=server: server.rate("-H", "Connection: close")),
                    ("bytes of an idle connection", lambda server=server: server.idle(context)),
                ]:
                    samples.setdefault(kind, {}).setdefault(name, []).append(sample())
                server.stop()
    print(f"{rounds} rounds, load average before {load[0]:.1f}, after {os.getloadavg()[0]:.1f}, {' '.join(os.uname()[::2])}")
    print(version(program, "-version")[-1], "|", version("nginx", "-v")[0], "|", version("wrk", "-v")[0], "|", SUITE)
    print("| a second of CPU time | nginx | ringlookupd | ratio |\n| --- | --- | --- | --- |")
    for kind, of in samples.items():
        ratios = [ours / theirs for ours, theirs in zip(of["ringlookupd"], of["nginx"])]
        cells = [f"{statistics.median(of[name]):,.0f} [{min(of[name]):,.0f} to {max(of[name]):,.0f}]" for name in of]
        cells = dict(zip(of, cells))
        ratio = f"{statistics.median(ratios):.2f} [{min(ratios):.2f} to {max(ratios):.2f}]"
        print(f"| {kind} | {cells['nginx']} | {cells['ringlookupd']} | {ratio} |")


main()
