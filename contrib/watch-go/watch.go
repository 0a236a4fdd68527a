// Package watch keeps a go-nsq consumer connected to the nsqd nodes that one or several lookups list. It learns of a
// change at once, from /watch, and polls a lookup that has no /watch.
package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/nsqio/go-nsq"
)

// Consumer is what Keep needs of an *nsq.Consumer.
type Consumer interface {
	ConnectToNSQD(address string) error
	DisconnectFromNSQD(address string) error
	Stats() *nsq.ConsumerStats
}

// Config says which lookups to watch; the zero value of every other field stands for its default.
type Config struct {
	Lookups      []string                         // as for ConnectToNSQLookupd; a query is kept: "http://lookup:4161?zone=a"
	Header       http.Header                      // sent to the lookups, "Authorization: Bearer ..." for example
	HTTPClient   *http.Client                     // for the lookups, with a CA of one's own for example
	Grace        time.Duration                    // how long an nsqd may be unlisted before a failed probe drops it; 30 s
	Probe        time.Duration                    // time between two probes of an unlisted nsqd; 15 s
	PollInterval time.Duration                    // for lookups without /watch; 60 s
	Logf         func(format string, args ...any) // log.Printf

	tick, idle time.Duration // 1 s between two looks at the connections, 40 s without a byte end a stream
}

// view is what one lookup says of an nsqd, and what all of them together say.
type view int

const (
	absent      view = iota
	listed           // connect
	unconfirmed      // listed before the lookup restarted, which does not know every nsqd again yet
	removed          // tombstoned, unregistered, deleted or filtered: disconnect at once
)

// node is an nsqd that a lookup lists, or that the consumer may still be connected to.
type node struct {
	address, http string
	views         []view // of each lookup
	held          bool   // the consumer has the address in its list
	connected     bool   // it was connected when the consumer was last asked
	busy          bool   // a goroutine connects to it or probes it
	failures      int
	next          time.Time // when to connect or to probe
	hold          time.Time // set once its connection may be lost: when to connect again
	absentSince   time.Time
}

// result is what a goroutine found out about a node: no error where it has connected the consumer.
type result struct {
	node *node
	err  error
}

var (
	errNoTopic  = errors.New("it has no such topic")
	errNotAsked = errors.New("it lives; whether it has the topic is not known")
)

type keeper struct {
	Config
	consumer Consumer
	topic    string
	lookups  []*lookup
	live     []bool // by lookup: its view is of now, not of the time before its stream broke
	nodes    map[string]*node
	count    int // the consumer's connections when last looked at
	made     int // those that have been made since
	updates  chan update
	results  chan result
	running  sync.WaitGroup
}

// Keep connects and disconnects the consumer, which must have its handlers, until the context ends; it returns once no
// connection is being made any more, and those that are there stay. Call consumer.Stop after Keep has returned, and
// ConnectToNSQLookupd never.
func Keep(ctx context.Context, consumer Consumer, topic string, config Config) error {
	k := &keeper{
		Config: config, consumer: consumer, topic: topic, live: make([]bool, len(config.Lookups)),
		nodes: map[string]*node{}, updates: make(chan update), results: make(chan result),
	}
	orDefault(&k.Grace, 30*time.Second)
	orDefault(&k.Probe, 15*time.Second)
	orDefault(&k.PollInterval, time.Minute)
	orDefault(&k.tick, time.Second)
	orDefault(&k.idle, 40*time.Second)
	if k.Logf == nil {
		k.Logf = log.Printf
	}
	if len(config.Lookups) == 0 {
		return errors.New("watch: no lookups")
	}
	for i, address := range config.Lookups {
		l, err := newLookup(k, i, address)
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		k.lookups = append(k.lookups, l)
	}
	for _, l := range k.lookups {
		k.spawn(func() { l.run(ctx) })
	}
	k.loop(ctx)
	k.running.Wait()
	return ctx.Err()
}

func (k *keeper) spawn(work func()) {
	k.running.Add(1)
	go func() {
		defer k.running.Done()
		work()
	}()
}

func orDefault(value *time.Duration, fallback time.Duration) {
	if *value <= 0 {
		*value = fallback
	}
}

func (k *keeper) loop(ctx context.Context) {
	ticker := time.NewTicker(k.tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-k.updates:
			k.apply(u)
		case r := <-k.results:
			k.finish(r)
		case <-ticker.C:
			k.findLost()
		}
		for _, n := range k.nodes {
			k.step(ctx, n)
		}
	}
}

// apply takes over what a lookup has said.
func (k *keeper) apply(u update) {
	i := u.lookup
	switch u.event {
	case "snapshot":
		k.live[i] = true
		// A lookup that is not settled yet only adds.
		missing := absent
		if !u.Settled {
			missing = unconfirmed
		}
		k.replace(i, missing, listed, unconfirmed)
		for _, p := range u.Producers {
			k.list(i, p)
		}
	case "same":
		k.live[i] = true
		if u.Settled {
			k.replace(i, absent, unconfirmed)
		}
	case "settled":
		k.replace(i, absent, unconfirmed)
	case "up":
		k.list(i, u.Producer)
	case "down":
		if n := k.nodes[u.address()]; n != nil {
			n.views[i] = removed
			if u.Reason == "gone" || u.Reason == "inactive" {
				n.views[i] = absent
			}
		}
	case "topic":
		if u.Change == "deleted" {
			k.replace(i, removed, listed, unconfirmed)
		}
	case "broken":
		k.live[i] = false
	}
}

// replace sets the view of one lookup on every node where it is one of `old`.
func (k *keeper) replace(lookup int, by view, old ...view) {
	for _, n := range k.nodes {
		if slices.Contains(old, n.views[lookup]) {
			n.views[lookup] = by
		}
	}
}

func (k *keeper) list(lookup int, p producer) {
	n := k.nodes[p.address()]
	if n == nil {
		n = &node{address: p.address(), views: make([]view, len(k.live))}
		k.nodes[n.address] = n
	}
	n.http = p.httpAddress()
	n.views[lookup] = listed
	if !n.connected {
		n.failures, n.next = 0, time.Time{}
	}
}

// view is what all lookups say of a node. One that cannot be reached keeps its last view, unless one that can says that
// the nsqd was removed.
func (k *keeper) view(n *node) view {
	all := absent
	for i, v := range n.views {
		switch {
		case v == listed && k.live[i]:
			return listed
		case v == removed:
			all = removed
		case v != absent && all == absent:
			all = unconfirmed
		}
	}
	return all
}

// step does what is due for a node. Both of a consumer's calls must not overlap for one address: a connection that is
// closed while it is dialled would stay in the consumer's list.
func (k *keeper) step(ctx context.Context, n *node) {
	if n.busy {
		return
	}
	now := time.Now()
	switch k.view(n) {
	case listed, unconfirmed:
		if !n.absentSince.IsZero() {
			n.absentSince, n.next = time.Time{}, now
		}
		if n.connected || now.Before(n.next) || now.Before(n.hold) {
			return
		}
		if n.hold.IsZero() || !k.findLost() {
			n.held = true
			k.start(ctx, n, func() error { return k.consumer.ConnectToNSQD(n.address) })
		}
	case removed:
		k.drop(n, "removed")
	case absent:
		if !n.held {
			k.drop(n, "unlisted")
			return
		}
		if n.absentSince.IsZero() {
			// An nsqd that deletes a topic still has it for a moment after it has said so to the lookups.
			n.absentSince, n.next = now, now.Add(2*k.tick)
		}
		if !now.Before(n.next) {
			n.next = now.Add(k.Probe)
			http := n.http
			k.start(ctx, n, func() error { return k.probe(ctx, n.address, http) })
		}
	}
}

func (k *keeper) start(ctx context.Context, n *node, work func() error) {
	n.busy = true
	k.spawn(func() {
		r := result{n, work()}
		select {
		case k.results <- r:
		case <-ctx.Done():
		}
	})
}

func (k *keeper) finish(r result) {
	n := r.node
	n.busy = false
	switch {
	case r.err == nil:
		k.made++
		fallthrough
	case r.err == nsq.ErrAlreadyConnected:
		n.connected, n.failures, n.hold = true, 0, time.Time{}
	case r.err == errNotAsked:
	case !n.absentSince.IsZero():
		graceOver := time.Since(n.absentSince) >= k.Grace
		if k.view(n) == absent && (graceOver || r.err == errNoTopic) {
			k.drop(n, fmt.Sprintf("unlisted, %v", r.err))
		}
	default:
		delay := k.tick << min(n.failures, 4)
		n.failures++
		n.next, n.hold = time.Now().Add(jitter(delay)), time.Time{}
		k.Logf("watch: %s: %s: %v; again in about %v", k.topic, n.address, r.err, delay)
	}
}

// findLost compares the number of connections, which is all that a consumer tells, with those that it should have. If one
// is missing, every node is connected to again: those that are there refuse that. The lookups have a moment before to say
// that the topic was deleted there, as a new connection would make the topic again.
func (k *keeper) findLost() bool {
	count, expected, connected := k.consumer.Stats().Connections, k.count+k.made, 0
	k.count, k.made = count, 0
	for _, n := range k.nodes {
		if n.connected {
			connected++
		}
	}
	if count >= expected && count >= connected {
		return false
	}
	for _, n := range k.nodes {
		if n.connected || !n.hold.IsZero() {
			n.connected, n.hold = false, time.Now().Add(2*k.tick)
		}
	}
	for _, l := range k.lookups {
		select {
		case l.recheck <- struct{}{}:
		default:
		}
	}
	return true
}

// drop disconnects from a node, and forgets it unless a lookup that cannot be reached may list it again.
func (k *keeper) drop(n *node, why string) {
	if n.held {
		k.Logf("watch: %s: %s: disconnecting: %s", k.topic, n.address, why)
		_ = k.consumer.DisconnectFromNSQD(n.address) // its only error is that there is nothing to do
		n.held, n.connected, n.next, n.hold = false, false, time.Time{}, time.Time{}
	}
	for _, v := range n.views {
		if v == listed || v == unconfirmed {
			return
		}
	}
	delete(k.nodes, n.address)
}

// probes does not use the proxy that the environment may name: it would respond for a dead nsqd.
var probes = http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}

// probe asks an nsqd for its topic, and makes a connection again if it has it. Where its HTTP port gives no response, a TCP
// connection shows that it lives.
func (k *keeper) probe(ctx context.Context, address, httpAddress string) error {
	query := url.Values{"format": {"json"}, "topic": {k.topic}, "include_clients": {"false"}, "include_mem": {"false"}}
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+httpAddress+"/stats?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	if response, err := probes.Do(request); err == nil {
		defer response.Body.Close()
		var stats struct{ Topics *[]struct{} }
		err := json.NewDecoder(response.Body).Decode(&stats)
		switch {
		case response.StatusCode != 200 || err != nil || stats.Topics == nil:
			return errNotAsked
		case len(*stats.Topics) == 0:
			return errNoTopic
		}
		return k.consumer.ConnectToNSQD(address)
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	connection.Close()
	return errNotAsked
}

// jitter is a duration within a quarter of d, so that consumers do not all come back at once.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}
