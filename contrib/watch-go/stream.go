package watch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

type producer struct {
	BroadcastAddress string `json:"broadcast_address"`
	TCPPort          int    `json:"tcp_port"`
	HTTPPort         int    `json:"http_port"`
}

func (p producer) address() string {
	return net.JoinHostPort(p.BroadcastAddress, strconv.Itoa(p.TCPPort))
}

func (p producer) httpAddress() string {
	return net.JoinHostPort(p.BroadcastAddress, strconv.Itoa(p.HTTPPort))
}

// update is one event of one lookup; "broken" when its stream has ended. The events use different fields.
type update struct {
	producer         // of "down"
	lookup    int    // its index
	event     string // its name
	Settled   bool
	Producers []producer
	Producer  producer
	Reason    string
	Change    string
	RetryMS   int64 `json:"retry_ms"`
}

// lookup is one of the lookups, and belongs to the goroutine of run.
type lookup struct {
	keeper            *keeper
	index             int
	client            http.Client
	watchURL, pollURL string
	lastID            string
	retry             time.Duration // as the server wishes
	recheck           chan struct{} // ends the wait for the next poll
}

func newLookup(k *keeper, index int, address string) (*lookup, error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if u.Host == "" {
		return nil, fmt.Errorf("no host in %q", address)
	}
	l := &lookup{keeper: k, index: index, retry: 2 * time.Second, recheck: make(chan struct{}, 1)}
	if k.HTTPClient != nil {
		l.client = *k.HTTPClient
	}
	l.client.Timeout = 0 // it would end a stream
	query := u.Query()
	query.Set("topic", k.topic)
	u.RawQuery = query.Encode()
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/lookup")
	l.watchURL, l.pollURL = u.JoinPath("watch").String(), u.JoinPath("lookup").String()
	return l, nil
}

// ending is how an attempt to watch has ended.
type ending struct {
	heard   bool          // there was an event
	refused bool          // there was a response, and it was no stream
	silent  bool          // there was a stream without an event
	after   time.Duration // when the server wants the next attempt, if it said so
	err     error
}

// run watches until the context ends. Where there is a server but no stream, it polls.
func (l *lookup) run(ctx context.Context) {
	failures, said := 0, ""
	for ctx.Err() == nil {
		end := l.watch(ctx)
		if end.heard {
			failures, said = 0, ""
		}
		text, polled := end.err.Error(), false
		if end.refused || end.silent {
			if err := l.poll(ctx); err != nil {
				text += ", " + err.Error()
			} else {
				text, polled = text+"; polling instead", true
			}
		}
		if !polled {
			l.send(ctx, update{event: "broken"})
		}
		if text != said && ctx.Err() == nil {
			said = text
			l.keeper.Logf("watch: %s: %s", l.watchURL, text)
		}
		l.wait(ctx, l.delay(end, failures, polled), polled)
		failures++
	}
}

// delay is the time until the next attempt.
func (l *lookup) delay(end ending, failures int, polled bool) time.Duration {
	switch {
	case end.after > 0:
		return end.after + rand.N(end.after/4+1)
	case end.refused && polled:
		return jitter(l.keeper.PollInterval)
	}
	return jitter(min(l.retry<<min(failures, 5), max(l.retry, 30*time.Second)))
}

func (l *lookup) wait(ctx context.Context, delay time.Duration, polling bool) {
	recheck := l.recheck
	select {
	case <-recheck: // one from before the last poll
	default:
	}
	if !polling {
		recheck = nil
	}
	timer := time.NewTimer(max(delay, 100*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-recheck:
	case <-ctx.Done():
	}
}

func (l *lookup) send(ctx context.Context, u update) {
	u.lookup = l.index
	select {
	case l.keeper.updates <- u:
	case <-ctx.Done():
	}
}

func (l *lookup) get(ctx context.Context, url string, header http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	maps.Copy(request.Header, l.keeper.Header)
	maps.Copy(request.Header, header)
	return l.client.Do(request)
}

// poll asks for the producers once, as a consumer does without this package.
func (l *lookup) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	response, err := l.get(ctx, l.pollURL, http.Header{"Accept": {"application/vnd.nsq; version=1.0"}})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	u := update{event: "snapshot", Settled: true}
	switch {
	case response.StatusCode == 404 && bytes.Contains(body, []byte("TOPIC_NOT_FOUND")):
	case response.StatusCode != 200:
		return fmt.Errorf("/lookup: status %d", response.StatusCode)
	default:
		if err := json.Unmarshal(body, &u); err != nil {
			return fmt.Errorf("/lookup: %w", err)
		}
	}
	l.lastID = "" // it stands for what this has replaced
	l.send(ctx, u)
	return nil
}

// watch follows a stream to its end.
func (l *lookup) watch(ctx context.Context) (end ending) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := time.AfterFunc(l.keeper.idle, cancel)
	defer idle.Stop()
	header := http.Header{"Accept": {"text/event-stream"}, "Accept-Encoding": {"identity"}}
	if l.lastID != "" {
		header.Set("Last-Event-Id", l.lastID)
	}
	response, err := l.get(ctx, l.watchURL, header)
	if err != nil {
		return ending{err: err}
	}
	defer response.Body.Close()
	if response.StatusCode != 200 || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		seconds, _ := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 16)
		after := time.Duration(seconds) * time.Second
		return ending{refused: true, after: after, err: fmt.Errorf("status %d", response.StatusCode)}
	}
	// A line may be longer than those of a bufio.Scanner.
	lines := bufio.NewReader(reader(func(buffer []byte) (int, error) {
		n, err := response.Body.Read(buffer)
		idle.Reset(l.keeper.idle)
		return n, err
	}))
	end.silent = true
	event, data, id := "", "", l.lastID
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			end.err = err
			return end
		}
		line = strings.TrimRight(line, "\r\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "event":
			event = value
		case "data":
			data += value
		case "id":
			id = value
		case "retry":
			if ms, err := strconv.ParseUint(value, 10, 31); err == nil {
				l.retry = time.Duration(ms) * time.Millisecond
			}
		}
		if line != "" {
			continue
		}
		l.lastID = id
		if data != "" {
			if !end.heard {
				end.heard, end.silent = true, false
				l.keeper.Logf("watch: %s: watching", l.watchURL)
			}
			if end.after, end.err = l.dispatch(ctx, event, data); end.err != nil {
				return end
			}
		}
		event, data = "", ""
	}
}

// dispatch passes an event on. An error ends the stream.
func (l *lookup) dispatch(ctx context.Context, event, data string) (after time.Duration, err error) {
	u := update{event: event}
	if err := json.Unmarshal([]byte(data), &u); err != nil {
		l.lastID = "" // what comes next would have been based on this event
		return 0, fmt.Errorf("event %q: %w", event, err)
	}
	if event == "bye" {
		return time.Duration(u.RetryMS) * time.Millisecond, errors.New("the server has ended the stream")
	}
	l.send(ctx, u)
	return 0, nil
}

type reader func([]byte) (int, error)

func (r reader) Read(buffer []byte) (int, error) { return r(buffer) }
