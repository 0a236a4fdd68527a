package watch

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

type nsqds = []*fakeNsqd

func startTwo(t *testing.T) (a, b *fakeNsqd) {
	return startNsqd(t, "127.0.0.1:0"), startNsqd(t, "127.0.0.1:0")
}

func TestConnectsToWhatIsListed(t *testing.T) {
	a, b := startTwo(t)
	lookup := startLookup(t)
	w := keep(t, lookup)
	s := lookup.stream(t)
	s.raw(t, "retry: 10\n\n: a comment\n\n")
	s.snapshot(t, true, a.producer())
	w.await(t, nsqds{a})
	s.up(t, b.producer())
	s.up(t, a.producer())
	s.event(t, "channel", "1", `{"topic":"orders","channel":"a","change":"deleted"}`)
	s.event(t, "future", "1", `{}`)
	w.await(t, nsqds{a, b})
	for _, reason := range []string{"tombstoned", "unregistered", "deleted", "filtered"} {
		s.down(t, a.address(), reason)
		s.down(t, "127.0.0.1:1", reason)
		w.await(t, nsqds{b}, a)
		s.up(t, a.producer())
		w.await(t, nsqds{a, b})
	}
	s.event(t, "topic", "1", `{"topic":"orders","change":"deleted"}`)
	w.await(t, nil, a, b)
}

// The down and the up come while the consumer still has the old connection, and refuses another one.
func TestRemoveAndAddAtOnce(t *testing.T) {
	a := startNsqd(t, "127.0.0.1:0")
	lookup := startLookup(t)
	w := keep(t, lookup)
	s := lookup.stream(t)
	s.snapshot(t, true, a.producer())
	for range 3 {
		w.await(t, nsqds{a})
		s.down(t, a.address(), "tombstoned")
		s.up(t, a.producer())
		w.awaitLog(t, "disconnecting: removed")
	}
	w.await(t, nsqds{a})
}

func TestAnUnlistedNsqdIsKeptWhileItLives(t *testing.T) {
	for _, reason := range []string{"gone", "inactive", ""} {
		a, b := startTwo(t)
		lookup := startLookup(t)
		w := keep(t, lookup)
		s := lookup.stream(t)
		s.snapshot(t, true, a.producer(), b.producer())
		w.await(t, nsqds{a, b})
		if reason == "" {
			s.snapshot(t, true, b.producer())
		} else {
			s.down(t, a.address(), reason)
		}
		// Each probe is one more connection to it.
		await(t, "probed several times", func() bool { return strings.Count(w.log(), "disconnecting") == 0 && a.seen() > 5 })
		w.await(t, nsqds{a, b})
		a.kill()
		w.awaitLog(t, a.address()+": disconnecting: unlisted")
		w.await(t, nsqds{b}, a)
	}
}

// A poll, or a snapshot after a lost stream, does not say why an nsqd is missing.
func TestAnNsqdWithoutTheTopicIsDropped(t *testing.T) {
	stats := `{"topics":[{"topic_name":"orders"}]}`
	asked := make(chan struct{}, 100)
	proceed := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if request.URL.Path == "/stats" && request.URL.Query().Get("topic") == "orders" {
			asked <- struct{}{}
			<-proceed
			fmt.Fprint(response, stats)
		}
	}))
	defer server.Close()
	a := startNsqd(t, "127.0.0.1:0")
	var port int
	fmt.Sscanf(server.URL, "http://127.0.0.1:%d", &port)
	lookup := startLookup(t)
	w := keep(t, lookup)
	s := lookup.stream(t)
	s.snapshot(t, true, a.producer(port))
	w.await(t, nsqds{a})
	s.snapshot(t, true)
	for range 3 {
		<-asked
		w.await(t, nsqds{a})
		proceed <- struct{}{}
	}
	<-asked
	stats = `{"topics":[]}`
	close(proceed)
	w.awaitLog(t, "disconnecting: unlisted, it has no such topic")
	w.await(t, nil, a)
}

func TestOnlyWhatAllLookupsRemovedIsDisconnected(t *testing.T) {
	a, b := startTwo(t)
	first, second := startLookup(t), startLookup(t)
	w := keep(t, first, second)
	one, two := first.stream(t), second.stream(t)
	one.snapshot(t, true, a.producer())
	two.snapshot(t, true, a.producer(), b.producer())
	w.await(t, nsqds{a, b})
	one.down(t, a.address(), "unregistered")
	one.up(t, b.producer())
	one.down(t, b.address(), "unregistered")
	// What comes after it has been applied.
	c := startNsqd(t, "127.0.0.1:0")
	one.up(t, c.producer())
	w.await(t, nsqds{a, b, c})
	two.down(t, a.address(), "unregistered")
	w.await(t, nsqds{b, c}, a)
	if strings.Count(w.log(), "disconnecting") != 1 {
		t.Error(w.log())
	}
}

func TestALookupThatCannotBeReachedKeepsItsView(t *testing.T) {
	a, b := startTwo(t)
	first, second := startLookup(t), startLookup(t)
	w := keep(t, first, second)
	one, two := first.stream(t), second.stream(t)
	two.raw(t, "retry: 10\n\n")
	one.snapshot(t, true)
	two.snapshot(t, true, a.producer(), b.producer())
	w.await(t, nsqds{a, b})
	close(two.cut)
	resumed := second.stream(t)
	if id := resumed.request.Header.Get("Last-Event-ID"); id != "00000000000000a1" {
		t.Errorf("resumes with %q", id)
	}
	one.down(t, b.address(), "gone") // it says nothing that it has said before
	w.await(t, nsqds{a, b})
	// But a lookup that can be reached knows better that an nsqd was removed.
	one.up(t, b.producer())
	one.down(t, b.address(), "unregistered")
	w.await(t, nsqds{a}, b)
	// What the other lists is listed, as it always is.
	resumed.event(t, "same", "00000000000000a1", `{"settled":true}`)
	w.await(t, nsqds{a, b})
	resumed.snapshot(t, true, a.producer())
	w.await(t, nsqds{a}, b)
}

func TestALookupThatIsNotSettledOnlyAdds(t *testing.T) {
	a, b := startTwo(t)
	lookup := startLookup(t)
	w := keep(t, lookup)
	s := lookup.stream(t)
	s.raw(t, "retry: 10\n\n")
	s.snapshot(t, true, a.producer())
	w.await(t, nsqds{a})
	close(s.cut)
	s = lookup.stream(t)
	s.snapshot(t, false)
	s.up(t, b.producer())
	w.await(t, nsqds{a, b})
	a.kill()
	w.awaitLog(t, "connection refused")
	if strings.Contains(w.log(), "disconnecting") {
		t.Error(w.log())
	}
	s.event(t, "settled", "1", `{"settled":true}`)
	w.awaitLog(t, "disconnecting: unlisted")
	w.await(t, nsqds{b})
}

func TestAnIdWithoutValueResetsTheToken(t *testing.T) {
	a := startNsqd(t, "127.0.0.1:0")
	lookup := startLookup(t)
	w := keep(t, lookup)
	s := lookup.stream(t)
	s.raw(t, "retry: 10\n\n")
	s.snapshot(t, true)
	s.raw(t, "event: up\nid\ndata: {\"producer\":"+a.producer()+"}\n\n")
	w.await(t, nsqds{a})
	close(s.cut)
	s = lookup.stream(t)
	if id, sent := s.request.Header["Last-Event-Id"]; sent {
		t.Errorf("resumes with %q", id)
	}
}

// A stream arrives in pieces of any length, its line ends may be CRLF, and a line may be longer than a scanner's limit.
func TestPiecesAndLongLines(t *testing.T) {
	a, b := startTwo(t)
	lookup := startLookup(t)
	w := keep(t, lookup)
	s := lookup.stream(t)
	for _, piece := range strings.Split("event: snapshot\r\ndata: {\"settled\":true,\r\ndata:\"producers\":["+a.producer()+"]}\r\n\r\n", "") {
		s.raw(t, piece)
	}
	w.await(t, nsqds{a})
	padded := strings.Replace(b.producer(), "{", `{"hostname":"`+strings.Repeat("h", 1<<20)+`",`, 1)
	s.snapshot(t, true, a.producer(), padded)
	w.await(t, nsqds{a, b})
}

func TestAFailedFirstDialIsRepeated(t *testing.T) {
	a := startNsqd(t, "127.0.0.1:0")
	address := a.address()
	a.kill()
	lookup := startLookup(t)
	w := keep(t, lookup)
	lookup.stream(t).snapshot(t, true, listing(address))
	w.awaitLog(t, "connection refused")
	w.await(t, nsqds{startNsqd(t, address)})
}

func TestALostConnectionIsMadeAgain(t *testing.T) {
	a, b := startTwo(t)
	lookup := startLookup(t)
	w := keep(t, lookup)
	lookup.stream(t).snapshot(t, true, a.producer(), b.producer())
	w.await(t, nsqds{a, b})
	address := a.address()
	a.kill()
	w.await(t, nsqds{startNsqd(t, address), b})
}

func TestPollsWithoutWatch(t *testing.T) {
	a, b := startTwo(t)
	lookup := startLookup(t)
	lookup.set(404, a.producer())
	w := keep(t, lookup)
	w.await(t, nsqds{a})
	lookup.set(404, b.producer())
	w.await(t, nsqds{a, b})
	a.kill()
	w.await(t, nsqds{b}, a)
	lookup.set(200)
	s := lookup.stream(t)
	s.snapshot(t, true, b.producer())
	s.down(t, b.address(), "unregistered")
	w.await(t, nil, b)
}

func TestLookupsWithHTTPSAndTokens(t *testing.T) {
	a := startNsqd(t, "127.0.0.1:0")
	lookup := &fakeLookup{streams: make(chan *stream), status: 200}
	lookup.server = httptest.NewTLSServer(lookup)
	defer lookup.server.Close()
	consumer := keep(t, startLookup(t)).consumer
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	client := lookup.server.Client()
	client.Timeout = time.Millisecond // for requests, not for streams
	go func() {
		ended <- Keep(ctx, consumer, "orders", Config{
			Lookups: []string{lookup.server.URL}, HTTPClient: client, Logf: t.Logf,
			Header: http.Header{"Authorization": {"Bearer secret"}},
		})
	}()
	s := lookup.stream(t)
	if sent := s.request.Header.Get("Authorization"); sent != "Bearer secret" {
		t.Errorf("sent %q", sent)
	}
	s.snapshot(t, true, a.producer())
	await(t, "connected", func() bool { return a.subscribers() == 1 })
	cancel()
	<-ended
}

func TestAStreamWithoutBytesEnds(t *testing.T) {
	a := startNsqd(t, "127.0.0.1:0")
	lookup := startLookup(t)
	consumer := keep(t, startLookup(t)).consumer
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		ended <- Keep(ctx, consumer, "orders", Config{
			Lookups: []string{lookup.server.URL}, tick: 10 * time.Millisecond, idle: 200 * time.Millisecond, Logf: t.Logf,
		})
	}()
	lookup.stream(t).raw(t, "retry: 10\n\n")
	s := lookup.stream(t)
	s.snapshot(t, true, a.producer())
	await(t, "connected", func() bool { return a.subscribers() == 1 })
	lookup.stream(t)
	cancel()
	<-ended
}

func TestTheServerSaysWhenToComeBack(t *testing.T) {
	l := &lookup{keeper: &keeper{Config: Config{PollInterval: time.Minute}}, retry: 2 * time.Second}
	within := func(end ending, failures int, polled bool, least, most time.Duration) {
		t.Helper()
		if d := l.delay(end, failures, polled); d < least || d > most {
			t.Errorf("%+v after %d: %v", end, failures, d)
		}
	}
	within(ending{heard: true, after: 1200 * time.Millisecond}, 9, false, 1200*time.Millisecond, 1500*time.Millisecond)
	within(ending{refused: true, after: 20 * time.Second}, 0, true, 20*time.Second, 25*time.Second)
	within(ending{refused: true}, 0, true, 45*time.Second, 75*time.Second)
	within(ending{refused: true}, 0, false, 1500*time.Millisecond, 2500*time.Millisecond)
	within(ending{}, 1, false, 3*time.Second, 5*time.Second)
	within(ending{}, 99, false, 22*time.Second, 38*time.Second)
}

func TestAddresses(t *testing.T) {
	for address, watch := range map[string]string{
		"lookup:4161":                           "http://lookup:4161/watch?topic=orders",
		"http://[::1]:4161/":                    "http://[::1]:4161/watch?topic=orders",
		"https://lookup:4161/lookup?zone=a%2Cb": "https://lookup:4161/watch?topic=orders&zone=a%2Cb",
		"http://proxy/nsq/?strict=true":         "http://proxy/nsq/watch?strict=true&topic=orders",
	} {
		l, err := newLookup(&keeper{topic: "orders"}, 0, address)
		if err != nil || l.watchURL != watch || l.pollURL != strings.Replace(watch, "/watch", "/lookup", 1) {
			t.Errorf("%s: %+v, %v", address, l, err)
		}
	}
	for _, lookups := range [][]string{nil, {"http://"}, {"http://a b"}} {
		if Keep(context.Background(), nil, "orders", Config{Lookups: lookups}) == nil {
			t.Errorf("%q are accepted", lookups)
		}
	}
	if at := (producer{"::1", 4150, 4151}).address(); at != "[::1]:4150" {
		t.Error(at)
	}
}

// What a lookup said before the topic was deleted may arrive after the connection was closed for it.
func TestALostConnectionWaitsForTheLookups(t *testing.T) {
	a := startNsqd(t, "127.0.0.1:0")
	lookup := startLookup(t)
	w := keepWithTick(t, 2*time.Second, lookup)
	s := lookup.stream(t)
	s.snapshot(t, true, a.producer())
	w.await(t, nsqds{a})
	a.closeConnections()
	await(t, "the consumer has noticed", func() bool { return w.consumer.Stats().Connections == 0 })
	s.up(t, a.producer())
	s.down(t, a.address(), "unregistered")
	w.awaitLog(t, "disconnecting: removed")
	if a.seen() != 1 {
		t.Error("it was connected to again")
	}
}
