package watch

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsqio/go-nsq"
)

const patience = 20 * time.Second

// await waits for a condition.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// fakeNsqd accepts every command, and knows who has subscribed.
type fakeNsqd struct {
	listener    net.Listener
	mutex       sync.Mutex
	connections map[net.Conn]bool // subscribed or not
	accepted    int
}

func startNsqd(t *testing.T, address string) *fakeNsqd {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	n := &fakeNsqd{listener: listener, connections: map[net.Conn]bool{}}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			n.set(connection, false)
			n.mutex.Lock()
			n.accepted++
			n.mutex.Unlock()
			go n.serve(connection)
		}
	}()
	t.Cleanup(n.kill)
	return n
}

func (n *fakeNsqd) set(connection net.Conn, subscribed bool) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	n.connections[connection] = subscribed
}

func (n *fakeNsqd) serve(connection net.Conn) {
	defer func() {
		connection.Close()
		n.mutex.Lock()
		defer n.mutex.Unlock()
		delete(n.connections, connection)
	}()
	in := bufio.NewReader(connection)
	if _, err := in.Discard(len("  V2")); err != nil {
		return
	}
	for {
		command, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.TrimSpace(command), " ")
		if verb == "IDENTIFY" {
			var size uint32
			if binary.Read(in, binary.BigEndian, &size) != nil {
				return
			}
			_, _ = in.Discard(int(size))
		}
		if verb == "SUB" {
			n.set(connection, true)
		}
		if verb == "SUB" || verb == "IDENTIFY" {
			_, _ = connection.Write([]byte("\x00\x00\x00\x06\x00\x00\x00\x00OK"))
		}
	}
}

func (n *fakeNsqd) address() string { return n.listener.Addr().String() }

// subscribers is how many consumers are connected.
func (n *fakeNsqd) subscribers() int {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	count := 0
	for _, subscribed := range n.connections {
		if subscribed {
			count++
		}
	}
	return count
}

// seen is how many connections there have been.
func (n *fakeNsqd) seen() int {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	return n.accepted
}

func (n *fakeNsqd) kill() {
	n.listener.Close()
	n.closeConnections()
}

func (n *fakeNsqd) closeConnections() {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for connection := range n.connections {
		connection.Close()
	}
}

// producer is the nsqd as lookups list it. Without another HTTP port it has one that nothing listens at.
func (n *fakeNsqd) producer(httpPort ...int) string { return listing(n.address(), httpPort...) }

func listing(address string, httpPort ...int) string {
	host, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf(`{"broadcast_address":%q,"tcp_port":%s,"http_port":%d}`, host, port, append(httpPort, 1)[0])
}

// fakeLookup hands each stream that a client opens to the test.
type fakeLookup struct {
	server  *httptest.Server
	streams chan *stream
	mutex   sync.Mutex
	status  int    // of /watch
	listed  string // the response of /lookup
	polls   int
}

type stream struct {
	request *http.Request
	texts   chan string
	cut     chan struct{}
}

func startLookup(t *testing.T) *fakeLookup {
	f := &fakeLookup{streams: make(chan *stream), status: 200, listed: `{"channels":[],"producers":[]}`}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *fakeLookup) set(status int, producers ...string) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.status, f.listed = status, fmt.Sprintf(`{"channels":[],"producers":[%s]}`, strings.Join(producers, ","))
}

func (f *fakeLookup) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	f.mutex.Lock()
	status, listed := f.status, f.listed
	if request.URL.Path == "/lookup" {
		f.polls++
	}
	f.mutex.Unlock()
	if request.URL.Path == "/lookup" {
		_, _ = io.WriteString(response, listed)
		return
	}
	if status != 200 {
		response.WriteHeader(status)
		return
	}
	response.Header().Set("Content-Type", "text/event-stream")
	flusher := response.(http.Flusher)
	flusher.Flush()
	s := &stream{request: request, texts: make(chan string), cut: make(chan struct{})}
	select {
	case f.streams <- s:
	case <-request.Context().Done():
		return
	}
	for {
		select {
		case text := <-s.texts:
			_, _ = io.WriteString(response, text)
			flusher.Flush()
		case <-s.cut:
			return
		case <-request.Context().Done():
			return
		}
	}
}

// stream is the next one that a client opens.
func (f *fakeLookup) stream(t *testing.T) *stream {
	t.Helper()
	select {
	case s := <-f.streams:
		return s
	case <-time.After(patience):
		t.Fatal("no stream in time")
		return nil
	}
}

func (s *stream) raw(t *testing.T, text string) {
	t.Helper()
	select {
	case s.texts <- text:
	case <-time.After(patience):
		t.Fatal("the stream has ended")
	}
}

func (s *stream) event(t *testing.T, event, id, data string) {
	t.Helper()
	s.raw(t, fmt.Sprintf("event: %s\nid: %s\ndata: %s\n\n", event, id, data))
}

func (s *stream) snapshot(t *testing.T, settled bool, producers ...string) {
	t.Helper()
	s.event(t, "snapshot", "00000000000000a1", fmt.Sprintf(
		`{"topic":"orders","exists":true,"settled":%t,"channels":[],"producers":[%s]}`, settled, strings.Join(producers, ",")))
}

func (s *stream) up(t *testing.T, producer string) {
	t.Helper()
	s.event(t, "up", "00000000000000a2", fmt.Sprintf(`{"topic":"orders","producer":%s}`, producer))
}

func (s *stream) down(t *testing.T, address, reason string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(address)
	s.event(t, "down", "00000000000000a3", fmt.Sprintf(
		`{"topic":"orders","broadcast_address":%q,"tcp_port":%s,"reason":%q}`, host, port, reason))
}

// watched is a real consumer that is kept connected, with short times.
type watched struct {
	consumer *nsq.Consumer
	mutex    sync.Mutex
	logged   strings.Builder
}

func keep(t *testing.T, lookups ...*fakeLookup) *watched {
	t.Helper()
	return keepWithTick(t, 20*time.Millisecond, lookups...)
}

func keepWithTick(t *testing.T, tick time.Duration, lookups ...*fakeLookup) *watched {
	t.Helper()
	consumer, err := nsq.NewConsumer("orders", "archive", nsq.NewConfig())
	if err != nil {
		t.Fatal(err)
	}
	consumer.SetLogger(log.New(io.Discard, "", 0), nsq.LogLevelError)
	consumer.AddHandler(nsq.HandlerFunc(func(*nsq.Message) error { return nil }))
	w := &watched{consumer: consumer}
	config := Config{
		Grace: 50 * time.Millisecond, Probe: 20 * time.Millisecond, PollInterval: 50 * time.Millisecond,
		tick: tick, idle: 10 * time.Second,
		Logf: func(format string, args ...any) {
			w.mutex.Lock()
			defer w.mutex.Unlock()
			fmt.Fprintf(&w.logged, format+"\n", args...)
		},
	}
	for _, l := range lookups {
		config.Lookups = append(config.Lookups, l.server.URL)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- Keep(ctx, consumer, "orders", config) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		consumer.Stop()
		if t.Failed() {
			t.Log(w.log())
		}
	})
	return w
}

func (w *watched) log() string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.logged.String()
}

func (w *watched) awaitLog(t *testing.T, text string) {
	t.Helper()
	await(t, "the log has "+text, func() bool { return strings.Contains(w.log(), text) })
}

// await waits until every nsqd has one consumer or, if named in `not`, none.
func (w *watched) await(t *testing.T, connected []*fakeNsqd, not ...*fakeNsqd) {
	t.Helper()
	for _, n := range connected {
		await(t, "connected to "+n.address(), func() bool { return n.subscribers() == 1 })
	}
	for _, n := range not {
		await(t, "disconnected from "+n.address(), func() bool { return n.subscribers() == 0 })
	}
	await(t, "the consumer's connections", func() bool { return w.consumer.Stats().Connections == len(connected) })
}
